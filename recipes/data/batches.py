"""Examples to tensors, each example a row, or all one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch

from recipes.data.denoising import Pair

IGNORED = -100  # labels of padding; torch's cross entropy leaves them out
# Shorter examples are in one group: splitting them would save less than a further call costs.
SHORT = 16


class Pairs(Protocol):
    """Examples by number."""

    def pair(self, i: int) -> Pair: ...


@dataclass(frozen=True)
class MicroBatch:
    """What a model is given, and what it should answer; int64.

    labels: in the shape of the model's scores without their last dimension; -100 where nothing counts.
    """

    input_ids: torch.Tensor
    decoder_input_ids: torch.Tensor
    labels: torch.Tensor

    def inputs(self) -> dict[str, Any]:
        """The arguments of the model."""
        return {name: value for name, value in vars(self).items() if name != "labels"} | {"use_cache": False}

    def to(self, device: torch.device | str) -> MicroBatch:
        """Copied to ``device``."""
        return _each_tensor(self, lambda tensor: tensor.to(device, non_blocking=tensor.is_pinned()))

    def pinned(self) -> MicroBatch:
        """In memory that is copied to a GPU beside its work."""
        return _each_tensor(self, torch.Tensor.pin_memory)


@dataclass(frozen=True)
class PaddedBatch(MicroBatch):
    """What transformers' T5 takes, int64.

    Attributes:
        input_ids, attention_mask: (examples, longest source); the mask is 1 on tokens, 0 on padding.
        decoder_input_ids: (examples, longest target): the padding id, then the target without its last token.
        labels: (examples, longest target), -100 on padding.
    """

    attention_mask: torch.Tensor


@dataclass(frozen=True)
class Places:
    """Where the tokens of a group's examples are in the sequence, on one side.

    Attributes:
        index: (examples, longest) int64, anything past an example's end.
        mask: (examples, longest), true on tokens; None: all are as long as the longest.
        whole: the group is the whole sequence, all examples of one length: there is nothing to look up.
    """

    index: torch.Tensor
    mask: torch.Tensor | None
    whole: bool


@dataclass(frozen=True)
class Layout:
    """How the examples of a packed batch lie, for attention, which works on each example by itself.

    Examples of like length are a group: the longer of source and target over half the longest in the group, or all short.

    Attributes:
        source, target: of every group.
        source_back, target_back: for every token its place when the groups' (examples, longest) grids stand one after the
            other.
    """

    source: tuple[Places, ...]
    target: tuple[Places, ...]
    source_back: torch.Tensor
    target_back: torch.Tensor


@dataclass(frozen=True)
class PackedBatch(MicroBatch):
    """Examples one after the other, without any padding; int64. For `recipes.layers.packed_t5.PackedT5`.

    Attributes:
        input_ids: (source tokens of all examples,).
        decoder_input_ids: (target tokens of all examples,): of each the padding id, then the target without its last token.
        labels: (1, target tokens of all examples).
        layout: which tokens are of one example.
    """

    layout: Layout


def _each_tensor(value: Any, do: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same batch with every tensor replaced."""
    if isinstance(value, torch.Tensor):
        return do(value)
    if isinstance(value, tuple):
        return tuple(_each_tensor(one, do) for one in value)
    if isinstance(value, (MicroBatch, Places, Layout)):
        return type(value)(*(_each_tensor(getattr(value, f.name), do) for f in fields(value)))
    return value


def pad(split: Pairs, examples: np.ndarray, pad_id: int) -> PaddedBatch:
    """One micro-batch, padded to its longest source and target.

    No examples give one of one token whose label is -100: it can be computed like any other and adds nothing to loss or
    gradient.
    """
    pairs = _pairs(split, examples, pad_id)
    input_ids, source_mask = _rows([pair.source for pair in pairs], pad_id)
    labels, target_mask = _rows([pair.target for pair in pairs], pad_id)
    decoder_input_ids = np.full_like(labels, pad_id)
    decoder_input_ids[:, 1:] = labels[:, :-1]
    labels[~target_mask] = IGNORED
    if not len(examples):
        labels[:] = IGNORED
    arrays = (input_ids, decoder_input_ids, labels, source_mask.astype(np.int64))
    return PaddedBatch(*map(torch.from_numpy, arrays))


def pack(split: Pairs, examples: np.ndarray, pad_id: int) -> PackedBatch:
    """One micro-batch without padding; of no examples, as in `pad`."""
    pairs = _pairs(split, examples, pad_id)
    source, target = (np.array([len(ids) for ids in side]) for side in zip(*pairs, strict=True))
    labels = np.concatenate([pair.target for pair in pairs]).astype(np.int64)
    decoder_input_ids = np.roll(labels, 1)
    decoder_input_ids[_begins(target)] = pad_id
    if not len(examples):
        labels[:] = IGNORED
    input_ids = np.concatenate([pair.source for pair in pairs]).astype(np.int64)
    tensors = map(torch.from_numpy, (input_ids, decoder_input_ids, labels[None]))
    return PackedBatch(*tensors, layout=layout_of(source, target))


def to_tensors(split: Pairs, examples: np.ndarray, pad_id: int, packed: bool) -> MicroBatch:
    """A micro-batch of the plan."""
    return pack(split, examples, pad_id) if packed else pad(split, examples, pad_id)


def _pairs(split: Pairs, examples: Sequence[int] | np.ndarray, pad_id: int) -> list[Pair]:
    one = np.full(1, pad_id)
    return [split.pair(i) for i in examples] or [Pair(one, one)]


def _rows(ids: list[np.ndarray], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(row) for row in ids])
    mask = np.arange(lengths.max()) < lengths[:, None]
    rows = np.full(mask.shape, pad_id, np.int64)
    rows[mask] = np.concatenate(ids)
    return rows, mask


def layout_of(source: np.ndarray, target: np.ndarray) -> Layout:
    """Of examples with these lengths, in this order."""
    groups = _groups(np.maximum(source, target))
    sides = []
    for lengths in (source, target):
        begins, places, back, taken = _begins(lengths), [], np.empty(lengths.sum(), np.int64), 0
        for group in groups:
            longest = lengths[group].max()
            within = np.arange(longest)
            mask = within < lengths[group][:, None]
            index = np.where(mask, begins[group][:, None] + within, 0)
            back[index[mask]] = taken + np.flatnonzero(mask)
            taken += mask.size
            full = bool(mask.all())
            places.append(
                Places(torch.from_numpy(index), None if full else torch.from_numpy(mask), full and len(groups) == 1)
            )
        sides.append((tuple(places), torch.from_numpy(back)))
    (source_places, source_back), (target_places, target_back) = sides
    return Layout(source_places, target_places, source_back, target_back)


def _groups(longer: np.ndarray) -> list[np.ndarray]:
    """Numbers of the examples of every group, by falling length."""
    halvings = np.floor(np.log2(longer.max() / np.maximum(longer, min(SHORT, longer.max())))).astype(int)
    return [np.flatnonzero(halvings == number) for number in np.unique(halvings)]


def _begins(lengths: np.ndarray) -> np.ndarray:
    return np.cumsum(lengths) - lengths
