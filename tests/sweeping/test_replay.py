"""The replay behind docs/sweeps.md: its successive halvings and its statistics, on sweeps small enough to do by hand."""

import numpy as np
import pytest

from benchmarks.sweep_bias.law import predictions
from benchmarks.sweep_bias.replay import Record, judge, kendall_tau, promotion, stopping, synchronous
from lrsched import Schedule
from recipes.sweeping.rungs import in_best_part

RUNGS = [10, 20, 40]


def records(at_10, at_20, final, cost=0):
    return [
        Record(f"s{i}", 1, end, 40, {10: {"x": a}, 20: {"x": b}}, {10: {"x": cost}, 20: {"x": cost}})
        for i, (a, b, end) in enumerate(zip(at_10, at_20, final, strict=True))
    ]


def test_kendall_tau():
    assert kendall_tau([1, 2, 3, 4], [1, 2, 3, 4]) == 1.0
    assert kendall_tau([1, 2, 3, 4], [4, 3, 2, 1]) == -1.0
    assert kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / np.sqrt(2 * 3))


def test_synchronous_halving_spends_what_its_rungs_say():
    trials = records([4, 3, 2, 1], [0, 0, 1, 2], [9, 9, 1, 0])
    outcome = synchronous(trials, "x", RUNGS, 2)
    # 4 runs to 10, the best 2 to 20, of them s2 to the end.
    assert [record.schedule for record in outcome.finished] == ["s2"]
    assert outcome.spent == 4 * 10 + 2 * 10 + 20
    assert synchronous(records([4, 3, 2, 1], [0, 0, 1, 2], [9, 9, 1, 0], cost=3), "x", RUNGS, 2).spent == 80 + 6 * 3


def test_the_stopping_variant_never_stops_ever_better_runs_and_the_promoting_one_waits():
    trials = records([4, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1])
    assert stopping(trials, "x", RUNGS, 2).spent == 4 * 40
    promoted = promotion(trials, "x", RUNGS, 2)
    assert trials[3] in promoted.finished
    assert promoted.spent < 4 * 40


def test_promotion_ends_with_a_finished_run_even_where_a_rung_never_fills():
    assert len(promotion(records([2, 1], [2, 1], [2, 1]), "x", RUNGS, 4).finished) == 1


def test_judge_tells_the_lost_best_from_the_close_winner():
    trials = records([1, 2, 3], [1, 2, 3], [1.005, 1.0, 2.0])
    outcome = synchronous(trials, "x", RUNGS, 3)
    judged = judge(outcome, trials, {"s0": 1.005, "s1": 1.0, "s2": 2.0}, 40)
    assert judged["best_survives"] == 0.0
    assert judged["close_survives"] == judged["winner_close"] == 1.0
    assert judged["behind"] == pytest.approx(0.005)
    assert judged["spent"] == pytest.approx((30 + 10 + 20) / 120)


def test_the_law_predicts_curves_that_follow_it():
    """Losses made from the law's own formula: what is predicted after half the run is their end."""
    runs = []
    for shape in ({"shape": "constant"}, {"shape": "linear"}, {"shape": "cosine"}, {"shape": "step", "step_size": 20}):
        definition = {"peak_lr": 1.0, "total_steps": 120, "decay": shape}
        lrs = Schedule.from_dict(definition).lr(np.arange(120))
        momentum = fallen = 0.0
        curve = []
        for k in range(120):
            momentum = 0.9 * momentum + (lrs[k - 1] - lrs[k] if k else 0.0)
            fallen += momentum
            curve.append(3.0 + 4.0 * (lrs[: k + 1].sum() + 1.0) ** -0.5 - 0.05 * fallen)
        rungs = {"60": {"raw": curve[59]}}
        runs.append({"definition": definition, "train_losses": curve[4::5], "rungs": rungs, "end": curve[-1]})
    predicted = predictions(runs, 60, {}, 0.1)
    assert predicted["raw law"] == pytest.approx([run["end"] for run in runs], rel=1e-6)
    # Half of a constant lr is before it; of a line down to 0, a quarter is left.
    raw = [run["rungs"]["60"]["raw"] for run in runs]
    assert predicted["raw projected"][0] == pytest.approx(raw[0] * 0.5**0.1, rel=1e-12)
    assert predicted["raw projected"][1] == pytest.approx(raw[1] * 0.75**0.1, rel=1e-3)


def test_the_strict_rule_lets_a_quarter_through():
    assert in_best_part(1.0, [], 4)
    assert not in_best_part(2.0, [1.0], 4)
    # Second of seven: a quarter is one; of eight, two.
    assert not in_best_part(2.0, [1.0, 3.0, 4.0, 5.0, 6.0, 7.0], 4)
    assert in_best_part(2.0, [1.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 4)
    # In turn at update 10: the first; second of two; first of three; second of four, of which two go on.
    outcome = stopping(records([4, 5, 3, 4], [1, 2, 3, 4], [0, 0, 0, 0]), "x", RUNGS, 2, goes_on=in_best_part)
    assert [record.schedule for record in outcome.finished] == ["s0"]
    assert outcome.spent == 4 * 10 + 3 * 10 + 20
