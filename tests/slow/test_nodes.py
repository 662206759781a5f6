"""Nodes that leave and come: real raylets of one cluster are killed, drained and started while a real run trains.

    make test-slow ARGS='-s tests/slow/test_nodes.py'

Prints, at the end, the rows of docs/reliability.md.
"""

import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import small_run, write_pairs
from tests.many_texts import NUM_WINDOWS, cached, in_tasks, parts, write_texts
from tests.slow.faults import Run, last_step, lines, until

pytestmark = pytest.mark.slow
UPDATES, FIRST_PART = 400, 250
TABLE = []


class Nodes:
    """A cluster whose head has no CPUs; nodes of one CPU come and go."""

    def __init__(self, log: Path):
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            # Ray's 60 s are most of a recovery where it counts on a node that is gone.
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
        }
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("ray_nodes.py")), "1"],
                env=os.environ | self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )
        self.environment["RAY_ADDRESS"] = self.process.stdout.readline().strip()
        self.alive = []

    def _do(self, command: str) -> str:
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def have(self, number: int) -> None:
        while len(self.alive) < number:
            self.alive.append(self._do("add"))
        while len(self.alive) > number:
            self.kill()

    def kill(self) -> None:
        assert self._do(f"kill {self.alive.pop()}") == "killed"

    def drain(self, seconds: float) -> None:
        assert self._do(f"drain {self.alive[-1]} {seconds}") == "draining"

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    write_pairs(folder / "pairs.jsonl")
    return folder


@pytest.fixture(scope="module")
def nodes(place):
    cluster = Nodes(place / "head.log")
    yield cluster
    cluster.close()
    print("\n| fault | seconds to the next new update | updates computed again |\n|---|---|---|")
    for name, seconds, again in TABLE:
        print(f"| {name} | {seconds:.0f} | {again} |")


def arguments(place, name, *overrides):
    return small_run(
        place / "pairs.jsonl",
        place / "runs",
        f"run.name={name}",
        f"schedule.total_steps={UPDATES}",
        # Both against chaos: where a gradient is next to nothing, Adam makes a whole step out of its rounding.
        "schedule.peak_lr=1e-4",
        "optimizer.eps=1e-3",
        "training.examples_per_update=64",
        "training.micro_batch_tokens=1600",
        "model.shape.d_model=96",
        "model.shape.d_ff=384",
        "model.shape.num_layers=2",
        "model.shape.dropout_rate=0",
        "checkpoint.every_steps=20",
        "training.eval_every_steps=50",
        *overrides,
    )


ELASTIC = ("scaling.min_workers=1", "scaling.max_workers=2", "scaling.max_failures=5", "scaling.resize_interval_s=5")


@pytest.fixture(scope="module")
def unchanged(place):
    """The run whose two workers nobody touched."""
    run = Run(arguments(place, "unchanged"), place / "unchanged.log").start()
    assert run.wait(900) == 0, run.said()
    return place / "runs" / "unchanged"


def start(place, nodes, name, *overrides, until_step=60):
    run = Run(arguments(place, name, *overrides), place / f"{name}.log", nodes.environment).start()
    until(lambda: last_step(place / "runs" / name) >= until_step)
    return run


def resumes(run):
    return [
        tuple(map(int, found)) for found in re.findall(r"resumed at update (\d+) of \d+ on (\d) worker", run.said())
    ]


def wait_for_resume(run, folder, number, name, reached, begin):
    until(lambda: len(resumes(run)) >= number)
    step, workers = resumes(run)[number - 1]
    until(lambda: last_step(folder) > reached)
    TABLE.append((name, time.monotonic() - begin, max(0, reached - step)))
    return step, workers


def check(folder, unchanged):
    """Every line once, in order, with the same lr and tokens; the same losses within 1e-5, up to FIRST_PART.

    By then both changes are past. Later, rounding has grown too large, as it does between one worker and two that
    nothing happens to.
    """
    found, expected = lines(folder), lines(unchanged)
    assert [(line["step"], "loss" in line) for line in found] == [(line["step"], "loss" in line) for line in expected]
    for mine, theirs in zip(found, expected, strict=True):
        for field in ("lr", "tokens", *(("loss", "eval_loss") if mine["step"] <= FIRST_PART else ())):
            if field in theirs:
                assert mine[field] == pytest.approx(theirs[field], rel=1e-5, abs=0), (mine["step"], field)
    assert found[-1]["eval_loss"] < 0.2 * found_first_eval(found)


def found_first_eval(found):
    return next(line["eval_loss"] for line in found if "eval_loss" in line)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_node_dies_training_goes_on_and_grows_again(place, nodes, unchanged, stage):
    nodes.have(2)
    name = f"node-dies-{stage}"
    folder = place / "runs" / name
    run = start(place, nodes, name, *ELASTIC, f"deepspeed.zero_stage={stage}")
    nodes.kill()
    reached, begin = last_step(folder), time.monotonic()
    _, workers = wait_for_resume(run, folder, 1, f"a node dies (ZeRO {stage})", reached, begin)
    assert workers == 1
    nodes.have(2)
    reached, begin = 0, time.monotonic()
    while len(resumes(run)) < 2:
        reached = max(reached, last_step(folder))
        assert time.monotonic() < begin + 240
        time.sleep(0.05)
    _, workers = wait_for_resume(run, folder, 2, f"a node comes (ZeRO {stage})", reached, begin)
    assert workers == 2
    assert last_step(folder) < FIRST_PART, "or the comparison would not see the second change"
    assert run.wait(900) == 0, run.said()
    check(folder, unchanged)


def test_a_node_with_notice_costs_at_most_one_update(place, nodes, unchanged):
    nodes.have(2)
    run = start(place, nodes, "notice", *ELASTIC)
    folder = place / "runs" / "notice"
    nodes.drain(15)
    begin = time.monotonic()
    until(lambda: "a node is about to leave: update " in run.said())
    assert time.monotonic() - begin < 15
    time.sleep(max(0, 15 - (time.monotonic() - begin)))
    nodes.kill()
    reached = last_step(folder)
    step, workers = wait_for_resume(run, folder, 1, "a node leaves with 15 s notice", reached, begin + 15)
    assert workers == 1
    assert reached - step <= 1
    assert step > 60
    assert run.wait(900) == 0, run.said()
    check(folder, unchanged)


def test_a_node_that_goes_before_its_deadline_costs_little(place, nodes, unchanged):
    nodes.have(2)
    run = start(place, nodes, "early", *ELASTIC, "checkpoint.every_steps=100000")
    folder = place / "runs" / "early"
    nodes.drain(300)
    until(lambda: any((folder / "checkpoints").glob("step_*/manifest.json")))
    time.sleep(3)
    nodes.kill()
    reached, begin = last_step(folder), time.monotonic()
    step, workers = wait_for_resume(run, folder, 1, "a node goes before the end of its notice", reached, begin)
    assert workers == 1
    assert reached - step <= 3
    assert run.wait(900) == 0, run.said()
    check(folder, unchanged)


def test_what_a_node_was_tokenising_is_tokenised_by_another(nodes, tmp_path):
    write_texts(tmp_path)
    nodes.have(2)
    run = Run(in_tasks(tmp_path, tmp_path / "runs", 2, "scaling.num_workers=1"), tmp_path / "log", nodes.environment)
    run.start()
    until(lambda: len(parts(tmp_path / "runs")) >= 2)
    nodes.kill()
    assert len(parts(tmp_path / "runs")) < NUM_WINDOWS
    assert run.wait(300) == 0, run.said()
    assert cached(tmp_path / "runs") == cached(tmp_path / "alone")


def test_a_run_does_not_wait_for_nodes_for_ever(place, nodes):
    nodes.have(2)
    run = start(place, nodes, "alone", "scaling.max_failures=3", "scaling.node_wait_s=40")
    nodes.have(0)
    assert run.wait() == 1
    *_, way_on, last = run.said().splitlines()
    assert last == (
        "no worker has run for 40 s (scaling.node_wait_s): 2 needed, each with 1 CPU; free in the cluster: 0 CPU"
    )
    assert re.fullmatch(r"the same command with run.resume=auto goes on from the checkpoint at update \d+", way_on)
    nodes.have(2)
    run = Run([*run.arguments, "run.resume=auto"], run.log, nodes.environment).start()
    assert run.wait(900) == 0, run.said()
