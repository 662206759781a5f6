"""Saving and loading: all ranks write, the manifest comes last, damage is found before it is loaded."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from recipes.errors import StorageError
from recipes.storage import Storage
from recipes.training import manifest as manifests
from recipes.training.manifest import Manifest
from recipes.training.reshape import load_merged, merge_shards
from recipes.training.snapshot import Snapshot, local_copy, take_snapshot, write_snapshot

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_MERGED = "merged"


class Checkpoints:
    """The checkpoints of one run, used by all ranks together (every method is collective).

    background: `save` returns once the state is copied to host memory, and a thread writes it beside
    training; otherwise it waits for the write. last_s: seconds from the start of the last save to its manifest.
    """

    def __init__(
        self,
        run_folder: Storage,
        *,
        keep: int,
        schedule_fingerprint: str,
        say: Callable[[str], None],
        background: bool = False,
    ):
        self.run_folder, self.keep, self.say, self.background = run_folder, keep, say, background
        self.schedule_fingerprint = schedule_fingerprint
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self._thread: threading.Thread | None = None
        self._broken: BaseException | None = None
        self.last_s = 0.0
        # The writer threads of all ranks talk in a group of their own, in the order of the checkpoints.
        self._group = dist.new_group(backend="gloo")

    def newest_whole(self) -> Manifest | None:
        """The newest checkpoint whose every byte is as it was written; passed-over ones are told."""
        steps = self._agreed(manifests.steps_with_folder(self.run_folder))
        return next((manifest for manifest in map(self.whole, steps) if manifest is not None), None)

    def whole(self, step: int) -> Manifest | None:
        """The checkpoint of that many updates, or None where a byte of it is not as it was written; that is told."""
        manifest = self._agreed(manifests.read_manifest(self.run_folder, step))
        if manifest is None:
            self._say(f"checkpoint at update {step} has no manifest (it was never finished): not used")
            return None
        faults = self._gathered(manifests.damage(self.run_folder, manifest, self.rank, self.world_size))
        fault = next((fault for fault in faults if fault is not None), None)
        if fault is None:
            return manifest
        self._say(f"checkpoint at update {step} is damaged ({fault}): not used")
        return None

    def save(self, engine: DeepSpeedEngine, step: int, counters: dict[str, Any], best_step: int = 0) -> None:
        """Write a checkpoint of ``step`` updates and delete the oldest ones, but not that of ``best_step``.

        ``counters`` is this rank's bookkeeping, given back by `load`. A checkpoint that cannot be written
        is told in one line and leaves nothing behind; training goes on.
        """
        self.wait()
        began = time.monotonic()
        files = take_snapshot(engine, manifests.SHARDS)
        files[manifests.rank_file(self.rank)] = {"counters": counters, "random": random_state()}
        stage = engine.zero_optimization_stage()
        self._thread = threading.Thread(
            target=self._writing, args=(files, step, stage, best_step, began), name="checkpoint", daemon=True
        )
        self._thread.start()
        if not self.background:
            self.wait()

    @property
    def writing(self) -> bool:
        """Whether this rank is still busy with the last checkpoint."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Until the last checkpoint is whole, or given up."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._broken is not None:
            raise self._broken

    def _writing(self, files: Snapshot, step: int, stage: int, best_step: int, began: float) -> None:
        try:
            self._write(files, step, stage, best_step)
            self.last_s = time.monotonic() - began
        except BaseException as error:
            # Not a full disk (that is told and survived): another rank is gone, or a bug.
            self._broken = error

    def _write(self, files: Snapshot, step: int, stage: int, best_step: int) -> None:
        name, fault, entries = manifests.folder_name(step), None, {}
        if self._is_rank_0:
            fault = _fault_of(lambda: self.run_folder.delete_folder(name))
        dist.barrier(group=self._group)
        if fault is None:
            try:
                entries = write_snapshot(files, self.run_folder, name)
            except (OSError, RuntimeError) as error:
                fault = _reason(error)
        parts = self._gathered((fault, entries), self._group)
        faults = {rank: fault for rank, (fault, _) in enumerate(parts) if fault is not None}
        if self._is_rank_0:
            all_files = {file: entry for _, part in parts for file, entry in part.items()}
            manifest = Manifest(step, self.world_size, stage, self.schedule_fingerprint, all_files)
            fault = next(iter(faults.values()), None) or _fault_of(
                lambda: self.run_folder.write_text(f"{name}/{manifests.NAME}", manifest.to_json())
            )
            if fault is not None:
                self.say(
                    f"checkpoint at update {step} could not be written ({fault}): training goes on, the next one is tried"
                )
                _fault_of(lambda: self.run_folder.delete_folder(name))
            else:
                # A fault here must not cost the new checkpoint: it may be the only whole one left.
                left = _fault_of(lambda: self._delete_old(best_step))
                if left is not None:
                    self.say(f"checkpoints older than update {step} could not be deleted ({left})")
        dist.barrier(group=self._group)

    def load(self, engine: DeepSpeedEngine, manifest: Manifest) -> dict[str, Any]:
        """Put weights, optimizer, schedule and random state back; returns this rank's counters.

        After a change of the number of workers the learning rates in the groups are the caller's to set.
        """
        with local_copy(self.run_folder, manifests.folder_name(manifest.step)) as folder:
            return self._read(engine, folder, manifest)

    def _read(self, engine: DeepSpeedEngine, folder: Path, manifest: Manifest) -> dict[str, Any]:
        if manifest.world_size == self.world_size:
            _load_own_shards(engine, folder)
            state = torch.load(folder / manifests.rank_file(self.rank), weights_only=False)
            set_random_state(state["random"])
            return state["counters"]
        if manifest.zero_stage == 0:
            _load_own_shards(engine, folder)
        else:
            self._load_others_shards(engine, folder, manifest)
        # Another number of workers: dropout masks are new ones, sums are carried on by rank 0.
        ranks = range(manifest.world_size)
        all_counters = [torch.load(folder / manifests.rank_file(r), weights_only=False)["counters"] for r in ranks]
        loss_sum = sum(counters["loss_sum"] for counters in all_counters)
        return all_counters[0] | {"loss_sum": loss_sum if self._is_rank_0 else 0.0}

    def _load_others_shards(self, engine: DeepSpeedEngine, folder: Path, manifest: Manifest) -> None:
        """On a shared disk rank 0 merges the shards for all; otherwise every rank does for itself."""
        self._say(f"merging the shards of {manifest.world_size} workers for {self.world_size}")
        shared = self.run_folder.local is not None
        place = folder.parent / _MERGED if shared else folder / _MERGED
        if self._is_rank_0 or not shared:
            merge_shards(folder / manifests.SHARDS, place)
        dist.barrier()
        load_merged(engine, place)
        dist.barrier()
        if self._is_rank_0 and shared:
            self.run_folder.delete_folder(f"{manifests.FOLDER}/{_MERGED}")

    def _delete_old(self, best_step: int) -> None:
        whole = [step for step in manifests.steps_with_folder(self.run_folder) if self._has_manifest(step)]
        kept = {*whole[: self.keep], best_step}
        for step in whole:
            if step not in kept:
                # The manifest goes first: a deletion cut short leaves no half checkpoint that looks whole.
                self.run_folder.delete_file(f"{manifests.folder_name(step)}/{manifests.NAME}")
        for step in manifests.steps_with_folder(self.run_folder):
            if step < whole[0] and step not in kept:
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

    def _gathered(self, value: Any, group: Any = None) -> list[Any]:
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=group)
        return values


def _fault_of(write: Callable[[], None]) -> str | None:
    """What went wrong with a write, or None."""
    try:
        write()
    except (OSError, StorageError) as error:
        return _reason(error)
    return None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or (str(error).strip() or type(error).__name__).splitlines()[0]


def _load_own_shards(engine: DeepSpeedEngine, folder: Path) -> None:
    path, _ = engine.load_checkpoint(str(folder), tag=manifests.SHARDS)
    if path is None:
        raise RuntimeError(f"DeepSpeed found nothing to load in {folder}")


def random_state() -> dict[str, Any]:
    """Of torch, numpy and Python, and of this rank's GPU."""
    state = {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Go back to what `random_state` gave."""
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
