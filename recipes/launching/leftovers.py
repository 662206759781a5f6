"""Processes that a Ray of this command's own has left on this machine.

Ray 2.60 gives up an actor's process as ended once that has disconnected. Rarely the process then hangs for ever in its own
destructors (``CoreWorkerProcessImpl``, a mutex of the io_context that it holds already), with all its memory.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_POLL_S = 0.1


def end_leftovers(session_folder: str, wait_s: float = 10.0) -> list[int]:
    """Wait until no process of a Ray session is left, and kill those that are still there.

    A process belongs to the session when its standard output is one of the files in ``session_folder``.

    Returns:
        The ids of the processes that were killed.
    """
    end = time.monotonic() + wait_s
    while (left := _processes_of(session_folder)) and time.monotonic() < end:
        time.sleep(_POLL_S)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return left


def _processes_of(session_folder: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            output = (process / "fd" / "1").readlink()
        except OSError:  # ended meanwhile, or another user's
            continue
        if output.is_relative_to(session_folder) and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found
