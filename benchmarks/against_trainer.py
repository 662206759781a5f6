"""Real tokens per second beside transformers' Seq2SeqTrainer, on real lengths.

    python benchmarks/against_trainer.py MULTI30K [--rounds 5] [--precision fp32|bf16] [--threads 2] [--json FILE] [--picture FILE]

MULTI30K: a folder with train.parquet and validation.parquet. One process, the same model (10 M parameters), tokens, AdamW, 128 examples
an update, clipping and threads; the settings take turns in every round. The Trainer runs with its defaults, and with each of its other
sampling strategies and batch sizes; seconds are those between ends of updates, after two to warm up. Medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from lrsched.proof.deepspeed_engine import join_alone
from recipes.config_file import load_config
from recipes.data.cache import TokenData, open_data
from recipes.launching.preflight import prepare
from recipes.training.model import build_model
from recipes.training.run import train

CONFIG = Path(__file__).parents[1] / "recipes" / "configs" / "multi30k.yaml"
WARM, TIMED, EXAMPLES = 2, 5, 128
SHAPE = "{d_model: 256, d_kv: 64, d_ff: 1024, num_layers: 5, num_heads: 4, dropout_rate: 0.1}"
# Sampling, examples at once (as many times as make 128). The first two are the defaults, with 128 examples an update.
TRAINER = {
    "Trainer, defaults": ("random", 8),
    "Trainer, random, 32": ("random", 32),
    "Trainer, grouped, 32": ("group_by_length", 32),
    "Trainer, grouped, 64": ("group_by_length", 64),
    "Trainer, grouped, 128": ("group_by_length", 128),
}
RECIPE = "this recipe"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    join_alone()
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="against_trainer_") as folder:
        for number in range(options.rounds):
            for name in (*TRAINER, RECIPE):
                measure = of_recipe if name == RECIPE else of_trainer
                found.setdefault(name, []).append(measure(Path(folder), options, name))
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    torch.distributed.destroy_process_group()
    summary = summed_up(found)
    print(table(summary))
    if options.json:
        settings = {"precision": options.precision, "threads": options.threads, "rounds": options.rounds}
        options.json.write_text(json.dumps({"settings": settings, "results": summary}, indent=1) + "\n")
    if options.picture:
        draw(summary, options.picture)


def prepared(folder: Path, options: argparse.Namespace) -> tuple[Any, TokenData]:
    overrides = [
        f"run.storage_path={folder}",
        "run.name=recipe",
        "run.resume=never",
        f"data.source={options.data / 'train.parquet'}",
        f"data.eval_source={options.data / 'validation.parquet'}",
        f"model.shape={SHAPE}",
        f"training.precision={options.precision}",
        f"training.examples_per_update={EXAMPLES}",
        "training.micro_batch_tokens=4500",
        "training.eval_every_steps=1000000",
        "training.num_samples=0",
        f"schedule.total_steps={WARM + TIMED + 1}",
        "schedule.warmup.steps=2",
        "checkpoint.every_steps=1000000",
        f"scaling.cpus_per_worker={options.threads}",
    ]
    job, _, _ = prepare(load_config(CONFIG, overrides), lambda text: None, started_at=0.0)
    return job, open_data(job.data_folder)


def of_recipe(folder: Path, options: argparse.Namespace, name: str) -> dict[str, float]:
    """The recipe's own loop, metrics and all."""
    job, _ = prepared(folder, options)
    ends, tokens, losses = [], [], []

    def note(run: Any) -> None:
        ends.append(time.perf_counter())
        tokens.append(run.update_tokens)

    def publish(message: dict[str, Any]) -> None:
        if "loss" in message.get("metrics", {}):
            losses.append(message["metrics"]["loss"])

    train(job, device=torch.device("cpu"), phases={}, publish=publish, report=lambda metrics: None, after_update=note)
    job.run_folder.delete_folder("")
    seconds, real = ends[WARM + TIMED - 1] - ends[WARM - 1], tokens[WARM + TIMED - 1] - tokens[WARM - 1]
    return {"tokens_per_s": real / seconds, "update_s": seconds / TIMED, "padding": 0.0}


def of_trainer(folder: Path, options: argparse.Namespace, name: str) -> dict[str, float]:
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
    job.run_folder.delete_folder("")
    sampling, size = TRAINER[name]
    train_data = [
        {"input_ids": data.train.source(i).tolist(), "labels": data.train.target(i).tolist()} for i in range(12_000)
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

    arguments = Seq2SeqTrainingArguments(
        output_dir=str(folder / "trainer"),
        max_steps=WARM + TIMED,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=EXAMPLES // size,
        train_sampling_strategy=sampling,
        learning_rate=1e-3,
        bf16=options.precision == "bf16",
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    ours = build_model(job.config.model, data.vocab_size, seed=0)
    model = T5ForConditionalGeneration(ours.config)
    model.load_state_dict(ours.state_dict())
    trainer = Seq2SeqTrainer(
        model=model, args=arguments, train_dataset=train_data, data_collator=counted, callbacks=[Clock()]
    )
    trainer.train()
    (begin, first), (end, last) = ends[WARM - 1], ends[-1]
    real, computed = (sum(side) for side in zip(*counts[first:last], strict=True))
    return {"tokens_per_s": real / (end - begin), "update_s": (end - begin) / TIMED, "padding": 1 - real / computed}


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
