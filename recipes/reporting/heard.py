"""A run's metrics as its launcher hears them: the lines of metrics.jsonl, before an object store has them."""

from __future__ import annotations

from typing import Any

from recipes.reporting.metrics import Metrics, read_records, sorted_metrics
from recipes.storage import Storage


class Heard:
    """The lines so far, with what a resume or a rewind takes back."""

    def __init__(self, run_folder: Storage):
        self._folder = run_folder
        self.records: list[dict[str, Any]] = []

    def starts(self, step: int) -> None:
        """Workers train from update ``step`` on; the lines up to it are the folder's."""
        self.records = []
        kept = read_records(self._folder) if step else []
        self.records = [record for record in kept if record["step"] <= step]

    def add(self, record: dict[str, Any]) -> None:
        if "rewound_from" in record:
            self.records = [each for each in self.records if each["step"] <= record["step"]]
        self.records.append(record)

    def metrics(self) -> Metrics:
        return sorted_metrics(self.records)
