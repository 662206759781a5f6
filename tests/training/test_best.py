"""The best checkpoint and early stopping, through the real loop; and that a resume changes nothing about them."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from recipes.config import EvaluationBlock
from recipes.config_file import load_config, to_yaml
from recipes.errors import UserError
from recipes.launching.preflight import check_resume, prepare, write_description
from recipes.reporting.metrics import TIMED_FIELDS
from recipes.training import manifest as manifests
from recipes.training.best import Best
from tests.conftest import small_run, write_pairs
from tests.training.alone import train_alone

# The held-out loss falls: by the highest, the first evaluation is the best and each later one a worse one.
FIRST_IS_BEST = ("evaluation.best={metric: eval_loss, mode: max}", "evaluation.early_stopping={patience_evals: 3}")
UPDATES = 20


def job_of(pairs, storage, name, *overrides):
    arguments = small_run(
        pairs,
        storage,
        f"run.name={name}",
        "scaling.num_workers=1",
        f"schedule.total_steps={UPDATES}",
        "training.eval_every_steps=2",
        *overrides,
    )
    return prepare(load_config(arguments[0], arguments[1:]), lambda text: None, started_at=0.0)[0]


def run(job, after_update=None):
    write_description(job, "{}")
    return train_alone(job, after_update)


def steps_of(job):
    return manifests.steps_with_folder(job.run_folder)


def resumed(job, **evaluation):
    """Where a second start of the run would begin."""
    content = job.config.model_dump(mode="json")
    content["run"]["resume"] = "auto"
    content["evaluation"] |= evaluation
    config = type(job.config).model_validate(content)
    return check_resume(replace(job, config=config))


def test_the_best_checkpoint_stays_and_is_exported(process_group, pairs, tmp_path):
    job = job_of(pairs, tmp_path, "a", "checkpoint={every_steps: 3, keep: 1}", *FIRST_IS_BEST)
    weights = {}

    def keep(training):
        weights[training.step] = {name: p.detach().clone() for name, p in training.engine.module.named_parameters()}

    summary, said = run(job, keep)
    assert steps_of(job) == [8, 2]
    assert all(
        manifests.damage(job.run_folder, manifests.read_manifest(job.run_folder, step)) is None for step in (8, 2)
    )
    exported = load_file(tmp_path / "a" / "export" / "model.safetensors")
    assert all(torch.equal(exported[name], weight) for name, weight in weights[2].items())
    assert not all(torch.equal(exported[name], weight) for name, weight in weights[8].items())
    losses = {
        line["step"]: line["eval_loss"]
        for line in map(json.loads, (tmp_path / "a" / "metrics.jsonl").read_text().splitlines())
        if "eval_loss" in line
    }
    assert (summary["state"], summary["updates"], summary["exported_update"]) == ("finished", 8, 2)
    assert summary["best"] == {"metric": "eval_loss", "value": losses[2], "update": 2}
    assert list(losses) == [2, 4, 6, 8]
    assert summary["stopped_early"] == said[-1] == (
        "stopped early after update 8 of 20: 3 evaluations in a row without a better eval_loss than "
        f"{losses[2]:.4g} of update 2; the weights have not annealed: lr {job.schedule.lr(7):.3g} instead of 0.0001 at the "
        "schedule's end"
    )  # fmt: skip
    assert resumed(job).finished
    assert not resumed(job, early_stopping={"patience_evals": 4, "min_delta": 0.0}).finished
    assert not resumed(job, early_stopping=None).finished


def test_without_early_stopping_the_last_update_is_exported(process_group, pairs, tmp_path):
    job = job_of(
        pairs, tmp_path, "a", "checkpoint={every_steps: 9, keep: 1}", "evaluation.best={}", "schedule.total_steps=8"
    )
    summary, _ = run(job)
    assert (summary["updates"], summary["exported_update"], summary["stopped_early"]) == (8, 8, None)
    assert summary["best"] == {"metric": "eval_loss", "value": summary["eval_loss"], "update": 8}
    assert steps_of(job) == [8]


def test_a_lost_best_checkpoint_is_told(process_group, pairs, tmp_path):
    job = job_of(pairs, tmp_path, "a", "checkpoint={every_steps: 3, keep: 1}", *FIRST_IS_BEST)

    def lose(training):
        if training.step == 8:
            training.checkpoints.wait()
            shutil.rmtree(tmp_path / "a" / "checkpoints" / "step_00000002" / "deepspeed")

    summary, said = run(job, lose)
    assert summary["exported_update"] == 8
    assert said[-1] == "the best update 2 is lost with its checkpoint: update 8 is exported"


@pytest.fixture(scope="module")
def unbroken(process_group, tmp_path_factory):
    storage = tmp_path_factory.mktemp("best")
    pairs = write_pairs(storage / "pairs.jsonl")
    settings = ("checkpoint={every_steps: 1, keep: 100}", *FIRST_IS_BEST)
    run(job_of(pairs, storage / "runs", "unbroken", *settings))
    return pairs, storage / "runs", settings


def result(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    return (
        [{key: value for key, value in line.items() if key not in TIMED_FIELDS} for line in lines],
        (folder / "export" / "model.safetensors").read_bytes(),
        {key: summary[key] for key in ("updates", "evaluation", "best", "exported_update", "stopped_early")},
    )


@pytest.mark.parametrize("position", [1, 2, 5, 6, 8])
def test_resumed_at(unbroken, position):
    """At 8 the run has stopped early, but was killed before its export: no update follows."""
    pairs, storage, settings = unbroken
    folder = storage / f"from_{position}"
    shutil.copytree(storage / "unbroken", folder)
    for path in (folder / "checkpoints").iterdir():
        if int(path.name.removeprefix("step_")) > position:
            shutil.rmtree(path)
    shutil.rmtree(folder / "export")
    job = job_of(pairs, storage, folder.name, *settings, "run.resume=auto")
    (folder / "config.yaml").write_text(to_yaml(job.config))
    (folder / "summary.json").unlink()
    assert not check_resume(job).finished
    _, said = run(job)
    assert f"resumed at update {position} of {UPDATES} on 1 worker" in said
    assert result(folder) == result(storage / "unbroken")


def notes(values, **settings):
    """Which values are the best so far, and after which the run ends."""
    block, best, found = EvaluationBlock(**settings), Best(), []
    for step, value in enumerate(values, start=1):
        found.append(
            (
                best.note({"step": step, "eval_loss": value, "eval_perplexity": value}, block, False),
                best.ends_run(block),
            )
        )
        best = Best(**best.state())
    return [i for i, (better, _) in enumerate(found) if better], next(
        (i for i, (_, ends) in enumerate(found) if ends), None
    )


@pytest.mark.parametrize(
    ("values", "settings", "expected"),
    [
        ([3, 2, 2, 1, 5], {"best": {}}, ([0, 1, 3], None)),
        ([3, 2, 4, 1], {"best": {"mode": "max"}}, ([0, 2], None)),
        ([3, 2, 2, 2.5, 1], {"early_stopping": {"patience_evals": 2}}, ([0, 1, 4], 3)),
        ([3, 2, 2, 1, 1, 1], {"early_stopping": {"patience_evals": 2}}, ([0, 1, 3], 5)),
        # Each a little better than the one before: together they are more than min_delta.
        ([3, 2.96, 2.92, 2.88, 2.8], {"early_stopping": {"patience_evals": 3, "min_delta": 0.1}}, ([0, 1, 2, 3, 4], None)),
        ([3, 2.96, 2.96, 2.96], {"early_stopping": {"patience_evals": 3, "min_delta": 0.1}}, ([0, 1], 3)),
        ([math.nan, 3, math.inf, math.nan], {"early_stopping": {"patience_evals": 2}}, ([1], 3)),
    ],
)  # fmt: skip
def test_which_is_best_and_when_it_ends(values, settings, expected):
    assert notes(values, **settings) == expected


def test_evaluations_without_the_metric_count_for_nothing():
    block = EvaluationBlock(
        metrics=["a:f"], best={"metric": "eval_f", "mode": "max"}, early_stopping={"patience_evals": 1}
    )
    best = Best()
    assert not best.note({"step": 1, "eval_loss": 3.0}, block, generated=False)
    assert best.num_worse == 0
    assert best.note({"step": 2, "eval_loss": 3.0, "eval_f": 0.5}, block, generated=True)
    with pytest.raises(UserError, match=r"evaluation.best.metric: no metric gave 'eval_f', did you mean 'eval_fs'\?"):
        best.note({"step": 4, "eval_loss": 3.0, "eval_fs": 0.5}, block, generated=True)
