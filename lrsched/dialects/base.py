"""What the dialects share: the schedulers of other libraries as decay shapes, quirks included.

A dialect shape carries the parameters of one scheduler of another library under that library's
names, and its formula is what the library applies, update by update, not what its documentation
says. It starts at update 0 and has its own warm-up; it may leave [0, peak_lr]: ``peak_lr`` of
such a schedule is the learning rate the optimizer was built with.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from lrsched.decays.base import Decay, Span
from lrsched.errors import ScheduleError
from lrsched.numeric import LARGEST_K, Steps, Values
from lrsched.schedule import Schedule

# Learning rates this close, as a part of the peak, are the same: a few roundings of a double.
SAME = 1e-15
# Updates compared at most; a longer run is sampled.
_COMPARED = 2**17


class Dialect(Decay):
    """A scheduler of another library, as that library applies it."""

    rises_itself = True
    # "torch", "transformers" or "DeepSpeed", as it is written in sentences.
    library: ClassVar[str]

    def values(self, k: np.ndarray, peak: float) -> np.ndarray:
        """The learning rates of the updates ``k`` (int64) in a group of learning rate ``peak``."""
        raise NotImplementedError

    def natural_steps(self) -> int:
        """The updates that the scheduler's own numbers span; 1 when they name no length."""
        raise NotImplementedError

    def rounding(self) -> float:
        """What the library's own arithmetic may be off by, as a part of the peak."""
        return SAME

    def native(self, span: Span) -> dict[str, Any] | None:
        """``warmup`` and ``decay`` (YAML form) of the native schedule that this may be.

        None where there is none. ``as_schedule`` compares the two before it takes it.
        """
        return None

    def lr(self, j: Steps, span: Span) -> Values:
        if not isinstance(j, int):
            return self.values(j, span.peak)
        return float(self.values(np.array([min(j, LARGEST_K)]), span.peak)[0])

    def phrase(self, span: Span) -> str:
        name = self.shape.partition(".")[2]
        numbers = ", ".join(f"{key} {value!r}" for key, value in self.to_dict().items())
        return f"{self.library}'s {name} as it is applied ({numbers})" if numbers else f"{self.library}'s {name}"


def as_schedule(shape: Dialect, peak_lr: float, total_steps: int | None = None) -> Schedule:
    """The schedule of a dialect shape: a native one where there is an equal one.

    total_steps: updates of the run; default: what the scheduler's own numbers span.
    """
    total = max(1, shape.natural_steps()) if total_steps is None else total_steps
    schedule = Schedule(peak_lr, total, decay=shape)
    mapping = shape.native(Span(schedule.peak_lr, 0, schedule.total_steps))
    if mapping is None:
        return schedule
    decay = mapping.get("decay", {"shape": "constant"})
    for permission in ({}, {"allow_unfinished": True}):
        # The permission is asked for only where the run is shorter than the decay.
        try:
            native = Schedule.from_dict(
                {"peak_lr": peak_lr, "total_steps": total, **mapping, "decay": {**decay, **permission}}
            )
        except ScheduleError:
            continue
        if largest_difference(schedule, native) <= shape.rounding() * schedule.peak_lr:
            return native
    return schedule


def largest_difference(one: Schedule, other: Schedule) -> float:
    """The largest difference between two schedules over the run of the first and 20 % more."""
    stop = one.total_steps + one.total_steps // 5 + 8
    if stop <= _COMPARED:
        k = np.arange(stop)
    else:
        ends = [np.arange(_COMPARED // 4), np.arange(stop - _COMPARED // 4, stop)]
        k = np.concatenate([*ends, np.linspace(0, stop - 1, _COMPARED // 2).astype(np.int64)])
    # A difference that is not a number counts as large.
    return float(np.nan_to_num(np.abs(one.lr(k) - other.lr(k)), nan=np.inf).max())
