"""``lrsched convert`` and ``lrsched import``: a schedule in another library's words, and back."""

from __future__ import annotations

import json
import math
import pprint
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lrsched.errors import ScheduleError
from lrsched.fields import as_mapping
from lrsched.schedule import Schedule
from lrsched.yaml_text import unique_key_loader


def converted(schedule: Schedule, library: str) -> str:
    """What to write for ``library``; NotExpressible where it cannot apply the schedule.

    deepspeed: the ``scheduler`` of its config, as JSON. transformers: fields of TrainingArguments,
    as JSON. torch: Python that makes the scheduler, of torch's own classes where those apply it.
    """
    if library == "deepspeed":
        return json.dumps({"scheduler": schedule.to_deepspeed()}, indent=2)
    if library == "transformers":
        return json.dumps(schedule.to_transformers(), indent=2)
    return _torch_code(schedule)


def _torch_code(schedule: Schedule) -> str:
    from lrsched.dialects.torch_code import own_classes

    own = own_classes(schedule)
    if own is not None:
        return f"# optimizer: built with lr={schedule.peak_lr!r}\n{own}"
    definition = pprint.pformat(schedule.to_dict(), sort_dicts=False, width=100)
    return (
        f"# torch's own classes do not apply this schedule. optimizer: built with lr={schedule.peak_lr!r}\n"
        f"from lrsched import Schedule\n\n"
        f"schedule = Schedule.from_dict(\n{textwrap.indent(definition, '    ')}\n)\n"
        f"scheduler = schedule.to_torch(optimizer)"
    )


def imported(path: str, library: str, peak_lr: float | None, total_steps: int | None) -> str:
    """The schedule in a DeepSpeed config or in TrainingArguments, as YAML with its sentence above.

    deepspeed: ``scheduler`` (or the block alone), with the optimizer's lr as the peak.
    transformers: TrainingArguments as JSON or YAML, with max_steps as the length of the run.
    peak_lr, total_steps: instead of what the file says, or where it says nothing.
    """
    read, found = _from_deepspeed if library == "deepspeed" else _from_transformers, _read(path)
    try:
        schedule = read(found, peak_lr, total_steps)
    except ScheduleError as error:
        raise ScheduleError("", f"{path}: {error}") from None
    return f"# {schedule.describe()}\n{schedule.to_yaml()}"


def _read(path: str) -> Mapping[str, Any]:
    import yaml

    try:
        found = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=unique_key_loader())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ScheduleError("", f"cannot read {path}: {reason}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ScheduleError("", f"{path} is neither JSON nor YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, Mapping):
        raise ScheduleError("", f"{path} holds no mapping", "give a config of key: value pairs")
    return found


def _from_deepspeed(found: Mapping[str, Any], peak_lr: float | None, total_steps: int | None) -> Schedule:
    from lrsched.dialects.from_deepspeed import from_deepspeed

    if "scheduler" not in found and "type" not in found:
        raise ScheduleError("scheduler", "is missing", "a config without one trains at the optimizer's constant lr")
    optimizer = found.get("optimizer") or {}
    params = optimizer.get("params") if isinstance(optimizer, Mapping) else None
    lr = params.get("lr") if isinstance(params, Mapping) else None
    if peak_lr is None and lr == "auto":
        raise ScheduleError("optimizer.params.lr", "'auto' is filled in by transformers' Trainer", "pass --peak-lr")
    try:
        return from_deepspeed(found.get("scheduler", found), lr if peak_lr is None else peak_lr, total_steps)
    except ScheduleError as error:
        if error.field != "peak_lr":
            raise
        raise ScheduleError("optimizer.params.lr", error.problem, "write it there, or pass --peak-lr") from None


# Arguments of from_transformers that are no keywords of a scheduler.
_OURS = ("name", "peak_lr", "num_warmup_steps", "num_training_steps", "total_steps")


def _from_transformers(found: Mapping[str, Any], peak_lr: float | None, total_steps: int | None) -> Schedule:
    from lrsched.dialects.from_transformers import from_transformers

    steps = total_steps or found.get("max_steps", -1)
    if not isinstance(steps, int) or steps < 1:
        raise ScheduleError("max_steps", f"{steps!r} does not say how many updates the run has", "pass --total-steps")
    kwargs, kind = found.get("lr_scheduler_kwargs") or {}, found.get("lr_scheduler_type", "linear")
    if isinstance(kwargs, str):
        try:
            kwargs = json.loads(kwargs)
        except ValueError:
            raise ScheduleError("lr_scheduler_kwargs", f"{kwargs!r} is not JSON", "write a mapping") from None
    for key in as_mapping(kwargs, "lr_scheduler_kwargs"):
        if not isinstance(key, str) or key in _OURS:
            raise ScheduleError("lr_scheduler_kwargs", f"{key!r} is none of {kind}'s keywords", "leave it out")
    if not isinstance(kind, str):
        raise ScheduleError("lr_scheduler_type", f"{kind!r} is not a name", "write one such as cosine")
    # 5e-5 and linear are transformers' own defaults.
    return from_transformers(
        kind,
        peak_lr=peak_lr or found.get("learning_rate", 5e-5),
        num_warmup_steps=_warmup_steps(found, steps),
        num_training_steps=steps,
        **kwargs,
    )


def _warmup_steps(found: Mapping[str, Any], steps: int) -> int:
    """As TrainingArguments.get_warmup_steps: below 1 a part of the run, rounded up."""
    warmup = found.get("warmup_steps") or found.get("warmup_ratio") or 0
    if isinstance(warmup, bool) or not isinstance(warmup, (int, float)) or not 0 <= warmup < math.inf:
        raise ScheduleError("warmup_steps", f"{warmup!r} is not a number of updates", "write one such as 500 or 0.1")
    return int(warmup) if warmup >= 1 else math.ceil(steps * warmup)
