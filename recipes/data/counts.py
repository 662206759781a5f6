"""What the texts of a split come to in tokens, and what is wrong with their lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recipes.config import DataBlock
from recipes.data.sources import NUM_NAMED_ROWS, Examples, too_long_refusal
from recipes.data.split import ExampleStream
from recipes.data.token_files import TokenSplit
from recipes.data.tokenizer import TextTokenizer


@dataclass
class _SideCounts:
    """Of all sources, or all targets, of a split."""

    unknown: int = 0
    longest: int = 0
    num_too_long: int = 0
    first_too_long: list[str] = field(default_factory=list)
    num_inner_ends: int = 0
    first_inner_end: str = ""


class SplitCounts:
    """Counted while a split is written.

    Attributes:
        file_names: of all examples so far.
        target_ids: how often every id is in a target.
    """

    def __init__(self, vocab_size: int, say_name: str):
        self._sides = {"source": _SideCounts(), "target": _SideCounts()}
        self._name = say_name
        self._num_read, self._skipped = 0, Counter[str]()
        self.file_names: list[str] = []
        self.target_ids = np.zeros(vocab_size, np.int64)

    def add_files(self, examples: ExampleStream) -> int:
        """Note where some examples come from; the number of the first of their files."""
        first = len(self.file_names)
        self.file_names += examples.file_names
        self._num_read += examples.num_read
        self._skipped.update(examples.skipped)
        return first

    def count_targets(self, ids: np.ndarray) -> None:
        self.target_ids += np.bincount(ids, minlength=len(self.target_ids))

    def count_drawn_targets(self, split: TokenSplit, most: int | None) -> None:
        """Of chunks; of very many only ``most``, spread evenly, each for several."""
        chunks = np.flatnonzero(~split.is_pair)
        step = 1 if most is None else max(1, len(chunks) // most)
        drawn = np.zeros_like(self.target_ids)
        for i in chunks[::step].tolist():
            drawn += np.bincount(split.target(i), minlength=len(drawn))
        self.target_ids += drawn * step

    def count_unknown(self, side: str, ids: np.ndarray, tokenizer: TextTokenizer) -> None:
        if tokenizer.unk_id is not None:
            self._sides[side].unknown += int((ids == tokenizer.unk_id).sum())

    def count_side(
        self,
        name: str,
        ids: np.ndarray,
        offsets: np.ndarray,
        limit: int,
        tokenizer: TextTokenizer,
        examples: Examples,
    ) -> None:
        """Sources or targets of some examples, before any is cut off at ``limit``."""
        side, lengths = self._sides[name], np.diff(offsets)
        side.longest = max(side.longest, int(lengths.max()))
        self.count_unknown(name, ids, tokenizer)
        too_long = np.flatnonzero(lengths > limit)
        side.num_too_long += len(too_long)
        for i in too_long[: NUM_NAMED_ROWS - len(side.first_too_long)].tolist():
            side.first_too_long.append(f"{examples.where(i)} ({lengths[i]} tokens)")
        ends = np.add.reduceat((ids == tokenizer.eos_id).astype(np.int32), offsets[:-1])
        inner = np.flatnonzero(ends > 1)
        side.num_inner_ends += len(inner)
        if len(inner) and not side.first_inner_end:
            side.first_inner_end = examples.where(int(inner[0]))

    def refusals(self, config: DataBlock) -> list[str]:
        """A line for each side with texts that are too long, where that is refused."""
        if config.on_too_long == "truncate":
            return []
        limits = {"source": config.max_source_tokens, "target": config.max_target_tokens}
        return [
            too_long_refusal(
                name, f"{self._name} {name}", limits[name], side.num_too_long, side.first_too_long, side.longest
            )
            for name, side in self._sides.items()
            if side.num_too_long
        ]

    def tell(self, say: Callable[[str], None]) -> None:
        for name, side in self._sides.items():
            if side.num_too_long:
                say(f"data: {side.num_too_long:,} {self._name} {name} texts cut off (longest: {side.longest} tokens)")
            if side.num_inner_ends:
                say(
                    f"data: {side.num_inner_ends:,} {self._name} {name} texts name the end token themselves, "
                    f"first {side.first_inner_end}; what follows it is lost in generated text"
                )

    def meta(self, split: TokenSplit) -> dict[str, Any]:
        numbers: dict[str, Any] = {
            "examples": len(split),
            "rows_read": self._num_read,
            "rows_skipped": dict(self._skipped),
        }
        for name, side in self._sides.items():
            lengths = split.source_lengths if name == "source" else split.target_lengths
            numbers |= {
                f"{name}_tokens": int(lengths.sum(dtype=np.int64)),
                f"{name}_unknown_tokens": side.unknown,
                f"longest_{name}": max(side.longest, int(lengths.max(initial=0))),
                f"truncated_{name}s": side.num_too_long,
            }
        return numbers | {"file_names": self.file_names}
