"""Who is called back: by hand, against the replay's own halving, and in the real command."""

import json
import subprocess
import sys

import numpy as np
import pytest

from recipes.storage import Storage
from recipes.sweeping.ledger import Ledger
from recipes.sweeping.promotion import goes_straight_on, to_call_back
from tests.conftest import write_pairs
from tests.launching.conftest import cluster, train  # noqa: F401
from tests.sweeping.small_sweep import small_sweep

RUNGS = [4, 8]


def ledger(tmp_path, scores):
    """Trials that pause at the last of their rungs. scores: one list for each, a score for each rung."""
    found = Ledger(Storage(tmp_path))
    for number, own in enumerate(scores):
        name = f"{number:03d}"
        found.drawn(name, number, {})
        found.started(name)
        for step, score in zip(RUNGS, own, strict=False):
            entry = {"step": step, "score": score, "raw": score, "extra_updates": 0, "seconds": 0.0}
            found.rung(name, entry, goes_on=step != RUNGS[len(own) - 1])
    return found


def back(found, **more):
    run = to_call_back(found.trials(), RUNGS, 2, **more)
    return run and run.name


def test_nobody_goes_on_before_a_rung_has_as_many_as_the_factor(tmp_path):
    assert not goes_straight_on(1.0, [], 2)
    assert back(ledger(tmp_path, [[1.0]])) is None


def test_the_best_part_is_called_back_and_the_highest_rung_first(tmp_path):
    found = ledger(tmp_path, [[3.0], [1.0], [2.0], [4.0]])
    assert back(found) == "001"
    found.called_back("001")
    assert back(found) == "002"  # two of four
    found.called_back("002")
    assert back(found) is None
    higher = ledger(tmp_path / "b", [[1.0, 5.0], [2.0, 4.0], [0.5], [0.6]])
    assert back(higher) == "001"  # at 8, though two are to be called back at 4
    assert back(higher, busy={"001"}) == "002"


def test_a_latecomer_calls_an_earlier_one_back(tmp_path):
    found = ledger(tmp_path, [[2.0], [1.0], [3.0]])
    found.called_back("001")
    assert back(found) is None  # one of three
    worse = ledger(tmp_path / "b", [[2.0], [1.0], [3.0], [4.0]])
    worse.called_back("001")
    assert back(worse) == "000"  # two of four


def test_goes_straight_on_is_being_called_back_at_once():
    rng = np.random.default_rng(3)
    for _ in range(200):
        earlier = list(rng.normal(size=rng.integers(0, 12)))
        score, factor = float(rng.normal()), int(rng.integers(2, 5))
        num, ahead = len(earlier) + 1, sum(other < score for other in earlier)
        assert goes_straight_on(score, earlier, factor) == (num >= factor and ahead < num // factor)


def test_with_too_few_finished_the_furthest_go_on(tmp_path):
    found = ledger(tmp_path, [[1.0, 3.0], [2.0], [0.5]])
    assert back(found) == "002"  # one of three at 4
    found.called_back("002")
    assert back(found) is None
    assert back(found, too_few=True) == "000"
    assert to_call_back(ledger(tmp_path / "b", [[2.0]]).trials(), RUNGS, 2, too_few=True).name == "000"


def test_a_ledger_read_again_knows_who_was_called_back(tmp_path):
    found = ledger(tmp_path, [[3.0], [1.0]])
    found.called_back("001")
    again = Ledger(Storage(tmp_path))
    assert [run.state for run in again.trials()] == ["stopped", "waiting"]
    assert not again.runs["001"].ended_for_good


# The first is the best: it pauses all the same, for it comes alone, and is called back for the second.
SPACE = "space: {schedule.peak_lr: {grid: [0.03, 0.001, 0.02, 0.0003, 0.01, 0.0001]}}"


@pytest.fixture(scope="module")
def finished(cluster, tmp_path_factory):  # noqa: F811
    place = tmp_path_factory.mktemp("promoting")
    data = write_pairs(place / "pairs.jsonl")
    grid = ("sweep.search=grid", "sweep.num_trials=null", "sweep.max_concurrent=1")
    overrides = (*grid, "scheduler.rule=promote", "base.checkpoint.every_steps=100")
    arguments = small_sweep(data, place / "runs", *overrides, space=SPACE)
    command = [sys.executable, "-m", "recipes.sweep", *arguments]
    result = subprocess.run(command, env=cluster, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return place / "runs" / "small"


def test_half_goes_on_at_each_rung_whoever_came_first(finished):
    trials = Ledger(Storage(finished)).trials()
    at = {step: {run.name: run.rungs[step]["score"] for run in trials if step in run.rungs} for step in RUNGS}
    assert len(at[4]) == 6
    best = sorted(at[4], key=at[4].get)
    # A half at least: one that was in the best half once is not called off again.
    assert set(best[:3]) <= set(at[8])
    done = [run.name for run in trials if run.state == "finished"]
    assert set(sorted(at[8], key=at[8].get)[: len(at[8]) // 2]) <= set(done)
    assert len(done) >= 2  # final.top_k
    assert {run.state for run in trials} == {"finished", "stopped"}


def test_one_that_paused_is_the_run_that_never_did(finished, cluster):  # noqa: F811
    events = [json.loads(line) for line in (finished / "ledger.jsonl").read_text().splitlines()]
    name = "000"
    assert [event["event"] for event in events if event["run"] == name] == [
        *("drawn", "started", "rung", "called_back", "started", "rung", "called_back", "started", "finished"),
    ]
    result = train([str(finished / "trials" / name / "config.yaml"), "run.name=alone"], cluster)
    assert result.returncode == 0, result.stderr
    weights = [(finished / "trials" / each / "export" / "model.safetensors").read_bytes() for each in (name, "alone")]
    assert weights[0] == weights[1]


def test_the_checkpoints_of_those_that_never_went_on_are_gone(finished):
    for run in Ledger(Storage(finished)).trials():
        assert not list((finished / "trials" / run.name).glob("checkpoints/*"))
