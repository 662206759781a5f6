"""What each of the recipe's layers is worth: forward and backward of a config's own packed micro-batches.

    python benchmarks/layers.py CONFIG [key=value ...] [--updates 7] [--threads 2] [--json FILE]

One model in one process, whose layers take turns in every update: all as they are, then each kind replaced by what transformers and torch have
in its place, then all of them. No optimizer. Medians over updates; times: of the same update with all layers as they are.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from transformers.activations import NewGELUActivation
from transformers.models.t5.modeling_t5 import T5LayerNorm

from recipes.config_file import load_config
from recipes.data.batches import pack
from recipes.data.plan import batch_plan
from recipes.launching.preflight import prepare
from recipes.layers.gelu import Gelu
from recipes.layers.norm import Norm
from recipes.storage import Storage
from recipes.training.model import build_model
from recipes.training.update import summed_loss

OURS = "as they are"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--updates", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_intermixed_args()
    torch.set_num_threads(options.threads)
    found = measured(options)
    for name, one in found.items():
        print(
            f"{name:<22}{one['seconds']:>8.3f} s an update  {one['tokens_per_s']:>8,.0f} tokens/s  {one['times']:>5.2f}"
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def measured(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    config = load_config(options.config, options.overrides)
    with tempfile.TemporaryDirectory() as folder:
        job, data, _ = prepare(config, lambda words: None, started_at=0.0, data_storage=Storage(folder))
        model, plan = build_model(config.model, data.vocab_size, config.run.seed), batch_plan(config, data.train, 1)
        model.to(torch.bfloat16 if job.precision == "bf16" else torch.float32)
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        tokens = []
        for k in range(-1, options.updates):  # the first warms up
            batches = [pack(data.train, part, data.pad_id) for part in plan.micro_batches(max(k, 0))[0]]
            tokens.append(sum(batch.input_ids.numel() + batch.labels.numel() for batch in batches))
            # In turn the first: that one has oneDNN make its code for the update's shapes.
            names = list(WAYS)
            for name in names[k % len(names) :] + names[: k % len(names)]:
                with ExitStack() as replaced:
                    for kind in WAYS[name]:
                        replaced.enter_context(kind(model))
                    began = time.perf_counter()
                    _forward_and_backward(model, batches)
                    if k >= 0:
                        seconds[name].append(time.perf_counter() - began)
    real = statistics.median(tokens[1:])
    return {
        name: {
            "seconds": statistics.median(times),
            "tokens_per_s": real / statistics.median(times),
            "times": statistics.median(a / b for a, b in zip(times, seconds[OURS], strict=True)),
        }
        for name, times in seconds.items()
    }


def _forward_and_backward(model: torch.nn.Module, batches: list) -> None:
    model.zero_grad()
    for batch in batches:
        summed_loss(model, batch).backward()


def _no() -> bool:
    return False


def _no_dropout(x: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    return x


def _torchs_loss(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
    return F.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=label_smoothing)


@contextmanager
def _function(names: tuple[str, ...], function: Callable[..., Any], model: torch.nn.Module) -> Iterator[None]:
    """For the block the functions of recipes.layers with these names are this one."""
    with ExitStack() as replaced:
        for name in names:
            replaced.enter_context(mock.patch(f"recipes.layers.{name}", function))
        yield


@contextmanager
def _class(ours: type, theirs: type, model: torch.nn.Module) -> Iterator[None]:
    modules = [module for module in model.modules() if type(module) is ours]
    for module in modules:
        module.__class__ = theirs
    try:
        yield
    finally:
        for module in modules:
            module.__class__ = ours


_DROPOUT = ("packed_t5.dropout", "dropout.dropout")
# Each replaces one kind of layer in a model for the length of a block.
THEIRS = {
    "torch's products": partial(_function, ("linear.mkl_is_slow",), _no),
    "torch's dropout": partial(_function, _DROPOUT, F.dropout),
    "transformers' norm": partial(_class, Norm, T5LayerNorm),
    "transformers' GELU": partial(_class, Gelu, NewGELUActivation),
    "torch's loss": partial(_function, ("cross_entropy.summed_cross_entropy",), _torchs_loss),
}
WAYS = {
    OURS: (),
    **{name: (kind,) for name, kind in THEIRS.items()},
    "no dropout": (partial(_function, _DROPOUT, _no_dropout),),
    "all theirs": tuple(THEIRS.values()),
}


if __name__ == "__main__":
    main()
