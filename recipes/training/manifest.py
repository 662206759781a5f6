"""What makes a checkpoint a checkpoint: a manifest, written last, of every file's size and checksum.

A checkpoint is the folder ``checkpoints/step_00000500`` of a run. Without a manifest that all its
files match it does not exist. This module needs no torch, so the launcher can look too.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass

from recipes.storage import Storage

FOLDER = "checkpoints"
NAME = "manifest.json"
# Below a checkpoint's folder: what DeepSpeed wrote, and beside it a file of every rank.
SHARDS = "deepspeed"
_STEP = re.compile(r"step_(\d{8,})")


@dataclass(frozen=True)
class Manifest:
    """step: optimizer updates made. files: relative path -> {"size": bytes, "sha256": hex}."""

    step: int
    world_size: int
    zero_stage: int
    schedule_fingerprint: str
    files: dict[str, dict]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def rank_file(rank: int) -> str:
    return f"rank_{rank:05d}.pt"


def folder_name(step: int) -> str:
    return f"{FOLDER}/step_{step:08d}"


def steps_with_folder(run_folder: Storage) -> list[int]:
    """Steps that have a checkpoint folder, whole or not, newest first."""
    matches = (_STEP.fullmatch(name) for name in run_folder.names(FOLDER))
    return sorted((int(match[1]) for match in matches if match), reverse=True)


def read_manifest(run_folder: Storage, step: int) -> Manifest | None:
    """The manifest of a step, or None where it is absent or unreadable."""
    name = f"{folder_name(step)}/{NAME}"
    if not run_folder.exists(name):
        return None
    try:
        content = json.loads(run_folder.read_text(name))
        return Manifest(**content)
    except (ValueError, TypeError):
        return None


def damage(run_folder: Storage, manifest: Manifest, part: int = 0, num_parts: int = 1) -> str | None:
    """The first fault in every ``num_parts``-th file from ``part`` on, in words; None if all match."""
    folder = folder_name(manifest.step)
    present = run_folder.files(folder)
    for name in sorted(manifest.files)[part::num_parts]:
        expected = manifest.files[name]
        if name not in present:
            return f"{name} is missing"
        if present[name] != expected["size"]:
            return f"{name} has {present[name]} bytes instead of {expected['size']}"
        if checksum(run_folder, f"{folder}/{name}") != expected["sha256"]:
            return f"{name} has another checksum"
    return None


def checksum(storage: Storage, name: str) -> str:
    digest = hashlib.sha256()
    with storage.open(name) as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def newest_manifest(run_folder: Storage) -> Manifest | None:
    """The newest manifest whose files are all there with their sizes (checksums are for the loader)."""
    for step in steps_with_folder(run_folder):
        manifest = read_manifest(run_folder, step)
        if manifest is None:
            continue
        present = run_folder.files(folder_name(step))
        if all(present.get(name) == entry["size"] for name, entry in manifest.files.items()):
            return manifest
    return None
