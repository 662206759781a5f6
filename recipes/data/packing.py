"""Examples of very different lengths into micro-batches with little padding and equal cost.

A micro-batch of n examples computes ``n * (longest source + longest target)`` tokens. Examples are sorted so that
neighbours are alike, cut into consecutive micro-batches, and these dealt out to the ranks.
"""

from __future__ import annotations

import numpy as np

# Bands of like target length to try, as multiples of the square root of the number of micro-batches.
_BAND_FACTORS = (0.5, 1.0, 1.5, 2.0)


class Lengths:
    """Tokens of every example, in the integers that they come in: those of ten million are not copied."""

    def __init__(self, source: np.ndarray, target: np.ndarray):
        if len(source) != len(target):
            raise ValueError(f"{len(source)} source lengths, {len(target)} target lengths")
        self.source = np.asarray(source)
        self.target = np.asarray(target)

    def __len__(self) -> int:
        return len(self.source)

    def padded_tokens(self, examples: np.ndarray) -> int:
        """What a micro-batch of these examples computes."""
        if not len(examples):
            return 0
        return len(examples) * (int(self.source[examples].max()) + int(self.target[examples].max()))

    def real_tokens(self, examples: np.ndarray) -> int:
        return int(self.source[examples].sum() + self.target[examples].sum())


def best_cut(examples: np.ndarray, lengths: Lengths, budget: int, multiple: int) -> tuple[int, list[np.ndarray]]:
    """Micro-batches of at most ``budget`` padded tokens, their number a multiple of ``multiple``.

    As few as the budget allows, in that of several orders and cuts that keeps ``multiple`` ranks busy for the fewest
    tokens, computed or waited for. Returns those tokens, of all ranks together, and the micro-batches.
    """
    cuts = [_Cut(order, lengths, budget, multiple) for order in _orders(examples, lengths, budget)]
    fewest = min(cut.num_batches for cut in cuts)
    busy, _, best = min((cut.even_out(), i, cut) for i, cut in enumerate(cuts) if cut.num_batches == fewest)
    return busy, best.batches()


def balance(packed: list[np.ndarray], lengths: Lengths, num_ranks: int) -> list[list[np.ndarray]]:
    """Deal the micro-batches to the ranks, the same number to each (their number is a multiple of num_ranks).

    By falling cost, in rounds of one micro-batch per rank, the costliest of a round to the rank with the least so far:
    sums are close, and so are the micro-batches that ranks compute at the same time.
    """
    costs = [lengths.padded_tokens(batch) for batch in packed]
    by_cost = sorted(range(len(packed)), key=lambda i: -costs[i])
    ranks: list[list[np.ndarray]] = [[] for _ in range(num_ranks)]
    loads = [0] * num_ranks
    for begin in range(0, len(packed), num_ranks):
        idle_first = sorted(range(num_ranks), key=lambda rank: loads[rank])
        for rank, i in zip(idle_first, by_cost[begin : begin + num_ranks], strict=True):
            ranks[rank].append(packed[i])
            loads[rank] += costs[i]
    return ranks


def _orders(examples: np.ndarray, lengths: Lengths, budget: int) -> list[np.ndarray]:
    """Orders in which neighbours have like lengths.

    Sorting by target length alone leaves sources to chance within a target length, and the other way round. Between the
    two: bands of like target length, sources rising in one band and falling in the next.
    """
    source, target = lengths.source[examples], lengths.target[examples]
    orders = [examples[np.lexsort((source, target))]]
    num_batches = max(1.0, float((source + target).sum()) / budget)
    by_target = np.argsort(target, kind="stable")
    for factor in _BAND_FACTORS:
        num_bands = round(factor * num_batches**0.5)
        if not 1 <= num_bands < len(examples):
            continue
        band = np.empty(len(examples), np.int64)
        band[by_target] = np.arange(len(examples)) * num_bands // len(examples)
        orders.append(examples[np.lexsort((target, np.where(band % 2 == 0, source, -source), band))])
    return orders


class _Cut:
    """An order of examples, cut into consecutive micro-batches."""

    def __init__(self, order: np.ndarray, lengths: Lengths, budget: int, multiple: int):
        self._order, self._lengths, self._budget, self._multiple = order, lengths, budget, multiple
        self._source, self._target = lengths.source[order].tolist(), lengths.target[order].tolist()
        self._ends, self._costs = _cut(self._source, self._target, budget)
        self.num_batches = -(-len(self._ends) // multiple) * multiple

    def even_out(self) -> int:
        """Lower the limit while the number of micro-batches allows, and keep the best cut; returns its busy tokens."""
        real = sum(self._source) + sum(self._target)
        longest = max(map(sum, zip(self._source, self._target, strict=True)), default=0)
        low, high = max(longest, real // self.num_batches), self._budget
        grain = high // 64  # finer would cost time and gain nothing
        least = self._busy_tokens(self._costs)
        while low < high - grain:
            middle = (low + high) // 2
            ends, costs = _cut(self._source, self._target, middle)
            if len(ends) > self.num_batches:
                low = middle + 1
                continue
            high = middle
            busy = self._busy_tokens(costs)
            if busy <= least:
                self._ends, least = ends, busy
        return least

    def _busy_tokens(self, costs: list[int]) -> int:
        """All ranks together, when each round of micro-batches lasts as long as its costliest."""
        return self._multiple * sum(sorted(costs, reverse=True)[:: self._multiple])

    def batches(self) -> list[np.ndarray]:
        packed = np.split(self._order, self._ends[:-1])
        while len(packed) < self.num_batches:
            costs = [self._lengths.padded_tokens(batch) if len(batch) > 1 else -1 for batch in packed]
            i = int(np.argmax(costs))
            if costs[i] < 0:  # fewer examples than micro-batches
                packed += [self._order[:0]] * (self.num_batches - len(packed))
                break
            half = len(packed[i]) // 2
            packed[i : i + 1] = [packed[i][:half], packed[i][half:]]
        return packed


def _cut(source: list[int], target: list[int], limit: int) -> tuple[list[int], list[int]]:
    """Ends of consecutive micro-batches, each as long as ``limit`` allows, and the padded tokens of each."""
    ends, costs = [], []
    begin = longest_source = longest_target = cost = 0
    for i, (s, t) in enumerate(zip(source, target, strict=True)):
        if s > longest_source:
            longest_source = s
        if t > longest_target:
            longest_target = t
        grown = (i + 1 - begin) * (longest_source + longest_target)
        if grown > limit:
            ends.append(i)
            costs.append(cost)
            begin, longest_source, longest_target = i, s, t
            grown = s + t
        cost = grown
    ends.append(len(source))
    costs.append(cost)
    return ends, costs
