"""torch's cosines and cycles: schedulers that work from learning rates, not only from factors.

k counts the calls of ``step()``, lr is the group's initial learning rate.
"""

from __future__ import annotations

import functools
import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrsched import fields
from lrsched.decays.base import Span
from lrsched.decays.cosine import Cosine
from lrsched.dialects.torch_base import Ending, Leaf, any_power, cosine_at, count, grown, is_whole, mixed, wave
from lrsched.dialects.torch_recursion import Group, PastTheEnd
from lrsched.errors import ScheduleError


@functools.lru_cache(maxsize=64)
def _zeros(t_max: float) -> list[int]:
    """The updates of the first 100,000 where torch's 1 + cos(pi k / t_max) is 0, for a t_max that is not whole."""
    odd = np.arange(1.0, max(2.0, min(1e5 / abs(t_max), 1e5)), 2.0)
    near = np.unique(np.maximum(1, np.rint(odd * abs(t_max)).astype(np.int64)))
    return [k for k in near.tolist() if 1 + math.cos(math.pi * k / t_max) == 0.0]


@dataclass(frozen=True)
class CosineAnnealingLR(Leaf):
    """``eta_min + (lr - eta_min) * (1 + cos(pi k / T_max)) / 2``, for ever: past T_max it rises again.

    Its period is 2 |T_max|, and eta_min may lie above lr. T_max = 0 is refused: torch divides by
    zero at its first step. With a T_max that has a part of an update torch comes near its floor
    and cannot tell how near: it is followed update by update, up to k = 10,000,000, and refused
    where torch divides by zero (T_max = 3.0000000000000004).
    """

    shape = "torch.CosineAnnealingLR"
    rates = ("eta_min",)
    T_max: float = count()
    eta_min: float = fields.number(0.0)

    def is_closed(self) -> bool:
        return is_whole(self.T_max) or not self.eta_min

    def curve(self, j: np.ndarray, group: Group, base_lr: float, anew: bool) -> np.ndarray:
        return mixed(self.eta_min, base_lr, wave(j, self.T_max))

    def scale(self, j: np.ndarray, anew: bool) -> np.ndarray:
        return wave(j, self.T_max)

    def scales_until(self) -> float:
        # After its zero torch adds to the learning rate, which others have left at zero as well.
        if self.eta_min:
            return -1
        return abs(self.T_max) if is_whole(self.T_max) else next(iter(_zeros(self.T_max)), math.inf)

    def get_lr(self, n: int, group: Group, base_lr: float, initial: bool) -> float:
        t_max, eta_min = self.T_max, self.eta_min
        if initial:
            return group.lr
        if (n - 1 - t_max) % (2 * t_max) == 0:
            return group.lr + (base_lr - eta_min) * (1 - math.cos(math.pi / t_max)) / 2
        now, before = math.cos(math.pi * n / t_max), math.cos(math.pi * (n - 1) / t_max)
        return (1 + now) / (1 + before) * (group.lr - eta_min) + eta_min

    def ending(self, anew: bool) -> Ending | None:
        if not self.T_max:
            return Ending(-1 if anew else 0, "T_max", "0 makes torch divide by zero", "give at least 1")
        if is_whole(self.T_max):
            return None
        # From some of them torch rises again, as from those of a whole T_max.
        last = next((k for k in _zeros(self.T_max) if (k - self.T_max) % (2 * self.T_max)), None)
        if last is None:
            return None
        problem = f"{self.T_max!r} makes torch divide by zero at update {last + 1}"
        return Ending(last, "T_max", problem, "write a whole number")

    def natural_steps(self) -> int:
        return max(1, math.ceil(abs(self.T_max)))

    def native(self, span: Span) -> dict[str, Any] | None:
        if not is_whole(self.T_max):
            return None
        cosine = {"shape": "cosine", "t_max": abs(self.T_max), "eta_min": self.eta_min}
        return {"decay": {**cosine, "after": "rise", "ends_at_min": False}}


@dataclass(frozen=True)
class CosineAnnealingWarmRestarts(Leaf):
    """``eta_min + (lr - eta_min) * (1 + cos(pi T_cur / T_i)) / 2``, for ever.

    T_cur counts from the start of the cycle; the first has T_0 updates, each T_mult times as many
    as the one before. Each begins at lr; none reaches eta_min.
    """

    shape = "torch.CosineAnnealingWarmRestarts"
    rates = ("eta_min",)
    starts_at_zero = True
    T_0: int = fields.length(least=1)
    T_mult: int = fields.length(1, least=1)
    eta_min: float = fields.number(0.0)

    def curve(self, j: np.ndarray, group: Group, base_lr: float, anew: bool) -> np.ndarray:
        part = self._cycles().lr(j, Span(1.0, 0, 1))
        assert isinstance(part, np.ndarray)
        return mixed(self.eta_min, base_lr, part)

    def _cycles(self) -> Cosine:
        return Cosine(t_max=self.T_0, after="restart", cycle_mult=self.T_mult)

    def get_lr(self, n: int, group: Group, base_lr: float, initial: bool) -> float:
        current, length = n % self.T_0 if self.T_mult == 1 else n, self.T_0
        while current >= length:
            current, length = current - length, length * self.T_mult
        return self.eta_min + (base_lr - self.eta_min) * (1 + math.cos(math.pi * current / length)) / 2

    def natural_steps(self) -> int:
        return self.T_0

    def native(self, span: Span) -> dict[str, Any] | None:
        return {"decay": {**self._cycles().to_mapping(), "eta_min": self.eta_min}}


@dataclass(frozen=True)
class CyclicLR(Leaf):
    """``base_lr + (max_lr - base_lr) * s * h``, for ever, whatever lr is.

    s rises from 0 to 1 in step_size_up updates and falls back in step_size_down (default: as
    many). h is 1 (triangular), ``2 ** -cycle`` with cycles counted from 0 (triangular2) or
    ``gamma ** k`` (exp_range). step_size_up = 0 is refused: torch divides by zero. The momentum it
    cycles as well is not part of a schedule of learning rates.
    """

    shape = "torch.CyclicLR"
    rates = ("base_lr", "max_lr")
    base_lr: float = fields.number()
    max_lr: float = fields.number()
    step_size_up: float = count(2000)
    step_size_down: float | None = count(None)
    mode: str = fields.choice("triangular", "triangular2", "exp_range")
    gamma: float = fields.number(1.0)

    def build(self, group: Group) -> float:
        group.lr = self.base_lr
        return super().build(group)

    @property
    def down(self) -> float:
        """step_size_down with its default."""
        return self.step_size_up if self.step_size_down is None else self.step_size_down

    def curve(self, j: np.ndarray, group: Group, base_lr: float, anew: bool) -> np.ndarray:
        cycle, part = self._position(j)
        if self.mode == "triangular2":
            # 0 is all that is left of it by then.
            part = np.ldexp(part, -np.minimum(cycle, 2000).astype(np.int32))
        elif self.mode == "exp_range":
            part = part * any_power(self.gamma, j)
        return self.base_lr + (self.max_lr - self.base_lr) * part

    def _position(self, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cycle of each update, from 0, and how far up it is."""
        up, down = self.step_size_up, self.down
        total = up + down
        if is_whole(total) and is_whole(up) and min(up, down) >= 0:
            i = j % total
            return j // total, np.where(i <= up, i / up, (total - i) / (down or 1))
        through = j / total
        cycle = np.floor(1.0 + through) - 1.0
        x, ratio = 1.0 + through - (cycle + 1.0), up / total
        return cycle, np.where(x <= ratio, x / ratio, (x - 1.0) / (ratio - 1.0 or 1.0))

    def get_lr(self, n: int, group: Group, base_lr: float, initial: bool) -> float:
        # base_lr is the group's initial lr in the constructor, else the field.
        total = float(self.step_size_up) + float(self.down)
        ratio, cycle = self.step_size_up / total, math.floor(1 + n / total)
        x = 1.0 + n / total - cycle
        height = (self.max_lr - base_lr) * (x / ratio if x <= ratio else (x - 1) / (ratio - 1))
        if self.mode == "triangular":
            return base_lr + height
        return base_lr + height * (self.gamma**n if self.mode == "exp_range" else 1 / 2.0 ** (cycle - 1))

    def ending(self, anew: bool) -> Ending | None:
        if self.step_size_up and self.step_size_up + self.down:
            return self._overflow() if self.mode == "exp_range" and abs(self.gamma) > 1.0 else None
        name = "step_size_down" if self.step_size_up else "step_size_up"
        value = getattr(self, name)
        return Ending(-1, name, f"{value!r} makes torch divide by zero", "give at least 1")

    def _overflow(self) -> Ending:
        """The last update whose ``gamma ** k`` Python can compute."""
        last = math.floor(math.log(sys.float_info.max) / math.log(abs(self.gamma)))
        # The quotient is rounded.
        last = next(k for k in range(last + 1, 0, -1) if math.isfinite(grown(abs(self.gamma), k)))
        return Ending(last, "gamma", f"{self.gamma!r} grows past all numbers at update {last + 1}", "lower it")

    def natural_steps(self) -> int:
        return max(1, math.ceil(abs(self.step_size_up + self.down)))


@dataclass(frozen=True)
class OneCycleLR(Leaf):
    """From max_lr / div_factor up to max_lr and down to that / (div_factor * final_div_factor).

    The initial lr of the group becomes ``low = max_lr / div_factor``. The parts, each from a to b
    with p from 0 to 1: low to max_lr until ``pct_start * total_steps - 1``, max_lr to
    ``low / final_div_factor`` until total_steps - 1; with three_phase first back to low until
    ``2 * pct_start * total_steps - 2``. cos: ``b + (a - b) * (1 + cos(pi p)) / 2``, linear:
    ``a + (b - a) * p``. At k = total_steps torch goes one step on in the last part, so that a
    cosine climbs again; there the next step() raises an error, here the value stays.
    """

    shape = "torch.OneCycleLR"
    rates = ("max_lr",)
    max_lr: float = fields.number()
    total_steps: int = fields.length(least=1)
    pct_start: float = fields.number(0.3)
    anneal_strategy: str = fields.choice("cos", "linear")
    div_factor: float = fields.number(25.0)
    final_div_factor: float = fields.number(1e4)
    three_phase: bool = fields.flag(False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.pct_start <= 1.0:
            raise ScheduleError("decay.pct_start", f"{self.pct_start!r} is not from 0 to 1", "torch refuses it")
        for name in ("div_factor", "final_div_factor"):
            if not getattr(self, name):
                raise ScheduleError(f"decay.{name}", "0.0 makes torch divide by zero", "write one above 0")
        if self.pct_start * self.total_steps == 1.0:
            # Its rise has no length.
            raise ScheduleError(
                "decay.pct_start",
                f"{self.pct_start!r} of {self.total_steps} updates is 1, where torch divides by zero",
                "raise or lower it a little",
            )

    def build(self, group: Group) -> float:
        group.initial_lr = self.max_lr / self.div_factor
        group.max_lr, group.min_lr = self.max_lr, group.initial_lr / self.final_div_factor
        return group.initial_lr

    def _phases(self, group: Group) -> list[tuple[float, float, float]]:
        """End, learning rate there before and there for each part."""
        low, top, least = group.first_lr, group.max_lr, group.min_lr
        up, last = self.pct_start * self.total_steps, self.total_steps - 1
        if not self.three_phase:
            return [(up - 1, low, top), (last, top, least)]
        # Doubled first, as torch does.
        back = 2 * self.pct_start * self.total_steps - 2
        return [(up - 1, low, top), (back, top, low), (last, low, least)]

    def curve(self, j: np.ndarray, group: Group, base_lr: float, anew: bool) -> np.ndarray:
        values, start, phases = np.empty(j.shape), 0.0, self._phases(group)
        left = np.ones(j.shape, bool)
        for i, (end, first, last) in enumerate(phases):
            here = left & (j <= end) if i < len(phases) - 1 else left
            # An empty part holds no update before the one where torch raises an error.
            progress = (j[here] - start) / (end - start or 1.0)
            if self.anneal_strategy == "cos":
                values[here] = last + (first - last) * cosine_at(progress)
            else:
                values[here] = (last - first) * progress + first
            left, start = left & ~here, end
        return values

    def get_lr(self, n: int, group: Group, base_lr: float, initial: bool) -> float:
        if n > self.total_steps:
            raise PastTheEnd("ValueError")
        phases = self._phases(group)
        i = next((i for i, phase in enumerate(phases) if n <= phase[0]), len(phases) - 1)
        start, (end, first, last) = phases[i - 1][0] if i else 0.0, phases[i]
        progress = (n - start) / (end - start)
        if self.anneal_strategy == "cos":
            return last + (first - last) / 2.0 * (math.cos(math.pi * progress) + 1)
        return (last - first) * progress + first

    def ending(self, anew: bool) -> Ending:
        *before, last = [end for end, _, _ in self._phases(Group(0.0, 0.0))]
        if before[-1] != last:
            return Ending(self.total_steps)
        problem = f"{self.pct_start!r} makes torch divide by zero at update {self.total_steps}"
        return Ending(self.total_steps - 1, "pct_start", problem, "lower it")

    def natural_steps(self) -> int:
        return self.total_steps

    def native(self, span: Span) -> dict[str, Any] | None:
        up = self.pct_start * self.total_steps
        if self.max_lr != span.peak or up != int(up) or self.total_steps != span.steps:
            return None
        decay = {
            "shape": "one_cycle",
            "up_steps": int(up),
            "start_ratio": 1.0 / self.div_factor,
            "end_ratio": 1.0 / (self.div_factor * self.final_div_factor),
            "anneal": {"cos": "cosine", "linear": "linear"}[self.anneal_strategy],
            "three_phase": self.three_phase,
        }
        return {"decay": decay}
