"""The order of examples: endless streams of shuffled epochs, one a task, and how much of each is in an update."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from recipes.config import MixingBlock, TaskBlock

# Updates whose parts are drawn together. Another number would be another order of all mixtures.
_BLOCK_UPDATES = 256


def mixing_rates(mixing: MixingBlock, tasks: Sequence[TaskBlock], num_examples: Sequence[int]) -> np.ndarray:
    """Each task's expected part of the examples, in sum 1.

    by examples: proportional to min(n, max_examples); by temperature: to min(n, max_examples) ** (1 / temperature)
    (Raffel et al. 2020, 3.5.2; seqio's ``rate_num_examples``); by rate: to the tasks' rates. n: training examples.
    """
    if mixing.by == "rate":
        weights = np.array([task.rate for task in tasks], np.float64)
    else:
        limit = np.inf if mixing.max_examples is None else mixing.max_examples
        weights = np.minimum(np.asarray(num_examples, np.float64), limit) ** (1 / mixing.temperature)
    return weights / weights.sum()


class Streams:
    """Which examples are in update k: a pure function of (seed, k), with nothing to save.

    A task's stream is one permutation of its examples after the other, ``default_rng([seed, epoch])``, or
    ``default_rng([seed, task, epoch])`` where there are several. How many of an update's examples are of which task is
    drawn from the multinomial distribution of the rates, by ``default_rng([seed, 2**32 - 1, block])`` for a block of 256
    updates at once: the same as drawing the task of every example by itself, as seqio does. Each task goes on where
    its part of the update before ended, so none of its examples comes twice before all have come once.
    """

    def __init__(self, sizes: Sequence[int], rates: np.ndarray, *, seed: int, examples_per_update: int):
        """
        Args:
            sizes: examples of every task; task t has the numbers from ``sum(sizes[:t])`` on.
            rates: every task's expected part, in sum 1.
        """
        self._sizes, self._rates, self._seed = list(sizes), rates, seed
        self._firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).tolist()
        self._examples_per_update = examples_per_update
        self._permutation = lru_cache(maxsize=2 * len(self._sizes))(self._shuffled)
        self._parts = lru_cache(maxsize=2)(self._drawn_parts)
        self._begins = [np.zeros(len(self._sizes), np.int64)]  # of every block so far

    def examples(self, k: int) -> np.ndarray:
        """Numbers of the examples of update k, task after task, each in stream order."""
        begins, counts = self.parts(k)
        taken = [self._take(t, begin, begin + num) for t, (begin, num) in enumerate(zip(begins, counts, strict=True))]
        return np.concatenate(taken)

    def parts(self, k: int) -> tuple[list[int], list[int]]:
        """For every task, how many examples it has given before update k, and how many it gives in it."""
        if len(self._sizes) == 1:
            return [k * self._examples_per_update], [self._examples_per_update]
        block, place = divmod(k, _BLOCK_UPDATES)
        while len(self._begins) <= block:
            self._begins.append(self._begins[-1] + self._drawn_parts(len(self._begins) - 1).sum(axis=0))
        parts = self._parts(block)
        return (self._begins[block] + parts[:place].sum(axis=0)).tolist(), parts[place].tolist()

    def _drawn_parts(self, block: int) -> np.ndarray:
        draw = np.random.default_rng([self._seed, 2**32 - 1, block])
        return draw.multinomial(self._examples_per_update, self._rates, size=_BLOCK_UPDATES)

    def _take(self, task: int, begin: int, end: int) -> np.ndarray:
        pieces = [np.zeros(0, np.int64)]
        while begin < end:
            epoch, place = divmod(begin, self._sizes[task])
            pieces.append(self._permutation(task, epoch)[place : place + end - begin])
            begin += len(pieces[-1])
        return np.concatenate(pieces) + self._firsts[task]

    def _shuffled(self, task: int, epoch: int) -> np.ndarray:
        key = [self._seed, epoch] if len(self._sizes) == 1 else [self._seed, task, epoch]
        # What `permutation` gives, in half the memory.
        order = np.arange(self._sizes[task], dtype=np.int32 if self._sizes[task] < 1 << 31 else np.int64)
        np.random.default_rng(key).shuffle(order)
        return order
