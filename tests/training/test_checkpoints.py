"""Checkpoints beside training: whole or not there, whatever the disk does."""

import os
import shutil
import subprocess
import threading

import pytest
import torch

from recipes.storage import Storage
from recipes.training import checkpoint, loop
from recipes.training import manifest as manifests
from recipes.training.checkpoint import Checkpoints
from recipes.training.notices import Notices
from recipes.training.snapshot import take_snapshot, to_host
from recipes.training.update import run_update
from tests.training.test_engine import _weights, make_config, make_engine, micro_batches


def training(storage, stage=2, keep=2, background=True, precision="fp32"):
    config = make_config(stage, precision)
    engine, schedule = make_engine(config)
    said = []
    checkpoints = Checkpoints(
        storage, keep=keep, schedule_fingerprint=schedule.fingerprint, say=said.append, background=background
    )
    run = loop.Training(config, schedule, engine, None, None, [], checkpoints, Notices(), lambda metrics: None)
    return run, said


def update(run):
    run_update(run.engine, *micro_batches(run.step))
    run.step += 1


@pytest.mark.parametrize("uri", ["{}", "mock://bucket/run"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_what_was_saved_comes_back_bit_for_bit(process_group, tmp_path, stage, precision, uri):
    """Also what is trained while the checkpoint is being written does not get into it."""
    storage = Storage(uri.format(tmp_path / "run"))
    run, _ = training(storage, stage, precision=precision)
    update(run)
    update(run)
    loop.save(run)
    kept = torch.get_rng_state()
    update(run)
    update(run)
    run.checkpoints.wait()
    straight = _weights(run.engine)

    again, said = training(storage, stage, precision=precision)
    assert loop.restore(again)
    assert again.step == 2
    assert torch.equal(torch.get_rng_state(), kept)
    update(again)
    update(again)
    assert all(torch.equal(straight[name], weight) for name, weight in _weights(again.engine).items())
    assert said == []


def test_training_does_not_wait_for_a_slow_disk(process_group, tmp_path, monkeypatch):
    run, _ = training(Storage(tmp_path / "run"))
    update(run)
    go_on, real = threading.Event(), checkpoint.write_snapshot

    def slow(*arguments):
        assert go_on.wait(60)
        return real(*arguments)

    monkeypatch.setattr(checkpoint, "write_snapshot", slow)
    loop.save(run)
    update(run)
    assert manifests.newest_manifest(run.checkpoints.run_folder) is None, "not whole yet, so it does not exist"
    go_on.set()
    run.checkpoints.wait()
    assert manifests.newest_manifest(run.checkpoints.run_folder).step == 1


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_told_and_training_goes_on(process_group, small_disk):
    run, said = training(Storage(small_disk / "run"), keep=1)
    update(run)
    loop.save(run)
    run.checkpoints.wait()
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 20_000))
    update(run)
    loop.save(run)
    run.checkpoints.wait()
    assert said == [
        "checkpoint at update 2 could not be written (No space left on device): training goes on, the next one is tried"
    ]
    assert manifests.steps_with_folder(run.checkpoints.run_folder) == [1], (
        "nothing half-written stays, the whole one does"
    )
    filler.unlink()
    update(run)
    loop.save(run)
    run.checkpoints.wait()
    assert len(said) == 1
    assert manifests.newest_manifest(run.checkpoints.run_folder).step == 3
    assert manifests.steps_with_folder(run.checkpoints.run_folder) == [3]


def test_a_storage_that_is_gone_is_told_too(process_group, tmp_path):
    run, said = training(Storage(tmp_path / "run"), background=False)
    update(run)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("a file where the folder should be")
    loop.save(run)
    assert len(said) == 1
    assert said[0].startswith("checkpoint at update 1 could not be written (")


def test_an_old_checkpoint_that_cannot_be_deleted_does_not_cost_the_new_one(process_group, tmp_path, monkeypatch):
    run, said = training(Storage(tmp_path / "run"), keep=1)
    update(run)
    loop.save(run)
    run.checkpoints.wait()
    update(run)
    real = Storage.delete_folder

    def refusing(storage, name=""):
        if name.endswith("step_00000001"):
            raise OSError(16, "Device or resource busy")
        real(storage, name)

    monkeypatch.setattr(Storage, "delete_folder", refusing)
    loop.save(run)
    run.checkpoints.wait()
    assert said == ["checkpoints older than update 2 could not be deleted (Device or resource busy)"]
    assert manifests.newest_manifest(run.checkpoints.run_folder).step == 2


def test_tensors_that_are_one_stay_one(process_group):
    weight = torch.ones(3)
    copy = to_host({"a": weight, "b": [weight, weight[:2]], "c": (weight.view(3, 1),)}, {})
    assert copy["a"] is copy["b"][0]
    weight.zero_()
    assert copy["a"].tolist() == [1.0, 1.0, 1.0]
    assert copy["b"][1].tolist() == [1.0, 1.0]


def test_a_snapshot_holds_what_deepspeed_writes(process_group, tmp_path):
    run, _ = training(Storage(tmp_path / "run"))
    update(run)
    files = take_snapshot(run.engine, "tag")
    run.engine.save_checkpoint(str(tmp_path / "theirs"), tag="tag", save_latest=False)
    theirs = {
        path.relative_to(tmp_path / "theirs").as_posix() for path in (tmp_path / "theirs").rglob("*") if path.is_file()
    }
    assert set(files) == theirs
