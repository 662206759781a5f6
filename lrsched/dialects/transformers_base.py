"""What the dialect of transformers builds on: its warm-up, its waves, its keywords."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrsched import fields
from lrsched.decays.base import Span
from lrsched.dialects.base import Dialect
from lrsched.numeric import LARGEST_LENGTH, half_cosine

# 2 pi minus the double nearest to it.
_TAU_REST = 2.4492935982947064e-16


def wave(num_cycles: float, progress: np.ndarray) -> np.ndarray:
    """(1 + cos(a)) / 2 for the angle a = 2 pi num_cycles progress, rounded as transformers rounds it.

    The turns are taken off exactly, because over many of them the angle's own rounding shows.
    """
    angle = np.abs(math.pi * num_cycles * 2.0 * progress)
    rest = np.fmod(angle, math.tau)
    turns = np.rint((angle - rest) / math.tau)
    # From -pi to pi, where a double holds more digits than up to 2 pi.
    rest = np.where(rest > math.pi, rest - math.tau, rest) - np.where(rest > math.pi, turns + 1.0, turns) * _TAU_REST
    return half_cosine(np.minimum(np.abs(rest) / math.pi, 1.0))


def half_wave_steps(steps: int, num_cycles: float) -> int | None:
    """The whole number of updates nearest to half a wave, if there is one."""
    cycles = 2.0 * abs(num_cycles)
    half = steps / cycles if cycles else math.inf
    return (round(half) or None) if half <= LARGEST_LENGTH else None


def ramp(steps: int, kind: str, start: float) -> dict[str, Any]:
    """The native warm-up, plain where there is none."""
    return {"steps": steps, "shape": kind, "start_ratio": start} if steps else {"steps": 0}


class Transformers(Dialect):
    """A scheduler of transformers."""

    library = "transformers"


@dataclass(frozen=True, kw_only=True)
class Warmed(Transformers):
    """k / max(1, W) for k < W, then ``after``."""

    num_warmup_steps: int = fields.length(0)

    def values(self, k: np.ndarray, peak: float) -> np.ndarray:
        # Each part is only asked for updates of its own, so that it cannot divide by zero.
        first = self.num_warmup_steps
        rising, falling = self.rise(np.minimum(k, first)), self.after(np.maximum(k, first), peak)
        return peak * np.where(k < first, rising, falling)

    def rise(self, k: np.ndarray) -> np.ndarray:
        """f(k) for k < W."""
        return k / max(1, self.num_warmup_steps)

    def after(self, k: np.ndarray, peak: float) -> np.ndarray:
        """f(k) for k >= W."""
        raise NotImplementedError

    def natural_steps(self) -> int:
        return self.num_warmup_steps + 1

    def native(self, span: Span) -> dict[str, Any] | None:
        decay = self.native_decay(span.peak)
        return None if decay is None else {"warmup": {"steps": self.num_warmup_steps}, "decay": decay}

    def native_decay(self, peak: float) -> dict[str, Any] | None:
        """The decay of the native schedule that this may be."""
        return None


@dataclass(frozen=True, kw_only=True)
class Trained(Warmed):
    """One that is also told T."""

    num_training_steps: int = fields.length()

    @property
    def down(self) -> int:
        """M, the updates that progress is divided by."""
        return max(1, self.num_training_steps - self.num_warmup_steps)

    def natural_steps(self) -> int:
        return self.num_training_steps


def scheduler_fields(cls: type[Dialect]) -> list[str]:
    """The lengths and keywords that a shape takes, in order."""
    return [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]


def scheduler_kwargs(shape: Dialect) -> dict[str, Any]:
    """The scheduler_specific_kwargs of a shape: the fields that are not at their default."""
    lengths = ("num_warmup_steps", "num_training_steps")
    values = {
        field.name: getattr(shape, field.name)
        for field in dataclasses.fields(shape)  # type: ignore[arg-type]
        if field.name not in lengths and getattr(shape, field.name) != field.default
    }
    # Restarts are counted in ints, as transformers' own default is.
    if shape.shape == "transformers.cosine_with_restarts" and values.get("num_cycles", 0.5).is_integer():
        values["num_cycles"] = int(values["num_cycles"])
    return values
