"""What an update of the recipe costs beside the same update in a bare DeepSpeed loop.

    python benchmarks/against_deepspeed.py CONFIG [key=value ...] [--updates 60] [--threads 1] [--same-loss] [--json FILE]

One process, two engines with the same weights: an update of the recipe's loop (packing, metrics, checks, notices), then the same
micro-batches, made beforehand, in the bare loop below, and so on. The bare loop takes torch's cross-entropy, or, with
--same-loss, the recipe's: then the losses must be the same to the last bit at every update. Medians, and the ratio
of all seconds with the 95 % interval of a bootstrap over the updates.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import torch

from lrsched.proof.deepspeed_engine import join_alone
from recipes.config_file import load_config
from recipes.data.batches import PackedBatch, pack
from recipes.data.cache import open_data
from recipes.data.plan import batch_plan
from recipes.launching.preflight import prepare
from recipes.layers.cross_entropy import summed_cross_entropy
from recipes.training.job import Job
from recipes.training.model import build_model, parameter_groups
from recipes.training.run import train

WARM = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--same-loss", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_intermixed_args()
    torch.set_num_threads(options.threads)
    join_alone()
    with tempfile.TemporaryDirectory(prefix="against_deepspeed_") as folder:
        overrides = [
            *options.overrides,
            f"run.storage_path={folder}",
            "run.name=run",
            "model.shape.dropout_rate=0",
            # One more than is timed: after the last there is an evaluation.
            f"schedule.total_steps={WARM + options.updates + 1}",
            "schedule.warmup.steps=2",
            "training.eval_every_steps=1000000",
            "training.num_samples=0",
            "training.log_every_steps=1",
            "checkpoint.every_steps=1000000",
            "scaling.num_workers=1",
            f"scaling.cpus_per_worker={options.threads}",
        ]
        job, _, _ = prepare(load_config(options.config, overrides), lambda text: None, started_at=0.0)
        figures = compared(job, options.updates, _recipes_loss if options.same_loss else _torchs_loss)
    torch.distributed.destroy_process_group()
    print(
        f"bare DeepSpeed {figures['bare_s'] * 1e3:.1f} ms, the recipe {figures['recipe_s'] * 1e3:.1f} ms an update; "
        f"ratio {figures['ratio']:.4f} ({figures['low']:.4f} to {figures['high']:.4f}); "
        f"largest difference of a loss: {figures['loss_difference']:.1e}"
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def _torchs_loss(engine: Any, batch: PackedBatch) -> torch.Tensor:
    logits = engine(**batch.inputs()).logits.float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum")


def _recipes_loss(engine: Any, batch: PackedBatch) -> torch.Tensor:
    return summed_cross_entropy(engine(**batch.inputs()).logits.flatten(0, 1), batch.labels.flatten())


class BareLoop:
    """DeepSpeed as its own documentation uses it: forward, backward, step."""

    def __init__(self, job: Job, batches: list[list[PackedBatch]], vocab_size: int, loss_of: Any):
        config = job.config
        model = build_model(config.model, vocab_size, config.run.seed)
        groups = parameter_groups(model, config.optimizer, config.schedule.peak_lr)
        schedule = None if "scheduler" in job.ds_config else job.schedule.to_torch
        self.engine, *_ = deepspeed.initialize(
            model=model, model_parameters=groups, config=job.ds_config, lr_scheduler=schedule
        )
        self.batches, self.losses, self.loss_of = batches, [], loss_of

    def update(self, k: int) -> None:
        batches = self.batches[k]
        tokens = sum(int((batch.labels != -100).sum()) for batch in batches)
        total = 0.0
        for batch in batches:
            loss = self.loss_of(self.engine, batch)
            self.engine.backward(loss / tokens, scale_wrt_gas=False)
            total += loss.item()
        self.engine.step()
        self.losses.append(total / tokens)


def compared(job: Job, num_updates: int, loss_of: Any) -> dict[str, Any]:
    data = open_data(job.data_folder)
    train_split, plan = data.train, batch_plan(job.config, data.train, 1)
    made = [
        [pack(train_split.drawn_from(job.config.run.seed, k), batch, data.pad_id) for batch in plan.micro_batches(k)[0]]
        for k in range(WARM + num_updates + 1)
    ]
    bare, losses = None, []
    seconds: dict[str, list[float]] = {"recipe": [], "bare": []}
    began = 0.0

    def after_update(run: Any) -> None:
        nonlocal bare, began
        now = time.perf_counter()
        if bare is None:
            bare = BareLoop(job, made, data.vocab_size, loss_of)
        k = run.step - 1
        again = time.perf_counter()
        bare.update(k)
        end = time.perf_counter()
        if WARM <= k < WARM + num_updates:
            seconds["recipe"].append(now - began)
            seconds["bare"].append(end - again)
        began = time.perf_counter()

    def publish(message: dict[str, Any]) -> None:
        if "loss" in message.get("metrics", {}):
            losses.append(message["metrics"]["loss"])

    train(
        job,
        device=torch.device("cpu"),
        phases={},
        publish=publish,
        report=lambda metrics: None,
        after_update=after_update,
    )
    ours, theirs = np.array(seconds["recipe"]), np.array(seconds["bare"])
    draws = np.random.default_rng(0).integers(0, num_updates, (2000, num_updates))
    low, high = np.quantile(ours[draws].sum(1) / theirs[draws].sum(1), [0.025, 0.975])
    return {
        "recipe_s": statistics.median(ours),
        "bare_s": statistics.median(theirs),
        "ratio": float(ours.sum() / theirs.sum()),
        "median_ratio": float(np.median(ours / theirs)),
        "low": float(low),
        "high": float(high),
        "loss_difference": max(abs(a - b) for a, b in zip(losses, bare.losses, strict=True)),
        "updates": num_updates,
    }


if __name__ == "__main__":
    main()
