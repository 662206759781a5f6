"""``from_deepspeed``: the schedule that a DeepSpeed config's ``scheduler`` block really applies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrsched import fields
from lrsched.dialects.base import Dialect, as_schedule
from lrsched.dialects.deepspeed_shapes import SHAPES, OneCycle, WarmupDecayLR
from lrsched.errors import ScheduleError, unknown
from lrsched.lengths import Units
from lrsched.schedule import Schedule

# Parameters of OneCycle that move the momentum, not the learning rate.
_MOMENTUM = ("cycle_momentum", "cycle_min_mom", "cycle_max_mom", "decay_mom_rate")


def from_deepspeed(block: Mapping[str, Any], peak_lr: float | None = None, total_steps: int | None = None) -> Schedule:
    """The schedule that DeepSpeed applies for ``{"type": ..., "params": {...}}``.

    Every update is as in DeepSpeed's engine, quirks included: the first updates at zero, a
    warm-up of 1 taken as 2, WarmupDecayLR's one update more at the peak. Where that is a native
    schedule, one is returned (``from_deepspeed(s.to_deepspeed(), s.peak_lr, s.total_steps)`` gives
    ``s``'s curve back); else one whose decay shape is ``deepspeed.<type>``.

    peak_lr: the learning rate the optimizer is built with, which WarmupCosineLR (and WarmupLR
    without warmup_max_lr) multiplies; for the other types the default is their highest one.
    Types that write one learning rate into all groups do so whatever peak_lr is. total_steps:
    updates of the run; default total_num_steps, or what the other lengths span.

    ScheduleError: an unknown type or parameter, "auto", a list of values per group,
    last_batch_iteration.

    >>> from lrsched import from_deepspeed
    >>> params = {"total_num_steps": 8, "warmup_num_steps": 4, "warmup_type": "linear"}
    >>> schedule = from_deepspeed({"type": "WarmupCosineLR", "params": params}, peak_lr=1.0)
    >>> [round(schedule.lr(k), 4) for k in range(6)]
    [0.0, 0.0, 0.25, 0.5, 0.75, 0.8536]
    """
    shape = read_block(block)
    return as_schedule(shape, _peak(shape, peak_lr), total_steps)


def read_block(block: Mapping[str, Any]) -> Dialect:
    """The decay shape of a ``scheduler`` block."""
    block = fields.as_mapping(block, "scheduler")
    errors = fields.unknown_keys(block, ["type", "params"], "scheduler")
    if errors:
        raise errors[0]
    kind = block.get("type")
    if f"deepspeed.{kind}" not in SHAPES:
        names = [name.partition(".")[2] for name in SHAPES]
        raise ScheduleError("scheduler.type", *unknown("DeepSpeed scheduler", kind, names))
    cls = SHAPES[f"deepspeed.{kind}"]
    params = dict(fields.as_mapping(block.get("params") or {}, "scheduler.params"))
    try:
        return _read(cls, params)
    except ScheduleError as error:
        raise error.under("scheduler").renamed("decay", "params") from None


def _read(cls: type[Dialect], params: dict[str, Any]) -> Dialect:
    for name, value in params.items():
        if value == "auto":
            raise ScheduleError(
                f"decay.{name}", "'auto' is filled in by transformers' Trainer at its start", "write the number"
            )
        if isinstance(value, (list, tuple)):
            raise ScheduleError(
                f"decay.{name}", f"{list(value)!r} has one value per group", "describe one group at a time"
            )
    last = params.pop("last_batch_iteration", -1)
    if last != -1:
        raise ScheduleError(
            "decay.last_batch_iteration",
            f"{last!r} starts the schedule in its middle",
            "leave it out, and start at the k you want instead: lr(k) is the same for every start",
        )
    if cls is OneCycle:
        params = {name: value for name, value in params.items() if name not in _MOMENTUM}
    return fields.read_section(cls, params, Units())


def _peak(shape: Dialect, peak_lr: float | None) -> float:
    if peak_lr is not None:
        return peak_lr
    highest = {
        "warmup_max_lr": 0.001 if isinstance(shape, WarmupDecayLR) else None,
        "cycle_max_lr": None,
        "lr_range_test_min_lr": None,
    }
    for name, default in highest.items():
        value = getattr(shape, name, None)
        if value is not None or (default is not None and hasattr(shape, name)):
            return float(default if value is None else value)
    raise ScheduleError(
        "peak_lr", f"is missing: {shape.shape.partition('.')[2]} multiplies the optimizer's learning rate", "pass it"
    )
