"""How long training stands still for a checkpoint: written beside training, waited for, and none at all.

    python benchmarks/checkpoint_stall.py [--repeats 3] [--json out.json] [--place FOLDER]

One worker of one thread, ZeRO 2, the local task with larger models; the three kinds of run alternate. "stall" is the time
the loop spends saving, by checkpoint; "slower" is what updates take more beside the writing. Medians over the repeats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from lrsched.proof.deepspeed_engine import join_alone
from recipes.config_file import load_config
from recipes.launching.preflight import prepare
from recipes.storage import Storage
from recipes.training import manifest
from recipes.training.run import train

CONFIG = Path(__file__).parents[1] / "recipes" / "configs" / "local.yaml"
UPDATES, EVERY = 16, 4
MODELS = {"2 M": (160, 2), "6 M": (256, 3)}
KINDS = {
    "none": ["checkpoint.every_steps=1000000"],
    "waited for": [f"checkpoint.every_steps={EVERY}", "checkpoint.background=false"],
    "beside training": [f"checkpoint.every_steps={EVERY}"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--place", type=Path, help="a folder on the disk to measure (default: a temporary one)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    join_alone()
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with tempfile.TemporaryDirectory(prefix="stall_", dir=options.place) as folder:
        for model in MODELS:
            of_model = results.setdefault(model, {kind: [] for kind in KINDS})
            for repeat in range(options.repeats + 1):
                for kind in KINDS:
                    figures = measure(Path(folder), model, kind)
                    # The first round warms caches and allocators.
                    if repeat > 0:
                        of_model[kind].append(figures)
                print(f"{model} parameters, round {repeat} of {options.repeats}", file=sys.stderr, flush=True)
    torch.distributed.destroy_process_group()
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def measure(place: Path, model: str, kind: str) -> dict[str, Any]:
    """One run: seconds by phase, by checkpoint."""
    d_model, num_layers = MODELS[model]
    overrides = [
        f"run.storage_path={place}",
        "run.name=run",
        f"model.shape.d_model={d_model}",
        f"model.shape.d_ff={4 * d_model}",
        f"model.shape.num_layers={num_layers}",
        f"schedule.total_steps={UPDATES}",
        "schedule.warmup.steps=2",
        "training.eval_every_steps=1000000",
        "training.num_samples=0",
        "scaling.num_workers=1",
        *KINDS[kind],
    ]
    job, _, _ = prepare(load_config(CONFIG, overrides), lambda text: None, started_at=0.0)
    Storage(place / "run").delete_folder("checkpoints")
    summary = train(
        job, device=torch.device("cpu"), phases={}, publish=lambda message: None, report=lambda metrics: None
    )
    newest = manifest.newest_manifest(job.run_folder)
    return {
        "updates_s": summary["phases_s"]["updates"],
        "checkpoint_s": summary["phases_s"]["checkpoint"],
        "bytes": sum(entry["size"] for entry in newest.files.values()),
    }


def table(results: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    lines = [
        "| parameters | checkpoint MB | update s | stall, waited for | stall, beside training | ratio | slower beside |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, of_model in results.items():
        none, waited, beside = (of_model[kind] for kind in KINDS)
        # Every run ends with one checkpoint that nothing runs beside: that of `none` is taken off.
        last = median(none, "checkpoint_s")
        num = UPDATES // EVERY - 1
        stalls = [(median(runs, "checkpoint_s") - last) / num for runs in (waited, beside)]
        update_s = median(none, "updates_s") / UPDATES
        slower = (median(beside, "updates_s") - median(none, "updates_s")) / num
        lines.append(
            f"| {model} | {none[0]['bytes'] / 1e6:.0f} | {update_s:.3f} | {stalls[0]:.3f} s | {stalls[1]:.3f} s | "
            f"{stalls[1] / stalls[0]:.2f} | {slower:.3f} s |"
        )
    return "\n".join(lines)


def median(runs: list[dict[str, Any]], figure: str) -> float:
    return statistics.median(run[figure] for run in runs)


if __name__ == "__main__":
    main()
