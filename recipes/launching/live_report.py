"""report.html while the run goes on, written by the launcher's process: no worker waits for it."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

from recipes.errors import StorageError
from recipes.reporting.heard import Heard
from recipes.reporting.page import write_live_report
from recipes.storage import Storage

# A page may take so much of one CPU, on a machine whose workers may want all of them.
_CPU_RATIO = 0.004
# For the last page to reach a slow storage.
_CLOSE_S = 30.0


class LiveReport:
    """Writes the page from a thread of its own, at most every ``every_s`` and never for more than its share of a CPU."""

    def __init__(self, run_folder: Storage, every_s: float):
        self._folder, self._every_s = run_folder, every_s
        self._heard = Heard(run_folder)
        self._lock, self._over = threading.Lock(), threading.Event()
        self._begun = threading.Event()
        self._thread: threading.Thread | None = None
        self.num_written = 0

    def hear(self, message: dict[str, Any]) -> None:
        """A message of the workers, in the order they were sent."""
        if "started" in message:
            # Without the lines of before, if they cannot be read now: the last page reads them again.
            with self._lock, suppress(OSError, StorageError):
                self._heard.starts(message["started"])
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_often, name="report", daemon=True)
                self._thread.start()
        elif "metrics" in message:
            with self._lock:
                self._heard.add(message["metrics"])

    def close(self) -> None:
        """No page is written after this returns."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    def _write_often(self) -> None:
        wait_s = self._every_s
        while True:
            began = time.thread_time()
            self._write(wait_s)
            wait_s = max(self._every_s, (time.thread_time() - began) / _CPU_RATIO)
            if self._over.wait(wait_s):
                return

    def _write(self, next_s: float) -> None:
        with self._lock:
            metrics = self._heard.metrics()
        try:
            write_live_report(self._folder, metrics, time.time(), next_s)
            self.num_written += 1
        except OSError:
            # A storage that fails for a moment costs one version of the page; a lasting fault shows at the checkpoints.
            pass
