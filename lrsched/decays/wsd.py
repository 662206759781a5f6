"""Warm-up, stable, decay: the peak for most of the run, then a short way down."""

from __future__ import annotations

from dataclasses import dataclass

from lrsched import fields
from lrsched.decays.base import Decay, Span, check_floor, end_phrase, resolved_length
from lrsched.numeric import Steps, Values, at_least, at_most, between, half_cosine, sqrt


def _linear(progress: Values) -> Values:
    return 1.0 - progress


def _one_minus_sqrt(progress: Values) -> Values:
    return 1.0 - sqrt(progress)


_DOWN = {"linear": _linear, "cosine": half_cosine, "1-sqrt": _one_minus_sqrt}


@dataclass(frozen=True)
class Wsd(Decay):
    """The peak, then ``eta_min + (peak - eta_min) * down(p)`` in the last updates of the run.

    Warm-up-stable-decay (Hu et al. 2024, MiniCPM; Hägele et al. 2024; transformers'
    warmup_stable_decay with ends_at_min: false). The stable part has D - decay_steps updates.

    decay_steps: updates of the last part, at most D. decay_shape: linear (1 - p), cosine
    ((1 + cos(pi p)) / 2) or 1-sqrt (1 - sqrt(p)). eta_min: from 0 to the peak; held past the
    end. ends_at_min: true (default) makes p = i/decay_steps for the i-th of them counted from 1,
    so the last update of the run trains at exactly eta_min; false counts from 0.

    >>> from lrsched import Schedule, Wsd
    >>> schedule = Schedule(peak_lr=1.0, total_steps=4, decay=Wsd(decay_steps=2))
    >>> [round(schedule.lr(k), 4) for k in range(5)]
    [1.0, 1.0, 0.5, 0.0, 0.0]
    """

    shape = "wsd"
    decay_steps: int = fields.length(least=1)
    decay_shape: str = fields.choice(*_DOWN)
    eta_min: float = fields.number(0.0)
    ends_at_min: bool = fields.flag(True)

    def resolved(self, span: Span) -> Wsd:
        check_floor(self.eta_min, span.peak)
        resolved_length("decay_steps", self.decay_steps, span, unfinished=False)
        return self

    def lr(self, j: Steps, span: Span) -> Values:
        first = span.steps - self.decay_steps - int(self.ends_at_min)
        i = at_most(at_least(at_most(j, span.steps) - first, 0), self.decay_steps)
        return between(self.eta_min, span.peak, _DOWN[self.decay_shape](i / self.decay_steps))

    def phrase(self, span: Span) -> str:
        return (
            f"constant at {span.peak!r} for {span.steps - self.decay_steps} updates, then {self.decay_shape} "
            f"to {self.eta_min!r} over {self.decay_steps} updates"
            f"{end_phrase(self.ends_at_min, self.eta_min, span.peak)} (then held at {self.eta_min!r})"
        )
