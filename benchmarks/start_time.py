"""Seconds from the command to its first update, beside a bare torchrun of the same model, as a Markdown table.

    python benchmarks/start_time.py [--runs 5] [--cold] [--json FILE] [--picture FILE [--before FILE.json]]

The recipe's command (recipes/configs/local.yaml) and torchrun of start_time_bare.py, which is plain DeepSpeed with the same
model, optimizer and token cache, take turns; medians. The end is the moment at which the first update's line stands in
metrics.jsonl, or torchrun's rank 0 has told of its own. The page cache is warm: a run of both goes before and is not counted.
The token cache is there too; with --cold it is removed before each run of the recipe. --before draws an earlier measurement's bars beside.
Compare numbers of one call only. Runs are of 4 updates, which changes nothing before the first one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "recipes" / "configs" / "local.yaml"
BARE = Path(__file__).with_name("start_time_bare.py")
NUM_WORKERS = 2
_POLL_S = 0.01
_LIMIT_S = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="tokenise anew in each run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="SVG or PNG")
    parser.add_argument("--before", type=Path, help="--json of an earlier call")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as storage:
        recipe(Path(storage), "first")
        bare(Path(storage))
        found: dict[str, list[dict[str, float]]] = {"recipe": [], "torchrun": []}
        for number in range(options.runs):
            if options.cold:
                shutil.rmtree(Path(storage) / "token_cache")
            found["recipe"].append(recipe(Path(storage), f"run{number}"))
            found["torchrun"].append(bare(Path(storage)))
            print({name: round(runs[-1]["total"], 2) for name, runs in found.items()}, file=sys.stderr, flush=True)
    middle = {name: medians(runs) for name, runs in found.items()}
    print(table(middle))
    if options.json:
        options.json.write_text(json.dumps({"medians": middle, "runs": found}, indent=1) + "\n")
    if options.picture:
        before = json.loads(options.before.read_text())["medians"]["recipe"] if options.before else None
        draw(middle, before, options.picture)


def recipe(storage: Path, name: str) -> dict[str, float]:
    """Seconds of the phases of one run of the command, and the whole to its first update."""
    folder = storage / name
    command = [
        *(sys.executable, "-m", "recipes.train", str(CONFIG), f"run.storage_path={storage}", f"run.name={name}"),
        *("schedule.total_steps=4", "schedule.warmup.steps=2", "training.log_every_steps=1", "training.num_samples=0"),
    ]
    total = first_moment(
        command, lambda: (folder / "metrics.jsonl").is_file() and (folder / "metrics.jsonl").stat().st_size
    )
    phases = json.loads((folder / "summary.json").read_text())["phases_s"]
    told = {phase: phases[phase] for phase in ("prepare", "ray", "workers", "imports", "engine") if phase in phases}
    return {**told, "first update": total - sum(told.values()), "total": total}


def bare(storage: Path) -> dict[str, float]:
    """The same of torchrun."""
    answer = storage / "bare.json"
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(NUM_WORKERS), str(BARE)]
    total = first_moment([*command, str(storage / "first"), str(answer), str(time.time())], answer.is_file)
    told = json.loads(answer.read_text())
    return {**told, "total": total}


def first_moment(command: list[str], reached: object) -> float:
    """Seconds from the command's start until ``reached()``; the command is let to its end."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    began = time.time()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        while not reached():
            if process.poll() is not None or time.time() - began > _LIMIT_S:
                process.kill()
                said.seek(0)
                raise SystemExit(f"{' '.join(command)} made no update:\n{said.read()}")
            time.sleep(_POLL_S)
        needed = time.time() - began
        if process.wait(_LIMIT_S):
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{said.read()}")
    return needed


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {phase: statistics.median(run[phase] for run in runs) for phase in runs[0]}


def table(middle: dict[str, dict[str, float]]) -> str:
    phases = dict.fromkeys(phase for times in middle.values() for phase in times if phase != "total")
    lines = ["| | " + " | ".join((*phases, "total")) + " |", "|---|" + "---:|" * (len(phases) + 1)]
    for name, times in middle.items():
        cells = [f"{times[phase]:.1f}" if phase in times else "" for phase in (*phases, "total")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(middle: dict[str, dict[str, float]], before: dict[str, float] | None, path: Path) -> None:
    """One bar each, made of its phases."""
    import matplotlib.pyplot as plt

    bars = ({"recipe, before": before} if before else {}) | middle
    phases = list(dict.fromkeys(phase for times in bars.values() for phase in times if phase != "total"))
    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.6 * len(bars)), layout="constrained")
    colours = dict(zip(phases, plt.get_cmap("tab10").colors, strict=False))
    for place, times in enumerate(bars.values()):
        left = 0.0
        for phase in phases:
            if phase in times:
                axes.barh(place, times[phase], left=left, color=colours[phase], edgecolor="white")
                left += times[phase]
        axes.text(left + 0.2, place, f"{times['total']:.1f} s", va="center")
    axes.set_yticks(range(len(bars)), list(bars))
    axes.invert_yaxis()
    axes.set_xlabel("seconds from the command to its first update (medians)")
    axes.set_xlim(right=max(times["total"] for times in bars.values()) * 1.12)
    axes.legend(
        [plt.Rectangle((0, 0), 1, 1, color=colours[phase]) for phase in phases], phases,
        ncols=len(phases), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=8,
    )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
