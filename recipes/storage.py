"""A folder on any pyarrow filesystem: local or network disk, s3://, gs://, ..."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pyarrow import ArrowInvalid, fs

from recipes.errors import StorageError


class Storage:
    """Files below one folder, by relative path with forward slashes."""

    def __init__(self, uri: str | Path):
        self.uri = str(uri)
        try:
            if "://" in self.uri:
                self._fs, self._root = fs.FileSystem.from_uri(self.uri)
            else:
                self._fs, self._root = fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(self.uri))
        except (ArrowInvalid, OSError) as error:
            raise StorageError(f"{self.uri}: not a storage this machine can reach: {_reason(error)}") from None
        self._root = self._root.rstrip("/") or "/"

    def __truediv__(self, name: str) -> Storage:
        child = object.__new__(Storage)
        child.uri = f"{self.uri.rstrip('/')}/{name}"
        child._fs, child._root = self._fs, f"{self._root}/{name}"
        return child

    def __str__(self) -> str:
        return self.uri

    def __reduce__(self):
        return Storage, (self.uri if "://" in self.uri else self._root,)

    @property
    def local(self) -> Path | None:
        """The folder as a path of this machine, or None for an object store."""
        return Path(self._root) if isinstance(self._fs, fs.LocalFileSystem) else None

    @property
    def parent(self) -> Storage:
        """The folder that this one lies in."""
        return Storage(self.local.parent if self.local is not None else self.uri.rstrip("/").rpartition("/")[0])

    @property
    def name(self) -> str:
        return self._root.rpartition("/")[2]

    def path(self, name: str = "") -> str:
        return f"{self._root}/{name}" if name else self._root

    def exists(self, name: str = "") -> bool:
        return self._fs.get_file_info(self.path(name)).type != fs.FileType.NotFound

    def names(self, name: str = "") -> list[str]:
        """Names of the files and folders directly below; none where there is no such folder."""
        selector = fs.FileSelector(self.path(name), allow_not_found=True)
        return sorted(info.base_name for info in self._fs.get_file_info(selector))

    def files(self, name: str = "") -> dict[str, int]:
        """Size in bytes of every file below, by path relative to ``name``."""
        base = self.path(name)
        selector = fs.FileSelector(base, allow_not_found=True, recursive=True)
        return {
            info.path[len(base) :].lstrip("/"): info.size for info in self._fs.get_file_info(selector) if info.is_file
        }

    def read_bytes(self, name: str) -> bytes:
        with self.open(name) as stream:
            return stream.read()

    def open(self, name: str):
        """A binary stream to read a file from."""
        return self._fs.open_input_stream(self.path(name), compression=None)

    def open_file(self, name: str):
        """A binary file to read from at any place."""
        return self._fs.open_input_file(self.path(name))

    def stamps(self) -> dict[str, tuple[int, int | None]]:
        """Size in bytes and time of change (ns) of every file below, by relative path."""
        selector = fs.FileSelector(self._root, allow_not_found=True, recursive=True)
        found = (info for info in self._fs.get_file_info(selector) if info.is_file)
        return {info.path[len(self._root) :].lstrip("/"): (info.size, info.mtime_ns) for info in found}

    @contextmanager
    def create(self, name: str) -> Iterator[IO[bytes]]:
        """A binary stream to write a file with; on the disk when the block ends. The folder must exist."""
        if self.local is None:
            with self._fs.open_output_stream(self.path(name)) as stream:
                yield stream
            return
        with open(self.path(name), "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())

    def read_text(self, name: str) -> str:
        return self.read_bytes(name).decode("utf-8")

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a whole file or nothing: it appears under its name only when complete."""
        target = self.path(name)
        self.make_folder(os.path.dirname(name))
        if self.local is None:
            with self._fs.open_output_stream(target) as stream:
                stream.write(content)
            return
        temporary = f"{target}.{uuid.uuid4().hex}.part"
        try:
            with open(temporary, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def write_text(self, name: str, content: str) -> None:
        self.write_bytes(name, content.encode("utf-8"))

    def make_folder(self, name: str = "") -> None:
        self._fs.create_dir(self.path(name), recursive=True)

    def delete_file(self, name: str) -> None:
        self._fs.delete_file(self.path(name))

    def delete_folder(self, name: str = "") -> None:
        if self.exists(name):
            self._fs.delete_dir(self.path(name))

    def upload_folder(self, source: Path, name: str = "") -> None:
        """Copy a local folder's files below ``name``."""
        fs.copy_files(
            str(source), self.path(name), source_filesystem=fs.LocalFileSystem(), destination_filesystem=self._fs
        )

    def download_folder(self, name: str, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        fs.copy_files(
            self.path(name), str(target), source_filesystem=self._fs, destination_filesystem=fs.LocalFileSystem()
        )

    @contextmanager
    def on_this_machine(self) -> Iterator[Path]:
        """The folder as a path: itself, or from an object store a copy for the length of the block."""
        if self.local is not None:
            yield self.local
            return
        with tempfile.TemporaryDirectory(prefix="copy_") as temporary:
            self.download_folder("", Path(temporary))
            yield Path(temporary)

    def publish_folder(self, source: Path, name: str) -> None:
        """Move a finished local folder to ``name`` so that it is seen whole or not at all.

        On a local filesystem ``source`` should lie on the same disk. Another process that published
        the same name first wins, and ``source`` is removed.
        """
        if self.local is None:
            self.upload_folder(source, name)
            return
        self.make_folder(os.path.dirname(name))
        try:
            os.rename(source, self.path(name))
        except OSError:
            if not self.exists(name):
                raise
            shutil.rmtree(source)

    def check_writable(self) -> None:
        """Write, read and delete a small file.

        Raises:
            StorageError: saying what this machine could not do.
        """
        probe = f".write_test_{uuid.uuid4().hex}"
        try:
            self.write_bytes(probe, b"ok")
            self._fs.delete_file(self.path(probe))
        except OSError as error:
            raise StorageError(f"{self.uri}: cannot be written: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0]
