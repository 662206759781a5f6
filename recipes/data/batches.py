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
    """What T5 takes, int64, one row per example.

    Attributes:
        input_ids, attention_mask: (n, longest source).
        decoder_input_ids: (n, longest target): the padding id, then the target without its last token.
        labels: (n, longest target), -100 where there is only padding.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    decoder_input_ids: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device | str) -> MicroBatch:
        """Copied to ``device``."""
        return MicroBatch(*(getattr(self, f.name).to(device) for f in fields(self)))


class Pairs(Protocol):
    """Examples by number."""

    def pair(self, i: int) -> Pair: ...


def collate(split: Pairs, examples: np.ndarray, pad_id: int) -> MicroBatch:
    """The examples of one micro-batch, padded to its longest source and target.

    No examples give one row of one token whose label is -100: it can be computed like any other and adds nothing to
    loss or gradient.
    """
    if not len(examples):
        one = np.full((1, 1), pad_id, np.int64)
        return MicroBatch(*map(torch.from_numpy, (one, np.ones_like(one), one.copy(), np.full_like(one, IGNORED))))
    sources, targets = zip(*(split.pair(i) for i in examples), strict=True)
    input_ids, source_mask = _padded(sources, pad_id)
    labels, target_mask = _padded(targets, pad_id)
    decoder_input_ids = np.full_like(labels, pad_id)
    decoder_input_ids[:, 1:] = labels[:, :-1]
    labels[~target_mask] = IGNORED
    return MicroBatch(*map(torch.from_numpy, (input_ids, source_mask.astype(np.int64), decoder_input_ids, labels)))


def _padded(rows: Sequence[np.ndarray], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows as int64 matrix, and True where it holds a token."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    mask = np.arange(lengths.max()) < lengths[:, None]
    matrix = np.full(mask.shape, pad_id, np.int64)
    matrix[mask] = np.concatenate(rows)
    return matrix, mask
