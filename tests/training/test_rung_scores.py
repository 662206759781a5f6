"""Scores at rungs, through the real loop and DeepSpeed engine."""

import json
from itertools import product

import pytest
import torch

from recipes.config_file import load_config
from recipes.launching.preflight import prepare
from recipes.reporting.metrics import TIMED_FIELDS
from recipes.storage import Storage
from recipes.sweeping.scoring import METHODS, RungScorer, Scoring
from recipes.training.loop import held_out_now
from recipes.training.manifest import newest_manifest
from recipes.training.run import train
from tests.conftest import small_run
from tests.training.programs import result_of

TWO_WORKERS = "rung_score_workers.py"


def train_small(pairs, folder, *overrides, after_update=None):
    """A run of 8 updates in this process: its summary, and its metrics without times."""
    arguments = small_run(pairs, folder, "scaling.num_workers=1", *overrides)
    job, _, _ = prepare(load_config(arguments[0], arguments[1:]), lambda text: None, started_at=0.0)
    summary = train(
        job,
        device=torch.device("cpu"),
        phases={},
        publish=lambda message: None,
        report=lambda metrics: None,
        after_update=after_update,
    )
    return summary, metrics_of(folder)


def metrics_of(folder):
    """The metrics of a run, without times."""
    lines = Storage(folder / "small").read_text("metrics.jsonl").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMED_FIELDS} for line in lines]


def test_raw_scores_are_the_held_out_losses_at_the_rungs(process_group, pairs, tmp_path):
    scores = []
    scorer = RungScorer(Scoring(method="raw"), [2, 5, 8], scores.append)
    _, metrics = train_small(pairs, tmp_path / "a", "training.eval_every_steps=1", after_update=scorer)
    held_out = {record["step"]: record["eval_loss"] for record in metrics if "eval_loss" in record}
    assert [(s.step, s.score, s.raw, s.extra_updates) for s in scores] == [
        (step, held_out[step], held_out[step], 0) for step in (2, 5, 8)
    ]


def test_after_update_comes_after_the_evaluation_and_before_the_checkpoint(process_group, pairs, tmp_path):
    seen = []

    def look(run):
        seen.append((run.step, run.eval_loss, Storage(tmp_path / "a" / "small").exists("checkpoints")))

    _, metrics = train_small(pairs, tmp_path / "a", "checkpoint.background=false", after_update=look)
    held_out = {record["step"]: record["eval_loss"] for record in metrics if "eval_loss" in record}
    assert [step for step, _, _ in seen] == list(range(1, 9))
    assert seen[3] == (4, held_out[4], False)
    assert seen[4] == (5, held_out[4], True)


def test_an_error_of_the_report_ends_the_run(process_group, pairs, tmp_path):
    class Stopped(Exception):
        pass

    def report(score):
        raise Stopped(score.step)

    with pytest.raises(Stopped, match="2"):
        train_small(pairs, tmp_path / "a", after_update=RungScorer(Scoring(method="raw"), [2, 8], report))


def end_of(folder):
    """The last checkpoint of a run: the checksum of every file in it."""
    manifest = newest_manifest(Storage(folder / "small"))
    return manifest.step, manifest.files


def of_all(*quick):
    """Every stage, precision and method; those not named here are slow."""
    cases = product((0, 1, 2, 3), ("fp32", "bf16"), METHODS[1:])
    return [pytest.param(*case, marks=[] if case in quick else pytest.mark.slow) for case in cases]


@pytest.mark.parametrize(
    ("stage", "precision", "method"),
    of_all((0, "bf16", "annealed"), (1, "fp32", "averaged"), (2, "fp32", "annealed"), (3, "bf16", "averaged")),
)
def test_a_scored_run_is_the_run_that_was_not_scored(process_group, pairs, tmp_path, stage, precision, method):
    """Weights, optimizer, schedule, random state (dropout is on) and metrics, to the last bit."""
    settings = [f"deepspeed.zero_stage={stage}", f"training.precision={precision}", "optimizer.embedding_lr_ratio=2"]
    scores = []
    scorer = RungScorer(Scoring(method, branch_ratio=0.5, averaged_ratio=0.5), [2, 5, 8], scores.append)
    plain = train_small(pairs, tmp_path / "plain", *settings)
    scored = train_small(pairs, tmp_path / "scored", *settings, after_update=scorer)
    assert scored[1] == plain[1]
    assert end_of(tmp_path / "scored") == end_of(tmp_path / "plain")
    assert [score.step for score in scores] == [2, 5, 8]
    assert [score.extra_updates for score in scores] == ([0, 0, 0] if method == "averaged" else [1, 2, 0])
    # Or nothing was scored.
    assert all(score.score != score.raw for score in scores[1:-1])
    assert scores[-1].score == scores[-1].raw == plain[0]["eval_loss"]


def test_held_state_is_put_back_after_the_torch_schedule_too(process_group, pairs, tmp_path):
    scorer = RungScorer(Scoring("annealed", branch_ratio=1.0), [3, 6, 8], lambda score: None)
    settings = ["schedule.backend=torch", "schedule.decay={shape: step, step_size: 2}"]
    plain = train_small(pairs, tmp_path / "plain", *settings)
    assert train_small(pairs, tmp_path / "scored", *settings, after_update=scorer)[1] == plain[1]
    assert end_of(tmp_path / "scored") == end_of(tmp_path / "plain")


@pytest.mark.parametrize(
    ("branch_path", "decay", "ratios"),
    [
        ("floor", "{shape: constant}", (0.75, 0.25)),
        ("rest", "{shape: multistep, milestones: [6], gamma: 0.1}", (1.0, 0.1)),
    ],
)
def test_an_annealed_score_is_the_loss_of_a_run_whose_schedule_ends_there(
    process_group, pairs, tmp_path, branch_path, decay, ratios
):
    """The branch of 2 updates at 4 against a real run of 6 updates whose lr falls the same way."""
    quiet = ["model.shape.dropout_rate=0", "schedule.warmup=null", "schedule.backend=torch"]
    scores = []
    scorer = RungScorer(Scoring("annealed", branch_ratio=0.5, branch_path=branch_path), [4, 8], scores.append)
    train_small(pairs, tmp_path / "a", *quiet, f"schedule.decay={decay}", after_update=scorer)
    peak = 1e-2
    pieces = f"[{{steps: 4}}, {{steps: 1, peak_ratio: {ratios[0]}}}, {{peak_ratio: {ratios[1]}}}]"
    real, metrics = train_small(
        pairs,
        tmp_path / "b",
        *quiet,
        "schedule.total_steps=6",
        f"schedule.decay={{shape: piecewise, pieces: {pieces}}}",
    )
    lrs = [record["lr"] for record in metrics if "lr" in record]
    assert lrs == pytest.approx([peak] * 4 + [ratio * peak for ratio in ratios], rel=1e-12)
    assert scores[0].extra_updates == 2
    assert scores[0].score == pytest.approx(real["eval_loss"], rel=1e-6)
    assert abs(scores[0].score - scores[0].raw) > 1e-3 * scores[0].raw


def test_a_projected_score_is_the_annealed_one_times_what_is_to_come(process_group, pairs, tmp_path):
    scores = {}
    for method, branch_ratio in (("annealed", 0.5), ("projected", 0.5), ("projected", 0.0)):
        found = scores[method, branch_ratio] = []
        scorer = RungScorer(Scoring(method, branch_ratio=branch_ratio), [4, 8], found.append)
        settings = ["schedule.decay={shape: constant}", "schedule.warmup=null", "schedule.backend=torch"]
        train_small(pairs, tmp_path / f"{method} {branch_ratio}", *settings, after_update=scorer)
    annealed, projected, plain = (found[0] for found in scores.values())
    # The lr is constant: 4 updates and a branch of 2 are 6 of 8.
    assert projected.score == pytest.approx(annealed.score * (6 / 8) ** 0.076, rel=1e-9)
    assert plain.score == pytest.approx(plain.raw * (4 / 8) ** 0.076, rel=1e-9)
    assert [one.extra_updates for one in (annealed, projected, plain)] == [2, 2, 0]
    assert all(found[1].score == found[1].raw for found in scores.values())


def test_an_averaged_score_is_the_loss_of_the_mean_of_the_weights(process_group, pairs, tmp_path):
    kept, losses, scores = [], [], []
    scorer = RungScorer(Scoring("averaged", averaged_ratio=0.5), [4, 8], scores.append)

    def keep(run):
        kept.append([p.detach().clone() for p in run.engine.module.parameters()])
        if run.step == 4:
            for p, *weights in zip(run.engine.module.parameters(), *kept[2:4], strict=True):
                p.data.copy_(sum(weights) / 2)
            losses.append(held_out_now(run).loss)

    train_small(pairs, tmp_path / "a", after_update=scorer)
    train_small(pairs, tmp_path / "b", after_update=keep)
    assert scores[0].score == pytest.approx(losses[0], rel=1e-6)
    assert abs(scores[0].score - scores[0].raw) > 1e-3 * scores[0].raw


@pytest.mark.parametrize(("stage", "precision", "method"), of_all((3, "fp32", "annealed")))
def test_a_scored_run_of_two_workers_is_the_run_that_was_not_scored(pairs, tmp_path, stage, precision, method):
    first, second = result_of(TWO_WORKERS, pairs, tmp_path, stage, precision, method)
    assert metrics_of(tmp_path / "scored") == metrics_of(tmp_path / "plain")
    assert end_of(tmp_path / "scored") == end_of(tmp_path / "plain")
    assert [(s["step"], s["score"], s["raw"]) for s in first] == [(s["step"], s["score"], s["raw"]) for s in second]
    assert [s["step"] for s in first] == [2, 5, 8]
    assert first[1]["score"] != first[1]["raw"]
