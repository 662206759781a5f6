"""The check a run makes before its first update: every form of the schedule says lr(k).

The torch form and, where the schedule is expressible, DeepSpeed's own scheduler class are
driven over all updates of the run on a throw-away optimizer of one parameter, in the order of
a real run (built, then one ``step()`` after each update), and the learning rate standing in the
optimizer is compared with lr(k).
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lrsched.deepspeed_form import TOLERANCE, block_tolerance
from lrsched.errors import NotExpressible, ScheduleError

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from lrsched.schedule import Schedule

_CHUNK = 2**18


@dataclass(frozen=True)
class FormsReport:
    """What ``check_forms`` found.

    updates: how many were compared. torch, deepspeed: the largest difference to lr(k), as a
    part of the peak; deepspeed is None when that form was not checked, and ``why_not`` says why.
    """

    updates: int
    torch: float
    deepspeed: float | None
    block: dict[str, Any] | None
    why_not: str = ""

    def __str__(self) -> str:
        second = f"DeepSpeed within {self.deepspeed:.1e}" if self.deepspeed is not None else self.why_not
        return f"{self.updates} updates: torch within {self.torch:.1e} of the peak; {second}"


class FormMismatch(ScheduleError):
    """A form of the schedule applies another learning rate than lr(k) at update ``k``."""

    def __init__(self, form: str, k: int, wanted: float, found: float) -> None:
        ScheduleError.__init__(
            self, "", f"the {form} form trains update k={k} at {found!r}, the schedule says {wanted!r}"
        )
        self.args = (form, k, wanted, found)
        self.form, self.k, self.wanted, self.found = form, k, wanted, found


def check_forms(schedule: Schedule) -> FormsReport:
    """Compare the torch and DeepSpeed forms with lr(k) at every k in range(total_steps).

    At most 1e-15 of the peak apart (DeepSpeed's OneCycle: what its own arithmetic loses, at most
    1e-12), or FormMismatch is raised with k and both numbers. About 3 microseconds per update.
    DeepSpeed's form is left out, and the report says so, when the schedule is not expressible or
    DeepSpeed is not installed.
    """
    optimizer = _throw_away(schedule.peak_lr)
    torch_off = _compare("torch", schedule, optimizer, schedule.to_torch(optimizer), TOLERANCE)
    try:
        block = schedule.to_deepspeed()
    except NotExpressible as reason:
        return FormsReport(schedule.total_steps, torch_off, None, None, str(reason))
    if importlib.util.find_spec("deepspeed") is None:
        return FormsReport(schedule.total_steps, torch_off, None, block, "DeepSpeed is not installed")
    optimizer = _throw_away(schedule.peak_lr)
    native = native_scheduler(block, optimizer)
    native_off = _compare(f"DeepSpeed {block['type']}", schedule, optimizer, native, block_tolerance(block))
    return FormsReport(schedule.total_steps, torch_off, native_off, block)


def native_scheduler(block: dict[str, Any], optimizer: Optimizer) -> Any:
    """The real DeepSpeed scheduler of a block, bound to ``optimizer``, without its start-up noise."""
    from deepspeed.runtime import lr_schedules

    with _without_start_warning():
        return getattr(lr_schedules, block["type"])(optimizer, **block["params"])


def _throw_away(peak: float) -> Optimizer:
    import torch

    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)


def _compare(form: str, schedule: Schedule, optimizer: Optimizer, scheduler: Any, tolerance: float) -> float:
    """The largest difference over all updates, as a part of the peak."""
    import numpy as np

    worst = 0.0
    # torch warns if the optimizer never stepped; without gradients this changes nothing.
    optimizer.step()
    for start in range(0, schedule.total_steps, _CHUNK):
        stop = min(start + _CHUNK, schedule.total_steps)
        found = np.array(_used(optimizer, scheduler, stop - start))
        wanted = schedule.lr(np.arange(start, stop))
        off = np.abs(found - wanted) / schedule.peak_lr
        # "not <=" so that a NaN counts as wrong.
        wrong = np.flatnonzero(~(off <= tolerance))
        if wrong.size:
            at = int(wrong[0])
            raise FormMismatch(form, start + at, float(wanted[at]), float(found[at]))
        worst = max(worst, float(off.max()))
    return worst


def _used(optimizer: Optimizer, scheduler: Any, updates: int) -> list[float]:
    """The learning rate in the optimizer at each of the next updates."""
    group, step, used = optimizer.param_groups[0], scheduler.step, []
    for _ in range(updates):
        used.append(group["lr"])
        step()
    return used


@contextlib.contextmanager
def _without_start_warning() -> Iterator[None]:
    """Drop one line of DeepSpeed's log, which its constructors provoke themselves."""
    from deepspeed.utils import logger

    def keep(record: logging.LogRecord) -> bool:
        return "before it has started" not in record.getMessage()

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
