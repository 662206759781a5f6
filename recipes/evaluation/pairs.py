"""Text pairs of a file with their token ids, in memory."""

from __future__ import annotations

import numpy as np

from recipes.config import DataBlock
from recipes.data.denoising import Pair
from recipes.data.sources import NUM_NAMED_ROWS, Examples, too_long_refusal
from recipes.data.tokenizer import TextTokenizer, truncate_tokens
from recipes.errors import UserError


class TextPairs:
    """Sources with their prefix, references as the file has them, and the ids of both.

    Attributes:
        sources, references: texts.
        source_lengths, target_lengths: tokens, the end token included.
        num_truncated: texts cut off at the limits.
    """

    def __init__(self, examples: Examples, tokenizer: TextTokenizer, config: DataBlock):
        """
        Raises:
            UserError: texts longer than the limits, with data.on_too_long: refuse.
        """
        self.sources = [config.prefix + text for text in examples.sources.to_pylist()]
        self.references = examples.targets.to_pylist()
        self.where = examples.where
        self.num_truncated = 0
        self._source = self._encoded("source", self.sources, tokenizer, config)
        self._target = self._encoded("target", self.references, tokenizer, config)
        self.source_lengths, self.target_lengths = (np.diff(offsets) for _, offsets in (self._source, self._target))

    def __len__(self) -> int:
        return len(self.sources)

    def source(self, i: int) -> np.ndarray:
        """Token ids of a source."""
        return _row(self._source, i)

    def pair(self, i: int) -> Pair:
        """Token ids of a source and its reference."""
        return Pair(_row(self._source, i), _row(self._target, i))

    def _encoded(
        self, side: str, texts: list[str], tokenizer: TextTokenizer, config: DataBlock
    ) -> tuple[np.ndarray, np.ndarray]:
        limit = getattr(config, f"max_{side}_tokens")
        ids, offsets = tokenizer.encode_batch(texts)
        lengths = np.diff(offsets)
        too_long = np.flatnonzero(lengths > limit)
        if len(too_long) and config.on_too_long == "refuse":
            named = [f"{self.where(i)} ({lengths[i]} tokens)" for i in too_long[:NUM_NAMED_ROWS].tolist()]
            raise UserError(too_long_refusal(side, side, limit, len(too_long), named, int(lengths.max())))
        self.num_truncated += len(too_long)
        return truncate_tokens(ids, offsets, limit, tokenizer.eos_id)


def _row(encoded: tuple[np.ndarray, np.ndarray], i: int) -> np.ndarray:
    ids, offsets = encoded
    return ids[offsets[i] : offsets[i + 1]]
