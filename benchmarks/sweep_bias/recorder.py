"""Every candidate score at every rung of one run."""

from __future__ import annotations

from typing import Any

from recipes.sweeping.scoring import BranchPath, WeightMean, annealed_loss, branch_lrs, num_updates
from recipes.training.loop import Training, held_out_now

AVERAGED_RATIOS = (0.1, 0.3)


# Score -> path and ratio of its branch.
BRANCHES: dict[str, tuple[BranchPath, float]] = {
    "floor 0.1": ("floor", 0.1),
    "floor 0.2": ("floor", 0.2),
    "rest 0.2": ("rest", 0.2),
    "rest 0.4": ("rest", 0.4),
}


class Recorder:
    """An `after_update`. at: rung -> score -> held-out loss; cost: rung -> score -> updates of its branch."""

    def __init__(self, rungs: list[int]):
        self._rungs = rungs
        self.at: dict[int, dict[str, float]] = {}
        self.cost: dict[int, dict[str, int]] = {}
        self._means = {(rung, ratio): WeightMean() for rung in rungs for ratio in AVERAGED_RATIOS}

    def __call__(self, run: Training) -> None:
        for (rung, ratio), mean in self._means.items():
            if rung - num_updates(ratio, rung) < run.step <= rung:
                mean.add(run.engine)
        if run.step in self._rungs:
            self._score(run)

    def _score(self, run: Training) -> None:
        step, known = run.step, {}
        losses: dict[str, Any] = {"raw": held_out_now(run).loss}
        costs = {"raw": 0}
        for ratio in AVERAGED_RATIOS:
            losses[f"averaged {ratio}"] = self._means.pop((step, ratio)).loss(run)
            costs[f"averaged {ratio}"] = 0
        for name, (path, ratio) in BRANCHES.items():
            lrs = tuple(branch_lrs(run.schedule, step, ratio, path))
            if lrs not in known:  # many schedules have the same floor, end and rest
                known[lrs] = annealed_loss(run, lrs)
            losses[name], costs[name] = known[lrs], len(lrs)
        self.at[step], self.cost[step] = losses, costs
