"""The learning rate the innermost optimizer really uses inside the DeepSpeed engine is lr(k)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lrsched import Schedule

WARMUP = {"steps": 4}
COSINE = {"shape": "cosine", "eta_min": 1e-5}


def _case(backend: str, stage: int, accumulation: int, **more: Any) -> dict[str, Any]:
    schedule = {"peak_lr": 1e-3, "total_steps": 11, "warmup": WARMUP, "decay": COSINE, "backend": backend}
    schedule.update(more.pop("schedule", {}))
    return {
        "schedule": schedule,
        "stage": stage,
        "accumulation": accumulation,
        "scales": [1.0, 0.1],
        "given": "config",
        **more,
    }


CASES = {
    f"{backend}-stage{stage}-accumulation{accumulation}": _case(backend, stage, accumulation)
    for backend in ("deepspeed", "torch")
    for stage in (0, 1, 2, 3)
    for accumulation in (1, 4)
}
for _backend in ("deepspeed", "torch"):
    CASES |= {
        f"{_backend}-bf16": _case(_backend, 2, 1, bf16=True),
        f"{_backend}-equal-groups": _case(_backend, 1, 1, scales=[1.0, 1.0]),
        f"{_backend}-resumed": _case(_backend, 2, 1, resume_at=5),
        f"{_backend}-resumed-stage0": _case(_backend, 0, 1, resume_at=5),
        f"{_backend}-skipped-update": _case(_backend, 1, 1, overflow_at=6),
        f"{_backend}-scheduler-object": _case(_backend, 2, 1, given="objects"),
        f"{_backend}-optimizer-of-the-engine": _case(_backend, 2, 1, given="optimizer in the config"),
        f"{_backend}-one-cycle": _case(
            _backend,
            1,
            1,
            scales=[1.0, 1.0],
            schedule={"decay": {"shape": "linear", "ends_at_min": False}},
        ),
        f"{_backend}-log": _case(
            _backend,
            1,
            1,
            schedule={"warmup": {"steps": 4, "shape": "log"}, "decay": {**COSINE, "ends_at_min": False}},
        ),
    }
CASES["torch-only-restart"] = _case(
    "auto", 1, 1, schedule={"decay": {"shape": "cosine", "t_max": 3, "after": "restart"}}
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All cases, trained in one process of its own."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(Path(__file__).with_name("engine_cases.py"))],
        input=json.dumps(list(CASES.values())),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path_factory.mktemp("engine"),
        env={**os.environ, "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(root)},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULTS")]
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    assert len(lines) == 1, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return dict(zip(CASES, json.loads(lines[0].removeprefix("RESULTS")), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_used_learning_rates_are_those_of_the_schedule(results: dict[str, Any], name: str) -> None:
    case, result = CASES[name], results[name]
    schedule = Schedule.from_dict(case["schedule"])
    native = case["schedule"]["backend"] == "deepspeed"
    own = "OneCycle" if name.endswith("one-cycle") else "WarmupCosineLR"
    assert result["scheduler"] == (own if native else "ScheduleLR")
    assert len(result["used"]) == schedule.total_steps
    for k, used in enumerate(result["used"]):
        wanted = [schedule.lr(k) * scale for scale in case["scales"]]
        assert len(used) == len(wanted), f"k={k}: {used}"
        for lr, expected in zip(used, wanted, strict=True):
            assert abs(lr - expected) <= 1e-15 * schedule.peak_lr, f"k={k}: {used}, wanted {wanted}"
        if not native:
            assert used == wanted, f"k={k}: our own form is exact to the last bit"


def test_both_backends_use_the_same_learning_rates(results: dict[str, Any]) -> None:
    compared = 0
    for name in CASES:
        if name.startswith("deepspeed-"):
            native, own = results[name]["used"], results[name.replace("deepspeed-", "torch-", 1)]["used"]
            for here, there in zip(native, own, strict=True):
                assert here == pytest.approx(there, rel=0.0, abs=1e-15 * 1e-3)
            compared += 1
    assert compared == 17
