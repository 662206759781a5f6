"""A copy of a rank's training state in host memory, and its way into files."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from recipes.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deepspeed import DeepSpeedEngine

# Relative path -> what torch.save or, for bytes, a plain write puts there.
Snapshot = dict[str, Any]


def take_snapshot(engine: DeepSpeedEngine, tag: str) -> Snapshot:
    """What DeepSpeed would write for this rank, copied out of the device. Collective; touches no storage."""
    files: Snapshot = {}
    with tempfile.TemporaryDirectory(prefix="snapshot_") as folder:
        before, engine.checkpoint_engine = engine.checkpoint_engine, _keeping(files, Path(folder))
        try:
            engine.save_checkpoint(folder, tag=tag, save_latest=False)
        finally:
            engine.checkpoint_engine = before
        # DeepSpeed adds a script that merges shards, past its own writer.
        for path in Path(folder).rglob("*"):
            if path.is_file():
                files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return files


def write_snapshot(files: Snapshot, storage: Storage, folder: str) -> dict[str, dict[str, Any]]:
    """Write the files below ``folder``; their sizes and checksums as they were meant to be.

    Raises:
        OSError: the storage is full or gone.
    """
    entries = {}
    for name, content in files.items():
        target = f"{folder}/{name}"
        storage.make_folder(target.rpartition("/")[0])
        with storage.create(target) as stream:
            counted = _Counted(stream)
            if isinstance(content, bytes):
                counted.write(content)
            else:
                _save(content, counted)
        entries[name] = {"size": counted.size, "sha256": counted.digest.hexdigest()}
    return entries


def _save(content: Any, stream: _Counted) -> None:
    try:
        torch.save(content, stream)
    except RuntimeError as error:
        # torch's writer reports a failed write in its own words; what the disk said is the cause.
        raise stream.error or error from None


class _Counted:
    """A stream that counts and hashes what goes through it."""

    def __init__(self, stream: IO[bytes]):
        self._stream, self.size, self.digest = stream, 0, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        content = memoryview(content).cast("B")
        try:
            self._stream.write(content)
        except OSError as error:
            self.error = error
            raise
        self.size += len(content)
        self.digest.update(content)
        return len(content)

    def flush(self) -> None:
        """torch.save asks for it; closing the stream does it."""


def _keeping(files: Snapshot, folder: Path) -> Any:
    """A DeepSpeed checkpoint engine that keeps copies instead of writing."""
    from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine

    class Keeping(CheckpointEngine):
        def create(self, info: Any) -> None:
            pass

        def save(self, state_dict: Any, path: str) -> None:
            files[Path(path).relative_to(folder).as_posix()] = to_host(state_dict, {})

        def load(self, path: str, map_location: Any = None) -> Any:
            raise RuntimeError("this engine only saves")

        def commit(self, info: Any) -> bool:
            return True

    return Keeping()


def to_host(value: Any, copied: dict[Any, torch.Tensor]) -> Any:
    """A deep copy with every tensor in host memory; tensors that are one stay one."""
    if isinstance(value, torch.Tensor):
        key = (value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        if key not in copied or value.numel() == 0:
            copied[key] = value.detach().to("cpu", copy=True)
        return copied[key]
    if isinstance(value, dict):
        return type(value)((key, to_host(one, copied)) for key, one in value.items())
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(to_host(one, copied) for one in value)
    return value


@contextmanager
def local_copy(storage: Storage, name: str) -> Iterator[Path]:
    """A folder of the storage as a local path; downloaded for the time being where it is not one."""
    if storage.local is not None:
        yield storage.local / name
        return
    with tempfile.TemporaryDirectory(prefix="checkpoint_") as temporary:
        storage.download_folder(name, Path(temporary))
        yield Path(temporary)
