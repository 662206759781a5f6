"""Several short examples in one row of a micro-batch.

T5 knows positions only by their differences, so examples that stand one after the other in a row compute what they compute
alone, as long as masks keep them from each other. Rows of like length need hardly any padding.
"""

from __future__ import annotations

import numpy as np

from recipes.data.packing import Lengths, balance, best_cut

# Rows as long as the longest example of the batch, or longer by these factors. Attention costs more in longer rows.
_FACTORS = (1.0, 1.5, 2.0)

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


def plan_rows(examples: np.ndarray, lengths: Lengths, budget: int, num_ranks: int, packing: bool) -> list[list[Rows]]:
    """For every rank its micro-batches, the same number of each, of at most ``budget`` padded tokens.

    packing: put several examples into a row, where ranks are then busy for fewer tokens.
    """
    best_busy, best_rows, best_packed, best_lengths = None, [], [], lengths
    for rows in _candidates(examples, lengths, budget, packing):
        if len(rows) < min(num_ranks, len(examples)):
            continue
        whole = row_lengths(rows, lengths)
        busy, packed = best_cut(np.arange(len(rows)), whole, budget, num_ranks)
        # A rank with an empty micro-batch waits: rather a row each.
        idle = len(rows) < len(examples) and any(not len(batch) for batch in packed)
        if not idle and (best_busy is None or busy < best_busy):
            best_busy, best_rows, best_packed, best_lengths = busy, rows, packed, whole
    dealt = balance(best_packed, best_lengths, num_ranks)
    return [[[best_rows[i] for i in batch] for batch in rank] for rank in dealt]


def _candidates(examples: np.ndarray, lengths: Lengths, budget: int, packing: bool) -> list[list[np.ndarray]]:
    found = [list(examples[:, None])]
    if not packing or len(examples) < 2:
        return found
    source, target = lengths.source[examples], lengths.target[examples]
    ratio = source.sum() / max(1, target.sum())
    for factor in _FACTORS:
        # Wide enough for the longest of each side, and in the proportion of the two, so that both fill up together.
        most_source, most_target = factor * source.max(), factor * target.max()
        limits = (int(max(most_source, ratio * most_target)), int(max(most_target, most_source / ratio)))
        if sum(limits) <= budget:
            found.append(_fill(examples, source, target, limits))
    return found


def _fill(examples: np.ndarray, source: np.ndarray, target: np.ndarray, limits: tuple[int, int]) -> Rows:
    """Rows within the limits by best fit: the largest example first, each to the row that it leaves least room in."""
    size = source / limits[0] + target / limits[1]
    rows: list[list[int]] = []
    free_source, free_target = np.empty(len(examples), np.int64), np.empty(len(examples), np.int64)
    for i in np.argsort(-size, kind="stable").tolist():
        num = len(rows)
        left_source, left_target = free_source[:num] - source[i], free_target[:num] - target[i]
        room = left_source / limits[0] + left_target / limits[1]
        room[(left_source < 0) | (left_target < 0)] = np.inf
        row = int(np.argmin(room)) if num else 0
        if not num or room[row] == np.inf:
            row = num
            rows.append([])
            free_source[row], free_target[row] = limits
        rows[row].append(i)
        free_source[row] -= source[i]
        free_target[row] -= target[i]
    return [examples[row] for row in rows]
