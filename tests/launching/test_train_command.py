"""The real command on a real cluster: every ZeRO stage, resume, failures."""

import json
import re

import pytest
import torch

from lrsched import Schedule
from recipes.data.batches import pad
from recipes.data.cache import open_data
from recipes.data.plan import evaluation_plan
from recipes.reporting.metrics import TIMED_FIELDS
from recipes.storage import Storage
from recipes.training.export import load_export
from recipes.training.update import summed_loss
from tests.conftest import small_run, write_pairs
from tests.launching.conftest import train, train_and_kill_a_worker
from tests.tracking.read_back import mlflow_points, points_of, wandb_points


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    write_pairs(folder / "pairs.jsonl")
    return folder


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder):
    return [line["loss"] for line in lines(folder) if "loss" in line]


@pytest.fixture(scope="module")
def stages(cluster, place):
    """One finished run for each ZeRO stage, two workers each, no dropout.

    Stage 1 differs in all that must not matter: one worker, smaller micro-batches, the torch backend.
    """
    folders = {}
    for stage in (0, 1, 2, 3):
        arguments = small_run(
            place / "pairs.jsonl",
            place / "runs",
            f"run.name=stage{stage}",
            f"deepspeed.zero_stage={stage}",
            "model.shape.dropout_rate=0",
            f"schedule.backend={'torch' if stage == 1 else 'deepspeed'}",
            *(["scaling.num_workers=1", "training.micro_batch_tokens=150"] if stage == 1 else []),
            f"model.shape.tie_word_embeddings={'true' if stage == 0 else 'false'}",
        )
        result = train(arguments, cluster)
        assert result.returncode == 0, result.stderr
        folders[stage] = place / "runs" / f"stage{stage}"
        assert result.stderr.splitlines()[-1] == f"model: {folders[stage]}/export"
    return folders


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_run_leaves_all_its_files(stages, stage):
    folder = stages[stage]
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("config.yaml", "ds_config.json", "environment.json", "metrics.jsonl", "summary.json", "samples.json"),
        *("schedule.png", "loss.png", "report.html", "tensorboard", "checkpoints", "export", "logs", "ray"),
    }
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step_00000004", "step_00000008"]
    assert ("scheduler" in json.loads((folder / "ds_config.json").read_text())) == (stage != 1)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["state"], summary["updates"], summary["zero_stage"]) == ("finished", 8, stage)
    assert len(json.loads((folder / "samples.json").read_text())) == 2


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_lr_of_every_update_is_the_schedules(stages, stage):
    schedule = Schedule.from_file(stages[stage] / "config.yaml")
    training = [line for line in lines(stages[stage]) if "loss" in line]
    assert [line["step"] for line in training] == list(range(1, 9))
    for line in training:
        assert abs(line["lr"] - schedule.lr(line["step"] - 1)) <= 1e-15 * schedule.peak_lr
        assert set(line) >= {"step", "loss", "lr", "grad_norm", "tokens", "tokens_per_s"}
    assert [line["step"] for line in lines(stages[stage]) if "eval_loss" in line] == [4, 8]


@pytest.mark.parametrize("stage", [2, 3])
def test_stages_workers_and_micro_batches_compute_the_same_training(stages, stage):
    # Same weights (untied), same global batches: only the order of sums differs.
    assert losses(stages[stage]) == pytest.approx(losses(stages[1]), rel=2e-6)
    assert losses(stages[1])[-1] < losses(stages[1])[0] - 0.5


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_export_has_the_engines_loss(stages, stage):
    folder = stages[stage]
    data = open_data(next(p for p in (folder.parent / "token_cache").iterdir() if (p / "meta.json").exists()))
    model = load_export(Storage(folder))
    held_out = data.held_out
    lengths = (held_out.source_lengths, held_out.target_lengths)
    plan = evaluation_plan(*lengths, micro_batch_tokens=400, num_ranks=1, packed=False)
    with torch.no_grad():
        total = sum(float(summed_loss(model, pad(held_out, part, data.pad_id))) for part in plan[0])
    engine_loss = [line["eval_loss"] for line in lines(folder) if "eval_loss" in line][-1]
    assert total / held_out.target_lengths.sum() == pytest.approx(engine_loss, rel=1e-6)


LONG = ("schedule.total_steps=80", "checkpoint.every_steps=10", "training.eval_every_steps=15", "run.resume=auto")


def test_a_killed_and_resumed_run_is_the_unbroken_run_bit_for_bit(cluster, place):
    unbroken, killed = place / "runs" / "unbroken", place / "runs" / "killed"
    arguments = small_run(place / "pairs.jsonl", place / "runs", *LONG, "run.name=unbroken")
    assert train(arguments, cluster).returncode == 0
    again = train(arguments, cluster)
    assert (again.returncode, again.stderr.splitlines()[-1]) == (
        0,
        f"{unbroken} is finished (80 updates): see {unbroken}/report.html",
    )

    watched = ("run.name=killed", "report.to=[mlflow,wandb]")
    arguments = small_run(place / "pairs.jsonl", place / "runs", *LONG, *watched)
    result = train_and_kill_a_worker(arguments, cluster, after=lambda: step_reached(killed, 32) and is_live(killed))
    assert result.returncode == 1
    page = (killed / "report.html").read_text()
    # Which rank the killed process had is Ray's to choose.
    assert re.search(r"Ended: worker [01] died without an error of its own: killed, or out of memory", page)
    assert 'http-equiv="refresh"' not in page
    assert "died without an error of its own: killed, or out of memory" in result.stderr.splitlines()[-1]
    steps = sorted(
        int(path.name[5:]) for path in (killed / "checkpoints").iterdir() if (path / "manifest.json").exists()
    )
    assert len(steps) == 2  # checkpoint.keep

    shard = killed / "checkpoints" / f"step_{steps[1]:08d}" / "deepspeed" / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    resumed = train(arguments, cluster)
    assert resumed.returncode == 0, resumed.stderr
    assert (
        f"checkpoint at update {steps[1]} is damaged ({shard.parent.name}/{shard.name} has another checksum)"
        in resumed.stderr
    )
    assert f"resumed at update {steps[0]} of 80" in resumed.stderr

    assert [_without_times(line) for line in lines(killed)] == [_without_times(line) for line in lines(unbroken)]
    check_trackers(killed)
    for name in ("export/model.safetensors", "samples.json"):
        assert (killed / name).read_bytes() == (unbroken / name).read_bytes()


def step_reached(folder, step):
    return (folder / "metrics.jsonl").exists() and any(line["step"] >= step for line in lines(folder))


def check_trackers(folder):
    """MLflow and W&B have every point of metrics.jsonl once, whatever the kill and the resume did."""
    expected = without_values_of_speed(points_of(folder))
    points, state = mlflow_points(f"sqlite:///{folder.parent}/mlflow/mlflow.db", "killed")
    assert (without_values_of_speed(points), state) == (expected, "FINISHED")
    points, states = wandb_points(folder / "wandb")
    assert (without_values_of_speed(points), states) == (expected, ["failed", "finished"])
    assert not (folder / "tensorboard").exists()


def without_values_of_speed(points):
    """Updates that were made again after the kill keep the times they had before it."""
    timed = ("train/tokens_per_s", "train/checkpoint_stall_s")
    return points | {tag: [step for step, _ in points[tag]] for tag in timed}


def is_live(folder):
    page = (folder / "report.html").read_text()
    return 'http-equiv="refresh"' in page and "Running: update " in page


def _without_times(line):
    return {key: value for key, value in line.items() if key not in TIMED_FIELDS}


def test_more_workers_than_the_cluster_has(cluster, place):
    arguments = small_run(place / "pairs.jsonl", place / "runs", "run.name=many", "scaling.num_workers=5")
    result = train(arguments, cluster)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        "scaling.num_workers is 5, each with 1 CPU: 5 CPU needed, but the cluster has 4; "
        "lower scaling.num_workers or scaling.cpus_per_worker; or, where the cluster grows by itself, set "
        "scaling.wait_for_nodes=true"
    )
    assert not (place / "runs" / "many").exists()


def test_a_fault_in_a_worker_is_one_line_with_the_logs_place(cluster, place):
    arguments = small_run(
        place / "pairs.jsonl",
        place / "runs",
        "run.name=diverged",
        "schedule.peak_lr=1e30",
        "training.clip_norm=0",
        "training.max_skipped_updates=2",
    )
    result = train(arguments, cluster)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    log = place / "runs" / "diverged" / "logs"
    assert "TooManySkipped: update " in last
    assert "pairs.jsonl row " in last
    assert f"(log: {log}/rank_" in last
    assert "Traceback" in (log / "rank_0.log").read_text()
    assert "Ended: worker " in (place / "runs" / "diverged" / "report.html").read_text()
