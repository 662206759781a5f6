"""An update's gradient does not depend on the number of workers, the micro-batch budget or the ZeRO stage."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.gradient_cases import BUDGETS, STAGES

PROGRAM = Path(__file__).with_name("gradient_cases.py")
ROOT = PROGRAM.parents[2]


@pytest.mark.parametrize("world", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_gradient_is_that_of_the_whole_batch_in_fp64(pairs, tmp_path, world):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(world), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert found, done.stderr[-3000:]
    results = json.loads(found[0].removeprefix("RESULT"))
    assert [(one["stage"], one["budget"]) for one in results] == [(s, b) for s in STAGES for b in BUDGETS]
    assert results[0]["micro_batches"] > results[2]["micro_batches"], "or the budget would not have been tested"
    for one in results:
        assert one["off"] < 1e-6, one
        assert one["loss"] == pytest.approx(one["loss_fp64"], rel=1e-6, abs=0)
