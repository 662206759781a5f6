"""The promise of the local run, on this machine, now."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[2] / "recipes" / "configs" / "local.yaml"


@pytest.mark.slow
def test_the_local_run_learns_in_five_minutes_and_six_gigabytes(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    begin = time.monotonic()
    command = [sys.executable, "-m", "recipes.train", str(CONFIG), f"run.storage_path={tmp_path}"]
    subprocess.run(command, env=environment, check=True)
    seconds = time.monotonic() - begin
    summary = json.loads((tmp_path / "local" / "summary.json").read_text())
    assert summary["unigram_loss"] - summary["eval_loss"] >= 1.25
    assert (summary["num_workers"], summary["zero_stage"]) == (2, 2)
    assert sum(summary["peak_memory_bytes"]) < 3 * 2**30
    assert len(json.loads((tmp_path / "local" / "samples.json").read_text())) == 8
    assert seconds < 300
