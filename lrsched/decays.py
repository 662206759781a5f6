"""Decay shapes: what the updates from k = W on use, as functions of j = k - W.

A shape is one small frozen dataclass with a line in ``DECAYS``: its fields (fields.py says how
they are read), ``resolved`` for what only the whole schedule can check, ``lr`` and ``phrase``.
``D`` is the number of decay updates of the run, total_steps - W, so j runs from 0 to D-1; a
shape answers for larger j too.
"""

from __future__ import annotations

import bisect
import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from lrsched import fields
from lrsched.errors import ScheduleError
from lrsched.numeric import Steps, Values, at_least, at_most, between, cos_pi, power


class Decay(fields.Section):
    """A decay shape."""

    section = "decay"
    shape: ClassVar[str]

    def resolved(self, decay_steps: int, peak: float) -> Decay:
        """This shape with its defaults filled in for D decay updates, or ScheduleError."""
        return self

    def lr(self, j: Steps, peak: float) -> Values:
        """The learning rate of the j-th decay update (from 0)."""
        raise NotImplementedError

    def phrase(self, peak: float) -> str:
        """The shape in words, to follow "then "."""
        raise NotImplementedError


def _check_floor(eta_min: float, peak: float) -> None:
    if not 0.0 <= eta_min <= peak:
        raise ScheduleError("decay.eta_min", f"{eta_min!r} is not from 0 to peak_lr {peak!r}", "lower it")


def _resolved_length(name: str, value: int | None, decay_steps: int, unfinished: bool) -> int:
    """The length of a decay: ``value``, or all D updates; ScheduleError if D is too few."""
    field = f"decay.{name}"
    if value is None:
        value = decay_steps
        if value < 1:
            raise ScheduleError(
                field, "the warm-up leaves no update for the decay", "shorten it or use decay shape constant"
            )
    if value > decay_steps and not unfinished:
        raise ScheduleError(
            field,
            f"{value} is longer than the {decay_steps} updates from the end of the warm-up to total_steps",
            f"write at most {decay_steps}, or allow_unfinished: true if the run shall end before the decay",
        )
    return value


@dataclass(frozen=True)
class Constant(Decay):
    """The peak, for ever. Matches transformers' constant and constant_with_warmup."""

    shape = "constant"

    def lr(self, j: Steps, peak: float) -> Values:
        return j * 0.0 + peak if not isinstance(j, int) else peak

    def phrase(self, peak: float) -> str:
        return f"constant at {peak!r}"


@dataclass(frozen=True)
class Cosine(Decay):
    """``eta_min + (peak - eta_min) * (1 + cos(pi p)) / 2`` with progress p from 0 to 1.

    t_max: T_max, the updates from peak to eta_min; default D. eta_min: the floor, from 0 to the
    peak. after: what comes when p has reached 1:

    - hold: eta_min from then on (DeepSpeed's WarmupCosineLR).
    - rise: back up to the peak and so on, period 2 t_max (torch CosineAnnealingLR past T_max).
    - restart: p = (j mod t_max) / t_max, that is ``0.5 lr_max (1 + cos(pi (step % T) / T))``:
      every t_max updates the peak again (SGDR, Loshchilov & Hutter 2017, with equal cycles).

    ends_at_min: true makes p = (j+1)/t_max, so the last of the t_max updates trains at exactly
    eta_min and none at exactly the peak; false makes p = j/t_max, so the first trains at exactly
    the peak (torch, transformers) and the update after the last would be at eta_min. Default:
    true for hold, false for rise. A restart always begins at the peak; true is refused there.

    allow_unfinished: permits a t_max longer than D, a decay that the end of the run cuts off.
    """

    shape = "cosine"
    t_max: int | None = fields.length(None, least=1)
    eta_min: float = fields.number(0.0)
    after: str = fields.choice("hold", "rise", "restart")
    ends_at_min: bool | None = fields.flag(None)
    allow_unfinished: bool = fields.flag(False)

    def resolved(self, decay_steps: int, peak: float) -> Cosine:
        _check_floor(self.eta_min, peak)
        if self.ends_at_min and self.after == "restart":
            raise ScheduleError(
                "decay.ends_at_min",
                "true does not apply to after: restart, whose cycles begin at exactly the peak",
                "write false, or after: hold",
            )
        ends_at_min = self.after == "hold" if self.ends_at_min is None else self.ends_at_min
        t_max = _resolved_length("t_max", self.t_max, decay_steps, self.allow_unfinished)
        return dataclasses.replace(self, t_max=t_max, ends_at_min=ends_at_min)

    def lr(self, j: Steps, peak: float) -> Values:
        t_max, early = self.t_max, int(bool(self.ends_at_min))
        assert t_max is not None, "resolved() fills t_max in"
        # Whole numbers are reduced before anything is divided, so huge j stay exact.
        if self.after == "hold":
            i = at_most(j, t_max - early) + early
        elif self.after == "restart":
            i = j % t_max
        else:
            i = (j % (2 * t_max) + early) % (2 * t_max)
            i = at_most(i, 2 * t_max - i)
        return between(self.eta_min, peak, (1.0 + cos_pi(i / t_max)) / 2.0)

    def phrase(self, peak: float) -> str:
        after = {
            "hold": f"then held at {self.eta_min!r}",
            "rise": f"then rising back to {peak!r}, period {2 * (self.t_max or 0)}",
            "restart": f"starting again at {peak!r} every {self.t_max} updates",
        }[self.after]
        return f"cosine from {peak!r} to {self.eta_min!r} over {self.t_max} updates ({after})"


@dataclass(frozen=True)
class Linear(Decay):
    """``eta_min + (peak - eta_min) * (1 - p)``, then eta_min.

    decay_steps: updates from peak to eta_min; default D. eta_min: from 0 to the peak.
    ends_at_min: true (default) makes p = (j+1)/decay_steps, so the last of them trains at
    exactly eta_min; false makes p = j/decay_steps (transformers' linear, torch LinearLR).
    allow_unfinished: permits decay_steps longer than D.
    """

    shape = "linear"
    decay_steps: int | None = fields.length(None, least=1)
    eta_min: float = fields.number(0.0)
    ends_at_min: bool = fields.flag(True)
    allow_unfinished: bool = fields.flag(False)

    def resolved(self, decay_steps: int, peak: float) -> Linear:
        _check_floor(self.eta_min, peak)
        steps = _resolved_length("decay_steps", self.decay_steps, decay_steps, self.allow_unfinished)
        return dataclasses.replace(self, decay_steps=steps)

    def lr(self, j: Steps, peak: float) -> Values:
        assert self.decay_steps is not None, "resolved() fills decay_steps in"
        last = self.decay_steps - int(self.ends_at_min)
        left = at_least(last - j, 0)
        return between(self.eta_min, peak, left / self.decay_steps)

    def phrase(self, peak: float) -> str:
        return (
            f"linear from {peak!r} to {self.eta_min!r} over {self.decay_steps} updates (then held at {self.eta_min!r})"
        )


def _check_gamma(gamma: float) -> None:
    if not 0.0 < gamma <= 1.0:
        raise ScheduleError(
            "decay.gamma", f"{gamma!r} is not above 0 and at most 1", "the peak is the highest learning rate"
        )


@dataclass(frozen=True)
class Step(Decay):
    """``peak * gamma ** (j // step_size)``, also past total_steps (torch StepLR).

    step_size: updates between two drops, counted from the start of the decay (j, not k), as
    torch's StepLR does inside a SequentialLR after a warm-up. gamma: above 0, at most 1.
    """

    shape = "step"
    step_size: int = fields.length(least=1)
    gamma: float = fields.number(0.1)

    def resolved(self, decay_steps: int, peak: float) -> Step:
        _check_gamma(self.gamma)
        return self

    def lr(self, j: Steps, peak: float) -> Values:
        return peak * power(self.gamma, j // self.step_size)

    def phrase(self, peak: float) -> str:
        return f"{peak!r} times {self.gamma!r} after every {self.step_size} updates"


@dataclass(frozen=True)
class MultiStep(Decay):
    """``peak * gamma ** (number of milestones <= j)``, also past total_steps (torch MultiStepLR).

    milestones: numbers of updates counted from the start of the decay (j, not k), as torch's
    MultiStepLR does inside a SequentialLR after a warm-up; update j = milestone is the first at
    the lower rate. In rising order; one written twice multiplies twice, as in torch. Each must
    lie inside the run (below D), or it could never take effect. gamma: above 0, at most 1.
    """

    shape = "multistep"
    milestones: tuple[int, ...] = fields.lengths()
    gamma: float = fields.number(0.1)

    def resolved(self, decay_steps: int, peak: float) -> MultiStep:
        _check_gamma(self.gamma)
        if list(self.milestones) != sorted(self.milestones):
            raise ScheduleError("decay.milestones", f"{list(self.milestones)} does not rise", "sort them")
        if self.milestones and self.milestones[-1] >= decay_steps:
            raise ScheduleError(
                "decay.milestones",
                f"{self.milestones[-1]} is never reached in the {decay_steps} updates of the decay",
                "milestones count from the end of the warm-up; leave it out or lengthen total_steps",
            )
        return self

    def lr(self, j: Steps, peak: float) -> Values:
        if isinstance(j, int):
            return peak * power(self.gamma, bisect.bisect_right(self.milestones, j))
        import numpy as np

        return peak * power(self.gamma, np.searchsorted(np.array(self.milestones, np.int64), j, side="right"))

    def phrase(self, peak: float) -> str:
        at = ", ".join(map(str, self.milestones)) or "none"
        return f"{peak!r} times {self.gamma!r} at each of these updates after the warm-up: {at}"


@dataclass(frozen=True)
class Exponential(Decay):
    """``peak * gamma ** j``, also past total_steps (torch ExponentialLR).

    gamma: the factor per update, above 0, at most 1; there is no default.
    """

    shape = "exponential"
    gamma: float = fields.number()

    def resolved(self, decay_steps: int, peak: float) -> Exponential:
        _check_gamma(self.gamma)
        return self

    def lr(self, j: Steps, peak: float) -> Values:
        return peak * power(self.gamma, j)

    def phrase(self, peak: float) -> str:
        return f"{peak!r} times {self.gamma!r} at every update"


DECAYS: dict[str, type[Decay]] = {cls.shape: cls for cls in (Constant, Cosine, Linear, Step, MultiStep, Exponential)}
