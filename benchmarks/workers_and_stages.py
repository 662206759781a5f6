"""The local task with one and two workers and at ZeRO 0 to 3, each a real run of the command, as a Markdown table.

    python benchmarks/workers_and_stages.py [--updates 200] [--json out.json]

Runs follow each other in one session; compare rows of one table only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "recipes" / "configs" / "local.yaml"
VARIANTS = {
    "2 workers, ZeRO 0": ["deepspeed.zero_stage=0"],
    "2 workers, ZeRO 1": ["deepspeed.zero_stage=1"],
    "2 workers, ZeRO 2": ["deepspeed.zero_stage=2"],
    "2 workers, ZeRO 3": ["deepspeed.zero_stage=3"],
    "1 worker of 1 thread, ZeRO 2": ["scaling.num_workers=1"],
    "1 worker of 2 threads, ZeRO 2": ["scaling.num_workers=1", "scaling.cpus_per_worker=2"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as storage:
        summaries = {name: run(storage, number, name, options.updates) for number, name in enumerate(VARIANTS)}
    print(table(summaries))
    if options.json:
        options.json.write_text(json.dumps(summaries, indent=1))


def run(storage: str, number: int, name: str, updates: int) -> dict:
    print(name, file=sys.stderr, flush=True)
    command = [
        *(sys.executable, "-m", "recipes.train", str(CONFIG), f"run.storage_path={storage}", f"run.name=run{number}"),
        *(f"schedule.total_steps={updates}", f"schedule.warmup.steps={updates // 10}", "training.num_samples=0"),
        *VARIANTS[name],
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return json.loads((Path(storage) / f"run{number}" / "summary.json").read_text())


def table(summaries: dict[str, dict]) -> str:
    lines = [
        "| run | tokens/s | padding | held-out loss | engine s | updates s | checkpoint s | wall s | MiB per worker |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, summary in summaries.items():
        phases = summary["phases_s"]
        peak = max(summary["peak_memory_bytes"]) / 2**20
        lines.append(
            f"| {name} | {summary['tokens_per_s']:,.0f} | {summary['padding_ratio']:.1%} | {summary['eval_loss']:.5f} | "
            f"{phases['engine']:.1f} | {phases['updates']:.1f} | {phases['checkpoint']:.2f} | {summary['wall_s']:.0f} | {peak:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
