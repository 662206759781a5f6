"""A learning-curve law that knows the lr, fitted over all trials of a sweep: what a trial still has to gain.

``L(k) = L0 + A * (S1(k) + s)**-a - C * S2(k)`` (Tissue et al. 2024, arXiv 2408.11029), with S1 the sum of the lrs so far
and S2 the sum of how far they have fallen, forgotten at rate lambda. L0, A and C come from least squares over the
training losses of all trials up to the rung, a, s and lambda from a grid.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from lrsched import Schedule
from recipes.sweeping.scoring import BranchPath, branch_lrs, lr_sum_share, project

_DECAYS, _POWERS, _SHIFTS = (0.8, 0.9, 0.95, 0.98, 0.99), (0.1, 0.2, 0.3, 0.5, 0.7, 1.0), (0.3, 1.0, 3.0, 10.0)
# Training losses come as means of so many updates; the first windows are left out.
_WINDOW, _LEFT_OUT = 5, 2


def predictions(
    runs: list[dict[str, Any]], step: int, branches: dict[str, tuple[BranchPath, float]], exponent: float
) -> dict[str, list[float]]:
    """Final held-out losses as foretold after ``step`` updates, of the runs of one seed as run_truth.py wrote them.

    "... law": a measured loss (raw, or a branch's) and the fitted law's gain from there to the end of the run.
    "... projected": the same loss projected as `recipes.sweeping.scoring` does, which fits nothing.
    """
    schedules = [Schedule.from_dict(run["definition"]) for run in runs]
    lrs = np.stack([s.lr(np.arange(s.total_steps)) for s in schedules])
    unit = lrs.max()
    curve = fit(lrs[:, :step] / unit, np.array([run["train_losses"][: step // _WINDOW] for run in runs]))
    end, predicted = curve(lrs / unit), {}
    paths: dict[str, list[list[float]]] = {"raw": [[] for _ in runs]}
    for name, (path, ratio) in branches.items():
        paths[name] = [branch_lrs(schedule, step, ratio, path) for schedule in schedules]
    for name, tails in paths.items():
        measured = np.array([run["rungs"][str(step)][name] for run in runs])
        gain = end - curve(np.concatenate([lrs[:, :step], np.array(tails)], axis=1) / unit)
        shares = [lr_sum_share(schedule, step, tail) for schedule, tail in zip(schedules, tails, strict=True)]
        predicted[f"{name} law"] = [float(loss) for loss in measured + gain]
        predicted[f"{name} projected"] = [
            project(float(loss), share, exponent) for loss, share in zip(measured, shares, strict=True)
        ]
    return predicted


def fit(lrs: np.ndarray, losses: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The law of these trials: from the lrs of all updates of each of some runs to the loss after the last.

    lrs: trial, update. losses: trial, window of _WINDOW updates.
    """
    at = (np.arange(_LEFT_OUT, losses.shape[1]) + 1) * _WINDOW - 1
    known = losses[:, _LEFT_OUT:].ravel()
    found = []
    for decay in _DECAYS:
        area, fallen = sums(lrs, decay)
        for power, shift in product(_POWERS, _SHIFTS):
            terms = np.stack([np.ones(known.size), (area[:, at].ravel() + shift) ** -power, -fallen[:, at].ravel()], 1)
            factors = np.linalg.lstsq(terms, known, rcond=None)[0]
            found.append((float(((terms @ factors - known) ** 2).sum()), (decay, power, shift, factors)))
    decay, power, shift, factors = min(found, key=lambda each: each[0])[1]

    def curve(lrs: np.ndarray) -> np.ndarray:
        area, fallen = sums(lrs, decay)
        return factors[0] + factors[1] * (area[:, -1] + shift) ** -power - factors[2] * fallen[:, -1]

    return curve


def sums(lrs: np.ndarray, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """S1 and S2 of every row after every update."""
    fallen, momentum = np.zeros_like(lrs), np.zeros(len(lrs))
    for k in range(1, lrs.shape[1]):
        momentum = decay * momentum + lrs[:, k - 1] - lrs[:, k]
        fallen[:, k] = fallen[:, k - 1] + momentum
    return lrs.cumsum(1), fallen
