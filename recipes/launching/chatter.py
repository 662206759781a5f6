"""What Ray prints into a command's own streams, kept in a log instead."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from recipes.storage import Storage

NAME = "logs/ray.log"


class Chatter(io.TextIOBase):
    """A stream that remembers, until it is told of a folder to write to; what it never is, is forgotten."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._file: TextIO | None = None

    def write(self, text: str) -> int:
        if self._file is not None:
            self._file.write(text)
        else:
            self._kept.append(text)
        return len(text)

    def keep_in(self, folder: Storage) -> None:
        """From now on write to the folder's logs/ray.log; an object store, which cannot append, gets none."""
        path = folder.local / NAME if folder.local is not None else Path(os.devnull)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", buffering=1)
        self._file.write("".join(self._kept))
        self._kept.clear()


@contextmanager
def errors_led_into(folder: Storage) -> Iterator[TextIO]:
    """For the block, what libraries in C++ write to the standard error goes to the folder's logs/ray.log.

    Yields a stream to what the standard error was, for those who speak to the user.
    """
    path = folder.local / NAME if folder.local is not None else Path(os.devnull)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = os.dup(2)
    with path.open("a") as log:
        os.dup2(log.fileno(), 2)
    try:
        with os.fdopen(os.dup(before), "w", buffering=1) as stream:
            yield stream
    finally:
        os.dup2(before, 2)
        os.close(before)


@contextmanager
def chatter() -> Iterator[Chatter]:
    """For the block, both streams of this process go to a Chatter: Ray's daemons and threads print to either.

    Whoever speaks to the user keeps the stream of before (`recipes.launching.terminal` does).
    """
    kept = Chatter()
    with contextlib.redirect_stdout(kept), contextlib.redirect_stderr(kept):
        yield kept
    # Not closed: a thread of Ray's may still hold it, and would fail.
