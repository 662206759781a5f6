"""A sweep whose command is killed or stopped, and one whose trials have two workers each."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from recipes.storage import Storage
from recipes.sweeping.ledger import Ledger
from tests.conftest import write_pairs
from tests.launching.conftest import wait_until
from tests.sweeping.small_sweep import small_sweep

pytestmark = pytest.mark.slow

# One trial at a time: then the order of all decisions is that of the trials.
ONE_AT_A_TIME = (
    "sweep.max_concurrent=1",
    "base.schedule.total_steps=24",
    "sweep.num_trials=7",
    "base.checkpoint.every_steps=3",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    write_pairs(folder / "pairs.jsonl")
    return folder


def start(arguments):
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "recipes.sweep", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(arguments, timeout_s=600):
    process = start(arguments)
    out, err = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, err
    assert out == ""
    return err


def events(folder):
    path = folder / "ledger.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def decisions(folder):
    """What happened, without times and without who was handed out how often."""
    return [
        {key: value for key, value in event.items() if key not in ("time", "seconds")}
        for event in events(folder)
        if event["event"] != "started"
    ]


def decided(folder, name):
    """How often a run had to be started, had nothing been killed: once, and each time it was called back."""
    return 1 + sum(event["event"] == "called_back" and event["run"] == name for event in events(folder))


def _lives(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def step_of(folder, name):
    path = folder / "trials" / name / "metrics.jsonl"
    return max((json.loads(line)["step"] for line in path.read_text().splitlines()), default=0) if path.exists() else 0


@pytest.fixture(scope="module")
def unbroken(place):
    finish(small_sweep(place / "pairs.jsonl", place / "strict_unbroken", *ONE_AT_A_TIME))
    return place / "strict_unbroken" / "small"


@pytest.fixture(scope="module")
def unbroken_promoting(place):
    finish(small_sweep(place / "pairs.jsonl", place / "promote_unbroken", *ONE_AT_A_TIME, "scheduler.rule=promote"))
    return place / "promote_unbroken" / "small"


@pytest.mark.parametrize("rule", ["strict", "promote"])
def test_a_sweep_killed_twice_is_the_unbroken_one(place, rule, request):
    unbroken = request.getfixturevalue("unbroken_promoting" if rule == "promote" else "unbroken")
    arguments = small_sweep(place / "pairs.jsonl", place / f"{rule}_killed", *ONE_AT_A_TIME, f"scheduler.rule={rule}")
    folder = place / f"{rule}_killed" / "small"
    for name, step in (("001", 6), ("004", 2)):
        process = start(arguments)
        family = []
        wait_until(lambda name=name, step=step: step_of(folder, name) >= step, 300)
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate(timeout=60)
        # A local Ray ends with the command that started it; its agents notice last, on a busy machine after minutes.
        wait_until(lambda family=family: not any(_lives(each) for each in family), 300)
    before = [run.name for run in Ledger(Storage(folder)).trials() if run.ended_for_good]
    assert before
    said = finish(arguments)
    assert decisions(folder) == decisions(unbroken)
    started = [event["run"] for event in events(folder) if event["event"] == "started"]
    for name in before:
        assert started.count(name) == decided(folder, name) or name == "001"
    assert started.count("004") == decided(folder, "004") + 1  # cut off, it went on from its own checkpoint
    assert "winner: trial " in said
    answers = [json.loads((each / "answer.json").read_text()) for each in (folder, unbroken)]
    for answer in answers:
        answer.pop("seconds_saved")
    assert answers[0] == answers[1]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_with_checkpoints_and_the_same_command_goes_on(place, unbroken, sent, code):
    storage = place / f"stopped_{code}"
    arguments = small_sweep(place / "pairs.jsonl", storage, *ONE_AT_A_TIME, "base.checkpoint.every_steps=100")
    folder = storage / "small"
    process = start(arguments)
    wait_until(lambda: step_of(folder, "001") >= 2, 300)
    process.send_signal(sent)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert "stopped; the same command with sweep.resume=auto goes on with" in err.splitlines()[-1]
    cut_off = [run.name for run in Ledger(Storage(folder)).trials() if not run.ended_for_good]
    if cut_off:
        # Its own cadence had not come round: this checkpoint is the stop's.
        assert list((folder / "trials" / cut_off[0] / "checkpoints").iterdir())
    finish(arguments)
    assert decisions(folder) == decisions(unbroken)


def test_trials_of_two_workers_on_two_cores(place):
    """A stopped trial frees its workers, else the next one would wait for ever."""
    space = "space: {schedule.peak_lr: {grid: [0.03, 0.001, 0.02]}}"
    overrides = ("base.scaling.num_workers=2", "sweep.search=grid", "sweep.num_trials=null", "final.top_k=0")
    finish(small_sweep(place / "pairs.jsonl", place / "two", *overrides, space=space), timeout_s=1200)
    folder = place / "two" / "small"
    trials = Ledger(Storage(folder)).trials()
    assert [run.point for run in trials] == [{"schedule.peak_lr": lr} for lr in (0.03, 0.001, 0.02)]
    assert [run.state for run in trials[:2]] == ["finished", "stopped"]
    assert trials[2].state in ("finished", "stopped")
    summary = json.loads((folder / "trials" / "000" / "summary.json").read_text())
    assert (summary["num_workers"], summary["eval_loss"]) == (2, trials[0].score)


def test_optuna_and_fifo(place):
    arguments = small_sweep(
        place / "pairs.jsonl",
        place / "optuna",
        *(
            "sweep.search=optuna",
            "sweep.num_trials=6",
            "scheduler.kind=fifo",
            "scoring.method=averaged",
            "final.top_k=0",
        ),
    )
    said = finish(arguments)
    trials = Ledger(Storage(place / "optuna" / "small")).trials()
    assert [run.state for run in trials] == ["finished"] * 6
    assert all(sorted(run.rungs) == [4, 8] and run.updates == 16 for run in trials)
    assert "96 updates spent of 96 exhaustive (100%)" in said
    assert "one seed" in said
