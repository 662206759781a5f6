"""A run stopped at any update and resumed is the run that was not: around checkpoints, evaluations and epoch ends."""

import json
import shutil

import pytest

from recipes.config_file import load_config
from recipes.launching.preflight import prepare
from recipes.reporting.metrics import TIMED_FIELDS
from recipes.training import manifest as manifests
from tests.conftest import small_run
from tests.training.alone import train_alone

UPDATES, EVAL_EVERY = 36, 5


def job_of(pairs, storage, name):
    arguments = small_run(
        pairs,
        storage,
        f"run.name={name}",
        "scaling.num_workers=1",
        f"schedule.total_steps={UPDATES}",
        "checkpoint.every_steps=1",
        "checkpoint.keep=100",
        f"training.eval_every_steps={EVAL_EVERY}",
        "training.log_every_steps=3",
    )
    return prepare(load_config(arguments[0], arguments[1:]), lambda text: None, started_at=0.0)


def run(job):
    return train_alone(job)[1]


def result(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [{key: value for key, value in line.items() if key not in TIMED_FIELDS} for line in lines]
    return lines, (folder / "export" / "model.safetensors").read_bytes(), (folder / "samples.json").read_text()


@pytest.fixture(scope="module")
def unbroken(process_group, tmp_path_factory):
    from tests.conftest import write_pairs

    storage = tmp_path_factory.mktemp("positions")
    pairs = write_pairs(storage / "pairs.jsonl")
    job, _, plan = job_of(pairs, storage / "runs", "unbroken")
    # Epochs end in the middle of updates 17 and 34.
    assert 16 < plan.updates_per_epoch < 17
    run(job)
    return pairs, storage / "runs"


@pytest.mark.parametrize("position", [1, 4, 5, 6, 15, 16, 17, 18, 33, 34, 35])
def test_resumed_at(unbroken, position):
    pairs, storage = unbroken
    folder = storage / f"from_{position}"
    shutil.copytree(storage / "unbroken", folder)
    # As if killed later: its metrics go on, its checkpoints do not.
    for path in (folder / "checkpoints").iterdir():
        if int(path.name.removeprefix("step_")) > position:
            shutil.rmtree(path)
    shutil.rmtree(folder / "export")
    job, _, _ = job_of(pairs, storage, folder.name)
    assert manifests.newest_manifest(job.run_folder).step == position
    assert f"resumed at update {position} of {UPDATES} on 1 worker" in run(job)
    assert result(folder) == result(storage / "unbroken")
    shutil.rmtree(folder)
