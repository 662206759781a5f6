"""Rungs, and who survives them: against Ray Tune's own ASHA."""

import types

import numpy as np
import pytest

from recipes.errors import UserError
from recipes.sweeping.rungs import best_of, rung_steps, survives


@pytest.mark.parametrize(
    ("grace_steps", "reduction_factor", "total_steps", "expected"),
    [
        (30, 3, 400, [30, 90, 270, 400]),
        (1, 2, 8, [1, 2, 4, 8]),  # a power that is the total is not there twice
        (400, 4, 400, [400]),
        (399, 4, 400, [399, 400]),
    ],
)
def test_rung_steps(grace_steps, reduction_factor, total_steps, expected):
    assert rung_steps(grace_steps, reduction_factor, total_steps) == expected


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0, 3, 9), "grace_steps is 0: give at least 1 update before the first rung"),
        ((1, 1, 9), "reduction_factor is 1: give at least 2, of which one trial survives a rung"),
        ((10, 3, 9), "grace_steps 10 is more than the 9 updates of a trial: give fewer"),
    ],
)
def test_impossible_rungs_are_refused(numbers, message):
    with pytest.raises(UserError) as refusal:
        rung_steps(*numbers)
    assert str(refusal.value) == message


@pytest.mark.parametrize("reduction_factor", [2, 3, 4])
def test_survives_decides_as_tunes_asha(reduction_factor):
    from ray.tune.schedulers import ASHAScheduler

    draw = np.random.default_rng(reduction_factor)
    total = 100
    theirs = ASHAScheduler(
        time_attr="step",
        metric="loss",
        mode="min",
        grace_period=5,
        max_t=total,
        reduction_factor=reduction_factor,
        stop_last_trials=False,
    )
    rungs = rung_steps(5, reduction_factor, total)
    recorded = {step: [] for step in rungs}
    stopped = 0
    for number in range(40):
        trial = types.SimpleNamespace(trial_id=str(number), stub=False)
        theirs.on_trial_add(None, trial)
        for step in rungs[:-1]:
            loss = float(draw.normal())
            went_on = theirs.on_trial_result(None, trial, {"step": step, "loss": loss}) == ASHAScheduler.CONTINUE
            assert survives(loss, recorded[step], reduction_factor) == went_on
            recorded[step].append(loss)
            if not went_on:
                stopped += 1
                break
    assert 10 < stopped < 40


def test_a_loss_that_is_not_finite_never_survives_and_does_not_count():
    assert not survives(float("nan"), [], 3)
    assert not survives(float("inf"), [1.0], 3)
    assert survives(5.0, [float("nan"), float("inf")], 3)


def test_best_of_keeps_at_least_one_and_puts_nan_last():
    assert best_of([3.0, float("nan"), 1.0, 2.0, 1.0, 9.0], 3) == [2, 4]
    assert best_of([float("nan"), 2.0], 3) == [1]
