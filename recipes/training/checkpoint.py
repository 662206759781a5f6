"""Saving and loading: all ranks write, the manifest comes last, damage is found before it is loaded."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from recipes.storage import Storage
from recipes.training import manifest as manifests
from recipes.training.manifest import Manifest
from recipes.training.reshape import load_merged, merge_shards

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_TAG = "deepspeed"
_MERGED = "merged"


class Checkpoints:
    """The checkpoints of one run, used by all ranks together (every method is collective)."""

    def __init__(self, run_folder: Storage, *, keep: int, schedule_fingerprint: str, say: Callable[[str], None]):
        self.run_folder, self.keep, self.say = run_folder, keep, say
        self.schedule_fingerprint = schedule_fingerprint
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()

    def newest_whole(self) -> Manifest | None:
        """The newest checkpoint whose every byte is as it was written; passed-over ones are told."""
        for step in self._agreed(manifests.steps_with_folder(self.run_folder)):
            manifest = self._agreed(manifests.read_manifest(self.run_folder, step))
            if manifest is None:
                self._say(f"checkpoint at update {step} has no manifest (it was never finished): not used")
                continue
            faults = self._gathered(manifests.damage(self.run_folder, manifest, self.rank, self.world_size))
            fault = next((fault for fault in faults if fault is not None), None)
            if fault is None:
                return manifest
            self._say(f"checkpoint at update {step} is damaged ({fault}): not used")
        return None

    def save(self, engine: DeepSpeedEngine, step: int, counters: dict[str, Any]) -> None:
        """Write a checkpoint of ``step`` updates and delete the oldest ones.

        ``counters`` is this rank's bookkeeping, given back by `load`.
        """
        name = manifests.folder_name(step)
        if self._is_rank_0:
            self.run_folder.delete_folder(name)
        dist.barrier()
        if self.run_folder.local is not None:
            folder = self.run_folder.local / name
            self._write(engine, folder, counters)
            mine = sorted(self.run_folder.files(name))[self.rank :: self.world_size]
        else:
            with tempfile.TemporaryDirectory(prefix="checkpoint_") as temporary:
                self._write(engine, Path(temporary), counters)
                mine = sorted(Storage(temporary).files())
                self.run_folder.upload_folder(Path(temporary), name)
        sizes = self.run_folder.files(name)
        entries = {
            file: {"size": sizes[file], "sha256": manifests.checksum(self.run_folder, f"{name}/{file}")}
            for file in mine
        }
        files = {file: entry for part in self._gathered(entries) for file, entry in part.items()}
        if self._is_rank_0:
            stage = engine.zero_optimization_stage()
            manifest = Manifest(step, self.world_size, stage, self.schedule_fingerprint, files)
            self.run_folder.write_text(f"{name}/{manifests.NAME}", manifest.to_json())
            self._delete_old()
        dist.barrier()

    def load(self, engine: DeepSpeedEngine, manifest: Manifest) -> dict[str, Any]:
        """Put weights, optimizer, schedule and random state back; returns this rank's counters.

        After a change of the number of workers the learning rates in the groups are the caller's to set.
        """
        name = manifests.folder_name(manifest.step)
        if self.run_folder.local is not None:
            return self._read(engine, self.run_folder.local / name, manifest)
        with tempfile.TemporaryDirectory(prefix="checkpoint_") as temporary:
            self.run_folder.download_folder(name, Path(temporary))
            return self._read(engine, Path(temporary), manifest)

    def _write(self, engine: DeepSpeedEngine, folder: Path, counters: dict[str, Any]) -> None:
        engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)
        torch.save({"counters": counters, "random": _random_state()}, folder / _rank_file(self.rank))
        dist.barrier()

    def _read(self, engine: DeepSpeedEngine, folder: Path, manifest: Manifest) -> dict[str, Any]:
        if manifest.world_size == self.world_size:
            _load_own_shards(engine, folder)
            state = torch.load(folder / _rank_file(self.rank), weights_only=False)
            _set_random_state(state["random"])
            return state["counters"]
        if manifest.zero_stage == 0:
            _load_own_shards(engine, folder)
        else:
            self._load_others_shards(engine, folder, manifest)
        # Another number of workers: dropout masks are new ones, sums are carried on by rank 0.
        ranks = range(manifest.world_size)
        all_counters = [torch.load(folder / _rank_file(r), weights_only=False)["counters"] for r in ranks]
        loss_sum = sum(counters["loss_sum"] for counters in all_counters)
        return all_counters[0] | {"loss_sum": loss_sum if self._is_rank_0 else 0.0}

    def _load_others_shards(self, engine: DeepSpeedEngine, folder: Path, manifest: Manifest) -> None:
        """On a shared disk rank 0 merges the shards for all; otherwise every rank does for itself."""
        self._say(f"merging the shards of {manifest.world_size} workers for {self.world_size}")
        shared = self.run_folder.local is not None
        place = folder.parent / _MERGED if shared else folder / _MERGED
        if self._is_rank_0 or not shared:
            merge_shards(folder / _TAG, place)
        dist.barrier()
        load_merged(engine, place)
        dist.barrier()
        if self._is_rank_0 and shared:
            self.run_folder.delete_folder(f"{manifests.FOLDER}/{_MERGED}")

    def _delete_old(self) -> None:
        whole = [step for step in manifests.steps_with_folder(self.run_folder) if self._has_manifest(step)]
        for step in whole[self.keep :]:
            # The manifest goes first: a deletion cut short leaves no half checkpoint that looks whole.
            self.run_folder.delete_file(f"{manifests.folder_name(step)}/{manifests.NAME}")
        for step in manifests.steps_with_folder(self.run_folder):
            if step < whole[0] and step not in whole[: self.keep]:
                self.run_folder.delete_folder(manifests.folder_name(step))

    def _has_manifest(self, step: int) -> bool:
        return self.run_folder.exists(f"{manifests.folder_name(step)}/{manifests.NAME}")

    @property
    def _is_rank_0(self) -> bool:
        return self.rank == 0

    def _say(self, text: str) -> None:
        if self._is_rank_0:
            self.say(text)

    def _agreed(self, value: Any) -> Any:
        """Rank 0's value on every rank: nodes may see a shared disk change at different moments."""
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def _gathered(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values


def _load_own_shards(engine: DeepSpeedEngine, folder: Path) -> None:
    path, _ = engine.load_checkpoint(str(folder), tag=_TAG)
    if path is None:
        raise RuntimeError(f"DeepSpeed found nothing to load in {folder}")


def _rank_file(rank: int) -> str:
    return f"rank_{rank:05d}.pt"


def _random_state() -> dict[str, Any]:
    state = {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
