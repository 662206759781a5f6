"""How well a rung's order foretold the final one."""

from __future__ import annotations

import math
from collections.abc import Sequence


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b of two lists of values: 1 for the same order, -1 for the reverse; None where one is all ties.

    Source: Kendall 1945, as in scipy.stats.kendalltau.
    """
    concordant, ties_first, ties_second, pairs = 0, 0, 0, 0
    for i in range(len(first)):
        for j in range(i):
            one, other = first[i] - first[j], second[i] - second[j]
            pairs += 1
            ties_first += one == 0
            ties_second += other == 0
            concordant += (one * other > 0) - (one * other < 0)
    spread = math.sqrt((pairs - ties_first) * (pairs - ties_second))
    return concordant / spread if spread else None
