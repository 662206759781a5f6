"""A signal while a command waits inside a real Ray."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import small_run

WAITS = """
import os, signal, threading, time
import ray
from recipes.launching.signals import Interrupted, signals_raise

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
never = ray.remote(lambda: time.sleep(1000)).remote()
for signum in (signal.SIGTERM, signal.SIGINT):
    for look in (lambda: ray.wait([never], timeout=0.05), lambda: ray.get(never, timeout=0.05)):
        threading.Timer(0.3, os.kill, (os.getpid(), signum)).start()
        try:
            with signals_raise(), signals_raise():
                while True:
                    try:
                        look()
                    except ray.exceptions.GetTimeoutError:
                        pass
        except Interrupted as stop:
            print(stop.signum == signum, flush=True)
ray.shutdown()
"""


def test_a_signal_in_a_wait_of_ray_is_interrupted_and_no_error_of_rays():
    result = subprocess.run(
        [sys.executable, "-c", WAITS],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout.split()) == (0, ["True"] * 4), result.stderr


@pytest.mark.parametrize("wait_s", [0.1, 1.0])
def test_sigterm_while_ray_starts_is_told_like_any_other(pairs, tmp_path, wait_s):
    """Ray has a handler of its own for it, of whose exit code 15 nothing may come through."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "recipes.train", *small_run(pairs, tmp_path / "runs")],
        env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process.stderr:
        while not process.stderr.readline().startswith("starting a local Ray"):
            assert process.poll() is None
        time.sleep(wait_s)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read().splitlines()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert said[-1].startswith("stopped; the same command with run.resume=auto goes on")
    assert "Traceback" not in "\n".join(said)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert [each.cmdline() for each in alive] == []
