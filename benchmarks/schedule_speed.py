"""The cost of lrsched beside torch's, transformers' and DeepSpeed's schedulers, as Markdown tables.

    python benchmarks/schedule_speed.py [--rounds 40] [--json out.json]

All schedulers run in one process, in short batches that take turns, so that a busy machine slows
all of them alike; compare numbers of one run only. The minimum is the cost without disturbance.
Steps are timed past the warm-up, where a run makes nearly all of its updates; during a linear
warm-up the others have less to compute (DeepSpeed's needs a quarter less time, with few groups).
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler

from lrsched import Schedule
from lrsched.decays import DECAYS

PEAK, WARMUP, TOTAL = 1e-3, 10_000, 1_000_000
SCHEDULE = {"peak_lr": PEAK, "total_steps": TOTAL, "warmup": {"steps": WARMUP}}
GROUPS = (2, 200)
# As many as lrsched computes at a time, so that each batch pays for that once.
BATCH = 1024
OURS = "lrsched"

SHAPES: dict[str, dict[str, Any]] = {
    "constant": {},
    "cosine": {"eta_min": 1e-5},
    "linear": {"eta_min": 1e-5},
    "polynomial": {"power": 2, "eta_min": 1e-5},
    "step": {"step_size": 30_000, "gamma": 0.9},
    "multistep": {"milestones": [300_000, 600_000, 900_000], "gamma": 0.1},
    "exponential": {"gamma": 0.999995},
    "inverse_sqrt": {},
    "wsd": {"decay_steps": 200_000, "decay_shape": "1-sqrt"},
    "one_cycle": {"up_steps": 300_000},
    "piecewise": {
        "pieces": [
            {"steps": 500_000, "decay": {"shape": "cosine", "eta_min": 1e-4}},
            {"peak_ratio": 0.5, "warmup": {"steps": 1_000}, "decay": {"shape": "linear"}},
        ]
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="batches per scheduler")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": machine()}
    print("\n".join(f"- {name}: {value}" for name, value in found["machine"].items()), flush=True)
    found["step_us"] = {groups: step_times(groups, options.rounds) for groups in GROUPS}
    found["ratio"] = {groups: ratios(times) for groups, times in found["step_us"].items()}
    print(f"\n{step_table(found)}", flush=True)
    found["million_ms"] = {shape: million(shape) for shape in DECAYS}
    found["import_ms"] = import_time()
    print(f"\n{million_table(found['million_ms'])}\n")
    print(f"`import lrsched` in a fresh process: {found['import_ms']:.1f} ms (minimum of 10)")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def machine() -> dict[str, str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = {name: version(name) for name in ("torch", "transformers", "deepspeed", "numpy")}
    processor = f"{models[0] if models else platform.processor() or platform.machine()}, {os.cpu_count()} CPUs"
    return {"processor": processor, "python": platform.python_version(), **versions}


def competitors() -> dict[str, Callable[[torch.optim.Optimizer], Any]]:
    # DeepSpeed logs what it finds on the machine.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.disable(logging.WARNING)
    from deepspeed.runtime.lr_schedules import WarmupCosineLR
    from transformers import get_cosine_schedule_with_warmup

    def sequential(optimizer: torch.optim.Optimizer) -> Any:
        rise = lr_scheduler.LinearLR(optimizer, 1.0 / WARMUP, 1.0, WARMUP)
        fall = lr_scheduler.CosineAnnealingLR(optimizer, TOTAL - WARMUP)
        return lr_scheduler.SequentialLR(optimizer, [rise, fall], [WARMUP])

    return {
        "torch LambdaLR (a line)": lambda o: lr_scheduler.LambdaLR(o, lambda k: 1.0 - k / TOTAL),
        "torch CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL),
        "torch SequentialLR(LinearLR, CosineAnnealingLR)": sequential,
        "transformers get_cosine_schedule_with_warmup": lambda o: get_cosine_schedule_with_warmup(o, WARMUP, TOTAL),
        "DeepSpeed WarmupCosineLR": lambda o: WarmupCosineLR(o, TOTAL, warmup_num_steps=WARMUP, warmup_type="linear"),
        OURS: Schedule.from_dict({**SCHEDULE, "decay": {"shape": "cosine"}}).to_torch,
    }


def step_times(groups: int, rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds per ``step()`` of each scheduler, on an optimizer of its own."""
    steps = {name: started(build, groups) for name, build in competitors().items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    # With few groups a batch is short, so there is time for more of them.
    for _ in range(rounds * (10 if groups < 10 else 1)):
        for name, step in steps.items():
            times[name].append(batch(step))
    return {name: {"min": min(all_), "median": statistics.median(all_)} for name, all_ in times.items()}


def started(build: Callable[[torch.optim.Optimizer], Any], groups: int) -> Callable[[], None]:
    lrs = [PEAK if i % 2 == 0 else PEAK / 10 for i in range(groups)]
    parameters = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs]
    optimizer = torch.optim.SGD(parameters, lr=PEAK)
    with warnings.catch_warnings():
        # The optimizer never steps here, which torch takes for a mistake.
        warnings.simplefilter("ignore")
        step: Callable[[], None] = build(optimizer).step
        for _ in range(WARMUP + 1):
            step()
    return step


def batch(step: Callable[[], None]) -> float:
    gc.disable()
    start = time.perf_counter()
    for _ in range(BATCH):
        step()
    seconds = time.perf_counter() - start
    gc.enable()
    return seconds / BATCH * 1e6


def ratios(times: dict[str, dict[str, float]]) -> dict[str, float]:
    """Ours as a part of the best other one."""
    others = [time for name, time in times.items() if name != OURS]
    return {kind: times[OURS][kind] / min(other[kind] for other in others) for kind in ("min", "median")}


def million(shape: str) -> dict[str, float]:
    """Milliseconds for ``lr(np.arange(1_000_000))``."""
    # one_cycle is a whole schedule, with a rise of its own.
    warmup = {"warmup": {"steps": 0}} if shape == "one_cycle" else {}
    schedule = Schedule.from_dict({**SCHEDULE, **warmup, "decay": {"shape": shape, **SHAPES[shape]}})
    k, times = np.arange(TOTAL), []
    for _ in range(10):
        start = time.perf_counter()
        schedule.lr(k)
        times.append((time.perf_counter() - start) * 1e3)
    return {"min": min(times), "median": statistics.median(times)}


def import_time() -> float:
    code = "import time; start = time.perf_counter(); import lrsched; print(time.perf_counter() - start)"
    command, folder = [sys.executable, "-c", code], Path(__file__).parents[1]
    times = [float(subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout) for _ in range(10)]
    return min(times) * 1e3


def step_table(found: dict[str, Any]) -> str:
    columns = [(groups, kind) for groups in GROUPS for kind in ("min", "median")]
    lines = [
        "| µs per step | " + " | ".join(f"{groups} groups, {kind}" for groups, kind in columns) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for name in found["step_us"][GROUPS[0]]:
        cells = [f"{found['step_us'][groups][name][kind]:.2f}" for groups, kind in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    cells = [f"{found['ratio'][groups][kind]:.2f}" for groups, kind in columns]
    return "\n".join([*lines, f"| {OURS} / best other | {' | '.join(cells)} |"])


def million_table(times: dict[str, dict[str, float]]) -> str:
    lines = ["| lr(arange(1,000,000)) | ms, min | ms, median |", "|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| {shape} | {one['min']:.1f} | {one['median']:.1f} |" for shape, one in times.items())]
    )


if __name__ == "__main__":
    main()
