"""Who follows a run from the launcher's process: the page that is written while it runs, MLflow, Weights & Biases.

Here and not in a worker, because the launcher hears every line of metrics anyway, outlives workers that are started again,
and knows how the run has ended; and because no update then waits for a server, or for a picture to be drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recipes.launching.live_report import LiveReport
from recipes.reporting.page import REPORT_FILE, write_report
from recipes.tracking.trackers import pumps
from recipes.training.job import Job

# Files of the run's folder that a tracker keeps with the run.
_KEPT = (REPORT_FILE, "config.yaml")


class Followers:
    """They hear what the workers say, and are told how the run ended. None of them can stop it or hold it up."""

    def __init__(self, job: Job, say: Callable[[str], None]):
        self._folder = job.run_folder
        every_s = job.config.report.every_s
        self._page = LiveReport(job.run_folder, every_s) if every_s else None
        self._pumps = pumps(job, say)

    def hear(self, message: dict[str, Any]) -> None:
        if self._page is not None:
            self._page.hear(message)
        for pump in self._pumps:
            pump.hear(message)

    def end(self, exit_code: int, why: str) -> bool:
        """Write the last page; whether there is one. exit_code: the command's. why: of an end that is no success."""
        if self._page is not None:
            self._page.close()
        written = self._folder.exists("metrics.jsonl")
        if written:
            write_report(self._folder, why)
        state = "finished" if exit_code == 0 else "killed" if exit_code > 128 else "failed"
        files = {name: self._folder.read_bytes(name) for name in _KEPT if self._folder.exists(name)}
        for pump in self._pumps:
            pump.finish(state, files)
        return written
