"""Who is called back: the promoting rule of asynchronous successive halving.

Every trial pauses at a rung, unless it is among the best there already. A free place is given to a paused trial that has come
to be among the best 1/reduction_factor of its rung, at the highest rung that has one, and only then to a new trial. So
nobody goes on for having come early, and nobody is lost for it. Source: Li et al. 2020, "A System for Massively
Parallel Hyperparameter Tuning" (arXiv 1810.05934), algorithm 2.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from recipes.sweeping.ledger import RunRecord
from recipes.sweeping.rungs import best_of


def goes_straight_on(score: float, earlier_scores: Sequence[float], reduction_factor: int) -> bool:
    """Whether a trial need not pause: it would be called back at once."""
    scores = [*earlier_scores, score]
    return len(scores) >= reduction_factor and len(scores) - 1 in best_of(scores, reduction_factor)


def to_call_back(
    trials: Sequence[RunRecord],
    rungs: Sequence[int],
    reduction_factor: int,
    busy: Collection[str] = (),
    too_few: bool = False,
) -> RunRecord | None:
    """The paused trial that goes on next; None: none does now.

    rungs: all but the end of a trial. busy: names of those whose processes have not let go of them yet. too_few: no
    trial is new or runs, and fewer have finished than are wanted: then the best of those that came furthest goes on.
    """
    for step in reversed(rungs):
        there = [run for run in trials if step in run.rungs]
        if len(there) < reduction_factor:
            continue
        for i in best_of([run.rungs[step]["score"] for run in there], reduction_factor):
            if _pauses_at(there[i]) == step and there[i].name not in busy:
                return there[i]
    paused = [run for run in trials if _pauses_at(run) and run.name not in busy]
    if not too_few or not paused:
        return None
    return min(paused, key=lambda run: (-max(run.rungs), run.rungs[max(run.rungs)]["score"]))


def _pauses_at(run: RunRecord) -> int | None:
    return max(run.rungs) if run.state == "stopped" else None
