"""Kinds of values that config fields share, and the block they stand in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is expected, not true or false")
    return value


Int = Annotated[int, BeforeValidator(_refuse_bool)]
Count = Annotated[Int, Field(gt=0)]
CountOrZero = Annotated[Int, Field(ge=0)]
Number = Annotated[float, BeforeValidator(_refuse_bool), Field(allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0.0, lt=1.0)]


def repeated(names: Iterable[str]) -> str:
    """Those that come more than once, for a message; empty where none does."""
    return ", ".join(sorted(name for name, count in Counter(names).items() if count > 1))


class Block(BaseModel):
    """A part of the config: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
