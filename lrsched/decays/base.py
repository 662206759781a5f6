"""What every decay shape is, and the checks that several of them share."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from lrsched import fields
from lrsched.errors import ScheduleError
from lrsched.numeric import Steps, Values


class Span(NamedTuple):
    """Where a shape stands: it begins at update ``start``, at ``peak``, and has ``steps`` updates.

    For the decay of a schedule, start is W and steps is D = total_steps - W.
    """

    peak: float
    start: int
    steps: int


class Decay(fields.Section):
    """A decay shape: the updates from ``span.start`` on, as a function of j = k - span.start.

    A shape is one small frozen dataclass with a line in ``DECAYS`` (or in the ``SHAPES`` of a
    dialect): its fields (fields.py says how they are read), ``resolved`` for what only the whole
    schedule can check, ``lr`` and ``phrase``. It answers for j past the end of the run, too.
    """

    section = "decay"
    shape: ClassVar[str]
    # Whether the shape brings its own rise, so that a warm-up before it makes no sense.
    rises_itself: ClassVar[bool] = False

    def resolved(self, span: Span) -> Decay:
        """This shape with its defaults filled in for ``span``, or ScheduleError."""
        return self

    def lr(self, j: Steps, span: Span) -> Values:
        """The learning rate of the j-th decay update (from 0)."""
        raise NotImplementedError

    def phrase(self, span: Span) -> str:
        """The shape in words, to follow "then "."""
        raise NotImplementedError

    def to_mapping(self) -> dict[str, Any]:
        """The YAML form, with the name of the shape."""
        return {"shape": self.shape, **self.to_dict()}


def check_floor(eta_min: float, peak: float) -> None:
    """ScheduleError unless eta_min lies from 0 to the peak."""
    if not 0.0 <= eta_min <= peak:
        raise ScheduleError("decay.eta_min", f"{eta_min!r} is not from 0 to peak_lr {peak!r}", "lower it")


def check_gamma(gamma: float, field: str = "decay.gamma") -> None:
    """ScheduleError unless gamma lies above 0 and at most at 1."""
    if not 0.0 < gamma <= 1.0:
        raise ScheduleError(field, f"{gamma!r} is not above 0 and at most 1", "the peak is the highest learning rate")


def end_phrase(ends_at_min: bool | None, eta_min: float, peak: float) -> str:
    """Which of the two ends a decay applies, in words."""
    return f", the last of them at {eta_min!r}" if ends_at_min else f", the first of them at {peak!r}"


def cut_phrase(steps: int | None, span: Span) -> str:
    """That the run ends before the decay does, in words."""
    return f", of which the run has {span.steps}" if (steps or 0) > span.steps else ""


def check_rise(decay: Decay, warmup_steps: int) -> None:
    """ScheduleError for a warm-up before a shape that brings its own rise."""
    if decay.rises_itself and warmup_steps:
        raise ScheduleError(
            "warmup.steps",
            f"{warmup_steps} before decay shape {decay.shape}, which brings its own rise",
            "leave the warm-up out",
        )


def resolved_length(name: str, value: int | None, span: Span, unfinished: bool) -> int:
    """The length of a decay: ``value``, or all D updates; ScheduleError if D is too few."""
    field = f"decay.{name}"
    if value is None:
        value = span.steps
        if value < 1:
            raise ScheduleError(
                field, "the warm-up leaves no update for the decay", "shorten it or use decay shape constant"
            )
    if value > span.steps and not unfinished:
        raise ScheduleError(
            field,
            f"{value} is longer than the {span.steps} updates from the end of the warm-up to total_steps",
            f"write at most {span.steps}, or allow_unfinished: true if the run shall end before the decay",
        )
    return value
