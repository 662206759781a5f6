"""metrics.jsonl: one JSON object a line, and the same numbers as TensorBoard scalars.

A training line has ``step`` (updates made so far, from 1), ``loss`` (mean nats per target token since
the line before), ``lr`` (what the last update used), ``grad_norm``, ``tokens`` (source and target
tokens since the start of the run), ``tokens_per_s``, ``skipped`` (global batches left out so far),
``checkpoint_stall_s`` (seconds that updates waited for checkpoints since the line before) and, on a GPU whose peak is
published, ``mfu`` (model FLOPs utilisation, 0 to 1). A
skipped update has ``step``, ``skipped_batch`` and ``reason``, a rewind ``step``, ``rewound_from``,
``next_batch`` and ``reason``. An evaluation has ``step``, ``eval_loss``,
``eval_tokens``, ``eval_s`` and the fields of its metrics; with generated text also ``eval_generated`` (examples) and
``eval_generate_s``. JSON has no NaN or infinity: such a number is written as ``null``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from recipes.config.evaluation import PLAIN_FIELDS
from recipes.errors import StorageError
from recipes.reporting.tensorboard_events import TensorBoardEvents
from recipes.storage import Storage

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
# Fields that a run made again, or resumed, has other values of; all others are the same, bit for bit.
TIMED_FIELDS = ("tokens_per_s", "mfu", "checkpoint_stall_s", "eval_s", "eval_generate_s")

# Field of a line -> name of the scalar in TensorBoard and other trackers.
SCALARS = {
    "loss": "train/loss",
    "lr": "train/lr",
    "grad_norm": "train/grad_norm",
    "tokens_per_s": "train/tokens_per_s",
    "mfu": "train/mfu",
    "checkpoint_stall_s": "train/checkpoint_stall_s",
    "eval_loss": "eval/loss",
}


def scalars(record: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a line by the names they have in trackers; without those that were not finite."""
    tags = SCALARS | {name: f"eval/{name.removeprefix('eval_')}" for name in metric_fields(record)}
    return {tag: record[name] for name, tag in tags.items() if record.get(name) is not None}


@dataclass(frozen=True)
class Metrics:
    """The lines of a run in the order they were written."""

    train: list[dict[str, Any]] = field(default_factory=list)
    eval: list[dict[str, Any]] = field(default_factory=list)
    skips: list[dict[str, Any]] = field(default_factory=list)


def read_metrics(run_folder: Storage) -> Metrics:
    """All kinds of lines; empty where the run has no metrics yet. Non-finite numbers are None.

    A last line that was cut while being written is left out.

    Raises:
        StorageError: another line is not a JSON object with a step.
    """
    return sorted_metrics(read_records(run_folder))


def sorted_metrics(records: Iterable[dict[str, Any]]) -> Metrics:
    """The lines by their kind."""
    metrics = Metrics()
    for record in records:
        if "eval_loss" in record:
            metrics.eval.append(record)
        if "loss" in record:
            metrics.train.append(record)
        if "skipped_batch" in record or "rewound_from" in record:
            metrics.skips.append(record)
    return metrics


def metric_fields(record: dict[str, Any]) -> list[str]:
    """The metrics beside the loss in an evaluation's line."""
    return [name for name in record if name.startswith("eval_") and name not in PLAIN_FIELDS]


class MetricsWriter:
    """Writes the lines of one run; one process only, rank 0.

    Starting at update ``resume_step`` forgets every line and TensorBoard point after it, which the
    resumed run will write again; 0 starts empty. On a disk a line is in the file when ``write``
    returns. An object store cannot append: there lines reach it at ``flush``, so call that before a
    checkpoint is declared whole, or a resume from it would lack the lines before it.
    """

    def __init__(self, run_folder: Storage, resume_step: int, tensorboard: bool = True):
        self._folder = run_folder
        kept = read_records(run_folder) if resume_step > 0 else []
        lines = [_to_line(record) for record in kept if record["step"] <= resume_step]
        # Always a new file, also when nothing is dropped: a writer of an earlier attempt that is not
        # quite dead yet keeps its handle on the old file and can no longer touch this one.
        run_folder.write_text(METRICS_FILE, "".join(lines))
        self._lines = lines if run_folder.local is None else None
        self._unsent = False
        self._stream = None
        if run_folder.local is not None:
            self._stream = (run_folder.local / METRICS_FILE).open("a", encoding="utf-8", newline="\n")
        self._events = TensorBoardEvents(run_folder / TENSORBOARD_FOLDER, resume_step) if tensorboard else None
        self._closed = False

    def write(self, record: dict[str, Any]) -> None:
        """Add one line. Numbers may be Python's, numpy's or one-element tensors.

        Raises:
            ValueError: the record has no ``step``, or the writer is closed.
            TypeError: a value that JSON has no form for.
        """
        if self._closed:
            raise ValueError("the metrics writer is closed")
        record = {name: _plain(value) for name, value in record.items()}
        if type(record.get("step")) is not int:
            raise ValueError(f"a metrics record needs an integer step, not {record.get('step')!r}")
        line = _to_line(record)
        if self._stream is not None:
            self._stream.write(line)
            self._stream.flush()
        else:
            self._lines.append(line)
            self._unsent = True
        if self._events is not None:
            self._events.write(record["step"], scalars(record))

    def flush(self) -> None:
        """Make everything written so far outlive this machine's crash."""
        if self._stream is not None:
            self._stream.flush()
            os.fsync(self._stream.fileno())
        elif self._unsent:
            self._folder.write_text(METRICS_FILE, "".join(self._lines))
            self._unsent = False
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Flush and let go of the files; a second call does nothing."""
        if self._closed:
            return
        try:
            self.flush()
        finally:
            self._closed = True
            if self._events is not None:
                self._events.close()
            if self._stream is not None:
                self._stream.close()
                self._stream = None

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _plain(value: Any) -> Any:
    """A number of numpy or torch as Python's own; everything else as it is."""
    return value.item() if hasattr(value, "item") else value


def _to_line(record: dict[str, Any]) -> str:
    return json.dumps(finite(record), allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """The same for JSON, which has no NaN or infinity: such a number is None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def read_records(run_folder: Storage) -> Iterator[dict[str, Any]]:
    """The lines in their order; see `read_metrics`."""
    if not run_folder.exists(METRICS_FILE):
        return
    *lines, last = run_folder.read_bytes(METRICS_FILE).split(b"\n")
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is None:
            raise StorageError(
                f"{run_folder}/{METRICS_FILE} line {number}: not a JSON object with a step; mend or remove the line"
            )
        yield record
    # A line without its line break was cut by a crash; it counts only if nothing but the break is missing.
    record = _parse(last)
    if record is not None:
        yield record


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    is_record = isinstance(record, dict) and type(record.get("step")) is int
    return record if is_record else None
