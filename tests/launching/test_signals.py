"""A signal while a command waits inside a real Ray."""

import subprocess
import sys
from pathlib import Path

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
