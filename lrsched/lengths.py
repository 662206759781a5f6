"""Lengths: a whole number of optimizer updates, or text with a unit.

======================  =======================================================
``500``, ``"500"``      500 updates
``"500 steps"``         500 updates
``"3%"``                3 percent of ``total_steps``
``"2 epochs"``          2 x ``steps_per_epoch``; "0.5 epochs" is fine too
======================  =======================================================

A percentage or a number of epochs is rounded to the nearest whole update, a half upwards. One
that is not zero but rounds to zero is refused rather than dropped. A bare fraction such as
0.1 is refused as well: no number here changes its meaning at 1.
"""

from __future__ import annotations

import math
import numbers
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from lrsched.errors import ScheduleError
from lrsched.numeric import LARGEST_LENGTH

_TEXT = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>%|steps?|epochs?)?", re.ASCII)
_FORMS = "write a whole number of updates such as 500, or '3%', or '2 epochs'"


@dataclass(frozen=True)
class Units:
    """What the units of a length stand for; None where it is not known."""

    total_steps: int | None = None
    steps_per_epoch: float | None = None

    def __post_init__(self) -> None:
        per_epoch = self.steps_per_epoch
        if per_epoch is None:
            return
        is_number = isinstance(per_epoch, numbers.Real) and not isinstance(per_epoch, bool)
        if not is_number or not math.isfinite(per_epoch) or per_epoch <= 0:
            raise ScheduleError(
                "steps_per_epoch",
                f"{per_epoch!r} is not a number of optimizer updates",
                "give a positive number",
            )

    def resolve(self, value: Any, field: str, least: int = 0) -> int:
        """``value`` as a whole number of updates, at least ``least``; ScheduleError otherwise."""
        steps = self._steps(value, field)
        shown = "" if value == steps else f" (from {value!r})"
        if steps < least:
            what = "negative" if steps < 0 else "too short"
            raise ScheduleError(field, f"{steps}{shown} is {what}", f"it must be at least {least}")
        if steps > LARGEST_LENGTH:
            raise ScheduleError(field, f"{steps}{shown} is too long", "at most 2**53")
        return steps

    def _steps(self, value: Any, field: str) -> int:
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            return int(value)
        if isinstance(value, numbers.Real) and not isinstance(value, bool):
            raise ScheduleError(field, f"{value!r} is not a length", _instead_of(float(value)))
        match = _TEXT.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ScheduleError(field, f"{value!r} is not a length", _FORMS)
        number, unit = Fraction(match["number"]), match["unit"] or "steps"
        if unit.startswith("step"):
            if number.denominator != 1:
                raise ScheduleError(field, f"{value!r} is not a whole number of updates", _FORMS)
            return int(number)
        return self._rounded(number * self._size_of(unit, value, field), value, field)

    def _size_of(self, unit: str, value: str, field: str) -> Fraction:
        if unit == "%":
            if self.total_steps is None:
                raise ScheduleError(
                    field, f"{value!r} is a part of total_steps, which is not known here", "give updates"
                )
            return Fraction(self.total_steps, 100)
        if self.steps_per_epoch is None:
            raise ScheduleError(
                field,
                f"{value!r} is in epochs, but the number of updates per epoch is not known here",
                "pass steps_per_epoch, or write the length in updates",
            )
        return Fraction(self.steps_per_epoch)

    @staticmethod
    def _rounded(exact: Fraction, value: str, field: str) -> int:
        steps = math.floor(exact + Fraction(1, 2))
        if steps == 0 and exact > 0:
            raise ScheduleError(
                field,
                f"{value!r} is {float(exact):.3g} updates, which rounds to 0",
                "write 0 or 1 instead",
            )
        return steps


def _instead_of(value: float) -> str:
    """What to write instead of a float."""
    if 0 < value < 1:
        return f"write '{value * 100:.6g}%' for that part of total_steps, or a whole number of updates"
    if math.isfinite(value) and value == int(value):
        return f"write {int(value)}, without a point or exponent"
    return _FORMS
