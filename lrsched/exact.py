"""The search for a library's own scheduler that applies a schedule at every update of the run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lrsched.errors import NotExpressible, ScheduleError

if TYPE_CHECKING:
    from lrsched.dialects.base import Dialect
    from lrsched.schedule import Schedule

# Updates compared at a time, to bound memory; the first chunk is small so that most schedules
# that are not expressible are found out at once.
_FIRST_CHUNK, _CHUNK = 4096, 2**20
# The longest run that is compared update by update: some seconds.
LONGEST = 2**27


class TooLong(ScheduleError):
    """A run with more updates than can be compared one by one."""


def first_exact(
    schedule: Schedule, candidates: Iterable[tuple[Dialect, dict[str, Any]]], library: str
) -> dict[str, Any]:
    """The written form of the first candidate that applies lr(k) for every k in range(total_steps).

    candidates: what each would apply, and how it is written for ``library``. Raises NotExpressible
    with the first update that differs, for the candidate that gets furthest.
    """
    furthest: NotExpressible | None = None
    for shape, written in candidates:
        found = first_difference(schedule, shape)
        if found is None:
            return written
        k, wanted, native = found
        if furthest is None or k > furthest.k:
            furthest = NotExpressible(k, wanted, native, written, library)
    assert furthest is not None, "there is always a candidate"
    raise furthest


def first_difference(schedule: Schedule, shape: Dialect) -> tuple[int, float, float] | None:
    """The first update of the run where ``shape`` does not apply lr(k), with lr(k) and what it applies."""
    import numpy as np

    if schedule.total_steps > LONGEST:
        raise TooLong(
            "total_steps",
            f"{schedule.total_steps} updates are more than can be compared one by one (at most {LONGEST})",
            "use the torch form, which applies any schedule",
        )
    tolerance = shape.rounding() * schedule.peak_lr
    start, stop = 0, min(_FIRST_CHUNK, schedule.total_steps)
    while start < schedule.total_steps:
        k = np.arange(start, stop)
        wanted, native = schedule.lr(k), shape.values(k, schedule.peak_lr)
        # "not <=" so that what is not a number counts as wrong.
        wrong = np.flatnonzero(~(np.abs(wanted - native) <= tolerance))
        if wrong.size:
            at = int(wrong[0])
            return start + at, float(wanted[at]), float(native[at])
        start, stop = stop, min(stop + _CHUNK, schedule.total_steps)
    return None
