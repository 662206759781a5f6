"""What a sweep found out, and how sure that is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from recipes.sweeping.ledger import Ledger, RunRecord

# Student's t, 97.5 % quantile for 1 to 30 degrees of freedom (any table, such as NIST/SEMATECH 1.3.6.7.2).
_T975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True)
class Interval:
    """Mean of some values and the half width of its 95 % confidence interval (Student's t); None for one value."""

    mean: float
    half_width: float | None
    num: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        num = len(values)
        if num < 2:
            return cls(fmean(values), None, num)
        t = _T975[num - 2] if num - 2 < len(_T975) else 1.96 + 2.5 / (num - 1)
        return cls(fmean(values), t * stdev(values) / math.sqrt(num), num)

    def __str__(self) -> str:
        return f"{self.mean:.4f}" + (f" ± {self.half_width:.4f}" if self.half_width is not None else "")


@dataclass(frozen=True)
class Candidate:
    """A finished trial. trial_score: its held-out loss in the search; seeds: of its final runs, by seed."""

    run: RunRecord
    trial_score: float
    seeds: dict[int, float]

    @property
    def interval(self) -> Interval | None:
        return Interval.of(list(self.seeds.values())) if self.seeds else None


@dataclass(frozen=True)
class Answer:
    """candidates: best first; those with final runs before those without, whose one score was picked for being low.

    behind: by how much each other candidate with final runs is worse than the winner, over their common seeds.
    total_steps: updates of a trial. num_trials: planned. max_concurrent: the most trials that ran together.
    """

    candidates: list[Candidate]
    behind: dict[int, Interval]
    trials: list[RunRecord]
    finals: list[RunRecord]
    total_steps: int
    num_trials: int
    max_concurrent: int

    @property
    def winner(self) -> Candidate | None:
        return self.candidates[0] if self.candidates else None

    @property
    def updates_spent(self) -> int:
        return sum(run.updates for run in self.trials)

    @property
    def updates_exhaustive(self) -> int:
        return self.num_trials * self.total_steps

    @property
    def seconds_per_update(self) -> float | None:
        """Of one trial's process, all included, from the runs that were not cut off."""
        whole = [run for run in (*self.trials, *self.finals) if len(run.starts) == 1 and run.ended and run.updates]
        updates = sum(run.updates for run in whole)
        return sum(run.ended - run.starts[0] for run in whole) / updates if updates else None

    @property
    def seconds_saved(self) -> float | None:
        """What training every trial to the end would have cost more, at the same number of trials at a time."""
        each = self.seconds_per_update
        return None if each is None else (self.updates_exhaustive - self.updates_spent) * each / self.max_concurrent

    def count(self, state: str) -> int:
        return sum(run.state == state for run in self.trials)


def best_trials(ledger: Ledger, top_k: int) -> list[RunRecord]:
    finished = [run for run in ledger.trials() if run.state == "finished"]
    return sorted(finished, key=lambda run: run.score)[:top_k]


def find_answer(ledger: Ledger, total_steps: int, num_trials: int) -> Answer:
    """From the ledger alone."""
    finals: dict[int, dict[int, float]] = {}
    for run in ledger.finals():
        if run.state == "finished":
            finals.setdefault(run.trial, {})[run.seed] = run.score
    candidates = [Candidate(run, run.score, finals.get(run.trial, {})) for run in best_trials(ledger, num_trials)]
    candidates.sort(key=lambda each: (not each.seeds, each.interval.mean if each.seeds else each.trial_score))
    behind: dict[int, Interval] = {}
    for other in candidates[1:]:
        common = candidates[0].seeds.keys() & other.seeds.keys()
        if common:
            behind[other.run.trial] = Interval.of([other.seeds[s] - candidates[0].seeds[s] for s in sorted(common)])
    return Answer(candidates, behind, ledger.trials(), ledger.finals(), total_steps, num_trials, _at_a_time(ledger))


def _at_a_time(ledger: Ledger) -> int:
    """The most trials that ran together."""
    runs = [run for run in ledger.trials() if run.starts and run.ended]
    changes = sorted([(run.starts[-1], 1) for run in runs] + [(run.ended, -1) for run in runs])
    return max(1, *itertools.accumulate(change for _, change in changes), 1)


def verdict(difference: Interval) -> str:
    """Whether a candidate is really worse than the winner, as far as the seeds tell."""
    if difference.half_width is None:
        return "one seed cannot tell"
    low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
    return "worse" if low > 0 else "better" if high < 0 else "cannot be told apart"


def as_json(answer: Answer) -> dict[str, Any]:
    """``answer.json``: all numbers that the report and the terminal show."""

    def interval(value: Interval | None) -> dict[str, Any] | None:
        return None if value is None else {"mean": value.mean, "half_width_95": value.half_width, "num": value.num}

    return {
        "winner": answer.winner.run.name if answer.winner else None,
        "candidates": [
            {
                "trial": each.run.name,
                "point": each.run.point,
                "trial_score": each.trial_score,
                "seeds": {str(seed): loss for seed, loss in sorted(each.seeds.items())},
                "final": interval(each.interval),
                "behind": interval(answer.behind.get(each.run.trial)),
            }
            for each in answer.candidates
        ],
        "num_trials": answer.num_trials,
        "ended": {state: answer.count(state) for state in ("finished", "stopped", "failed")},
        "updates_spent": answer.updates_spent,
        "updates_exhaustive": answer.updates_exhaustive,
        "updates_final": sum(run.updates for run in answer.finals),
        "seconds_saved": answer.seconds_saved,
    }
