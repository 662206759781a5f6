"""What dropout costs on a CPU: ``python benchmarks/dropout_cost.py CONFIG [key=value ...] [--updates 7] [--threads 1] [--json FILE]``.

Forward and backward of the same packed global batches without dropout, with the recipe's, and with torch's in its place, by turns in
one process; medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from recipes.config_file import load_config
from recipes.data.batches import pack
from recipes.data.plan import batch_plan
from recipes.launching.preflight import prepare
from recipes.layers.dropout import dropout
from recipes.storage import Storage
from recipes.training.model import build_model
from recipes.training.update import summed_loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--updates", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_intermixed_args()
    torch.set_num_threads(options.threads)
    found = measured(options)
    for name, one in found.items():
        print(
            f"{name:<18}{one['seconds']:>8.3f} s an update  {one['tokens_per_s']:>8,.0f} tokens/s  {one['times_none']:>5.2f}"
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _none(x: Tensor, rate: float, training: bool) -> Tensor:
    return x


WAYS = {"none": _none, "this recipe's": dropout, "torch's": torch.nn.functional.dropout}


def measured(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    config = load_config(options.config, options.overrides)
    with tempfile.TemporaryDirectory() as folder:
        _, data, _ = prepare(config, lambda words: None, started_at=0.0, data_storage=Storage(folder))
        model, plan = build_model(config.model, data.vocab_size, config.run.seed), batch_plan(config, data.train, 1)
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        tokens = []
        for k in range(-1, options.updates):  # the first warms up
            batches = [pack(data.train, part, data.pad_id) for part in plan.micro_batches(max(k, 0))[0]]
            tokens.append(sum(batch.input_ids.numel() + batch.labels.numel() for batch in batches))
            for name, way in WAYS.items():
                began = time.perf_counter()
                with (
                    mock.patch("recipes.layers.packed_t5.dropout", way),
                    mock.patch("recipes.layers.dropout.dropout", way),
                ):
                    _forward_and_backward(model, batches)
                if k >= 0:
                    seconds[name].append(time.perf_counter() - began)
    real = statistics.median(tokens[1:])
    return {
        name: {
            "seconds": statistics.median(times),
            "tokens_per_s": real / statistics.median(times),
            "times_none": statistics.median(a / b for a, b in zip(times, seconds["none"], strict=True)),
        }
        for name, times in seconds.items()
    }


def _forward_and_backward(model: torch.nn.Module, batches: list) -> None:
    model.zero_grad()
    for batch in batches:
        summed_loss(model, batch).backward()


if __name__ == "__main__":
    main()
