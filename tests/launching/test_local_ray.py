"""A run that starts its own Ray: nothing of it is left, however it ends."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.conftest import small_run
from tests.launching.conftest import wait_until


# `ray job stop` sends SIGTERM: tests/cluster/test_jobs.py.
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_all_its_processes(pairs, tmp_path, signum):
    storage = tmp_path / "runs"
    arguments = small_run(pairs, storage, "schedule.total_steps=1000000", "checkpoint.every_steps=1000000")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["HOME"] = str(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "recipes.train", *arguments], env=environment, stderr=subprocess.PIPE, text=True
    )
    with process.stderr:
        metrics = storage / "small" / "metrics.jsonl"
        wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") > 10, 180)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) > 4
        process.send_signal(signum)
        said = process.stderr.read().splitlines()
    assert process.wait(timeout=60) == 128 + signum
    _, alive = psutil.wait_procs(family, timeout=10)
    assert [each.cmdline() for each in alive] == []
    assert "starting a local Ray on this machine, stopped at the end" in said
    assert said[-1].startswith("stopped; the same command with run.resume=auto goes on from the last checkpoint in ")
    assert "Traceback" not in "\n".join(said)
    # The last checkpoint is of the last update: none is lost.
    (manifest,) = storage.glob("small/checkpoints/*/manifest.json")
    last = json.loads(metrics.read_text().splitlines()[-1])["step"]
    assert json.loads(manifest.read_text())["step"] == last
    assert f"stopped after update {last}, with a checkpoint of it" in said
    # No token left in the home folder for later clusters to trip over.
    assert not (tmp_path / ".ray").exists()
