"""One command at a time in a folder: a second one would write over the first one's checkpoints."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recipes.errors import StorageError, UserError
from recipes.storage import Storage

_NAME = ".claim"


@contextmanager
def claimed(folder: Storage) -> Iterator[None]:
    """The folder is this command's alone for the length of the block.

    A lock of the operating system on the file ``.claim``, which ends with its process however that ends. On an object
    store, where there is none, the named actor of `ray_cluster.start_beside_me` keeps the jobs of one cluster apart.

    Raises:
        UserError: another command holds it; says which.
        StorageError: the folder cannot be made or written.
    """
    if folder.local is None:
        yield
        return
    made, path = not folder.exists(), folder.local / _NAME
    try:
        folder.make_folder()
        held = _lock(path, folder)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error.strerror or error}") from None
    try:
        yield
    finally:
        # Removed while it is locked: who waits for it sees that the name is another file's by then.
        path.unlink(missing_ok=True)
        os.close(held)
        if made:
            with suppress(OSError):
                folder.local.rmdir()


def _lock(path: Path, folder: Storage) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return file  # a file system without locks
            holder = os.read(file, 200).decode(errors="replace").strip() or "another process"
            os.close(file)
            raise UserError(
                f"{folder} is in use by {holder}: wait until that has ended, stop it, or give another name"
            ) from None
        if _is_still(path, file):
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            return file
        os.close(file)


def _is_still(path: Path, file: int) -> bool:
    """Whether the name is still that of the open file: the one before may have removed it in between."""
    try:
        return path.stat().st_ino == os.fstat(file).st_ino
    except FileNotFoundError:
        return False
