"""Looking for texts that cannot be answered, all of them, before the first is."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from recipes.data.sources import NUM_NAMED_ROWS
from recipes.data.tokenizer import TextTokenizer
from recipes.errors import UserError
from recipes.prediction.rows import TextRows
from recipes.prediction.settings import Settings


@dataclass
class Screening:
    """What was found so far; those of several workers are added up in the order of the rows.

    bad, too_long: the first rows without text, and of too many tokens, in words.
    """

    num_rows: int = 0
    num_bad: int = 0
    num_too_long: int = 0
    longest: int = 0
    bad: list[str] = field(default_factory=list)
    too_long: list[str] = field(default_factory=list)

    def look(self, rows: TextRows, tokenizer: TextTokenizer, settings: Settings) -> None:
        """Count the rows that cannot be answered. Texts are tokenised only where too long ones are to be refused."""
        self.num_rows += len(rows)
        reasons = rows.reasons()
        self.num_bad += len(reasons)
        self.bad += [f"{rows.where(i)} ({reason})" for i, reason in list(reasons.items())[:NUM_NAMED_ROWS]]
        if settings.on_too_long == "refuse":
            usable = [i for i in range(len(rows)) if i not in reasons]
            _, offsets = tokenizer.encode_batch([settings.prefix + rows.texts[i] for i in usable])
            lengths = np.diff(offsets)
            over = np.flatnonzero(lengths > settings.max_source_tokens)
            self.num_too_long += len(over)
            self.longest = max(self.longest, int(lengths.max(initial=0)))
            self.too_long += [f"{rows.where(usable[i])} ({lengths[i]} tokens)" for i in over[:NUM_NAMED_ROWS].tolist()]
        self._keep_first()

    def add(self, other: Screening) -> None:
        """Take over what was found in the rows that follow."""
        self.num_rows += other.num_rows
        self.num_bad += other.num_bad
        self.num_too_long += other.num_too_long
        self.longest = max(self.longest, other.longest)
        self.bad += other.bad
        self.too_long += other.too_long
        self._keep_first()

    def _keep_first(self) -> None:
        del self.bad[NUM_NAMED_ROWS:], self.too_long[NUM_NAMED_ROWS:]

    def refuse(self, settings: Settings) -> None:
        """
        Raises:
            UserError: a line for rows without text, where they are refused, and one for too long ones.
        """
        lines = []
        if self.num_bad and settings.on_bad_row == "refuse":
            lines.append(
                f"{self.num_bad:,} of {self.num_rows:,} texts cannot be used: {_named(self.bad, self.num_bad)}; mend them, or "
                "give --on-bad-row skip, which leaves their predictions null"
            )
        if self.num_too_long:
            lines.append(
                f"{self.num_too_long:,} texts have more than {settings.max_source_tokens} tokens: "
                f"{_named(self.too_long, self.num_too_long)} (longest: {self.longest}); raise --max-source-tokens, or cut them "
                "off with --on-too-long truncate"
            )
        if lines:
            raise UserError("\n".join(lines))


def _named(first: list[str], num: int) -> str:
    return ", ".join(first) + (f" and {num - len(first):,} more" if num > len(first) else "")
