"""One Ray cluster per module, and the real command run against it."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

HEAD = Path(__file__).parent / "ray_head.py"


@contextmanager
def ray_head(num_cpus: int, *options: str) -> Iterator[dict[str, str]]:
    """Environment in which commands join a cluster; nothing of it is left afterwards.

    METRICS is where its metrics are, or with the option "jobs" JOBS_API where it takes jobs.
    """
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # A job's `python` is the first on the path of the head.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    environment.pop("RAY_ADDRESS", None)
    head = subprocess.Popen(
        [sys.executable, str(HEAD), str(num_cpus), *options],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    family = []
    try:
        address = head.stdout.readline().strip()
        assert address, "the cluster did not start"
        environment |= {"RAY_ADDRESS": address, "TEST_HEAD_PID": str(head.pid)}
        environment["JOBS_API" if "jobs" in options else "METRICS"] = head.stdout.readline().strip()
        yield environment
    finally:
        family = psutil.Process(head.pid).children(recursive=True)
        head.stdin.close()
        head.wait(timeout=60)
        head.stdout.close()
        _, alive = psutil.wait_procs(family, timeout=30)
        hung = [process for process in alive if given_up_by_ray(process)]
        for process in hung:
            process.kill()
        assert [process.cmdline() for process in alive if process not in hung] == []


def given_up_by_ray(process: psutil.Process) -> bool:
    """Whether Ray is done with an actor's process, which hangs in its destructors: a bug of Ray 2.60's, and rare.

    Its log then says that all is over. (A command that has started its own Ray kills such a process.)
    """
    try:
        logs = Path(f"/proc/{process.pid}/fd/1").readlink().parent
        log = next(logs.glob(f"python-core-worker-*_{process.pid}.log")).read_text()
    except (OSError, StopIteration):
        return False
    return "Core worker is destructed" in log


@pytest.fixture(scope="module")
def cluster():
    """A cluster of 4 CPUs."""
    with ray_head(4) as environment:
        yield environment


def train(arguments: list[str], environment: dict[str, str], timeout_s: float = 240) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "recipes.train", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def train_and_kill_a_worker(arguments, environment, after) -> subprocess.CompletedProcess:
    """Run the command and kill -9 one of its training processes once ``after()`` is true."""
    command = [sys.executable, "-m", "recipes.train", *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(after, 180)
    # Only processes of this module's own cluster: others on the machine have the same titles.
    family = psutil.Process(int(environment["TEST_HEAD_PID"])).children(recursive=True)
    workers = [each for each in family if "RayTrainWorker" in " ".join(each.cmdline())]
    assert len(workers) == 2
    workers[1].kill()
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def wait_until(condition, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
