"""Rungs of a sweep, and who survives one: pure functions of numbers, lower scores are better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recipes.errors import UserError


def rung_steps(grace_steps: int, reduction_factor: int, total_steps: int) -> list[int]:
    """``grace_steps * reduction_factor**i`` for as long as that is below total_steps, then total_steps itself.

    All in optimizer updates. At each of them a trial is scored; at the last one it has finished.

    Raises:
        UserError: naming the number that makes no rungs.

    >>> rung_steps(30, 3, 400)
    [30, 90, 270, 400]
    """
    if grace_steps < 1:
        raise UserError(f"grace_steps is {grace_steps}: give at least 1 update before the first rung")
    if reduction_factor < 2:
        raise UserError(f"reduction_factor is {reduction_factor}: give at least 2, of which one trial survives a rung")
    if grace_steps > total_steps:
        raise UserError(f"grace_steps {grace_steps} is more than the {total_steps} updates of a trial: give fewer")
    steps = []
    while grace_steps < total_steps:
        steps.append(grace_steps)
        grace_steps *= reduction_factor
    return [*steps, total_steps]


def survives(score: float, earlier_scores: Sequence[float], reduction_factor: int) -> bool:
    """Whether a trial goes on after a rung that others reached before it: Tune's ASHA, the stopping variant.

    Tune stops a trial whose score is worse than the best 1/reduction_factor of the *earlier* scores
    (numpy's interpolated percentile); the first one always goes on, and a trial is never called back.
    A score that is not finite does not go on. Source: `_Bracket` in ray/tune/schedulers/async_hyperband.py
    of Ray 2.60, where a nan would go on.
    """
    if not np.isfinite(score):
        return False
    earlier = [other for other in earlier_scores if np.isfinite(other)]
    return not earlier or score <= float(np.percentile(earlier, 100 / reduction_factor))


def in_best_part(score: float, earlier_scores: Sequence[float], reduction_factor: int) -> bool:
    """Whether a trial is in the best 1/reduction_factor of those at a rung so far, itself among them, rounded down.

    The first one is. Tune's percentile (`survives`) lets more of the early ones through: of 25 trials a third at a
    reduction factor of 4, not a quarter.
    """
    ahead = sum(other < score for other in earlier_scores)
    return bool(np.isfinite(score)) and ahead < max(1, (len(earlier_scores) + 1) // reduction_factor)


def best_of(scores: Sequence[float], reduction_factor: int) -> list[int]:
    """The indices of the best 1/reduction_factor (rounded down, at least one): synchronous successive halving.

    Scores that are not finite come last; equal ones keep their order.
    """
    order = np.argsort(np.nan_to_num(np.asarray(scores, np.float64), nan=np.inf), kind="stable")
    return [int(i) for i in order[: max(1, len(scores) // reduction_factor)]]
