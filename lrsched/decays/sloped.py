"""Decays along a power of the remaining part: linear and polynomial."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from lrsched import fields
from lrsched.decays.base import Decay, Span, check_floor, cut_phrase, end_phrase, resolved_length
from lrsched.errors import ScheduleError
from lrsched.numeric import Steps, Values, at_least, between, part_power


@dataclass(frozen=True)
class Linear(Decay):
    """``eta_min + (peak - eta_min) * (1 - p)``, then eta_min.

    decay_steps: updates from peak to eta_min; default D. eta_min: from 0 to the peak.
    ends_at_min: true (default) makes p = (j+1)/decay_steps, so the last of them trains at
    exactly eta_min; false makes p = j/decay_steps (transformers' linear, torch LinearLR).
    allow_unfinished: permits decay_steps longer than D.

    >>> from lrsched import Linear, Schedule
    >>> schedule = Schedule(peak_lr=1.0, total_steps=4, decay=Linear())
    >>> [round(schedule.lr(k), 4) for k in range(5)]
    [0.75, 0.5, 0.25, 0.0, 0.0]
    """

    shape = "linear"
    decay_steps: int | None = fields.length(None, least=1)
    eta_min: float = fields.number(0.0)
    ends_at_min: bool = fields.flag(True)
    allow_unfinished: bool = fields.flag(False, quiet=True)

    def resolved(self, span: Span) -> Linear:
        check_floor(self.eta_min, span.peak)
        steps = resolved_length("decay_steps", self.decay_steps, span, self.allow_unfinished)
        return dataclasses.replace(self, decay_steps=steps)

    def lr(self, j: Steps, span: Span) -> Values:
        assert self.decay_steps is not None, "resolved() fills decay_steps in"
        left = at_least(self.decay_steps - int(self.ends_at_min) - j, 0)
        return between(self.eta_min, span.peak, left / self.decay_steps)

    def phrase(self, span: Span) -> str:
        ends, cut = end_phrase(self.ends_at_min, self.eta_min, span.peak), cut_phrase(self.decay_steps, span)
        way = f"from {span.peak!r} to {self.eta_min!r} over {self.decay_steps} updates{ends}{cut}"
        return f"{self.shape} {way} (then held at {self.eta_min!r})"


@dataclass(frozen=True)
class Polynomial(Linear):
    """``eta_min + (peak - eta_min) * (1 - p) ** power``, then eta_min.

    power: above 0; 1 is linear, 2 falls fast at first, 0.5 fast at the end (torch PolynomialLR,
    transformers' polynomial: both with ends_at_min: false). The others as for linear;
    decay_steps: default D. eta_min: default 0. ends_at_min: default true. allow_unfinished:
    default false.

    >>> from lrsched import Polynomial, Schedule
    >>> schedule = Schedule(peak_lr=1.0, total_steps=4, decay=Polynomial(power=2))
    >>> [round(schedule.lr(k), 4) for k in range(5)]
    [0.5625, 0.25, 0.0625, 0.0, 0.0]
    """

    shape = "polynomial"
    power: float = fields.number(1.0)

    def resolved(self, span: Span) -> Polynomial:
        if self.power <= 0.0:
            raise ScheduleError("decay.power", f"{self.power!r} is not above 0", "write one such as 2")
        super_resolved = super().resolved(span)
        assert isinstance(super_resolved, Polynomial)
        return super_resolved

    def lr(self, j: Steps, span: Span) -> Values:
        assert self.decay_steps is not None, "resolved() fills decay_steps in"
        left = at_least(self.decay_steps - int(self.ends_at_min) - j, 0)
        return between(self.eta_min, span.peak, part_power(left / self.decay_steps, self.power))

    def phrase(self, span: Span) -> str:
        return super().phrase(span).replace("polynomial", f"polynomial (power {self.power!r})", 1)
