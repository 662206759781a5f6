"""The inverse square root of the number of updates: T5's own pre-training curve."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from lrsched import fields
from lrsched.decays.base import Decay, Span
from lrsched.numeric import Steps, Values, as_float, at_least, sqrt

# T5's (Raffel et al. 2020, section 3.1.2), and transformers' when there is no warm-up.
T5_TIMESCALE = 10_000


@dataclass(frozen=True)
class InverseSqrt(Decay):
    """``peak * sqrt(timescale / max(k, timescale))``, for ever.

    With peak_lr 0.01 and timescale 10000 this is ``1 / sqrt(max(k, 10000))``, the curve T5 was
    pre-trained with: no ramp, constant for 10,000 updates, then falling. A warm-up before it is
    the same curve with a ramp.

    timescale: the update k at which the fall begins; default 10000 with hold, else the length of
    the warm-up or, without one, 10000 (transformers' inverse_sqrt).

    hold: true (default) counts k from the start of the run and stays at the peak while
    k <= timescale. false falls at once: ``peak * sqrt(timescale / (timescale + j))``, j counted
    from the end of the warm-up (transformers' inverse_sqrt; T5X's rsqrt_decay when timescale is
    the length of the warm-up).

    >>> from lrsched import InverseSqrt, Schedule
    >>> schedule = Schedule(peak_lr=1.0, total_steps=4, decay=InverseSqrt(timescale=1))
    >>> [round(schedule.lr(k), 4) for k in range(5)]
    [1.0, 1.0, 0.7071, 0.5774, 0.5]
    """

    shape = "inverse_sqrt"
    timescale: int | None = fields.length(None, least=1)
    hold: bool = fields.flag(True)

    def resolved(self, span: Span) -> InverseSqrt:
        default = T5_TIMESCALE if self.hold else span.start or T5_TIMESCALE
        return dataclasses.replace(self, timescale=self.timescale or default)

    def lr(self, j: Steps, span: Span) -> Values:
        timescale = self.timescale
        assert timescale is not None, "resolved() fills timescale in"
        # max(k, timescale), or timescale + j
        from_start = at_least(as_float(j, span.start), float(timescale)) if self.hold else as_float(j, timescale)
        return span.peak * sqrt(timescale / from_start)

    def phrase(self, span: Span) -> str:
        if self.hold:
            flat = f"{span.peak!r} until update {self.timescale}, then " if (self.timescale or 0) > span.start else ""
            return f"{flat}{span.peak!r} times sqrt({self.timescale} / k)"
        return f"{span.peak!r} times sqrt({self.timescale} / ({self.timescale} + updates since the warm-up))"
