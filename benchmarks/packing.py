"""What packing saves: ``python benchmarks/packing.py CONFIG [key=value ...] [--updates 7] [--budgets 1500,4000] [--json FILE]``.

Forward and backward of the same global batches, each example a row and packed, by turns in one process; medians. Dropout is off, and the
two gradients are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from recipes.config_file import load_config
from recipes.data.batches import to_tensors
from recipes.data.plan import batch_plan
from recipes.launching.preflight import prepare
from recipes.storage import Storage
from recipes.training.model import build_model
from recipes.training.update import summed_loss


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--updates", type=int, default=7)
    parser.add_argument("--budgets", default="1500,4000")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json")
    options = parser.parse_intermixed_args()
    torch.set_num_threads(options.threads)
    found = [_measured(options, int(budget)) for budget in options.budgets.split(",")]
    print("budget  padding alone  packed   s alone  packed   speed-up   gradients differ by")
    for one in found:
        print(
            f"{one['micro_batch_tokens']:>6}  {one['padding_alone']:>12.1%}  {one['padding_packed']:>6.1%}  "
            f"{one['seconds_alone']:>8.3f}  {one['seconds_packed']:>6.3f}  {one['speed_up']:>9.2f}   {one['difference']:.1e}"
        )
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")


def _measured(options: argparse.Namespace, budget: int) -> dict[str, float]:
    overrides = [*options.overrides, f"training.micro_batch_tokens={budget}", "model.shape.dropout_rate=0"]
    config = load_config(options.config, overrides)
    with tempfile.TemporaryDirectory() as folder:
        _, data, _ = prepare(config, lambda words: None, started_at=0.0, data_storage=Storage(folder))
        model = build_model(config.model, data.vocab_size, config.run.seed)
        plans = {
            name: batch_plan(
                config.model_copy(update={"training": config.training.model_copy(update={"packing": packing})}),
                data.train,
                1,
            )
            for name, packing in (("alone", False), ("packed", True))
        }

        def gradient(name: str, k: int) -> list[torch.Tensor]:
            model.zero_grad()
            for batch in plans[name].micro_batches(k)[0]:
                summed_loss(model, to_tensors(data.train, batch, data.pad_id, plans[name].packed)).backward()
            return [p.grad.clone() for p in model.parameters()]

        first = {name: gradient(name, 0) for name in plans}
        apart = [(a - b).norm() for a, b in zip(first["alone"], first["packed"], strict=True)]
        whole = [a.norm() for a in first["alone"]]
        seconds: dict[str, list[float]] = {name: [] for name in plans}
        for k in range(options.updates):
            for name in plans:
                began = time.perf_counter()
                gradient(name, k)
                seconds[name].append(time.perf_counter() - began)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "micro_batch_tokens": budget,
        **{f"padding_{name}": plan.statistics().padding_ratio for name, plan in plans.items()},
        **{f"seconds_{name}": value for name, value in median.items()},
        "speed_up": statistics.median(a / b for a, b in zip(seconds["alone"], seconds["packed"], strict=True)),
        "difference": float(torch.stack(apart).norm() / torch.stack(whole).norm()),
    }


if __name__ == "__main__":
    main()
