"""Doing real harm to real runs: processes found, killed, stopped; files damaged. Also used by benchmarks/soak.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from recipes.reporting.metrics import TIMED_FIELDS

WORKER, CONTROLLER = "RayTrainWorker", "TrainController"


class Run:
    """One `recipes.train` command, on a local Ray of its own unless the environment names a cluster."""

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str] | None = None):
        self.arguments, self.log = arguments, log
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = own | (environment or {})
        self.process: subprocess.Popen | None = None

    def start(self) -> Run:
        command = [sys.executable, "-m", "recipes.train", *self.arguments]
        with self.log.open("a") as stream:
            self.process = subprocess.Popen(command, env=self.environment, stderr=stream, stdout=stream)
        return self

    def family(self, title: str = "") -> list[psutil.Process]:
        """This run's own processes whose command line holds ``title``: other clusters have the same titles."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if title in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def wait(self, timeout_s: float = 400) -> int:
        return self.process.wait(timeout=timeout_s)

    def kill(self) -> None:
        """The command itself, with no chance to clean up; what it leaves is ended after it."""
        family = self.family()
        self.process.kill()
        self.process.wait()
        _, alive = psutil.wait_procs(family, timeout=20)
        for process in alive:
            process.kill()

    def said(self) -> str:
        return self.log.read_text()


def lines(folder: Path) -> list[dict]:
    """The metrics of a run, without what depends on the clock."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    whole = [line for line in path.read_text().split("\n")[:-1] if line]
    return [{key: value for key, value in json.loads(line).items() if key not in TIMED_FIELDS} for line in whole]


def last_step(folder: Path) -> int:
    return max((line["step"] for line in lines(folder)), default=0)


def weights(folder: Path) -> bytes:
    return (folder / "export" / "model.safetensors").read_bytes()


def until(condition: Callable[[], bool], timeout_s: float = 240) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def stop_answering(process: psutil.Process) -> None:
    process.send_signal(signal.SIGSTOP)
