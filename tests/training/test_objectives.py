"""Runs on text alone and on mixtures: resumed bit for bit, each task's loss its own."""

import json
import shutil

import numpy as np
import pytest
import torch

from recipes.config_file import load_config
from recipes.data.batches import pad
from recipes.data.cache import open_data
from recipes.data.plan import batch_plan
from recipes.launching.preflight import prepare
from recipes.reporting.metrics import TIMED_FIELDS
from recipes.storage import Storage
from recipes.training.export import load_export
from recipes.training.update import summed_loss
from tests.conftest import small_run
from tests.training.alone import train_alone

TASKS = "data={tasks: [{name: turn, source: %s}, {name: fill, source: %s, objective: {kind: span_corruption}}, \
{name: more, source: %s, objective: {kind: ul2, max_chunk_tokens: 30}}], tokenizer: {kind: bytes}, \
max_source_tokens: 64, max_target_tokens: 64}"


def job_of(pairs, storage, name, *settings):
    common = ("scaling.num_workers=1", "checkpoint.every_steps=1", "checkpoint.keep=9", f"run.name={name}")
    arguments = small_run(pairs, storage, *common, "schedule.warmup.steps=2", "run.resume=auto", *settings)
    return prepare(load_config(arguments[0], arguments[1:]), lambda text: None, started_at=0.0)[0]


def outcome(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [{key: value for key, value in line.items() if key not in TIMED_FIELDS} for line in lines]
    return lines, (folder / "export" / "model.safetensors").read_bytes(), (folder / "samples.json").read_text()


@pytest.mark.parametrize("kind", ["span_corruption", "mixture"])
def test_resumed_after_one_update(process_group, pairs, tmp_path, kind):
    mixed = TASKS % (pairs, pairs, pairs) if kind == "mixture" else "data.objective.kind=span_corruption"
    settings = (mixed, "schedule.total_steps=4", "training.eval_every_steps=2", "run.name=whole")
    train_alone(job_of(pairs, tmp_path, "whole", *settings))
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    for step in (2, 3, 4):
        shutil.rmtree(tmp_path / "broken" / "checkpoints" / f"step_{step:08d}")
    for name in ("summary.json", "export"):
        path = tmp_path / "broken" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    _, said = train_alone(job_of(pairs, tmp_path, "broken", *settings[:-1]))
    assert any("resumed at update 1 of 4" in words for words in said)
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "whole")


def test_each_tasks_loss_is_of_its_examples_alone(process_group, pairs, tmp_path):
    text = ("evaluation.metrics=[perplexity, chrf]", "evaluation.best.metric=eval_loss/fill")
    job = job_of(pairs, tmp_path, "small", TASKS % (pairs, pairs, pairs), "schedule.total_steps=4", *text)
    summary, _ = train_alone(job)
    found = summary["evaluation"]
    data = open_data(job.data_folder)
    model, held_out = load_export(Storage(tmp_path / "small")), data.held_out
    total = 0.0
    for task, name in enumerate(("turn", "fill", "more")):
        examples = np.flatnonzero(held_out.tasks == task)
        with torch.no_grad():
            loss = sum(float(summed_loss(model, pad(held_out, [i], data.pad_id))) for i in examples)
        total += loss
        assert found[f"eval_loss/{name}"] == pytest.approx(loss / held_out.target_lengths[examples].sum(), rel=1e-5)
    assert found["eval_loss"] == pytest.approx(total / held_out.target_lengths.sum(), rel=1e-5)
    # Text is generated where there is a reference: pairs, and continuations among UL2's kinds.
    assert found["eval_generated"] == int(held_out.is_pair.sum()) < len(held_out)
    assert summary["best"]["metric"] == "eval_loss/fill"
    rates = [task["rate"] for task in summary["tasks"]]
    sizes = np.array([task["training_examples"] for task in summary["tasks"]])
    assert rates == pytest.approx(sizes / sizes.sum())
    assert sum(task["epochs"] * size for task, size in zip(summary["tasks"], sizes, strict=True)) == 4 * 16


def test_every_update_draws_its_own_noise(process_group, pairs, tmp_path):
    seen = {}

    def note(run):
        [batch] = run.feed.take(run.step - 1).micro_batches
        seen[run.step - 1] = batch.input_ids.tolist()

    settings = ("data.objective.kind=span_corruption", "training.examples_per_update=2", "schedule.total_steps=3")
    job = job_of(pairs, tmp_path, "small", *settings)
    train_alone(job, after_update=note)
    train, plan = open_data(job.data_folder).train, batch_plan(job.config, open_data(job.data_folder).train, 1)
    for position in range(3):
        drawn = train.drawn_from(job.config.run.seed, position)
        [[examples]] = plan.micro_batches(position)
        assert seen[position] == np.concatenate([drawn.source(i) for i in examples]).tolist()
        assert seen[position] != np.concatenate([train.source(i) for i in examples]).tolist()


def test_the_samples_of_gaps_show_their_marks(process_group, pairs, tmp_path):
    train_alone(job_of(pairs, tmp_path, "small", "data.objective.kind=span_corruption", "schedule.total_steps=3"))
    for sample in json.loads((tmp_path / "small" / "samples.json").read_text()):
        assert sample["reference"].startswith("<extra_id_0>")
        assert "<extra_id_0>" in sample["source"]
        assert "</s>" not in sample["source"] + sample["reference"]
