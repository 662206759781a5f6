"""The truth: every schedule to its end with every seed, and every candidate score on the way, as JSON lines.

    python benchmarks/sweep_bias/run_truth.py pydoc --out truth.jsonl [--seeds 3] [--work FOLDER]
    python benchmarks/sweep_bias/run_truth.py multi30k --multi30k ../shared/data/multi30k_en_de --out truth.jsonl

One process, one core. What is in the file already is not run again, so it can be stopped and continued.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
os.environ.setdefault("DS_ACCELERATOR", "cpu")

from benchmarks.sweep_bias.recorder import Recorder
from benchmarks.sweep_bias.schedules import schedules
from benchmarks.sweep_bias.tasks import TOTAL_STEPS, Missing, task
from recipes.config_file import parse_config
from recipes.launching.preflight import prepare
from recipes.training.run import train

# Parts of the run: 30, 60, 120 of 240 updates.
RUNG_PARTS = (8, 4, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=list(TOTAL_STEPS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="schedules whose name contains this")
    parser.add_argument("--peak", type=float, help="instead of the task's peak lr")
    parser.add_argument("--work", type=Path, help="folder for token caches; a temporary one by default")
    parser.add_argument("--multi30k", type=Path, default=Path("../shared/data/multi30k_en_de"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sweep_bias_") as temporary:
        work = (options.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        try:
            base, peak_lr = task(options.task, work, options.multi30k)
        except Missing as missing:
            print(missing)
            return 0
        start_process_group()
        run_all(options, base, options.peak or peak_lr, work)
    return 0


def run_all(options: argparse.Namespace, base: dict[str, Any], peak_lr: float, work: Path) -> None:
    """All seeds of all schedules that are not in the file yet."""
    done = set()
    if options.out.is_file():
        done = {(r["task"], r["schedule"], r["seed"]) for r in map(json.loads, options.out.read_text().splitlines())}
    blocks = schedules(peak_lr, TOTAL_STEPS[options.task])
    chosen = [name for name in blocks if options.only is None or options.only in name]
    for seed in range(1, options.seeds + 1):
        for name in chosen:
            if (options.task, name, seed) in done:
                continue
            record = {"task": options.task, "schedule": name, "seed": seed} | run_one(base, blocks[name], seed, work)
            with options.out.open("a") as out:
                out.write(json.dumps(record) + "\n")
            print(f"{name}, seed {seed}: {record['final']:.4f} in {record['seconds']:.1f} s", flush=True)


def run_one(base: dict[str, Any], schedule: dict[str, Any], seed: int, work: Path) -> dict[str, Any]:
    """One schedule to its end: its final loss, its scores at the rungs, its training losses."""
    import torch

    began = time.perf_counter()
    shutil.rmtree(work / "run", ignore_errors=True)
    config = parse_config(base | {"schedule": schedule, "run": base["run"] | {"seed": seed}})
    job, _, _ = prepare(config, lambda text: None, started_at=time.time())
    recorder = Recorder([job.schedule.total_steps // part for part in RUNG_PARTS])
    summary = train(
        job,
        device=torch.device("cpu"),
        phases={},
        publish=lambda message: None,
        report=lambda metrics: None,
        after_update=recorder,
    )
    lines = map(json.loads, (work / "run" / "metrics.jsonl").read_text().splitlines())
    return {
        "definition": job.schedule.to_dict(),
        "final": summary["eval_loss"],
        "unigram": summary["unigram_loss"],
        "rungs": recorder.at,
        "costs": recorder.cost,
        "train_losses": [round(line["loss"], 5) for line in lines if "loss" in line],
        "phases_s": summary["phases_s"],
        "seconds": round(time.perf_counter() - began, 2),
    }


def start_process_group() -> None:
    """A gloo group of this process alone, as `torchrun` would make it."""
    import torch.distributed as dist

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    dist.init_process_group("gloo")


if __name__ == "__main__":
    sys.exit(main())
