"""A checkpoint is whole or does not exist."""

import hashlib
import json

import pytest

from recipes.storage import Storage
from recipes.training import manifest as manifests
from recipes.training.manifest import Manifest


@pytest.fixture
def run_folder(tmp_path):
    return Storage(tmp_path / "run")


def make(run_folder, step, files=None, zero_stage=2):
    files = files or {"a.pt": b"weights", "sub/b.pt": b"optimizer"}
    folder = manifests.folder_name(step)
    for name, content in files.items():
        run_folder.write_bytes(f"{folder}/{name}", content)
    entries = {n: {"size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in files.items()}
    manifest = Manifest(step, 2, zero_stage, "f", entries)
    run_folder.write_text(f"{folder}/{manifests.NAME}", manifest.to_json())
    return manifest


def test_newest_first(run_folder):
    for step in (10, 100000000, 9):
        make(run_folder, step)
    run_folder.make_folder("checkpoints/other")
    assert manifests.steps_with_folder(run_folder) == [100000000, 10, 9]
    assert manifests.newest_manifest(run_folder).step == 100000000


def test_manifest_round_trip(run_folder):
    manifest = make(run_folder, 10)
    assert manifests.read_manifest(run_folder, 10) == manifest
    assert manifests.damage(run_folder, manifest) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"step": 1}', json.dumps({"stage": 1})])
def test_an_unreadable_manifest_is_no_manifest(run_folder, content):
    make(run_folder, 10)
    run_folder.write_text(f"{manifests.folder_name(10)}/{manifests.NAME}", content)
    assert manifests.read_manifest(run_folder, 10) is None
    assert manifests.newest_manifest(run_folder) is None


def test_damage_is_named(run_folder):
    folder = manifests.folder_name(10)
    manifest = make(run_folder, 10)
    run_folder.write_bytes(f"{folder}/a.pt", b"weightz")
    assert manifests.damage(run_folder, manifest) == "a.pt has another checksum"
    run_folder.write_bytes(f"{folder}/a.pt", b"weigh")
    assert manifests.damage(run_folder, manifest) == "a.pt has 5 bytes instead of 7"
    run_folder.delete_file(f"{folder}/a.pt")
    assert manifests.damage(run_folder, manifest) == "a.pt is missing"
    assert manifests.damage(run_folder, manifest, part=1, num_parts=2) is None


def test_the_newest_whole_one_counts(run_folder):
    make(run_folder, 10)
    make(run_folder, 20)
    run_folder.delete_file(f"{manifests.folder_name(20)}/sub/b.pt")
    assert manifests.newest_manifest(run_folder).step == 10
