"""Texts with the place each came from, and whatever stood beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa


@dataclass(frozen=True)
class TextRows:
    """Some rows of an input, in its order.

    texts: None where there is none; notes says why where it is not simply null, by position.
    place: what the rows are counted in, such as a file's name and "row"; numbers: of each row in it, from 1.
    table, records: the whole rows as the input has them, one of the two, where it has more than texts.
    """

    texts: list[str | None]
    place: str
    numbers: Sequence[int]
    notes: dict[int, str] = field(default_factory=dict)
    table: pa.Table | None = None
    records: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def where(self, i: int) -> str:
        """``"questions.parquet row 7"``"""
        return f"{self.place} {self.numbers[i]}"

    @property
    def file(self) -> str:
        """``"questions.parquet"``"""
        return self.place.rsplit(" ", 1)[0]

    def reasons(self) -> dict[int, str]:
        """Why rows cannot be answered, by position."""
        found = {i: "null" for i, text in enumerate(self.texts) if text is None}
        found |= {i: "empty" for i, text in enumerate(self.texts) if text is not None and not text.strip()}
        return dict(sorted((found | self.notes).items()))

    def usable(self) -> list[str | None]:
        """The texts, None for those that cannot be answered."""
        reasons = self.reasons()
        return [None if i in reasons else text for i, text in enumerate(self.texts)]
