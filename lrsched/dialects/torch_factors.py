"""torch's schedulers whose every step multiplies the learning rate.

k counts the calls of ``step()``. Lengths are any numbers, as torch takes them; what torch makes of
odd ones (0, negative, with a part of an update) is said where the formula does not cover it. "At a
milestone" means where a SequentialLR starts the scheduler: from torch's closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from lrsched import fields
from lrsched.decays.base import Span
from lrsched.dialects.deepspeed_shapes import floor_of, floor_ratio
from lrsched.dialects.torch_base import Ending, Factor, any_power, count, counts, is_whole
from lrsched.dialects.torch_recursion import Group
from lrsched.errors import ScheduleError
from lrsched.numeric import part_power


def _constant(ratio: float) -> dict[str, Any]:
    """The native schedule that stays at a part of the peak."""
    if ratio == 1.0:
        return {"decay": {"shape": "constant"}}
    return {"decay": {"shape": "piecewise", "pieces": [{"peak_ratio": ratio}]}}


def _check_part(field: str, value: float, above_zero: bool = False) -> None:
    if not 0.0 <= value <= 1.0 or (above_zero and value == 0.0):
        allowed = "above 0 and at most 1" if above_zero else "from 0 to 1"
        raise ScheduleError(f"decay.{field}", f"{value!r} is not {allowed}", "torch refuses it")


def _zero_at_milestone(field: str, value: float) -> Ending:
    problem = f"{value!r} makes torch divide by zero where a SequentialLR starts it at a milestone"
    return Ending(-1, field, problem, "give at least 1, or leave this scheduler out")


@dataclass(frozen=True)
class ConstantLR(Factor):
    """``lr * factor`` for k < total_iters, then ``lr``.

    A total_iters that is 0, negative or not whole is never met, and the factor stays; at a
    milestone 0 and less mean that there is no factor. From factor 0 torch cannot go back to lr.
    """

    shape = "torch.ConstantLR"
    factor: float = fields.number(1.0 / 3)
    total_iters: float = count(5)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_part("factor", self.factor)

    @property
    def ends(self) -> bool:
        """Whether total_iters is met."""
        return is_whole(self.total_iters) and self.total_iters > 0

    def scale(self, j: np.ndarray, anew: bool) -> np.ndarray:
        if self.ends:
            return np.where(j < self.total_iters, self.factor, 1.0)
        return np.full(j.shape, 1.0 if anew and self.total_iters <= 0 else self.factor)

    def get_lr(self, n: int, group: Group, base_lr: float, initial: bool) -> float:
        if n == 0:
            return group.lr * self.factor
        return group.lr if n != self.total_iters else group.lr * (1.0 / self.factor)

    def ending(self, anew: bool) -> Ending | None:
        if self.factor or not self.ends:
            return None
        problem = f"0.0 makes torch divide by zero at update {self.total_iters}"
        return Ending(int(self.total_iters) - 1, "factor", problem, "write a small one such as 1.0e-8")

    def natural_steps(self) -> int:
        return max(1, math.ceil(self.total_iters))

    def native(self, span: Span) -> dict[str, Any] | None:
        if not self.ends or self.factor == 1.0 or self.total_iters >= span.steps:
            return _constant(self.factor)
        pieces = [{"steps": self.total_iters, "peak_ratio": self.factor}, {}]
        return {"decay": {"shape": "piecewise", "pieces": pieces}}


@dataclass(frozen=True)
class LinearLR(Factor):
    """``lr * (start_factor + (end_factor - start_factor) * min(k, total_iters) / total_iters)``.

    A total_iters with a part of an update ends at the whole updates in it. With 0 or less it stays
    at start_factor; at a milestone a negative one means end_factor, and 0 is a division by zero.
    """

    shape = "torch.LinearLR"
    start_factor: float = fields.number(1.0 / 3)
    end_factor: float = fields.number(1.0)
    total_iters: float = count(5)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_part("start_factor", self.start_factor, above_zero=True)
        _check_part("end_factor", self.end_factor)

    def scale(self, j: np.ndarray, anew: bool) -> np.ndarray:
        start, end = self.start_factor, self.end_factor
        if self.total_iters <= 0:
            return np.full(j.shape, end if anew else start)
        part = np.minimum(j, math.floor(self.total_iters)) / self.total_iters
        return np.where(part == 1.0, end, start + (end - start) * part)

    def get_lr(self, n: int, group: Group, base_lr: float, initial: bool) -> float:
        if n == 0:
            return group.lr * self.start_factor
        if initial or n > self.total_iters:
            return group.lr
        change = self.end_factor - self.start_factor
        return group.lr * (1.0 + change / (self.total_iters * self.start_factor + (n - 1) * change))

    def ending(self, anew: bool) -> Ending | None:
        return _zero_at_milestone("total_iters", self.total_iters) if anew and self.total_iters == 0 else None

    def natural_steps(self) -> int:
        return max(1, math.ceil(self.total_iters))

    def native(self, span: Span) -> dict[str, Any] | None:
        start, end, steps = self.start_factor, self.end_factor, self.total_iters
        if start == end or steps <= 0:
            return _constant(start)
        if not is_whole(steps):
            return None
        if end == 1.0:
            return {"warmup": {"steps": steps, "start_ratio": start}}
        if end > start:
            ramp = {"steps": steps, "start_ratio": floor_ratio(start, end)}
            return {"decay": {"shape": "piecewise", "pieces": [{"peak_ratio": end, "warmup": ramp}]}}
        line = {"shape": "linear", "decay_steps": steps, "eta_min": floor_of(end, span.peak), "ends_at_min": False}
        if start == 1.0:
            return {"decay": line}
        # Allowed here, because the permission cannot be asked for inside a piece (see as_schedule).
        piece = {"peak_ratio": start, "decay": {**line, "allow_unfinished": True}}
        return {"decay": {"shape": "piecewise", "pieces": [piece]}}


@dataclass(frozen=True)
class PolynomialLR(Factor):
    """``lr * (1 - min(k, total_iters) / total_iters) ** power``.

    A total_iters with a part of an update ends at the whole updates in it. With 0 or less it stays
    at lr; at a milestone a negative one means ``0 ** power``, and 0 is a division by zero.
    """

    shape = "torch.PolynomialLR"
    total_iters: float = count(5)
    power: float = fields.number(1.0)

    def scale(self, j: np.ndarray, anew: bool) -> np.ndarray:
        steps, power = self.total_iters, self.power
        if power == 0.0 or (steps <= 0 and not anew):
            return np.ones(j.shape)
        if steps <= 0:
            return np.zeros(j.shape)
        left = (steps - np.minimum(j, math.floor(steps))) / steps
        return part_power(left, power) if power > 0.0 else 1.0 / part_power(left, -power)

    def get_lr(self, n: int, group: Group, base_lr: float, initial: bool) -> float:
        if initial or n > self.total_iters:
            return group.lr
        left = (1.0 - n / self.total_iters) / (1.0 - (n - 1) / self.total_iters)
        return group.lr * left**self.power

    def ending(self, anew: bool) -> Ending | None:
        if anew and self.total_iters == 0:
            return _zero_at_milestone("total_iters", self.total_iters)
        if self.power >= 0.0 or not is_whole(self.total_iters) or (self.total_iters <= 0 and not anew):
            return None
        last = max(0, int(self.total_iters))
        problem = f"{self.power!r} makes torch divide by zero at update {last}"
        return Ending(last - 1, "power", problem, "give one above 0")

    def natural_steps(self) -> int:
        return max(1, math.ceil(self.total_iters))

    def native(self, span: Span) -> dict[str, Any] | None:
        if self.power == 0.0 or self.total_iters <= 0:
            return _constant(1.0)
        if not is_whole(self.total_iters):
            return None
        steps = {"decay_steps": self.total_iters, "power": self.power}
        return {"decay": {"shape": "polynomial", **steps, "ends_at_min": False}}


@dataclass(frozen=True)
class StepLR(Factor):
    """``lr * gamma ** (k // |step_size|)``, for ever.

    With a step_size that has a part of an update, only the multiples that are whole updates count.
    """

    shape = "torch.StepLR"
    step_size: float = count()
    gamma: float = fields.number(0.1)

    @property
    def period(self) -> int:
        """The updates between two drops."""
        return abs(Fraction(self.step_size).numerator)

    def scale(self, j: np.ndarray, anew: bool) -> np.ndarray:
        return any_power(self.gamma, j // self.period)

    def get_lr(self, n: int, group: Group, base_lr: float, initial: bool) -> float:
        return group.lr if n == 0 or n % self.step_size != 0 else group.lr * self.gamma

    def ending(self, anew: bool) -> Ending | None:
        if self.step_size:
            return None
        return Ending(-1 if anew else 0, "step_size", "0 makes torch divide by zero", "give at least 1")

    def natural_steps(self) -> int:
        return max(1, self.period)

    def native(self, span: Span) -> dict[str, Any] | None:
        return {"decay": {"shape": "step", "step_size": self.period, "gamma": self.gamma}}


@dataclass(frozen=True)
class MultiStepLR(Factor):
    """``lr * gamma ** (number of milestones from 0 to k)``, for ever; one written twice counts twice.

    Milestones that are negative or not whole are never met; at a milestone of a SequentialLR the
    negative ones count at once.
    """

    shape = "torch.MultiStepLR"
    milestones: tuple[float, ...] = counts()
    gamma: float = fields.number(0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        # torch counts them, so that their order says nothing.
        object.__setattr__(self, "milestones", tuple(sorted(self.milestones)))

    def scale(self, j: np.ndarray, anew: bool) -> np.ndarray:
        met = [one for one in self.milestones if is_whole(one) and one > 0]
        at_once = [one for one in self.milestones if (one <= 0 if anew else one == 0)]
        later = np.searchsorted(np.array(met, np.int64), j, side="right")
        return any_power(self.gamma, later + len(at_once))

    def get_lr(self, n: int, group: Group, base_lr: float, initial: bool) -> float:
        return group.lr * self.gamma ** self.milestones.count(n) if n in self.milestones else group.lr

    def natural_steps(self) -> int:
        return max([0, *map(math.ceil, self.milestones)]) + 1

    def native(self, span: Span) -> dict[str, Any] | None:
        return {"decay": {"shape": "multistep", "milestones": list(self.milestones), "gamma": self.gamma}}


@dataclass(frozen=True)
class ExponentialLR(Factor):
    """``lr * gamma ** k``, for ever."""

    shape = "torch.ExponentialLR"
    gamma: float = fields.number()

    def scale(self, j: np.ndarray, anew: bool) -> np.ndarray:
        return any_power(self.gamma, j)

    def get_lr(self, n: int, group: Group, base_lr: float, initial: bool) -> float:
        return group.lr if initial else group.lr * self.gamma

    def natural_steps(self) -> int:
        return 1

    def native(self, span: Span) -> dict[str, Any] | None:
        return {"decay": {"shape": "exponential", "gamma": self.gamma}}
