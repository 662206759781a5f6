"""Several short examples in one row of a micro-batch.

T5 knows positions only by their differences, so examples that stand one after the other in a row compute what they compute
alone, as long as masks keep them from each other. Rows of like length need hardly any padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recipes.data.packing import Lengths, balance, best_cut

# Rows as long as the longest example of the batch, or longer by these factors. Attention costs more in longer rows, in time
# and memory.
FACTORS = (1.0, 1.5, 2.0)
# More examples are put into rows in parts of this size, which takes time in proportion.
_PART = 2048

ANY = (1 << 30, 1 << 30)

# Of every micro-batch its rows, of every row its examples.
Rows = list[np.ndarray]


def row_lengths(rows: Rows, lengths: Lengths) -> Lengths:
    """Tokens of whole rows."""
    sizes = [len(row) for row in rows]
    flat = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    starts = np.cumsum([0, *sizes[:-1]]) if rows else np.zeros(0, np.int64)
    if not len(flat):
        return Lengths(flat, flat)
    return Lengths(np.add.reduceat(lengths.source[flat], starts), np.add.reduceat(lengths.target[flat], starts))


def padded_tokens(rows: Rows, lengths: Lengths) -> int:
    """What a micro-batch of these rows computes."""
    whole = row_lengths(rows, lengths)
    return whole.padded_tokens(np.arange(len(rows)))


def plan_rows(
    examples: np.ndarray,
    lengths: Lengths,
    budget: int,
    num_ranks: int,
    factors: Sequence[float] = (),
    longest: tuple[int, int] = ANY,
) -> list[list[Rows]]:
    """For every rank its micro-batches, the same number of each, of at most ``budget`` padded tokens.

    longest: most source and target tokens of a row of several examples. factors: lengths of rows to try, as multiples of
    the longest example. That which keeps the ranks busy for the fewest tokens is taken, and an example a row where none
    does better.
    """
    return _best(examples, lengths, budget, num_ranks, factors, longest)[1].dealt()


def best_factors(
    examples: np.ndarray, lengths: Lengths, budget: int, num_ranks: int, longest: tuple[int, int] = ANY
) -> tuple[float, ...]:
    """The one of `FACTORS` that `plan_rows` takes for these examples, or none."""
    return _best(examples, lengths, budget, num_ranks, FACTORS, longest)[0]


def _best(
    examples: np.ndarray,
    lengths: Lengths,
    budget: int,
    num_ranks: int,
    factors: Sequence[float],
    longest: tuple[int, int],
) -> tuple[tuple[float, ...], _Option]:
    """The factor that is taken, or none, and its rows."""
    taken, best = (), _Option(list(examples[:, None]), lengths, budget, num_ranks)
    for factor in factors:
        rows = _filled(examples, lengths, budget, factor, longest)
        if rows is not None and num_ranks <= len(rows) < len(examples):
            option = _Option(rows, lengths, budget, num_ranks)
            # A rank with an empty micro-batch would wait.
            if option.busy < best.busy and all(map(len, option.packed)):
                taken, best = (factor,), option
    return taken, best


class _Option:
    """Rows, cut into micro-batches. busy: tokens that all ranks together compute or wait for."""

    def __init__(self, rows: Rows, lengths: Lengths, budget: int, num_ranks: int):
        self._rows, self._num_ranks, self._lengths = rows, num_ranks, row_lengths(rows, lengths)
        self.busy, self.packed = best_cut(np.arange(len(rows)), self._lengths, budget, num_ranks)

    def dealt(self) -> list[list[Rows]]:
        ranks = balance(self.packed, self._lengths, self._num_ranks)
        return [[[self._rows[i] for i in batch] for batch in rank] for rank in ranks]


def _filled(
    examples: np.ndarray, lengths: Lengths, budget: int, factor: float, longest: tuple[int, int]
) -> Rows | None:
    """The examples in rows of ``factor`` times the longest of them, but no longer than ``longest`` unless one example is;
    None where such a row is over the budget."""
    if not len(examples):
        return None
    source, target = lengths.source[examples], lengths.target[examples]
    ratio = source.sum() / max(1, target.sum())
    # Wide enough for the longest of each side, and in the proportion of the two, so that both fill up together.
    most_source, most_target = factor * source.max(), factor * target.max()
    wanted = (int(max(most_source, ratio * most_target)), int(max(most_target, most_source / ratio)))
    limits = (max(int(source.max()), min(wanted[0], longest[0])), max(int(target.max()), min(wanted[1], longest[1])))
    if sum(limits) > budget:
        return None
    num_parts = -(-len(examples) // _PART)
    parts = (slice(begin, None, num_parts) for begin in range(num_parts))
    return [row for part in parts for row in _fill(examples[part], source[part], target[part], limits)]


def _fill(examples: np.ndarray, source: np.ndarray, target: np.ndarray, limits: tuple[int, int]) -> Rows:
    """Rows within the limits by best fit: the largest example first, each to the row that it leaves least room in."""
    size = source / limits[0] + target / limits[1]
    rows: list[list[int]] = []
    # Of every row what is free on both sides, and in sum as a part of the limits.
    free = np.full((2, len(examples)), np.array(limits)[:, None], np.int64)
    room = np.full(len(examples), 2.0)
    for i in np.argsort(-size, kind="stable").tolist():
        num = len(rows)
        fits = (free[0, :num] >= source[i]) & (free[1, :num] >= target[i])
        left = np.where(fits, room[:num], np.inf)
        row = int(left.argmin()) if num else 0
        if not num or left[row] == np.inf:
            row = num
            rows.append([])
        rows[row].append(i)
        free[0, row] -= source[i]
        free[1, row] -= target[i]
        room[row] -= size[i]
    return [examples[row] for row in rows]
