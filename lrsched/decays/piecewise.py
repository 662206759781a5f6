"""Several shapes one after the other."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from lrsched import fields
from lrsched.decays.base import Decay, Span, check_rise
from lrsched.errors import ScheduleError
from lrsched.lengths import Units
from lrsched.numeric import Steps, Values, joined
from lrsched.warmups import Warmup

# Pieces that a sentence tells of.
_TOLD = 6


def _read_shape(value: Any, units: Units, where: str) -> Decay:
    from lrsched.shapes import read_decay

    return value if isinstance(value, Decay) else read_decay(value, units)


def _read_warmup(value: Any, units: Units, where: str) -> Warmup:
    return value if isinstance(value, Warmup) else fields.read_section(Warmup, fields.as_mapping(value, where), units)


def _constant() -> Decay:
    from lrsched.decays.stepped import Constant

    return Constant()


@dataclass(frozen=True)
class Piece(fields.Section):
    """A part of a piecewise decay: a small schedule of its own.

    steps: its updates; left out in the last piece only, which then lasts to the end of the run.
    peak_ratio: its peak as a part of peak_lr, from 0 to 1. warmup, decay: as in a schedule,
    relative to that peak and counted from the first update of the piece; lengths in percent
    are parts of total_steps all the same.
    """

    steps: int | None = fields.length(None, least=1)
    peak_ratio: float = fields.number(1.0)
    warmup: Warmup = field(default_factory=Warmup, metadata={"read": _read_warmup})
    decay: Decay = field(default_factory=_constant, metadata={"read": _read_shape})

    def resolved(self, span: Span) -> Piece:
        """This piece for the updates of ``span``, whose peak is that of the whole schedule."""
        if not 0.0 <= self.peak_ratio <= 1.0:
            raise ScheduleError("peak_ratio", f"{self.peak_ratio!r} is not from 0 to 1", "it is a part of peak_lr")
        if self.warmup.steps > span.steps:
            raise ScheduleError(
                "warmup.steps",
                f"{self.warmup.steps} is more than the piece's {span.steps} updates",
                "shorten the warm-up or lengthen the piece",
            )
        check_rise(self.decay, self.warmup.steps)
        return dataclasses.replace(self, steps=span.steps, decay=self.decay.resolved(self._own(span)))

    def _own(self, span: Span) -> Span:
        warm = self.warmup.steps
        return Span(span.peak * self.peak_ratio, warm, span.steps - warm)

    def lr(self, i: Steps, span: Span) -> Values:
        """The learning rate of the piece's i-th update."""
        own = self._own(span)
        if not self.warmup.steps:
            return self.decay.lr(i, own)
        return joined(i, self.warmup.steps, lambda k: self.warmup.lr(k, own.peak), lambda j: self.decay.lr(j, own))

    def phrase(self, span: Span) -> str:
        own = self._own(span)
        rise = self.warmup.phrase(own.peak) if self.warmup.steps else ""
        fall = self.decay.phrase(own) if own.steps else ""
        return f"for {span.steps} updates: {', then '.join(filter(None, (rise, fall)))}"

    def to_dict(self) -> dict[str, Any]:
        warmup = {"warmup": self.warmup.to_dict()} if self.warmup != Warmup() else {}
        return {"steps": self.steps, "peak_ratio": self.peak_ratio, **warmup, "decay": self.decay.to_mapping()}


def _read_pieces(value: Any, units: Units, where: str) -> tuple[Piece, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise ScheduleError(where, f"{value!r} is not a list of pieces", "write one such as [{steps: 100}, {}]")
    pieces = []
    for i, one in enumerate(value):
        if isinstance(one, Piece):
            pieces.append(one)
            continue
        try:
            pieces.append(fields.read_section(Piece, fields.as_mapping(one, "piece"), units))
        except ScheduleError as error:
            raise error.under(f"{where}[{i}]") from None
    return tuple(pieces)


@dataclass(frozen=True)
class Piecewise(Decay):
    """Pieces one after the other, each a small schedule of its own (torch SequentialLR).

    pieces: a list of mappings with steps, peak_ratio, warmup and decay (see ``Piece``). Together
    they have as many updates as the decay; the last one may leave ``steps`` out. It also says
    what comes past the end of the run. Where two pieces meet, the curve may jump.

    >>> from lrsched import Piece, Piecewise, Schedule
    >>> schedule = Schedule(peak_lr=1.0, total_steps=4, decay=Piecewise(pieces=[Piece(steps=2), Piece(peak_ratio=0.5)]))
    >>> [round(schedule.lr(k), 4) for k in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.5]
    """

    shape = "piecewise"
    pieces: tuple[Piece, ...] = field(metadata={"read": _read_pieces})

    def resolved(self, span: Span) -> Piecewise:
        pieces, left = [], span.steps
        for i, piece in enumerate(self.pieces):
            where, last = f"decay.pieces[{i}]", i == len(self.pieces) - 1
            steps = self._steps_of(piece, left, last, span, where)
            try:
                pieces.append(piece.resolved(Span(span.peak, 0, steps)))
            except ScheduleError as error:
                raise error.under(where) from None
            left -= steps
        return dataclasses.replace(self, pieces=tuple(pieces))

    def _steps_of(self, piece: Piece, left: int, last: bool, span: Span, where: str) -> int:
        if piece.steps is None and not last:
            raise ScheduleError(f"{where}.steps", "is missing", "only the last piece may leave it out")
        steps = left if piece.steps is None else piece.steps
        if steps > left or (last and steps < left) or steps < 1:
            total = sum(one.steps or 0 for one in self.pieces)
            raise ScheduleError(
                f"{where}.steps",
                f"the pieces have {total} updates together, the decay has {span.steps}",
                "make them equal, or leave out the steps of the last piece",
            )
        return steps

    def lr(self, j: Steps, span: Span) -> Values:
        if isinstance(j, int):
            return self._at(j, span.peak)
        import numpy as np

        # The last piece goes on past its end, so it has no boundary.
        bounds = np.cumsum([piece.steps or 0 for piece in self.pieces[:-1]])
        number = np.searchsorted(bounds, j, side="right")
        first, last = (int(number.min()), int(number.max())) if j.size else (0, -1)
        values = np.empty(j.shape, np.float64)
        for i in range(first, last + 1):
            here, piece = number == i, self.pieces[i]
            begin = int(bounds[i - 1]) if i else 0
            values[here] = piece.lr(j[here] - begin, Span(span.peak, 0, piece.steps or 0))
        return values

    def _at(self, j: int, peak: float) -> float:
        for piece in self.pieces[:-1]:
            if j < (piece.steps or 0):
                break
            j -= piece.steps or 0
        else:
            piece = self.pieces[-1]
        return float(piece.lr(j, Span(peak, 0, piece.steps or 0)))

    def phrase(self, span: Span) -> str:
        parts = [piece.phrase(Span(span.peak, 0, piece.steps or 0)) for piece in self.pieces]
        if len(parts) > _TOLD:
            parts = [*parts[: _TOLD - 2], f"{len(parts) - _TOLD + 1} more pieces", parts[-1]]
        return "; then ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        return {"pieces": [piece.to_dict() for piece in self.pieces]}
