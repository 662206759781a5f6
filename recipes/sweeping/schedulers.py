"""Tune's schedulers with a memory: every result goes to the ledger before anything follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from recipes.sweeping.ledger import Ledger, RunRecord
from recipes.sweeping.promotion import goes_straight_on
from recipes.sweeping.rungs import in_best_part
from recipes.sweeping.sweep_config import SchedulerBlock

_SCORE = ("step", "score", "raw", "extra_updates", "seconds")


@dataclass(frozen=True)
class Desk:
    """Where a scheduler writes: the ledger, and the board on which trials wait for a decision."""

    ledger: Ledger
    board: Any

    def take(self, result: dict[str, Any], goes_on: Callable[[str, int, float], bool]) -> None:
        """Enter a trial's report; one of a rung is decided, the others are ends."""
        name, state, step = result["run"], result["state"], int(result["step"])
        if state == "rung":
            verdict = goes_on(name, step, result["score"])
            self.ledger.rung(name, {key: result[key] for key in _SCORE}, verdict)
            self.board.decide.remote(name, step, verdict)
        elif state == "finished":
            self.ledger.finished(name, step, result["score"])
        elif state == "failed":
            self.ledger.failed(name, step, result["message"])

    def take_error(self, trial: Any) -> None:
        """Enter a trial that raised, or whose process died."""
        import ray

        name = trial.config["run"]
        told = ray.get(self.board.take_failure.remote(name))
        if told is None:
            error = trial.get_pickled_error()
            words = f"{type(error).__name__}: its process died without a word: killed, or out of memory"
            told = {"step": self.ledger.runs[name].step, "message": words}
        self.ledger.failed(name, told["step"], told["message"])


class _NotKept:
    """Tune pickles its scheduler into a file for Tuner.restore, which nothing here uses: the ledger is what is kept."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return FIFOScheduler, ()


class AllToTheEnd(_NotKept, FIFOScheduler):
    """Stops nobody."""

    def __init__(self, desk: Desk):
        super().__init__()
        self._desk = desk

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        self._desk.take(result, lambda name, step, score: True)
        return TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._desk.take_error(trial)


class Asha(_NotKept, ASHAScheduler):
    """Tune's ASHA, with the rungs it would have forgotten filled in from the ledger.

    rungs: in optimizer updates, the last one the end of a run. A trial that must not go on is told so by the board
    and ends by itself, so Tune only ever hears CONTINUE.
    """

    def __init__(self, desk: Desk, rungs: Sequence[int], settings: SchedulerBlock, seed: int):
        super().__init__(
            time_attr="step",
            metric="score",
            mode="min",
            max_t=rungs[-1],
            grace_period=rungs[0],
            reduction_factor=settings.reduction_factor,
            brackets=settings.brackets,
        )
        self._desk, self._seed, self._rule = desk, seed, settings.rule
        for number, bracket in enumerate(self._brackets):
            # Tune's own list, highest first; its logarithm of max_t / grace_period may round a rung away.
            bracket._rungs = [(step, {}) for step in reversed(rungs[number:-1])]
        for run in desk.ledger.trials():
            self._refill(run)

    def _refill(self, run: RunRecord) -> None:
        for milestone, recorded in self._bracket(run)._rungs:
            if milestone in run.rungs:
                recorded[run.name] = -run.rungs[milestone]["score"]

    def _bracket(self, run: RunRecord) -> Any:
        """Tune's odds (one rung more, e times as likely), but drawn from the trial's number: the same after a resume."""
        odds = np.exp([len(bracket._rungs) for bracket in self._brackets])
        drawn = np.random.default_rng([self._seed, run.trial, 1]).choice(len(odds), p=odds / odds.sum())
        return self._brackets[int(drawn)]

    def _goes_on(self, name: str, step: int, score: float) -> bool:
        bracket = self._bracket(self._desk.ledger.runs[name])
        if self._rule != "percentile":
            recorded = dict(bracket._rungs).get(step)
            if recorded is None:
                return True
            earlier = [-other for other in recorded.values()]
            recorded[name] = -score
            rule = in_best_part if self._rule == "strict" else goes_straight_on
            return rule(score, earlier, self._reduction_factor)
        action = bracket.on_result(SimpleNamespace(trial_id=name), step, -score)
        return action == TrialScheduler.CONTINUE

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        pass

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        self._desk.take(result, self._goes_on)
        return TrialScheduler.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        pass

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        pass

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._desk.take_error(trial)
