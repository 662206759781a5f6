"""Reading one section (a mapping) of a schedule into a frozen dataclass.

A field of such a dataclass says by its metadata how it is read ("read": a word, or a function of
value, units and dotted path), so a new decay shape is one small class and no parsing code.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from lrsched.errors import ScheduleError, dotted, joined, unknown
from lrsched.lengths import Units

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def length(default: Any = dataclasses.MISSING, *, least: int = 0, quiet: bool = False) -> Any:
    """A field that is a length (see lengths.py), at least ``least`` updates.

    quiet: leave the field out of the YAML form while it has its default. So a new field does not
    change the fingerprint of schedules written before it came.
    """
    return dataclasses.field(default=default, metadata={"read": "length", "least": least, "quiet": quiet})


def count(default: Any = dataclasses.MISSING, *, least: int = 0, quiet: bool = False) -> Any:
    """A field that is a plain whole number, with no unit. quiet: as for ``length``."""

    def read(value: Any, units: Units, where: str) -> int:
        if not isinstance(value, numbers.Integral) or isinstance(value, bool):
            raise ScheduleError(where, f"{value!r} is not a whole number", "write one such as 2")
        return units.resolve(value, where, least)

    return dataclasses.field(default=default, metadata={"read": read, "quiet": quiet})


def lengths(default: Any = dataclasses.MISSING) -> Any:
    """A field that is a list of lengths; kept as a tuple."""
    return dataclasses.field(default=default, metadata={"read": "lengths"})


def number(default: Any = dataclasses.MISSING, *, quiet: bool = False) -> Any:
    """A field that is a finite number. quiet: as for ``length``."""
    return dataclasses.field(default=default, metadata={"read": "number", "quiet": quiet})


def choice(*words: str, default: Any = dataclasses.MISSING) -> Any:
    """A field that is one of some words; the first is the default unless one is given."""
    default = words[0] if default is dataclasses.MISSING else default
    return dataclasses.field(default=default, metadata={"read": "choice", "words": words})


def flag(default: Any = dataclasses.MISSING, *, quiet: bool = False) -> Any:
    """A field that is true or false. quiet: as for ``length``."""
    return dataclasses.field(default=default, metadata={"read": "flag", "quiet": quiet})


def finite_number(value: Any, field: str) -> float:
    """``value`` as a finite float. Text is accepted because YAML reads ``1e-3`` as text."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and _NUMBER.fullmatch(value.strip())):
        raise ScheduleError(field, f"{value!r} is not a number", "write one such as 1.0e-3")
    try:
        as_float = float(value)
    except OverflowError:
        as_float = math.inf
    if not math.isfinite(as_float):
        raise ScheduleError(field, f"{value!r} is not a finite number", "write one such as 1.0e-3")
    return as_float


def read_value(field: dataclasses.Field[Any], value: Any, units: Units, where: str) -> Any:
    """The value of one field, read as its metadata says."""
    kind = field.metadata["read"]
    if value is None and field.default is None:
        return None
    if callable(kind):
        return kind(value, units, where)
    if kind == "length":
        return units.resolve(value, where, field.metadata["least"])
    if kind == "lengths":
        if not isinstance(value, (list, tuple)):
            raise ScheduleError(where, f"{value!r} is not a list", "write one such as [3000, 6000]")
        return tuple(units.resolve(one, f"{where}[{i}]") for i, one in enumerate(value))
    if kind == "number":
        return finite_number(value, where)
    if kind == "flag":
        if not isinstance(value, bool):
            raise ScheduleError(where, f"{value!r} is neither true nor false", "write true or false")
        return value
    if not isinstance(value, str) or value not in field.metadata["words"]:
        raise ScheduleError(where, *unknown("choice", value, field.metadata["words"]))
    return value


def as_mapping(value: Any, where: str) -> Mapping[str, Any]:
    """``value`` if it is a mapping; ScheduleError otherwise."""
    if not isinstance(value, Mapping):
        raise ScheduleError(where or "schedule", f"{value!r} is not a mapping", "write key: value pairs")
    return value


def unknown_keys(mapping: Mapping[str, Any], known: list[str], where: str) -> list[ScheduleError]:
    """One error for every key that is not among the known ones."""
    return [ScheduleError(dotted(where, str(key)), *unknown("key", key, known)) for key in mapping if key not in known]


class Section:
    """Base of the frozen dataclasses that hold one section of a schedule.

    Values given to the constructor are checked exactly as those from a file, so an instance
    with nonsense in it cannot exist.
    """

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            at = dotted(self.section, field.name)
            value = read_value(field, getattr(self, field.name), Units(), at)
            object.__setattr__(self, field.name, value)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain numbers, text and lists; quiet ones only where they differ."""
        values = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if not (field.metadata.get("quiet") and value == field.default):
                values[field.name] = list(value) if isinstance(value, tuple) else value
        return values


_S = TypeVar("_S", bound=Section)


def read_section(cls: type[_S], mapping: Mapping[str, Any], units: Units, skip: tuple[str, ...] = ()) -> _S:
    """An instance of ``cls`` from a mapping; all its errors are raised together.

    ``skip`` names keys of the mapping that were read already (``shape``).
    """
    known = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    errors = unknown_keys(mapping, [*skip, *known], cls.section)
    values = {}
    for name, field in known.items():
        at = dotted(cls.section, name)
        if name not in mapping:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                errors.append(ScheduleError(at, "is missing", "it has no default"))
            continue
        try:
            values[name] = read_value(field, mapping[name], units, at)
        except ScheduleError as error:
            errors.append(error)
    if errors:
        raise joined(errors)
    return cls(**values)
