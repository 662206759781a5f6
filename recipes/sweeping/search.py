"""Which points of the space are tried: drawn, all of them, or proposed by optuna from what has ended so far."""

from __future__ import annotations

import warnings
from typing import Any, Protocol

from recipes.sweeping.distributions import Distribution
from recipes.sweeping.ledger import Ledger, RunRecord
from recipes.sweeping.space import FAMILY, Point, Space, all_combinations, draw
from recipes.sweeping.sweep_config import SweepBlock


class Search(Protocol):
    num_trials: int
    # Whether a point depends on nothing but its number, so that all can be looked at beforehand.
    known_beforehand: bool

    def point(self, number: int) -> Point:
        """The point of trial ``number`` (from 0)."""


def make_search(settings: SweepBlock, space: Space, ledger: Ledger) -> Search:
    if settings.search == "grid":
        return GridSearch(space)
    if settings.search == "optuna":
        return OptunaSearch(space, settings.seed, settings.num_trials, ledger)
    return RandomSearch(space, settings.seed, settings.num_trials)


class RandomSearch:
    known_beforehand = True

    def __init__(self, space: Space, seed: int, num_trials: int):
        self.space, self.seed, self.num_trials = space, seed, num_trials

    def point(self, number: int) -> Point:
        return draw(self.space, self.seed, number)


class GridSearch:
    known_beforehand = True

    def __init__(self, space: Space):
        self._points = all_combinations(space)
        self.num_trials = len(self._points)

    def point(self, number: int) -> Point:
        return self._points[number]


class OptunaSearch:
    """optuna's TPE sampler, made anew from the ledger for every point, so that a resume needs nothing else.

    The first points are drawn, families in turn: TPE needs some to begin with. A stopped trial counts as
    pruned at its last rung, a failed one as failed, one that still runs as no better than the mean
    (constant_liar), so that trials at a time do not all go to one place.
    """

    known_beforehand = False

    def __init__(self, space: Space, seed: int, num_trials: int, ledger: Ledger):
        self.space, self.seed, self.num_trials, self.ledger = space, seed, num_trials, ledger
        self.num_drawn = min(num_trials, max(len(space.families), min(10, num_trials // 2)))

    def point(self, number: int) -> Point:
        if number < self.num_drawn:
            return draw(self.space, self.seed, number)
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            # constant_liar is marked experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=self.seed + number, n_startup_trials=1, constant_liar=True)
        study = optuna.create_study(sampler=sampler)
        for run in self.ledger.trials():
            if run.trial < number:
                study.add_trial(self._as_optuna(run))
        return self._ask(study.ask())

    def _ask(self, trial: Any) -> Point:
        family, point = None, {}
        if self.space.families:
            names = [family.name for family in self.space.families]
            point[FAMILY] = trial.suggest_categorical(FAMILY, names)
            family = self.space.family(point)
        for name, each in self.space.parameters(family).items():
            # optuna has no public way to ask for a ready-made distribution.
            if each.kind == "randint":
                point[name] = trial.suggest_int(name, each.values[0], each.values[1] - 1)
            elif each.is_range:
                number = trial.suggest_float(name, *each.values, log=each.kind == "loguniform")
                point[name] = each.written(number)
            else:
                point[name] = each.values[trial.suggest_categorical(name, list(range(len(each.values))))]
        return point

    def _as_optuna(self, run: RunRecord) -> Any:
        import optuna
        from optuna.distributions import CategoricalDistribution
        from optuna.trial import TrialState

        states = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
        params, distributions = {}, {}
        if self.space.families:
            params[FAMILY] = run.point[FAMILY]
            distributions[FAMILY] = CategoricalDistribution([family.name for family in self.space.families])
        for name, each in self.space.parameters(self.space.family(run.point)).items():
            params[name], distributions[name] = _as_parameter(each, run.point[name])
        return optuna.trial.create_trial(
            state=states.get(run.state, TrialState.RUNNING),
            params=params,
            distributions=distributions,
            value=run.score if run.state == "finished" else None,
            intermediate_values={step: rung["score"] for step, rung in run.rungs.items()},
        )


def _as_parameter(distribution: Distribution, value: Any) -> tuple[Any, Any]:
    """A value of a point, and its distribution, in optuna's terms."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if distribution.kind == "randint":
        return value, IntDistribution(distribution.values[0], distribution.values[1] - 1)
    if distribution.is_range:
        number = float(str(value).removesuffix(distribution.unit)) if distribution.unit else value
        return number, FloatDistribution(*distribution.values, log=distribution.kind == "loguniform")
    return distribution.values.index(value), CategoricalDistribution(list(range(len(distribution.values))))
