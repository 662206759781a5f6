"""Real tokens per second beside transformers' Seq2SeqTrainer, on real lengths.

    python benchmarks/against_trainer.py CONFIG [key=value ...] [--rounds 5] [--updates 6] [--workers 1] [--threads 2] [--only NAME ...]
                                         [--json FILE] [--picture FILE]

The model, tokens, precision, AdamW, clipping and examples an update of CONFIG for both, but for the Trainer as it comes, which takes 8
examples an update on each worker; new processes for the Trainer (of several workers: its DistributedDataParallel) and for the
recipe (ZeRO as CONFIG says), by turns in every round. Seconds are those between ends of updates, after two to warm up. Medians.
The Trainer groups by length so that the longest examples come first: its updates are taken in random order here, or they would not be
those of a whole epoch.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recipes.config_file import load_config
from recipes.data.cache import TokenData, open_data
from recipes.launching.preflight import prepare
from recipes.training.model import build_model
from recipes.training.run import train

WARM = 2
# Sampling, examples at once, whether they are an update.
TRAINER = {
    "Trainer, as it comes": ("random", 8, True),
    "Trainer, random": ("random", 32, False),
    "Trainer, grouped, 32 at once": ("group_by_length", 32, False),
    "Trainer, grouped, 64 at once": ("group_by_length", 64, False),
    "Trainer, grouped, 128 at once": ("group_by_length", 128, False),
}
RECIPE = "this recipe"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--only", nargs="*", choices=TRAINER, default=list(TRAINER))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="of each worker")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_intermixed_args()
    found: dict[str, list[dict[str, float]]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="against_trainer_") as folder,
        Workers(options.workers, options.threads) as trainer,
        Workers(options.workers, options.threads) as recipe,
    ):
        prepared(Path(folder), options)  # once; after that the tokens are found
        for number in range(options.rounds):
            for name in (*options.only, RECIPE):
                workers, measure = (recipe, of_recipe) if name == RECIPE else (trainer, of_trainer)
                found.setdefault(name, []).append(workers.measured(measure, Path(folder), options, name, number))
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    summary = summed_up(found)
    print(table(summary))
    if options.json:
        settings = {
            name: getattr(options, name) for name in ("config", "overrides", "rounds", "updates", "workers", "threads")
        }
        options.json.write_text(json.dumps({"settings": settings, "results": summary}, indent=1) + "\n")
    if options.picture:
        draw(summary, options.picture)


class Workers(ExitStack):
    """Processes that can be ranks of a process group of theirs."""

    def __init__(self, num_workers: int, num_threads: int):
        super().__init__()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        # Or accelerate would choose other numbers of threads for the Trainer.
        meeting["OMP_NUM_THREADS"] = str(num_threads)
        self._pools = []
        for rank in range(num_workers):
            place = meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_workers)}
            spawn = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(1, spawn, initializer=_take_place, initargs=(place,), max_tasks_per_child=1)
            self._pools.append(self.enter_context(pool))

    def measured(self, measure: Any, *arguments: Any) -> dict[str, float]:
        """What all workers did at the same time: tokens of all, seconds of the slowest."""
        calls = [pool.submit(measure, *arguments) for pool in self._pools]
        found = [call.result() for call in calls]
        seconds, updates = max(one["seconds"] for one in found), arguments[1].updates
        real, computed = (sum(one[name] for one in found) for name in ("real_tokens", "computed_tokens"))
        return {"tokens_per_s": real / seconds, "update_s": seconds / updates, "padding": 1 - real / computed}


def _take_place(place: dict[str, str]) -> None:
    os.environ.update(place)


def prepared(folder: Path, options: argparse.Namespace) -> tuple[Any, TokenData]:
    overrides = [
        *options.overrides,
        f"run.storage_path={folder}",
        "run.name=recipe",
        "training.eval_every_steps=1000000",
        "training.num_samples=0",
        # One more than is timed: after the last there is an evaluation.
        f"schedule.total_steps={WARM + options.updates + 1}",
        "schedule.warmup.steps=2",
        "checkpoint.every_steps=1000000",
        f"scaling.num_workers={options.workers}",
        f"scaling.cpus_per_worker={options.threads}",
    ]
    job, _, _ = prepare(load_config(options.config, overrides), lambda text: None, started_at=0.0)
    return job, open_data(job.data_folder)


def of_recipe(folder: Path, options: argparse.Namespace, name: str, number: int) -> dict[str, float]:
    """The recipe's own loop, metrics and all."""
    if not torch.distributed.is_initialized():
        import deepspeed

        # This operator would be compiled for a minute.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend="gloo")
    torch.set_num_threads(options.threads)
    job, _ = prepared(folder, options)
    ends, tokens = [], []

    def note(run: Any) -> None:
        ends.append(time.perf_counter())
        tokens.append(run.update_tokens)

    train(
        job,
        device=torch.device("cpu"),
        phases={},
        publish=lambda message: None,
        report=lambda metrics: None,
        after_update=note,
    )
    if torch.distributed.get_rank() == 0:
        job.run_folder.delete_folder("")
    real = (tokens[-2] - tokens[WARM - 1]) / options.workers
    return {"seconds": ends[-2] - ends[WARM - 1], "real_tokens": real, "computed_tokens": real}


def of_trainer(folder: Path, options: argparse.Namespace, name: str, number: int) -> dict[str, float]:
    """transformers' loop over the same tokens."""
    from transformers import (
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
        T5ForConditionalGeneration,
        TrainerCallback,
    )

    job, data = prepared(folder, options)
    torch.set_num_threads(options.threads)
    (sampling, size, alone), settings = TRAINER[name], job.config.training
    train_data = [
        {"input_ids": data.train.source(i).tolist(), "labels": data.train.target(i).tolist()}
        for i in range(len(data.train))
    ]
    collate = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(Path(str(job.data_folder)) / "tokenizer"))
    counts, ends = [], []

    def counted(features: list[dict[str, Any]]) -> Any:
        batch = collate(features)
        counts.append(
            (
                int(batch["attention_mask"].sum() + (batch["labels"] != -100).sum()),
                batch["input_ids"].numel() + batch["labels"].numel(),
            )
        )
        return batch

    class Clock(TrainerCallback):
        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            ends.append((time.perf_counter(), len(counts)))

    class Shuffled(Seq2SeqTrainer):
        """Its own batches, whole updates of them in random order."""

        def _get_train_sampler(self, *arguments: Any) -> Any:
            order = np.array(list(super()._get_train_sampler(*arguments)))
            of_update = size * options.workers * self.args.gradient_accumulation_steps
            updates = np.random.default_rng(number).permutation(len(order) // of_update)
            return np.concatenate([order[k * of_update : (k + 1) * of_update] for k in updates]).tolist()

    arguments = Seq2SeqTrainingArguments(
        output_dir=str(folder / "trainer"),
        max_steps=WARM + options.updates,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=1 if alone else settings.examples_per_update // (size * options.workers),
        train_sampling_strategy=sampling,
        learning_rate=float(job.schedule.peak_lr),
        bf16=job.precision == "bf16",
        use_cpu=True,
        ddp_backend="gloo",
        ddp_find_unused_parameters=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    ours = build_model(job.config.model, data.vocab_size, seed=0)
    model = T5ForConditionalGeneration(ours.config)
    model.load_state_dict(ours.state_dict())
    trainer = Shuffled(
        model=model, args=arguments, train_dataset=train_data, data_collator=counted, callbacks=[Clock()]
    )
    trainer.train()
    (begin, first), (end, last) = ends[WARM - 1], ends[-1]
    # The Trainer fetches all batches of an update before it begins.
    real, computed = (sum(side) for side in zip(*counts[first:last], strict=True))
    return {"seconds": end - begin, "real_tokens": real, "computed_tokens": computed}


def summed_up(found: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians; ratio: the recipe's tokens per second over this one's, round by round."""
    ours = [run["tokens_per_s"] for run in found[RECIPE]]
    return {
        name: {figure: statistics.median(run[figure] for run in runs) for figure in runs[0]}
        | {"ratio": statistics.median(mine / run["tokens_per_s"] for mine, run in zip(ours, runs, strict=True))}
        for name, runs in found.items()
    }


def table(summary: dict[str, dict[str, float]]) -> str:
    lines = ["| | real tokens/s | s per update | padding | the recipe is faster by |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {name} | {one['tokens_per_s']:,.0f} | {one['update_s']:.2f} | {one['padding']:.1%} | {one['ratio']:.2f} |"
        for name, one in summary.items()
    ]
    return "\n".join(lines)


def draw(summary: dict[str, dict[str, float]], path: Path) -> None:
    """Bars of real tokens per second."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    names = list(summary)[::-1]
    values = [summary[name]["tokens_per_s"] for name in names]
    bars = axes.barh(names, values, color=["#1f6feb" if name == RECIPE else "#9aa4b2" for name in names])
    axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=4)
    axes.set_xlabel("real tokens per second (source + target, without padding)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    figure.savefig(path)


if __name__ == "__main__":
    main()
