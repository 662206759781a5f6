"""Decays by a factor, at every update or at some of them; and none at all."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from lrsched import fields
from lrsched.decays.base import Decay, Span, check_gamma
from lrsched.errors import ScheduleError
from lrsched.numeric import Steps, Values, power


@dataclass(frozen=True)
class Constant(Decay):
    """The peak, for ever. Matches transformers' constant and constant_with_warmup.

    >>> from lrsched import Constant, Schedule
    >>> schedule = Schedule(peak_lr=1.0, total_steps=4, decay=Constant())
    >>> [round(schedule.lr(k), 4) for k in range(5)]
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """

    shape = "constant"

    def lr(self, j: Steps, span: Span) -> Values:
        return span.peak if isinstance(j, int) else j * 0.0 + span.peak

    def phrase(self, span: Span) -> str:
        return f"constant at {span.peak!r}"


@dataclass(frozen=True)
class Step(Decay):
    """``peak * gamma ** (j // step_size)``, also past total_steps (torch StepLR).

    step_size: updates between two drops, counted from the start of the decay (j, not k), as
    torch's StepLR does inside a SequentialLR after a warm-up. gamma: above 0, at most 1.

    >>> from lrsched import Schedule, Step
    >>> schedule = Schedule(peak_lr=1.0, total_steps=4, decay=Step(step_size=2, gamma=0.5))
    >>> [round(schedule.lr(k), 4) for k in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    shape = "step"
    step_size: int = fields.length(least=1)
    gamma: float = fields.number(0.1)

    def resolved(self, span: Span) -> Step:
        check_gamma(self.gamma)
        return self

    def lr(self, j: Steps, span: Span) -> Values:
        return span.peak * power(self.gamma, j // self.step_size)

    def phrase(self, span: Span) -> str:
        return f"{span.peak!r} times {self.gamma!r} after every {self.step_size} updates"


@dataclass(frozen=True)
class MultiStep(Decay):
    """``peak * gamma ** (number of milestones <= j)``, also past total_steps (torch MultiStepLR).

    milestones: numbers of updates counted from the start of the decay (j, not k), as torch's
    MultiStepLR does inside a SequentialLR after a warm-up; update j = milestone is the first at
    the lower rate. In rising order; one written twice multiplies twice, as in torch. Each must
    lie inside the run (below D), or it could never take effect. gamma: above 0, at most 1.

    >>> from lrsched import MultiStep, Schedule
    >>> schedule = Schedule(peak_lr=1.0, total_steps=4, decay=MultiStep(milestones=[1, 3], gamma=0.5))
    >>> [round(schedule.lr(k), 4) for k in range(5)]
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """

    shape = "multistep"
    milestones: tuple[int, ...] = fields.lengths()
    gamma: float = fields.number(0.1)

    def resolved(self, span: Span) -> MultiStep:
        check_gamma(self.gamma)
        if list(self.milestones) != sorted(self.milestones):
            raise ScheduleError("decay.milestones", f"{list(self.milestones)} does not rise", "sort them")
        if self.milestones and self.milestones[-1] >= span.steps:
            raise ScheduleError(
                "decay.milestones",
                f"{self.milestones[-1]} is never reached in the {span.steps} updates of the decay",
                "milestones count from the end of the warm-up; leave it out or lengthen total_steps",
            )
        return self

    def lr(self, j: Steps, span: Span) -> Values:
        if isinstance(j, int):
            return span.peak * power(self.gamma, bisect.bisect_right(self.milestones, j))
        import numpy as np

        return span.peak * power(self.gamma, np.searchsorted(np.array(self.milestones, np.int64), j, side="right"))

    def phrase(self, span: Span) -> str:
        at = ", ".join(map(str, self.milestones)) or "none"
        return f"{span.peak!r} times {self.gamma!r} at each of these updates after the warm-up: {at}"


@dataclass(frozen=True)
class Exponential(Decay):
    """``peak * gamma ** j``, also past total_steps (torch ExponentialLR).

    gamma: the factor per update, above 0, at most 1; there is no default.

    >>> from lrsched import Exponential, Schedule
    >>> schedule = Schedule(peak_lr=1.0, total_steps=4, decay=Exponential(gamma=0.5))
    >>> [round(schedule.lr(k), 4) for k in range(5)]
    [1.0, 0.5, 0.25, 0.125, 0.0625]
    """

    shape = "exponential"
    gamma: float = fields.number()

    def resolved(self, span: Span) -> Exponential:
        check_gamma(self.gamma)
        return self

    def lr(self, j: Steps, span: Span) -> Values:
        return span.peak * power(self.gamma, j)

    def phrase(self, span: Span) -> str:
        return f"{span.peak!r} times {self.gamma!r} at every update"
