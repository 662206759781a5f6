"""What `recipes.evaluate` is asked to do: the settings of the run, or none, and what is laid over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from recipes.config import Block, DataBlock, EvaluationBlock, TrainingBlock
from recipes.config_file import apply_overrides, parse_as
from recipes.errors import UserError, nearest
from recipes.evaluation.generation import Decoding, decoding_of
from recipes.evaluation.metrics import check_own_metrics
from recipes.evaluation.saved_model import is_run
from recipes.storage import Storage

# What a run's evaluations have to say about the one of another file.
_KEPT = ("metrics", "bleu_tokenizer", "generation")


class RequestConfig(Block):
    """The blocks of a run's config that an evaluation reads."""

    data: DataBlock = Field(description="Which text pairs, and how they become tokens.")
    evaluation: EvaluationBlock = Field(default_factory=EvaluationBlock, description="What is measured.")
    training: TrainingBlock = Field(default_factory=TrainingBlock, description="Only micro_batch_tokens counts.")

    @model_validator(mode="after")
    def _generation_fits(self) -> RequestConfig:
        self.evaluation.generation.check_limit(self.data.max_target_tokens)
        return self


@dataclass(frozen=True)
class Request:
    """folder: of a run or of a saved model."""

    folder: Storage
    config: RequestConfig

    @property
    def decoding(self) -> Decoding:
        return decoding_of(self.config)


@dataclass(frozen=True)
class Flag:
    """An option of a command that stands for a key of the config. value: None where it was not given."""

    name: str
    key: str
    value: Any


def number(text: str | None) -> Any:
    """An option's whole number; what is none stays a text, which the config then refuses by name."""
    return int(text) if text is not None and text.lstrip("-").isdecimal() else text


def read_request(
    model: str, data: str, overrides: list[str], flags: list[Flag] = (), task: str | None = None
) -> Request:
    """For a run its own columns, prefix, limits, metrics and generation are the defaults.

    task: which of the run's tasks has those, where it has several.

    Raises:
        UserError: no such folder, a config that cannot be read, an unknown key, metric or task, a wrong override or flag.
    """
    folder = Storage(model)
    if not folder.exists():
        raise UserError(f"{model}: there is no such folder")
    content = run_settings(folder) if is_run(folder) else {}
    content["data"] = of_pairs(content.get("data", {}), task) | {"source": data, "eval_source": None}
    if is_run(folder):
        # By itself first: what is wrong afterwards is the command's.
        parse_as(RequestConfig, content, f"{model}/config.yaml")
    config = laid_over(content, overrides, flags)
    check_own_metrics(config.evaluation)
    return Request(folder, config)


def of_pairs(data: dict[str, Any], task: str | None) -> dict[str, Any]:
    """A run's ``data`` block as it is for one file of pairs: with the columns and prefix of one of its tasks, and without
    an objective.

    Raises:
        UserError: the run has several tasks and none is named, or no such task.
    """
    plain = {key: value for key, value in data.items() if key not in ("tasks", "mixing", "objective")}
    tasks = {entry["name"]: entry for entry in data.get("tasks") or ()}
    if not tasks and task is not None:
        raise UserError(f"--task {task}: the run was not trained on several tasks")
    if not tasks:
        return plain
    if task not in tasks:
        named = f"--task {task}: there is no such task{nearest(task, list(tasks))}" if task else "--task is missing"
        raise UserError(f"{named}; the run was trained on {', '.join(tasks)}, each with its own prefix and columns")
    return plain | {key: tasks[task][key] for key in ("source_column", "target_column", "prefix")}


def laid_over(content: dict[str, Any], overrides: list[str], flags: list[Flag]) -> RequestConfig:
    """A run's settings with those of a command over them; a wrong one is named as the user gave it.

    Raises:
        UserError: a wrong override or flag.
    """
    content = apply_overrides(content, overrides)
    given = [flag for flag in flags if flag.value is not None]
    for flag in given:
        *parents, last = flag.key.split(".")
        block = content
        for parent in parents:
            block = block.setdefault(parent, {})
        block[last] = flag.value
    try:
        return parse_as(RequestConfig, content, "arguments")
    except UserError as error:
        message = str(error)
        for flag in given:
            message = message.replace(f"arguments: {flag.key}", flag.name).replace(flag.key, flag.name)
        raise UserError(message) from None


def run_settings(folder: Storage) -> dict[str, Any]:
    """What a run's config.yaml says about data, training and evaluation, unchecked.

    Raises:
        UserError: it is not the config of a run.
    """
    import yaml

    try:
        content = yaml.safe_load(folder.read_text("config.yaml"))
        evaluation = content.get("evaluation", {})
        return {
            "data": content["data"],
            "training": content["training"],
            "evaluation": {key: evaluation[key] for key in _KEPT if key in evaluation},
        }
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        raise UserError(f"{folder}/config.yaml is not the config of a run") from None
