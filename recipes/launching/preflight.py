"""Everything that can be decided, and refused, before Ray starts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lrsched import Schedule, ScheduleError, deepspeed_backend
from recipes.config import RunConfig
from recipes.config_file import differences, parse_config, to_yaml
from recipes.data.cache import TokenData, open_data, prepare_data
from recipes.data.encoding import PoolOf, in_threads
from recipes.data.plan import BatchPlan, batch_plan, held_out_plan
from recipes.errors import UserError
from recipes.evaluation.metrics import check_own_metrics
from recipes.hub import check_model
from recipes.launching.environment import OF_A_JOB
from recipes.storage import Storage
from recipes.tracking.trackers import check_trackers
from recipes.training.ds_config import deepspeed_config
from recipes.training.job import Job
from recipes.training.manifest import newest_manifest, steps_with_folder
from recipes.training.model import check_embeddings, group_lr_ratios, model_config
from recipes.training.precision import resolve_precision

if TYPE_CHECKING:
    from transformers import T5Config

# What may change between the start of a run and its resume: none of it changes which examples are
# in which update, or what the update computes beyond rounding.
_FREE_ON_RESUME = (
    "run.resume",
    "run.storage_path",
    "training.log_every_steps",
    "training.eval_every_steps",
    "training.num_samples",
    "training.max_skipped_updates",
    "evaluation.",
    "training.micro_batch_tokens",
    "training.packing",
    "training.compile",
    "checkpoint.",
    "scaling.",
    "report.",
)

Say = Callable[[str], None]


def prepare(
    config: RunConfig, say: Say, *, started_at: float, data_storage: Storage | None = None, pool_of: PoolOf = in_threads
) -> tuple[Job, TokenData, BatchPlan]:
    """Tokenise (or find the cache), plan batches, resolve the schedule, build the DeepSpeed config.

    data_storage: where the token cache goes, run.storage_path if not given. pool_of: where texts are tokenised.

    Raises:
        UserError: for whatever would make the run fail later.
    """
    storage = Storage(config.run.storage_path)
    _check_model_folder(config)
    check_own_metrics(config.evaluation)
    check_trackers(config)
    of_hub = _config_of_hub(config)
    if not _counts_epochs(config):
        _parse_schedule(config, None)
    prepared_data = prepare_data(config.data, data_storage or storage, say, pool_of)
    data = open_data(prepared_data)
    if of_hub is not None:
        check_embeddings(config.model, of_hub, data.vocab_size)
    plan = batch_plan(config, data.train, config.scaling.most_workers)
    # Made here only so that a held-out example above the budget is refused now, not at the first evaluation.
    held_out_plan(config, data.held_out, config.scaling.most_workers)
    schedule = _parse_schedule(config, plan.updates_per_epoch)
    try:
        group_lrs = [ratio * schedule.peak_lr for ratio in group_lr_ratios(config.optimizer, config.model)]
        driver, block = deepspeed_backend(schedule, group_lrs)
    except ScheduleError as error:
        raise UserError(f"schedule.backend is deepspeed: {error}") from None
    precision = resolve_precision(config.training.precision, config.scaling.use_gpu)
    content = config.model_dump(mode="json") | {"schedule": schedule.to_dict()}
    # Written down, so that a resume on other hardware does not change it unseen.
    content["training"]["precision"] = precision
    resolved = parse_config(content)
    job = Job(
        config=resolved,
        run_folder=storage / config.run.name,
        data_folder=Storage(prepared_data.uri),
        ds_config=deepspeed_config(resolved, precision, block),
        precision=precision,
        schedule_driver=driver,
        started_at=started_at,
    )
    return job, data, plan


def _counts_epochs(config: RunConfig) -> bool:
    return "epoch" in str(config.schedule.model_dump())


def _parse_schedule(config: RunConfig, updates_per_epoch: float | None) -> Schedule:
    block = config.schedule.model_dump(exclude_none=True)
    try:
        return Schedule.from_dict(block, steps_per_epoch=updates_per_epoch, where="schedule")
    except ScheduleError as error:
        raise UserError(str(error)) from None


def _config_of_hub(config: RunConfig) -> T5Config | None:
    """Of a model from the Hub, whose config.json is fetched: what is wrong with name or network shows now, not in the workers."""
    if config.model.hub is None:
        return None
    check_model(config.model.hub, config.model.revision)
    return model_config(config.model, 0)


def _check_model_folder(config: RunConfig) -> None:
    if config.model.folder is not None and not (Path(config.model.folder) / "config.json").is_file():
        raise UserError(f"model.folder {config.model.folder}: no config.json there; give a save_pretrained folder")


def check_storage(storage: Storage, dry_run: bool = False) -> None:
    """Refuse a place that cannot be written, or that goes with a job; a dry run only looks at permissions."""
    if storage.local is not None and OF_A_JOB in str(storage.local):
        raise UserError(
            f"run.storage_path {storage}: in a Ray job a relative path lies in the job's own copy of the code, which is lost "
            "with it; give an absolute path that all nodes see, or a URI such as s3://bucket/runs"
        )
    if not dry_run:
        storage.check_writable()
        return
    if storage.local is not None:
        existing = next(p for p in (storage.local, *storage.local.parents) if p.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            raise UserError(f"run.storage_path {storage}: {existing} cannot be written")


@dataclass(frozen=True)
class Start:
    """How a run begins: at update ``step``, or not at all when it is finished."""

    step: int
    finished: bool = False


def check_resume(job: Job) -> Start:
    """What ``run.resume`` means for the run's folder as it is.

    Raises:
        UserError: the folder holds a run and resume is never; another config; nothing to resume.
    """
    mode, folder = job.config.run.resume, job.run_folder
    if not folder.exists("config.yaml"):
        if steps_with_folder(folder):
            raise UserError(f"{folder} holds checkpoints but no config.yaml that says of what: give another run.name")
        if mode == "must":
            raise UserError(f"run.resume is must, but {folder} holds no run; use run.resume=auto to start one")
        return Start(0)
    if mode == "never":
        raise UserError(
            f"{folder} holds a run already: give another run.name, or run.resume=auto to go on with that one"
        )
    old = _check_same_config(job)
    manifest = newest_manifest(folder)
    if manifest is None:
        if mode == "must":
            raise UserError(f"run.resume is must, but {folder} has no whole checkpoint; use run.resume=auto")
        return Start(0)
    finished = folder.exists("summary.json") and (
        manifest.step >= job.schedule.total_steps or _stopped_early(folder, old, job.config)
    )
    return Start(manifest.step, finished)


def _stopped_early(folder: Storage, old: RunConfig, new: RunConfig) -> bool:
    """Whether the run was ended by its evaluations, and would be again: another patience lets it go on."""
    try:
        summary = json.loads(folder.read_text("summary.json"))
    except ValueError:
        return False
    return bool(summary.get("stopped_early")) and old.evaluation.early_stopping == new.evaluation.early_stopping


def _check_same_config(job: Job) -> RunConfig:
    """The config that the folder's run has."""
    import yaml

    folder = job.run_folder
    try:
        old = parse_config(yaml.safe_load(folder.read_text("config.yaml")), where=f"{folder}/config.yaml")
    except yaml.YAMLError:
        raise UserError(f"{folder}/config.yaml is not valid YAML: give another run.name") from None
    changed = {
        field: values for field, values in differences(old, job.config).items() if not field.startswith(_FREE_ON_RESUME)
    }
    if changed:
        named = ", ".join(f"{field} (there {was!r}, now {now!r})" for field, (was, now) in changed.items())
        raise UserError(f"{folder} holds a run with another config: {named}; give another run.name, or that config")
    return old


def write_description(job: Job, environment: str) -> None:
    """config.yaml, ds_config.json, environment.json of the run's folder.

    The summary of an earlier end goes: until this attempt ends, the run is not finished.
    """
    folder = job.run_folder
    if folder.exists("summary.json"):
        folder.delete_file("summary.json")
    folder.write_text("config.yaml", to_yaml(job.config))
    folder.write_text("ds_config.json", json.dumps(job.ds_config, indent=2) + "\n")
    folder.write_text("environment.json", environment)
