"""What a run would do, in words and numbers, without starting Ray."""

from __future__ import annotations

import json

import numpy as np

from lrsched.plot import text_plot
from recipes.config.published import CHECKPOINTS
from recipes.config_file import to_yaml
from recipes.data.cache import TokenData
from recipes.data.plan import BatchPlan, task_numbers
from recipes.launching.preflight import Start
from recipes.launching.ray_cluster import needed_resources
from recipes.planning.shapes import shape_of
from recipes.training.job import Job

_LONGEST_EXAMPLE = 240


def describe_run(job: Job, data: TokenData, plan: BatchPlan, start: Start) -> str:
    """The text of ``--dry-run``."""
    parts = [
        ("resolved config", to_yaml(job.config)),
        ("DeepSpeed config", json.dumps(job.ds_config, indent=2)),
        ("schedule", _schedule(job)),
        ("data and batch plan", _batches(data, plan, job.schedule.total_steps)),
        ("as the model sees it", _first_examples(data)),
        ("would run", f"{_model(job, data)}\n{_resources(job, start)}"),
    ]
    return "\n\n".join(f"# {title}\n{text.rstrip()}" for title, text in parts)


def _schedule(job: Job) -> str:
    schedule = job.schedule
    rates = schedule.lr(np.arange(schedule.total_steps))
    peak = int(np.argmax(rates))
    return "\n".join(
        [
            schedule.describe(),
            f"stepped by {job.schedule_driver}; the other form is checked against it before the first update",
            text_plot(schedule, width=72, height=14),
            f"first {rates[0]:.6g} (update 0), highest {rates[peak]:.6g} (update {peak}), "
            f"last {rates[-1]:.6g} (update {len(rates) - 1})",
        ]
    )


def _batches(data: TokenData, plan: BatchPlan, total_updates: int) -> str:
    statistics = plan.statistics()
    lines = [f"{name.replace('_', ' ')}: {value:,}" for name, value in data.numbers().items()]
    lines += [
        f"vocabulary: {data.vocab_size:,}",
        f"unigram model of the held-out targets: {data.meta['baseline']['held_out_entropy']:.4f} nats per target token",
        f"updates per epoch: {plan.updates_per_epoch:.2f}",
        f"tokens per update: {_tokens_per_update(plan):,.0f}",
        f"micro-batches per worker and update: {statistics.micro_batches_per_rank:.2f}",
        f"padding: {statistics.padding_ratio:.1%} of computed tokens",
        f"busiest worker: {statistics.slowest_rank_ratio:.3f} times the mean",
    ]
    lines += [
        f"task {task['name']} ({task['objective']}): {task['training_examples']:,} + {task['held_out_examples']:,} held-out "
        f"examples, {task['rate']:.1%} of every update, {task['epochs']:.2f} epochs in the run"
        for task in task_numbers(data, plan, total_updates)
    ]
    return "\n".join(lines)


def _first_examples(data: TokenData) -> str:
    """One training example of every task, as text, marks of gaps included."""
    lines = []
    for number in range(len(data.task_names)):
        i = int(np.argmax(data.train.tasks == number))
        source, target = (data.tokenizer.show(ids) for ids in data.train.pair(i))
        lines += [data.train.where(i), f"  source: {_cut(source)}", f"  target: {_cut(target)}"]
    return "\n".join(lines)


def _cut(text: str) -> str:
    shown = text.replace("\n", "\\n")
    return shown if len(shown) <= _LONGEST_EXAMPLE else f"{shown[:_LONGEST_EXAMPLE]}... ({len(text):,} characters)"


def _tokens_per_update(plan: BatchPlan) -> float:
    everything = plan.lengths.source.sum() + plan.lengths.target.sum()
    return float(everything) / plan.updates_per_epoch


def _model(job: Job, data: TokenData) -> str:
    """Its size, where that is known without the network."""
    block = job.config.model
    if block.hub is not None and block.hub not in CHECKPOINTS:
        return f"model {block.hub}, of a size that is not known here"
    shape = shape_of(job.config, data.vocab_size if block.shape else None)
    trained = shape.num_trained(block)
    some = "" if trained == shape.num_parameters else f", {trained:,} of them trained"
    origin = block.hub or block.folder or block.shape.preset or "of its own shape"
    return f"model {origin}: {shape.num_parameters:,} parameters{some}"


def _resources(job: Job, start: Start) -> str:
    scaling, folder = job.config.scaling, job.run_folder
    each = ", ".join(f"{amount:g} {kind}" for kind, amount in needed_resources(scaling).items())
    workers = f"{scaling.num_workers} workers" if scaling.num_workers > 1 else "1 worker"
    if scaling.min_workers:
        workers = f"{scaling.min_workers} to {scaling.max_workers} workers, by what the cluster has"
    if start.finished:
        begins = "nothing to do: the run is finished"
    else:
        begins = f"updates {start.step} to {job.schedule.total_steps}"
    return "\n".join(
        [
            f"{workers}, each with {each}; ZeRO stage {job.config.deepspeed.zero_stage}, {job.precision}",
            f"{begins}, in {folder}",
        ]
    )
