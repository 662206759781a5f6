"""Examples to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch

from recipes.data.denoising import Pair

IGNORED = -100  # labels of padding; torch's cross entropy leaves them out


@dataclass(frozen=True)
class MicroBatch:
    """What T5 takes, int64. A row holds one example, or several, one after the other, each side in the same order.

    Attributes:
        input_ids: (rows, longest source).
        source_examples: (rows, longest source): 1 where the row's first example is, 2 where its second is, ...; 0: padding.
        decoder_input_ids: (rows, longest target): of every example the padding id, then the target without its last token.
        target_examples: (rows, longest target), as source_examples.
        labels: (rows, longest target), -100 where there is only padding.
        packed: whether a row holds several examples.
    """

    input_ids: torch.Tensor
    source_examples: torch.Tensor
    decoder_input_ids: torch.Tensor
    target_examples: torch.Tensor
    labels: torch.Tensor
    packed: bool = False

    def to(self, device: torch.device | str) -> MicroBatch:
        """Copied to ``device``."""
        tensors = (getattr(self, f.name).to(device) for f in fields(self) if f.name != "packed")
        return MicroBatch(*tensors, packed=self.packed)


class Pairs(Protocol):
    """Examples by number."""

    def pair(self, i: int) -> Pair: ...


def collate(split: Pairs, rows: Sequence[np.ndarray] | np.ndarray, pad_id: int) -> MicroBatch:
    """One micro-batch, padded to its longest source and target side.

    No row gives one of one token whose label is -100: it can be computed like any other and adds nothing to loss or
    gradient.

    Args:
        rows: the numbers of every row's examples; of an array each is a row by itself.
    """
    if not len(rows):
        one = np.full((1, 1), pad_id, np.int64)
        mark = np.ones_like(one)
        return MicroBatch(*map(torch.from_numpy, (one, mark, one.copy(), mark.copy(), np.full_like(one, IGNORED))))
    pairs = [[split.pair(i) for i in np.atleast_1d(row)] for row in rows]
    input_ids, source_examples = _side([[pair.source for pair in row] for row in pairs], pad_id)
    labels, target_examples = _side([[pair.target for pair in row] for row in pairs], pad_id)
    decoder_input_ids = np.full_like(labels, pad_id)
    decoder_input_ids[:, 1:] = labels[:, :-1]
    begins = (np.diff(target_examples, axis=1, prepend=0) != 0) & (target_examples > 0)
    decoder_input_ids[begins] = pad_id
    labels[target_examples == 0] = IGNORED
    tensors = map(torch.from_numpy, (input_ids, source_examples, decoder_input_ids, target_examples, labels))
    return MicroBatch(*tensors, packed=any(len(row) > 1 for row in pairs))


def _side(rows: list[list[np.ndarray]], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """The ids of one side of all rows, and the number of the example in its row; both int64."""
    lengths = np.array([sum(map(len, row)) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids, numbers = np.full(mask.shape, pad_id, np.int64), np.zeros(mask.shape, np.int64)
    ids[mask] = np.concatenate([part for row in rows for part in row])
    numbers[mask] = np.concatenate([np.full(len(part), n) for row in rows for n, part in enumerate(row, start=1)])
    return ids, numbers
