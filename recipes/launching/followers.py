"""Who follows a run from the launcher's process: the page that is written while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recipes.launching.live_report import LiveReport
from recipes.reporting.page import write_report
from recipes.training.job import Job


class Followers:
    """They hear what the workers say, and are told how the run ended. None of them can stop it or hold it up."""

    def __init__(self, job: Job, say: Callable[[str], None]):
        self._folder, self._say = job.run_folder, say
        every_s = job.config.report.every_s
        self._page = LiveReport(job.run_folder, every_s) if every_s else None

    def hear(self, message: dict[str, Any]) -> None:
        if self._page is not None:
            self._page.hear(message)

    def end(self, exit_code: int, why: str) -> bool:
        """Write the last page; whether there is one. exit_code: the command's. why: of an end that is no success."""
        if self._page is not None:
            self._page.close()
        if not self._folder.exists("metrics.jsonl"):
            return False
        write_report(self._folder, why)
        return True
