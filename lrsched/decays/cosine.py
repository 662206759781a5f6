"""Cosine annealing: held at its end, rising again, or starting anew."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrsched import fields
from lrsched.decays.base import Decay, Span, check_floor, check_gamma, cut_phrase, end_phrase, resolved_length
from lrsched.errors import ScheduleError
from lrsched.numeric import LARGEST_K, Steps, Values, at_most, between, half_cosine, power

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Cosine(Decay):
    """``eta_min + (peak - eta_min) * (1 + cos(pi p)) / 2`` with progress p from 0 to 1.

    t_max: T_max, the updates from peak to eta_min; default D. eta_min: the floor, from 0 to the
    peak. after: what comes when p has reached 1:

    - hold: eta_min from then on (DeepSpeed's WarmupCosineLR).
    - rise: back up to the peak and so on, period 2 t_max (torch CosineAnnealingLR past T_max).
    - restart: p = (j mod t_max) / t_max, that is ``0.5 lr_max (1 + cos(pi (step % T) / T))``:
      every t_max updates the peak again (SGDR, Loshchilov & Hutter 2017).

    cycle_mult: with restart, a whole number: each cycle is so many times as long as the one
    before (torch CosineAnnealingWarmRestarts' T_mult). cycle_gamma: with restart, above 0, at
    most 1: each cycle's height above eta_min, as a part of the one before.

    ends_at_min: true makes p = (j+1)/t_max, so the last of the t_max updates trains at exactly
    eta_min and none at exactly the peak; false makes p = j/t_max, so the first trains at exactly
    the peak (torch, transformers) and the update after the last would be at eta_min. Default:
    true for hold, false for rise. A restart always begins at the peak; true is refused there.

    allow_unfinished: permits a t_max longer than D, a decay that the end of the run cuts off.

    >>> from lrsched import Cosine, Schedule
    >>> schedule = Schedule(peak_lr=1.0, total_steps=4, decay=Cosine())
    >>> [round(schedule.lr(k), 4) for k in range(5)]
    [0.8536, 0.5, 0.1464, 0.0, 0.0]
    """

    shape = "cosine"
    t_max: int | None = fields.length(None, least=1)
    eta_min: float = fields.number(0.0)
    after: str = fields.choice("hold", "rise", "restart")
    cycle_mult: int = fields.count(1, least=1, quiet=True)
    cycle_gamma: float = fields.number(1.0, quiet=True)
    ends_at_min: bool | None = fields.flag(None)
    allow_unfinished: bool = fields.flag(False, quiet=True)

    def resolved(self, span: Span) -> Cosine:
        check_floor(self.eta_min, span.peak)
        check_gamma(self.cycle_gamma, "decay.cycle_gamma")
        if self.after != "restart":
            self._check_no_cycles()
        if self.ends_at_min and self.after == "restart":
            raise ScheduleError(
                "decay.ends_at_min",
                "true does not apply to after: restart, whose cycles begin at exactly the peak",
                "write false, or after: hold",
            )
        ends_at_min = self.after == "hold" if self.ends_at_min is None else self.ends_at_min
        t_max = resolved_length("t_max", self.t_max, span, self.allow_unfinished)
        return dataclasses.replace(self, t_max=t_max, ends_at_min=ends_at_min)

    def _check_no_cycles(self) -> None:
        for name in ("cycle_mult", "cycle_gamma"):
            value = getattr(self, name)
            if value != 1:
                raise ScheduleError(
                    f"decay.{name}", f"{value!r} has no effect with after: {self.after}", "write after: restart"
                )

    def lr(self, j: Steps, span: Span) -> Values:
        t_max, early = self.t_max, int(bool(self.ends_at_min))
        assert t_max is not None, "resolved() fills t_max in"
        if self.after == "restart":
            return self._restarting(j, t_max, span.peak)
        # Whole numbers are reduced before anything is divided, so huge j stay exact.
        if self.after == "hold":
            i = at_most(j, t_max - early) + early
        else:
            i = (j % (2 * t_max) + early) % (2 * t_max)
            i = at_most(i, 2 * t_max - i)
        return between(self.eta_min, span.peak, half_cosine(i / t_max))

    def _restarting(self, j: Steps, t_max: int, peak: float) -> Values:
        cycle, progress = self._position(j, t_max)
        part = half_cosine(progress)
        if self.cycle_gamma != 1.0:
            part = part * power(self.cycle_gamma, cycle)
        return between(self.eta_min, peak, part)

    def _position(self, j: Steps, t_max: int) -> tuple[Steps, Values]:
        """The number of the cycle that update j is in, and its progress there."""
        if self.cycle_mult == 1:
            return j // t_max, (j % t_max) / t_max
        if isinstance(j, int):
            # Cycle i begins at t_max * (mult**i - 1) / (mult - 1).
            cycle, start, length = 0, 0, t_max
            while j >= start + length:
                cycle, start, length = cycle + 1, start + length, length * self.cycle_mult
            # Both as floats first, as NumPy does it; beyond its range, as whole numbers.
            return cycle, float(j - start) / float(length) if j <= LARGEST_K else (j - start) / length
        import numpy as np

        starts, lengths = _cycles(t_max, self.cycle_mult)
        cycle = np.searchsorted(starts, j, side="right") - 1
        return cycle, (j - starts[cycle]) / lengths[cycle]

    def phrase(self, span: Span) -> str:
        ends, cut = end_phrase(self.ends_at_min, self.eta_min, span.peak), cut_phrase(self.t_max, span)
        text = f"cosine from {span.peak!r} to {self.eta_min!r} over {self.t_max} updates{ends}{cut}"
        if self.after == "hold":
            return f"{text} (then held at {self.eta_min!r})"
        if self.after == "rise":
            return f"{text} (then rising back to {span.peak!r}, period {2 * (self.t_max or 0)})"
        if self.cycle_mult == 1 and self.cycle_gamma == 1.0:
            return f"{text} (starting again at {span.peak!r} every {self.t_max} updates)"
        return (
            f"{text} (starting again after each cycle; a cycle is {self.cycle_mult} times as long and "
            f"{self.cycle_gamma!r} times as high as the one before)"
        )


@functools.lru_cache(maxsize=8)
def _cycles(t_max: int, mult: int) -> tuple[np.ndarray, np.ndarray]:
    """First update and length of every cycle that begins within the range of an array."""
    import numpy as np

    starts, lengths = [0], [t_max]
    while starts[-1] + lengths[-1] <= LARGEST_K:
        starts.append(starts[-1] + lengths[-1])
        lengths.append(lengths[-1] * mult)
    return np.array(starts), np.array([float(length) for length in lengths])
