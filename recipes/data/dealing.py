"""The examples of an update to micro-batches of equal cost: the same number for every rank."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np

# Ends of consecutive micro-batches of examples with these source and target lengths, each as long as the limit allows.
Cut = Callable[[np.ndarray, np.ndarray, int], list[int]]
MicroBatches = list[list[np.ndarray]]


class Lengths:
    """Tokens of every example."""

    def __init__(self, source: np.ndarray, target: np.ndarray):
        if len(source) != len(target):
            raise ValueError(f"{len(source)} source lengths, {len(target)} target lengths")
        self.source, self.target = source, target

    def __len__(self) -> int:
        return len(self.source)

    def tokens(self, examples: np.ndarray) -> np.ndarray:
        """Source and target together, of each."""
        return self.source[examples].astype(np.int64) + self.target[examples]

    def real_tokens(self, examples: np.ndarray) -> int:
        return int(self.tokens(examples).sum())

    def padded_tokens(self, examples: np.ndarray) -> int:
        """What a micro-batch of these examples computes, where each has a row as long as the longest."""
        if not len(examples):
            return 0
        return len(examples) * (int(self.source[examples].max()) + int(self.target[examples].max()))


def deal(examples: np.ndarray, lengths: Lengths, budget: int, num_ranks: int, cut: Cut) -> MicroBatches:
    """For every rank its micro-batches, the same number of each, none over ``budget`` tokens as ``cut`` counts them.

    The ranks get as many tokens each as can be (longest example first, each to the rank with the least); a rank's
    examples are sorted, so that those of a micro-batch are alike, and cut into as few micro-batches as the budget allows,
    of like cost. So the i-th of all ranks are alike too.

    Where there are hardly more examples than micro-batches some of them may be empty.
    """
    if not len(examples):
        return [[] for _ in range(num_ranks)]
    parts = [_in_bands(part, lengths, budget) for part in _shared_out(examples, lengths.tokens(examples), num_ranks)]
    num = max(len(cut(lengths.source[part], lengths.target[part], budget)) for part in parts)
    return [_cut_evenly(part, lengths, budget, num, cut) for part in parts]


def cut_packed(source: np.ndarray, target: np.ndarray, limit: int) -> list[int]:
    """By the tokens themselves."""
    upto = np.cumsum(source.astype(np.int64) + target)
    ends = [0]
    while ends[-1] < len(upto):
        before = upto[ends[-1] - 1] if ends[-1] else 0
        ends.append(int(np.searchsorted(upto, before + limit, side="right")))
    return ends[1:]


def cut_padded(source: np.ndarray, target: np.ndarray, limit: int) -> list[int]:
    """By rows * (longest source + longest target)."""
    ends = []
    begin = longest_source = longest_target = 0
    for i, (s, t) in enumerate(zip(source.tolist(), target.tolist(), strict=True)):
        longest_source, longest_target = max(longest_source, s), max(longest_target, t)
        if (i + 1 - begin) * (longest_source + longest_target) > limit:
            ends.append(i)
            begin, longest_source, longest_target = i, s, t
    if len(source):
        ends.append(len(source))
    return ends


def _shared_out(examples: np.ndarray, tokens: np.ndarray, num_ranks: int) -> list[np.ndarray]:
    if num_ranks == 1:
        return [examples]
    loads = [(0, rank) for rank in range(num_ranks)]
    owner = np.empty(len(examples), np.int64)
    for i in np.argsort(-tokens, kind="stable").tolist():
        load, rank = loads[0]
        owner[i] = rank
        heapq.heapreplace(loads, (load + int(tokens[i]), rank))
    return [examples[owner == rank] for rank in range(num_ranks)]


def _in_bands(examples: np.ndarray, lengths: Lengths, budget: int) -> np.ndarray:
    """In an order in which neighbours have like lengths on both sides: bands of like target length, about as many as a band
    has micro-batches, sources rising in one band and falling in the next."""
    source, target = lengths.source[examples].astype(np.int64), lengths.target[examples]
    num_bands = max(1, round((int(lengths.tokens(examples).sum()) / budget) ** 0.5))
    band = np.empty(len(examples), np.int64)
    band[np.argsort(target, kind="stable")] = np.arange(len(examples)) * num_bands // len(examples)
    return examples[np.lexsort((target, np.where(band % 2 == 0, source, -source), band))]


def _cut_evenly(examples: np.ndarray, lengths: Lengths, budget: int, num: int, cut: Cut) -> list[np.ndarray]:
    """``num`` micro-batches under the lowest limit that gives no more."""
    source, target, tokens = lengths.source[examples], lengths.target[examples], lengths.tokens(examples)
    low, high = max(int(tokens.max(initial=0)), int(tokens.sum()) // num), budget
    grain = budget // 256  # finer would cost time and gain nothing
    ends = cut(source, target, budget)
    while low < high - grain:
        middle = (low + high) // 2
        tried = cut(source, target, middle)
        if len(tried) > num:
            low = middle + 1
        else:
            high, ends = middle, tried
    return _as_many_as(np.split(examples, ends[:-1]), lengths, num)


def _as_many_as(batches: list[np.ndarray], lengths: Lengths, num: int) -> list[np.ndarray]:
    """The costliest are halved until there are ``num``; with too few examples for that, the rest are empty."""
    while len(batches) < num:
        costs = [lengths.real_tokens(batch) if len(batch) > 1 else -1 for batch in batches]
        i = int(np.argmax(costs))
        if costs[i] < 0:
            return batches + [batches[0][:0]] * (num - len(batches))
        half = len(batches[i]) // 2
        batches[i : i + 1] = [batches[i][:half], batches[i][half:]]
    return batches
