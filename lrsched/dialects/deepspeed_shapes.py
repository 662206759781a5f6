"""DeepSpeed's schedulers, as its engine applies them (deepspeed/runtime/lr_schedules.py, 0.19.8).

They start at iteration -1: they put their first value into the groups when they are built, and
update k uses iteration i = k - 1. W' = max(2, warmup_num_steps).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrsched import fields
from lrsched.decays.base import Span
from lrsched.dialects.base import SAME, Dialect
from lrsched.errors import ScheduleError
from lrsched.numeric import half_cosine, log

WARMUP_TYPES = ("log", "linear")
# The most that OneCycle's rounding may come to, where it is still called the same curve.
ONE_CYCLE_ROUNDING = 1e-12


class _DeepSpeed(Dialect):
    library = "DeepSpeed"


def growth(warmup_type: str, i: np.ndarray, steps: int) -> np.ndarray:
    """The warm-up's rise from 0 to 1 at iteration i < W'."""
    if warmup_type == "linear":
        return i / steps
    return (1.0 / math.log(steps)) * log(np.maximum(i, 0) + 1)


@dataclass(frozen=True)
class WarmupLR(_DeepSpeed):
    """``min + (max - min) * g(i)`` for i < W', then max; update 0 at min.

    g(i) = i / W' (linear) or ln(i + 1) / ln(W') (log). It writes one value into all groups,
    unless warmup_max_lr is left out: then each group's own lr is its max.
    """

    shape = "deepspeed.WarmupLR"
    warmup_min_lr: float = fields.number(0.0)
    warmup_max_lr: float | None = fields.number(None)
    warmup_num_steps: int = fields.length(1000, least=1)
    warmup_type: str = fields.choice(*WARMUP_TYPES)

    def top(self, peak: float) -> float:
        """The learning rate after the warm-up."""
        return peak if self.warmup_max_lr is None else self.warmup_max_lr

    def values(self, k: np.ndarray, peak: float) -> np.ndarray:
        low, high, steps = self.warmup_min_lr, self.top(peak), max(2, self.warmup_num_steps)
        i = k - 1
        gamma = np.where(i < steps, growth(self.warmup_type, np.minimum(i, steps), steps), self.after(i))
        return np.where(i < 0, low, low + (high - low) * gamma)

    def after(self, i: np.ndarray) -> np.ndarray:
        """The part of (max - min) at iteration i >= W'."""
        return np.ones(i.shape)

    def natural_steps(self) -> int:
        return max(2, self.warmup_num_steps) + 1

    def native(self, span: Span) -> dict[str, Any] | None:
        low, steps = self.warmup_min_lr, max(2, self.warmup_num_steps)
        if self.top(span.peak) != span.peak:
            return None
        if low == span.peak:
            return {"decay": {"shape": "constant"}}
        return {"warmup": {"steps": steps, "shape": "log", "start_ratio": low / span.peak}}


@dataclass(frozen=True, kw_only=True)
class WarmupDecayLR(WarmupLR):
    """WarmupLR, then ``min + (max - min) * max(0, (T' - i) / max(1, T' - W'))``, T' = total_num_steps.

    Left out, warmup_max_lr is 0.001 here, whatever the optimizer says.
    """

    shape = "deepspeed.WarmupDecayLR"
    total_num_steps: int = fields.length(least=1)

    def top(self, peak: float) -> float:
        return 0.001 if self.warmup_max_lr is None else self.warmup_max_lr

    def after(self, i: np.ndarray) -> np.ndarray:
        left = self.total_num_steps - i.astype(np.float64)
        return np.maximum(0.0, left / max(1.0, self.total_num_steps - max(2, self.warmup_num_steps)))

    def natural_steps(self) -> int:
        return self.total_num_steps

    def native(self, span: Span) -> dict[str, Any] | None:
        """A logarithmic warm-up, one update more at the peak, and a line down to min."""
        low, steps = self.warmup_min_lr, max(2, self.warmup_num_steps)
        down = self.total_num_steps - steps
        if self.top(span.peak) != span.peak or down < 1:
            return None
        # Allowed here, because the permission cannot be asked for inside a piece (see as_schedule).
        line = {"shape": "linear", "decay_steps": down, "eta_min": low, "ends_at_min": False, "allow_unfinished": True}
        return {
            "warmup": {"steps": steps, "shape": "log", "start_ratio": low / span.peak},
            "decay": {"shape": "piecewise", "pieces": [{"steps": 1}, {"decay": line}]},
        }


@dataclass(frozen=True)
class WarmupCosineLR(_DeepSpeed):
    """The group's own lr times: 0 at update 0; ``m + (1-m) g(i)`` for i < W'; then a cosine.

    m = warmup_min_ratio, g as in WarmupLR. The cosine is ``q + (1-q) (1 + cos(pi p)) / 2`` with
    q = cos_min_ratio and p = min(1, (i - W' + 1) / max(1, T' - W')), T' = total_num_steps: with a
    linear warm-up the peak itself is never applied.
    """

    shape = "deepspeed.WarmupCosineLR"
    total_num_steps: int = fields.length(least=1)
    warmup_min_ratio: float = fields.number(0.0)
    warmup_num_steps: int = fields.length(1000, least=1)
    cos_min_ratio: float = fields.number(0.0001)
    warmup_type: str = fields.choice(*WARMUP_TYPES)

    def values(self, k: np.ndarray, peak: float) -> np.ndarray:
        start, floor, steps = self.warmup_min_ratio, self.cos_min_ratio, max(2, self.warmup_num_steps)
        i = k - 1
        warming = start + growth(self.warmup_type, np.minimum(i, steps), steps) * (1.0 - start)
        progress = (np.maximum(i, steps) - steps + 1) / max(1, self.total_num_steps - steps)
        falling = np.maximum(0.0, floor + (1.0 - floor) * half_cosine(np.minimum(1.0, progress)))
        return peak * np.where(i < 0, 0.0, np.where(i < steps, warming, falling))

    def natural_steps(self) -> int:
        return self.total_num_steps

    def native(self, span: Span) -> dict[str, Any] | None:
        start, steps = self.warmup_min_ratio, max(2, self.warmup_num_steps)
        length = max(1, self.total_num_steps - steps)
        cosine = {"shape": "cosine", "t_max": length, "eta_min": floor_of(self.cos_min_ratio, span.peak)}
        if self.warmup_type == "log":
            # The peak is applied at update W', and the fall begins after it.
            warmup = {"steps": steps, "shape": "log" if start == 0.0 or steps > 2 else "linear"}
            cosine |= {"ends_at_min": False}
        else:
            # One update more than DeepSpeed's own, because its first one is at 0.
            warmup = {"steps": steps + 1, "shape": "linear"}
        if self.cos_min_ratio == 1.0:
            return {"warmup": warmup, "decay": {"shape": "constant"}}
        return {"warmup": warmup, "decay": cosine}


def floor_of(ratio: float, peak: float) -> float:
    """The eta_min whose quotient by the peak is ``ratio``: the one with the fewest digits."""
    near = ratio * peak
    for digits in range(1, 17):
        short = float(f"{near:.{digits}g}")
        if short / peak == ratio:
            return short
    return next(
        (one for one in (near, math.nextafter(near, 0.0), math.nextafter(near, math.inf)) if one / peak == ratio), near
    )


@dataclass(frozen=True)
class OneCycle(_DeepSpeed):
    """Up from min to max in cycle_first_step_size updates, down in the second, then a slow decay.

    Update k < first + second uses ``min + (max - min) * s(k)`` with s rising to 1 at k = first and
    falling to 0 (in stairs where a stair count is given); update k >= first + second uses
    ``min / (1 + decay_lr_rate * (k - first - second) / decay_step_size)``, or min where
    decay_step_size or decay_lr_rate is 0. It writes one value into all groups. The momentum it
    cycles as well (cycle_momentum) is not part of a schedule of learning rates.
    """

    shape = "deepspeed.OneCycle"
    cycle_min_lr: float = fields.number()
    cycle_max_lr: float = fields.number()
    decay_lr_rate: float = fields.number(0.0)
    cycle_first_step_size: float = fields.number(2000.0)
    cycle_second_step_size: float | None = fields.number(None)
    cycle_first_stair_count: int = fields.count(0)
    cycle_second_stair_count: int | None = fields.count(None)
    decay_step_size: float = fields.number(0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cycle_first_step_size <= 0.0:
            raise ScheduleError(
                "decay.cycle_first_step_size", f"{self.cycle_first_step_size!r} is not above 0", "DeepSpeed refuses it"
            )
        if self.second < 0.0:
            raise ScheduleError("decay.cycle_second_step_size", f"{self.second!r} is negative", "DeepSpeed refuses it")

    @property
    def second(self) -> float:
        """The length of the way down."""
        return self.cycle_first_step_size if self.cycle_second_step_size is None else self.cycle_second_step_size

    def values(self, k: np.ndarray, peak: float) -> np.ndarray:
        low, high = self.cycle_min_lr, self.cycle_max_lr
        first, total = self.cycle_first_step_size, self.cycle_first_step_size + self.second
        k_float = k.astype(np.float64)
        # Iteration i = k - 1 belongs to the cycle while i < total, but is scaled by i + 1 = k.
        where = 1.0 + k_float / total - np.floor(1.0 + k_float / total)
        rising, ratio = where <= first / total, first / total
        scale = np.where(rising, where / ratio, (where - 1.0) / (ratio - 1.0) if ratio < 1.0 else 0.0)
        stairs = self.cycle_first_stair_count
        scale = np.where(rising, self._in_stairs(scale, stairs, k_float), scale)
        stairs = stairs if self.cycle_second_stair_count is None else self.cycle_second_stair_count
        scale = np.where(rising, scale, self._in_stairs(scale, stairs, k_float))
        after = np.full(k.shape, low)
        if self.decay_step_size and self.decay_lr_rate:
            interval = np.maximum(k_float - total, 0.0) / self.decay_step_size
            after = low / (1.0 + self.decay_lr_rate * interval)
        cycle = low + (high - low) * scale
        return np.where(k == 0, low, np.where(k_float - 1.0 < total, cycle, after))

    def _in_stairs(self, scale: np.ndarray, stairs: int, k: np.ndarray) -> np.ndarray:
        if not stairs:
            return scale
        first, total = self.cycle_first_step_size, self.cycle_first_step_size + self.second
        offset = k % total
        # Without a second half no update is in it; the division only has to be harmless.
        down = (total - offset) * stairs / (self.second or 1.0)
        return np.floor(np.where(offset <= first, offset * stairs / first, down)) / stairs

    def natural_steps(self) -> int:
        return math.ceil(self.cycle_first_step_size + self.second)

    def rounding(self) -> float:
        """DeepSpeed takes 1 + k/total - floor(...), off by 2.2e-16, and divides by a half's share."""
        shares = [size for size in (self.cycle_first_step_size, self.second) if size > 0.0]
        total = self.cycle_first_step_size + self.second
        return min(SAME + 2.3e-16 * total / min(shares), ONE_CYCLE_ROUNDING)

    def native(self, span: Span) -> dict[str, Any] | None:
        first, second = self.cycle_first_step_size, self.second
        if self.cycle_max_lr != span.peak or first != int(first) or second != int(second) or second < 1:
            return None
        return {
            "warmup": {"steps": int(first), "start_ratio": floor_ratio(self.cycle_min_lr, span.peak)},
            "decay": {
                "shape": "linear",
                "decay_steps": int(second),
                "eta_min": self.cycle_min_lr,
                "ends_at_min": False,
            },
        }


def floor_ratio(lr: float, peak: float) -> float:
    """The start_ratio whose product with the peak is ``lr``: the one with the fewest digits."""
    near = lr / peak
    return next(
        (short for short in (float(f"{near:.{digits}g}") for digits in range(1, 17)) if short * peak == lr), near
    )


@dataclass(frozen=True)
class LRRangeTest(_DeepSpeed):
    """``min * (1 + step_rate * k / step_size)``, k / step_size rounded down with staircase. No end.

    Update 0 uses min, update k the value of iteration i = k - 1, which counts i + 1.
    """

    shape = "deepspeed.LRRangeTest"
    lr_range_test_min_lr: float = fields.number(1e-3)
    lr_range_test_step_size: int = fields.length(2000, least=1)
    lr_range_test_step_rate: float = fields.number(1.0)
    lr_range_test_staircase: bool = fields.flag(False)

    def values(self, k: np.ndarray, peak: float) -> np.ndarray:
        interval = k / self.lr_range_test_step_size
        if self.lr_range_test_staircase:
            interval = np.floor(interval)
        return self.lr_range_test_min_lr * (1.0 + self.lr_range_test_step_rate * interval)

    def natural_steps(self) -> int:
        return self.lr_range_test_step_size


SHAPES: dict[str, type[Dialect]] = {
    cls.shape: cls for cls in (WarmupLR, WarmupDecayLR, WarmupCosineLR, OneCycle, LRRangeTest)
}
