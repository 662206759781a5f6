"""The folder that a token cache is made in: one process at a time, and the next one goes on with what a dead one left."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from recipes.errors import UserError

_WAIT_S = 0.2


@contextmanager
def staging_folder(
    base: Path, name: str, is_made: Callable[[], bool], say: Callable[[str], None]
) -> Iterator[Path | None]:
    """A folder ``.NAME.part`` in ``base`` for this process alone; None where another one has made the cache meanwhile.

    A lock beside it, which the system opens when its holder dies, tells the living from the dead: a living process is
    waited for. The folder stays when the block ends with an error other than a UserError, for the next start to go on.
    On a file system without locks, and beside another user's lock, a process has a folder of its own and leaves nothing.
    """
    base.mkdir(parents=True, exist_ok=True)
    lock_path = base / f".{name}.lock"
    folder = base / f".{name}.part"
    lock = _locked(lock_path, say)
    if lock is None:
        folder = base / f".{name}.{uuid.uuid4().hex}.part"
    try:
        if lock is not None and is_made():
            shutil.rmtree(folder, ignore_errors=True)
            yield None
            return
        folder.mkdir(exist_ok=True)
        yield folder
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        if lock is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            if not folder.exists():
                lock_path.unlink(missing_ok=True)
            lock.close()


def _locked(path: Path, say: Callable[[str], None]) -> IO[str] | None:
    """The file, locked; None where the file system has no locks, or it is another user's."""
    told = False
    while True:
        try:
            lock = path.open("w")
        except PermissionError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            if not told:
                say(f"data: another process tokenises the same texts; waiting for it ({path})")
                told = True
            time.sleep(_WAIT_S)
            continue
        except OSError:
            lock.close()
            path.unlink(missing_ok=True)
            return None
        if _is_there(path, lock):
            return lock
        lock.close()  # its holder finished and took the file away


def _is_there(path: Path, lock: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False
