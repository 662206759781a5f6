"""The real command on a real cluster: what a sweep leaves, and that its trials are runs like any other."""

import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import yaml

from recipes.config_file import load_config
from recipes.reporting.metrics import TIMED_FIELDS
from recipes.storage import Storage
from recipes.sweep import main
from recipes.sweeping.ledger import Ledger
from tests.conftest import write_pairs
from tests.launching.conftest import cluster, train  # noqa: F401
from tests.sweeping.small_sweep import small_sweep

# Beside three sane families, one whose first updates make the weights overflow.
SPACE = """
space:
  schedule:
    - {family: cosine, t_max: {uniform: ["50% of decay", "100% of decay"]}, eta_min: {loguniform: [1.0e-6, 1.0e-4]}}
    - {family: step, step_size: {randint: [3, 8]}, gamma: 0.5}
    - {family: wsd, decay_steps: 5, peak_lr: {choice: [0.003, 0.001]}}
    - {family: linear, peak_lr: 1.0e+30}
  schedule.peak_lr: {loguniform: [3.0e-3, 3.0e-2]}
"""


def sweep(arguments, environment, timeout_s=300):
    command = [sys.executable, "-m", "recipes.sweep", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    write_pairs(folder / "pairs.jsonl")
    return folder


@pytest.fixture(scope="module")
def arguments(place):
    return small_sweep(
        place / "pairs.jsonl",
        place / "runs",
        *("base.training.max_skipped_updates=2", "sweep.num_trials=8", "sweep.max_concurrent=2"),
        space=SPACE,
    )


@pytest.fixture(scope="module")
def finished(cluster, place, arguments):  # noqa: F811
    result = sweep(arguments, cluster)
    assert result.returncode == 0, result.stderr
    return place / "runs" / "small", result


def ledger_of(folder):
    return Ledger(Storage(folder))


def test_every_trial_ends_and_a_failed_one_ends_nothing_else(finished):
    folder, result = finished
    trials = ledger_of(folder).trials()
    states = {run.name: run.state for run in trials}
    failed = [run for run in trials if run.state == "failed"]
    assert {run.point["family"] for run in failed} == {"linear"}
    assert len(failed) == 2
    assert all("not finite" in run.message or "diverged" in run.message or "skipped" in run.message for run in failed)
    assert f"{failed[0].name} failed after update" in result.stderr
    assert set(states.values()) == {"finished", "stopped", "failed"}
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_rungs_are_scored_and_a_stopped_trial_was_behind(finished):
    trials = ledger_of(finished[0]).trials()
    for run in trials:
        if run.state == "finished":
            assert sorted(run.rungs) == [4, 8]
            # branch_ratio 0.25: one update at rung 4, two at rung 8.
            assert [run.rungs[step]["extra_updates"] for step in (4, 8)] == [1, 2]
            assert all(rung["score"] != rung["raw"] for rung in run.rungs.values())
        if run.state == "stopped":
            last = max(run.rungs)
            best = min(other.rungs[last]["score"] for other in trials if last in other.rungs)
            assert run.rungs[last]["score"] > best
            assert run.step == last
            assert not (finished[0] / "trials" / run.name / "summary.json").exists()


def test_the_best_are_trained_again_and_the_answer_is_theirs(finished):
    folder, result = finished
    ledger, answer = ledger_of(folder), json.loads((folder / "answer.json").read_text())
    best = sorted((run for run in ledger.trials() if run.state == "finished"), key=lambda run: run.score)[:2]
    assert {run.name for run in ledger.finals()} == {f"{run.name}_seed{seed}" for run in best for seed in (1, 2)}
    means = {run.name: sum(f.score for f in ledger.finals() if f.trial == run.trial) / 2 for run in best}
    winner = min(means, key=means.get)
    assert answer["winner"] == winner
    assert answer["candidates"][0]["final"]["mean"] == pytest.approx(means[winner])
    assert f"winner: trial {winner}, " in result.stderr
    spent = sum(run.updates for run in ledger.trials())
    assert f"{spent} updates spent of 128 exhaustive" in result.stderr
    config = load_config(folder / "winner.yaml")
    assert config.run.name == "small_winner"
    assert config.schedule == load_config(folder / "trials" / winner / "config.yaml").schedule


def test_results_parquet_has_every_rung_and_end(finished):
    rows = pq.read_table(finished[0] / "results.parquet").to_pylist()
    runs = ledger_of(finished[0]).runs
    assert len(rows) == len(runs) + sum(len(run.rungs) for run in runs.values())
    for row in rows:
        run = runs[row["run"]]
        expected = run.score if row["kind"] == "end" else run.rungs[row["step"]]["score"]
        assert (row["score"], row["family"]) == (expected, run.point["family"])


def test_a_trial_is_a_run_that_recipes_train_repeats_bit_for_bit(finished, cluster):  # noqa: F811
    # Scored twice on branches, in a process that had trained others before: no trace of either.
    folder, _ = finished
    trial = next(run for run in reversed(ledger_of(folder).trials()) if run.state == "finished")
    result = train([str(folder / "trials" / trial.name / "config.yaml"), "run.name=alone"], cluster)
    assert result.returncode == 0, result.stderr
    assert _metrics(folder / "trials" / "alone") == _metrics(folder / "trials" / trial.name)
    weights = [
        (folder / "trials" / name / "export" / "model.safetensors").read_bytes() for name in ("alone", trial.name)
    ]
    assert weights[0] == weights[1]


def _metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 17  # 16 updates and an evaluation
    return [{key: value for key, value in line.items() if key not in TIMED_FIELDS} for line in lines]


def test_a_finished_sweep_is_not_run_again(finished, arguments, capsys):
    before = (finished[0] / "ledger.jsonl").read_bytes()
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert "is finished: nothing left to run" in said
    assert "winner: trial" in said
    assert (finished[0] / "ledger.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sweep.seed=4", "sweep.seed (there 3, now 4)"),
        ("base.optimizer.eps=1e-7", "base.optimizer.eps (there 1e-08, now 1e-07)"),
        ("scoring.method=raw", "scoring.method (there 'annealed', now 'raw')"),
    ],
)
def test_the_folder_of_another_sweep_is_refused_with_the_difference(finished, arguments, override, message, capsys):
    assert main([*arguments, override]) == 2
    assert capsys.readouterr().err.strip() == (
        f"{finished[0]} holds a sweep with another definition: {message}; give another sweep.name, or that one"
    )


def test_another_space_is_refused_with_the_difference(finished, arguments, place, capsys):
    content = yaml.safe_load((place / "runs" / "sweep.yaml").read_text())
    content["space"]["schedule"][1]["gamma"] = 0.25
    other = place / "runs" / "other.yaml"
    other.write_text(yaml.safe_dump(content))
    assert main([str(other), *arguments[1:]]) == 2
    assert "space.schedule[1].gamma (there 0.5, now 0.25)" in capsys.readouterr().err


def test_never_refuses_a_folder_with_a_sweep(finished, arguments, capsys):
    assert main([*arguments, "sweep.resume=never"]) == 2
    assert "holds a sweep already: give another sweep.name, or sweep.resume=auto" in capsys.readouterr().err


def test_more_trials_at_a_time_than_the_cluster_holds(finished, arguments, cluster):  # noqa: F811
    result = sweep([*arguments, "sweep.name=many", "sweep.max_concurrent=5"], cluster)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        "sweep.max_concurrent is 5, but the cluster holds 4 trials at a time "
        "(base.scaling.num_workers is 1, each with 1 CPU)"
    )
    assert not (finished[0].parent / "many" / "ledger.jsonl").exists()
