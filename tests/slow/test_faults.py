"""Real kills of real runs: each ends with the losses, learning rates and weights of the run that was left alone.

    make test-slow ARGS='-s tests/slow/test_faults.py'

Prints, at the end, the rows of docs/reliability.md: fault, seconds until the first new update, updates computed again.
"""

import functools
import re
import time

import psutil
import pytest

from tests.conftest import small_run, write_pairs
from tests.slow.faults import CONTROLLER, WORKER, Run, last_step, lines, stop_answering, until, weights

pytestmark = pytest.mark.slow
UPDATES, EVERY = 60, 10
TABLE = []


@pytest.fixture(scope="module", autouse=True)
def table():
    yield
    print("\n| fault | seconds to the next new update | updates computed again |\n|---|---|---|")
    for name, seconds, again in TABLE:
        print(f"| {name} | {seconds:.0f} | {again} |")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    write_pairs(folder / "pairs.jsonl")
    return folder


def arguments(place, name, *overrides):
    return small_run(
        place / "pairs.jsonl", place / "runs", f"run.name={name}", f"schedule.total_steps={UPDATES}",
        f"checkpoint.every_steps={EVERY}", "training.eval_every_steps=15", "run.resume=auto", *overrides,
    )  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(place):
    """The run that was left alone, by its settings."""

    @functools.cache
    def of(*overrides):
        name = "unbroken" + "".join(filter(str.isalnum, "".join(overrides)))
        run = Run(arguments(place, name, *overrides), place / f"{name}.log").start()
        assert run.wait() == 0, run.said()
        return place / "runs" / name

    return of


def check(name, place, unbroken_folder):
    folder = place / "runs" / name
    assert lines(folder) == lines(unbroken_folder), "every line once, and equal"
    assert weights(folder) == weights(unbroken_folder), "bit for bit"


def harmed(name, place, harm, *overrides, at=32, again=False):
    """Start a run, do harm once update ``at`` is logged, see it to its end (by a second command if ``again``)."""
    folder = place / "runs" / name
    run = Run(arguments(place, name, *overrides), place / f"{name}.log").start()
    until(lambda: last_step(folder) >= at)
    reached, begin = last_step(folder), time.monotonic()
    harm(run)
    if again:
        run.wait()
        reached = max(reached, last_step(folder))
        run = Run(run.arguments, run.log).start()
    until(lambda: "resumed at update " in run.said())
    # Workers whose driver is gone may have made all updates before they noticed.
    until(lambda: last_step(folder) > reached or run.process.poll() is not None)
    spent = time.monotonic() - begin
    (resumed,) = re.findall(r"resumed at update (\d+) of", run.said())
    TABLE.append((name, spent, max(0, reached - int(resumed))))
    assert run.wait() == 0, run.said()
    return run


STAGES = [("deepspeed.zero_stage=" + str(stage), "training.precision=" + precision) for stage in range(4) for precision in ("fp32", "bf16")]  # fmt: skip


@pytest.mark.parametrize("settings", STAGES, ids=lambda settings: "-".join(one.split("=")[1] for one in settings))
def test_a_worker_is_killed_and_the_group_restarts_by_itself(place, unbroken, settings):
    name = "worker-killed-" + "-".join(one.split("=")[1] for one in settings)
    harmed(name, place, lambda run: run.family(WORKER)[-1].kill(), "scaling.max_failures=1", *settings)
    check(name, place, unbroken(*settings))


@pytest.mark.parametrize("at", [29, 30, 31, 45, 15], ids=lambda at: f"at-{at}")
def test_a_worker_is_killed_around_a_checkpoint_and_an_evaluation(place, unbroken, at):
    name = f"worker-killed-at-{at}"
    harmed(name, place, lambda run: run.family(WORKER)[0].kill(), "scaling.max_failures=1", at=at)
    check(name, place, unbroken())


def test_the_driver_is_killed_and_the_command_given_again(place, unbroken):
    harmed("driver-killed", place, Run.kill, again=True)
    check("driver-killed", place, unbroken())


def test_the_controller_is_killed_and_the_command_given_again(place, unbroken):
    def kill(run):
        (controller,) = run.family(CONTROLLER)
        controller.kill()
        assert run.wait() == 1

    harmed("controller-killed", place, kill, again=True)
    check("controller-killed", place, unbroken())


def test_a_worker_stops_answering(place, unbroken):
    harmed(
        "worker-hangs", place, lambda run: stop_answering(run.family(WORKER)[-1]), "scaling.max_failures=1",
        "scaling.hang_timeout_s=15",
    )  # fmt: skip
    check("worker-hangs", place, unbroken())


def test_a_notice_to_stop_loses_no_update(place, unbroken):
    def stop(run):
        run.process.terminate()
        assert run.wait() == 143

    # Long enough for the notice to be heard, which is asked for once a second.
    longer = ("checkpoint.every_steps=100000", "schedule.total_steps=600", "training.eval_every_steps=200")
    harmed("stopped", place, stop, *longer, again=True)
    assert "stopped after update " in (place / "stopped.log").read_text()
    check("stopped", place, unbroken(*longer))


def test_everything_is_killed_while_a_checkpoint_is_written(place, unbroken):
    bigger = ("model.shape.d_model=256", "model.shape.d_ff=1024")
    folder = place / "runs" / "killed-writing" / "checkpoints"

    def harm(run):
        workers = run.family(WORKER)
        while (max(folder.glob("step_*")) / "manifest.json").exists():
            assert run.process.poll() is None
        for worker in workers:
            worker.kill()
        run.kill()
        assert not (max(folder.glob("step_*")) / "manifest.json").exists()

    run = harmed("killed-writing", place, harm, *bigger, again=True)
    assert "has no manifest (it was never finished): not used" in run.said()
    check("killed-writing", place, unbroken(*bigger))


def newest(place, name):
    return max((place / "runs" / name / "checkpoints").glob("step_*"))


DAMAGE = {
    "truncated": lambda shard: shard.write_bytes(shard.read_bytes()[:-100]),
    "flipped": lambda shard: shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:]),
    "deleted": lambda shard: shard.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over(place, unbroken, damage):
    def harm(run):
        run.kill()
        shard = max(newest(place, f"shard-{damage}").glob("deepspeed/*optim_states.pt"))
        DAMAGE[damage](shard)

    run = harmed(f"shard-{damage}", place, harm, again=True)
    assert "): not used" in run.said()
    check(f"shard-{damage}", place, unbroken())


def test_the_shards_of_one_rank_are_lost(place, unbroken):
    def harm(run):
        run.kill()
        for path in newest(place, "rank-lost").rglob("*rank_1*"):
            path.unlink()

    harmed("rank-lost", place, harm, again=True)
    check("rank-lost", place, unbroken())


def test_the_last_failure_ends_the_run_clearly(place):
    name = "max-failures"
    run = Run(arguments(place, name), place / f"{name}.log").start()
    until(lambda: last_step(place / "runs" / name) >= 12)
    run.family(WORKER)[0].kill()
    assert run.wait() == 1
    last = run.said().splitlines()[-1]
    assert "died without an error of its own: killed, or out of memory" in last
    assert psutil.pid_exists(run.process.pid) is False
