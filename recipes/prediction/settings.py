"""What a prediction is asked to do: the settings of the run, or none, and the command's over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recipes.config_file import parse_as
from recipes.errors import UserError, nearest
from recipes.evaluation.generation import Decoding, decoding_of
from recipes.evaluation.request import Flag, RequestConfig, laid_over, of_pairs, run_settings
from recipes.evaluation.saved_model import PRECISIONS, is_run
from recipes.storage import Storage

_ON_TOO_LONG = ("refuse", "truncate")
_ON_BAD_ROW = ("refuse", "skip")


@dataclass(frozen=True)
class Settings:
    """How texts become texts; picklable, so that workers get the same.

    max_source_tokens: longest input, prefix and end token included. on_too_long: refuse, or truncate.
    on_bad_row: refuse a row without text, or skip it (its prediction is null).
    """

    prefix: str
    max_source_tokens: int
    decoding: Decoding
    on_too_long: str = "refuse"
    on_bad_row: str = "refuse"
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True)
class Request:
    """folder: of a run or of a saved model. source_column: what the run calls the input text."""

    folder: Storage
    settings: Settings
    source_column: str


def read_request(
    model: str,
    flags: list[Flag],
    *,
    task: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    on_bad_row: str = "refuse",
) -> Request:
    """For a run its own prefix, limits and generation are the defaults; a plain model has none of its own.

    flags: of the blocks of `RequestConfig`. task: whose prefix and columns count, of a run with several tasks.

    Raises:
        UserError: no such folder, a config that cannot be read, a wrong flag.
    """
    folder = Storage(model)
    if not folder.exists():
        raise UserError(f"{model}: there is no such folder")
    _check_choice("--precision", precision, PRECISIONS)
    _check_choice("--on-bad-row", on_bad_row, _ON_BAD_ROW)
    for flag in flags:
        if flag.key == "data.on_too_long" and flag.value is not None:
            _check_choice(flag.name, flag.value, _ON_TOO_LONG)
    given = {flag.key: flag.value for flag in flags if flag.value is not None}
    content: dict[str, Any] = {}
    if is_run(folder):
        content = run_settings(folder)
        parse_as(RequestConfig, content, f"{model}/config.yaml")
        content["data"] = of_pairs(content["data"], task) | {"source": "-", "eval_source": None}
        if given.get("evaluation.generation.num_beams") == 1:
            # It compares beams, of which the command wants none.
            content["evaluation"].get("generation", {}).pop("length_penalty", None)
    else:
        content["data"] = {"source": "-"}
        longest = given.get("evaluation.generation.max_new_tokens")
        if isinstance(longest, int) and longest >= 2:
            # Nothing says how long its texts may get.
            content["data"]["max_target_tokens"] = longest
    config = laid_over(content, [], flags)
    data = config.data
    settings = Settings(
        prefix=data.prefix,
        max_source_tokens=data.max_source_tokens,
        decoding=decoding_of(config),
        on_too_long=data.on_too_long,
        on_bad_row=on_bad_row,
        device=device,
        precision=precision,
    )
    return Request(folder, settings, data.source_column)


def _check_choice(flag: str, value: str, known: tuple[str, ...]) -> None:
    if value == "fp16":
        raise UserError(f"{flag} fp16: T5 overflows in fp16 (it was trained in bf16); give auto, bf16 or fp32")
    if value not in known:
        raise UserError(f"{flag} is '{value}'{nearest(value, list(known))}")
