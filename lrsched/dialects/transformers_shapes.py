"""transformers' schedulers, as ``get_scheduler`` and Trainer apply them (transformers/optimization.py, 5.23).

They are LambdaLRs: update k uses the optimizer's lr times f(k). W = num_warmup_steps, T =
num_training_steps, M = max(1, T - W); f(k) = k / max(1, W) for k < W unless a class says
otherwise, and each class gives f(k) for k >= W. Nothing checks that W < T: with T < W the warm-up
goes on to W all the same. Trainer's T is max_steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lrsched import fields
from lrsched.decays.base import Span
from lrsched.dialects.base import SAME, Dialect
from lrsched.dialects.deepspeed_shapes import floor_of
from lrsched.dialects.transformers_base import Trained, Transformers, Warmed, half_wave_steps, ramp, wave
from lrsched.errors import ScheduleError
from lrsched.numeric import LARGEST_LENGTH, as_float, half_cosine, part_power, sqrt

KINDS = ("linear", "cosine", "1-sqrt")
# transformers' timescale of inverse_sqrt without a warm-up.
DEFAULT_TIMESCALE = 10_000
# The most that transformers' rounding may come to, where it is still called the same curve.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Constant(Transformers):
    """1, for ever; num_warmup_steps is ignored."""

    shape = "transformers.constant"

    def values(self, k: np.ndarray, peak: float) -> np.ndarray:
        return np.full(k.shape, peak)

    def natural_steps(self) -> int:
        return 1

    def native(self, span: Span) -> dict[str, Any] | None:
        return {"decay": {"shape": "constant"}}


@dataclass(frozen=True, kw_only=True)
class ConstantWithWarmup(Warmed):
    """1; there is no T."""

    shape = "transformers.constant_with_warmup"

    def after(self, k: np.ndarray, peak: float) -> np.ndarray:
        return np.ones(k.shape)

    def native_decay(self, peak: float) -> dict[str, Any] | None:
        return {"shape": "constant"}


@dataclass(frozen=True, kw_only=True)
class InverseSqrt(Warmed):
    """``1 / sqrt((k + timescale - W) / timescale)``; timescale: default W, or 10000 without a warm-up."""

    shape = "transformers.inverse_sqrt"
    timescale: int | None = fields.length(None, least=1)

    @property
    def scale(self) -> int:
        return self.timescale or self.num_warmup_steps or DEFAULT_TIMESCALE

    def after(self, k: np.ndarray, peak: float) -> np.ndarray:
        scale = self.scale
        return 1.0 / sqrt(as_float(k, scale - self.num_warmup_steps) / scale)

    def native_decay(self, peak: float) -> dict[str, Any] | None:
        return {"shape": "inverse_sqrt", "timescale": self.scale, "hold": False}


@dataclass(frozen=True, kw_only=True)
class Linear(Trained):
    """``max(0, (T - k) / M)``; with T <= W that is 0 from update W on."""

    shape = "transformers.linear"

    def after(self, k: np.ndarray, peak: float) -> np.ndarray:
        return np.maximum(0.0, (self.num_training_steps - k) / self.down)

    def native_decay(self, peak: float) -> dict[str, Any] | None:
        return _line(self, 0.0)


@dataclass(frozen=True, kw_only=True)
class Polynomial(Trained):
    """``((lr - lr_end) * (1 - (k - W) / (T - W)) ** power + lr_end) / lr``, from k = T + 1 on lr_end / lr.

    lr is that of the whole optimizer (its ``defaults``), so a group with another one has its
    lr_end scaled along. With T < W it is lr_end from update W on. T = W is refused: transformers
    divides by zero at update W.
    """

    shape = "transformers.polynomial"
    lr_end: float = fields.number(1e-7)
    power: float = fields.number(1.0)

    def resolved(self, span: Span) -> Polynomial:
        if self.num_training_steps == self.num_warmup_steps:
            raise ScheduleError(
                "decay.num_warmup_steps",
                f"{self.num_warmup_steps} is num_training_steps, where transformers divides by zero at that update",
                "shorten the warm-up",
            )
        if not self.lr_end < span.peak:
            raise ScheduleError(
                "decay.lr_end", f"{self.lr_end!r} is not below the learning rate {span.peak!r}", "lower it"
            )
        if self.power < 0.0:
            raise ScheduleError("decay.power", f"{self.power!r} is negative", "transformers divides by zero at the end")
        return self

    def after(self, k: np.ndarray, peak: float) -> np.ndarray:
        first, last = self.num_warmup_steps, self.num_training_steps
        left = 1.0 - (np.clip(k, first, max(first, last)) - first) / self.down
        part = part_power(left, self.power) if self.power else np.ones(k.shape)
        return np.where(k > last, self.lr_end, (peak - self.lr_end) * part + self.lr_end) / peak

    def rounding(self) -> float:
        """1 - p is off by up to 1.1e-16, of which a root makes most where little is left."""
        return min(max(SAME, 5e-16 + 2.3e-16 * self.power * float(self.down) ** max(0.0, 1.0 - self.power)), ROUNDING)

    def native_decay(self, peak: float) -> dict[str, Any] | None:
        line = _line(self, self.lr_end)
        return line if self.power == 1.0 else {**line, "shape": "polynomial", "power": self.power}


def _line(shape: Trained, floor: float) -> dict[str, Any]:
    # Without any room it is at the floor at once: one update that ends at it.
    room = shape.num_training_steps > shape.num_warmup_steps
    return {"shape": "linear", "decay_steps": shape.down, "eta_min": floor, "ends_at_min": not room}


@dataclass(frozen=True, kw_only=True)
class Cosine(Trained):
    """``(1 + cos(2 pi num_cycles (k - W) / M)) / 2``.

    Past T it goes on, with 0.5 cycles back up to 1. With T <= W it is 1, 0, 1, 0 and so on.
    """

    shape = "transformers.cosine"
    num_cycles: float = fields.number(0.5)

    def after(self, k: np.ndarray, peak: float) -> np.ndarray:
        return wave(self.num_cycles, (k - self.num_warmup_steps) / self.down)

    def rounding(self) -> float:
        """The angle is rounded three times, 1.2e-15 per turn; it shows from the second half turn on."""
        return min(max(SAME, 1.5e-15 * abs(self.num_cycles)), ROUNDING)

    def native_decay(self, peak: float) -> dict[str, Any] | None:
        return self.native_wave(0.0)

    def native_wave(self, eta_min: float) -> dict[str, Any] | None:
        """A cosine that rises again, or no decay at all with 0 cycles."""
        if not self.num_cycles:
            return {"shape": "constant"}
        half = half_wave_steps(self.down, self.num_cycles)
        decay = {"shape": "cosine", "t_max": half, "eta_min": eta_min, "after": "rise", "ends_at_min": False}
        return decay if half else None


@dataclass(frozen=True, kw_only=True)
class CosineWithRestarts(Trained):
    """``(1 + cos(pi ((num_cycles (k - W) / M) mod 1))) / 2``, from progress 1 on 0.

    Where the division is rounded downwards (from 22 cycles on), a cycle ends in an update at 0
    instead of beginning anew at 1.
    """

    shape = "transformers.cosine_with_restarts"
    num_cycles: float = fields.number(1.0)

    def after(self, k: np.ndarray, peak: float) -> np.ndarray:
        progress = (k - self.num_warmup_steps) / self.down
        cycle = np.mod(self.num_cycles * np.minimum(progress, 1.0), 1.0)
        return np.where(progress >= 1.0, 0.0, half_cosine(cycle))

    def rounding(self) -> float:
        """The position is rounded twice before the whole cycles are taken off, 3.5e-16 per cycle."""
        return min(max(SAME, 5e-16 * abs(self.num_cycles)), ROUNDING)

    def native_decay(self, peak: float) -> dict[str, Any] | None:
        if self.num_cycles != 1.0:
            return None
        return {"shape": "cosine", "t_max": self.down, "after": "hold", "ends_at_min": False}


@dataclass(frozen=True, kw_only=True)
class CosineWithMinLR(Cosine):
    """``max(0, q + (1 - q) c(k))`` with c as in cosine and q = min_lr_rate, or min_lr / lr.

    lr is that of the whole optimizer, so a group with another one has its min_lr scaled along.
    Exactly one of min_lr and min_lr_rate must be given.
    """

    shape = "transformers.cosine_with_min_lr"
    min_lr: float | None = fields.number(None)
    min_lr_rate: float | None = fields.number(None)

    def resolved(self, span: Span) -> CosineWithMinLR:
        if (self.min_lr is None) == (self.min_lr_rate is None):
            problem = "is missing" if self.min_lr is None else "stands beside min_lr_rate"
            raise ScheduleError("decay.min_lr", problem, "give one of min_lr and min_lr_rate")
        return self

    def floored(self, part: np.ndarray, peak: float) -> np.ndarray:
        """``part`` of the way from the floor to 1."""
        rate = self.min_lr / peak if self.min_lr_rate is None else self.min_lr_rate  # type: ignore[operator]
        return np.maximum(0.0, part * (1.0 - rate) + rate)

    def after(self, k: np.ndarray, peak: float) -> np.ndarray:
        return self.floored(super().after(k, peak), peak)

    def native_decay(self, peak: float) -> dict[str, Any] | None:
        return self.native_wave(self.eta_min(peak))

    def eta_min(self, peak: float) -> float:
        return floor_of(self.min_lr_rate, peak) if self.min_lr is None else self.min_lr  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class CosineWarmupWithMinLR(CosineWithMinLR):
    """As cosine_with_min_lr, but one update ahead: c of (k - W + 1) / M.

    The warm-up is (k + 1) / max(1, W); with warmup_lr_rate r it is r + (1 - r) k / max(1, W - 1).
    Both are at 1 at update W - 1. Without a warm-up the first update is already below 1.
    """

    shape = "transformers.cosine_warmup_with_min_lr"
    warmup_lr_rate: float | None = fields.number(None)

    def rise(self, k: np.ndarray) -> np.ndarray:
        start, steps = self.warmup_lr_rate, self.num_warmup_steps
        if start is None:
            return as_float(k, 1) / max(1.0, steps)
        return start + (1.0 - start) * k / max(1, steps - 1)

    def after(self, k: np.ndarray, peak: float) -> np.ndarray:
        progress = as_float(k - self.num_warmup_steps, 1) / self.down
        return self.floored(wave(self.num_cycles, progress), peak)

    def native(self, span: Span) -> dict[str, Any] | None:
        decay, steps, start = self.native_decay(span.peak), self.num_warmup_steps, self.warmup_lr_rate
        if decay is None:
            return None
        if steps == 0 or (steps == 1 and start is not None):
            early = {"ends_at_min": True} if "t_max" in decay else {}
            return {"warmup": ramp(steps, "linear", start or 0.0), "decay": {**decay, **early}}
        # The last update of transformers' warm-up is at the peak, so it begins the decay here.
        return {"warmup": ramp(steps - 1, "linear", 1.0 / steps if start is None else start), "decay": decay}


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(Warmed):
    """``m + (1 - m) r(k / W)`` for k < W, 1 for S updates, ``m + (1 - m) d(i / D)`` for D, then m.

    m = min_lr_ratio, D = num_decay_steps, S = num_stable_steps, or T - W - D where that is left
    out. i = k - W - S. S may be negative: the decay then begins in its middle.
    r, by warmup_type: linear p; cosine (1 - cos(pi p)) / 2; 1-sqrt 1 - sqrt(1 - p). d, by
    decay_type: linear 1 - p; cosine (1 + cos(2 pi num_cycles p)) / 2; 1-sqrt 1 - sqrt(p).
    """

    shape = "transformers.warmup_stable_decay"
    num_training_steps: int | None = fields.length(None)
    num_decay_steps: int = fields.length()
    num_stable_steps: int | None = fields.length(None, least=-LARGEST_LENGTH)
    warmup_type: str = fields.choice(*KINDS)
    decay_type: str = fields.choice(*KINDS, default="cosine")
    min_lr_ratio: float = fields.number(0.0)
    num_cycles: float = fields.number(0.5)

    def resolved(self, span: Span) -> WarmupStableDecay:
        if self.num_training_steps is None and self.num_stable_steps is None:
            raise ScheduleError("decay.num_training_steps", "is missing", "give it or num_stable_steps")
        return self

    @property
    def stable(self) -> int:
        """S."""
        if self.num_stable_steps is not None:
            return self.num_stable_steps
        return (self.num_training_steps or 0) - self.num_warmup_steps - self.num_decay_steps

    @property
    def end(self) -> int:
        """The first update at m for good."""
        return self.num_warmup_steps + self.stable + self.num_decay_steps

    def rise(self, k: np.ndarray) -> np.ndarray:
        progress = k / max(1, self.num_warmup_steps)
        if self.warmup_type == "cosine":
            progress = 1.0 - half_cosine(progress)
        elif self.warmup_type == "1-sqrt":
            progress = 1.0 - sqrt(1.0 - progress)
        return self._floored(progress)

    def after(self, k: np.ndarray, peak: float) -> np.ndarray:
        begin, end = self.num_warmup_steps + self.stable, self.end
        progress = (np.clip(k, begin, end) - begin) / max(1, self.num_decay_steps)
        if self.decay_type == "cosine":
            part = wave(self.num_cycles, progress)
        else:
            part = 1.0 - (progress if self.decay_type == "linear" else sqrt(progress))
        return np.where(k < begin, 1.0, np.where(k < end, self._floored(part), self.min_lr_ratio))

    def _floored(self, part: np.ndarray) -> np.ndarray:
        return np.maximum(0.0, part * (1.0 - self.min_lr_ratio) + self.min_lr_ratio)

    def natural_steps(self) -> int:
        return max(1, self.end)

    def native(self, span: Span) -> dict[str, Any] | None:
        late, floor = span.steps - self.end, floor_of(self.min_lr_ratio, span.peak)
        if self.num_decay_steps < 1 or (self.decay_type == "cosine" and self.num_cycles != 0.5):
            return None
        if self.stable in (0, -1) and self.decay_type != "1-sqrt":
            name = {"cosine": "t_max", "linear": "decay_steps"}[self.decay_type]
            decay = {"shape": self.decay_type, name: self.num_decay_steps, "ends_at_min": self.stable == -1}
        elif late in (0, 1):
            decay = {"shape": "wsd", "decay_steps": self.num_decay_steps, "decay_shape": self.decay_type}
            decay |= {"ends_at_min": late == 1}
        else:
            return None
        # Over one update all warm-ups are alike; over more, there is no native 1-sqrt.
        kind = "linear" if self.warmup_type == "1-sqrt" else self.warmup_type
        warmup = ramp(self.num_warmup_steps, kind, self.min_lr_ratio)
        return {"warmup": warmup, "decay": {**decay, "eta_min": floor}}


SHAPES: dict[str, type[Dialect]] = {
    cls.shape: cls
    for cls in (
        Linear,
        Cosine,
        CosineWithRestarts,
        Polynomial,
        Constant,
        ConstantWithWarmup,
        InverseSqrt,
        CosineWithMinLR,
        CosineWarmupWithMinLR,
        WarmupStableDecay,
    )
}
