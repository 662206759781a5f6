"""The 1cycle policy: up, down, and further down, in one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from lrsched import fields
from lrsched.decays.base import Decay, Span
from lrsched.errors import ScheduleError
from lrsched.numeric import Steps, Values, at_most, between, half_cosine, joined


def _line(progress: Values) -> Values:
    return 1.0 - progress


_ANNEAL: dict[str, Callable[[Values], Values]] = {"cosine": half_cosine, "linear": _line}


@dataclass(frozen=True)
class OneCycle(Decay):
    """From start_ratio * peak up to the peak and down to end_ratio * peak, over the whole run.

    Smith & Topin 2018, as torch's OneCycleLR applies it. The rise is part of the shape, so the
    schedule has no warm-up of its own. Between two ends a and b each part follows
    ``b + (a - b) * (1 + cos(pi p)) / 2`` (anneal: cosine) or a straight line (linear).

    up_steps: updates of the rise, the last of them at exactly the peak (torch: pct_start *
    total_steps). start_ratio: the first update, as a part of the peak (1 / div_factor).
    end_ratio: the last update of the run, as a part of the peak (1 / (div_factor *
    final_div_factor)), held past the end. three_phase: true goes down to start_ratio in another
    up_steps updates first, and from there to end_ratio.

    >>> from lrsched import OneCycle, Schedule
    >>> schedule = Schedule(peak_lr=1.0, total_steps=4, decay=OneCycle(up_steps=2, start_ratio=0.2, end_ratio=0.1))
    >>> [round(schedule.lr(k), 4) for k in range(5)]
    [0.2, 1.0, 0.55, 0.1, 0.1]
    """

    shape = "one_cycle"
    rises_itself = True
    up_steps: int = fields.length(least=2)
    start_ratio: float = fields.number(0.04)
    end_ratio: float = fields.number(4e-6)
    anneal: str = fields.choice(*_ANNEAL)
    three_phase: bool = fields.flag(False)

    def resolved(self, span: Span) -> OneCycle:
        for name in ("start_ratio", "end_ratio"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ScheduleError(f"decay.{name}", f"{value!r} is not from 0 to 1", "it is a part of peak_lr")
        if self.three_phase and self.end_ratio > self.start_ratio:
            raise ScheduleError(
                "decay.end_ratio", f"{self.end_ratio!r} is above start_ratio {self.start_ratio!r}", "lower it"
            )
        least = 2 * self.up_steps if self.three_phase else self.up_steps + 1
        if span.steps < least:
            raise ScheduleError(
                "decay.up_steps",
                f"{self.up_steps} leaves no way down in a run of {span.steps} updates",
                f"shorten it, or make the run at least {least} updates",
            )
        return dataclasses.replace(self)

    def lr(self, j: Steps, span: Span) -> Values:
        top, low, end = span.peak, self.start_ratio * span.peak, self.end_ratio * span.peak
        anneal, up, last = _ANNEAL[self.anneal], self.up_steps - 1, span.steps - 1

        def rise(i: Steps) -> Values:
            return between(low, top, 1.0 - anneal(i / up))

        def fall(i: Steps, high: float, floor: float, steps: int) -> Values:
            return between(floor, high, anneal(at_most(i, steps) / max(1, steps)))

        if not self.three_phase:
            return joined(j, up, rise, lambda i: fall(i, top, end, last - up))
        return joined(
            j,
            up,
            rise,
            lambda i: joined(i, up, lambda m: fall(m, top, low, up), lambda m: fall(m, low, end, last - 2 * up)),
        )

    def phrase(self, span: Span) -> str:
        low, end = self.start_ratio * span.peak, self.end_ratio * span.peak
        down = f"down to {low!r} over {self.up_steps - 1} more and to {end!r}" if self.three_phase else f"to {end!r}"
        return f"{self.anneal} from {low!r} up to {span.peak!r} over {self.up_steps} updates, {down} at the end"
