"""Running rows of the proof: the real libraries' real loops, compared with lr(k) at every update."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrsched.errors import ScheduleError
from lrsched.proof.row import TOLERANCE, Row

LIBRARIES = ("torch", "transformers", "deepspeed")


@dataclass(frozen=True)
class Result:
    """What one row gave: the largest deviation over ``updates`` updates, as a part of the peak, and its k.

    problem: why there is no number, if there is none; skipped: whether that is no fault (a
    library that is not installed).
    """

    row: Row
    updates: int = 0
    deviation: float = 0.0
    k: int = 0
    problem: str = ""
    skipped: bool = False

    @property
    def good(self) -> bool:
        return self.skipped or (not self.problem and self.deviation <= TOLERANCE)


def all_rows() -> list[Row]:
    """The whole registry, for the installed libraries."""
    rows: list[Row] = []
    for library in LIBRARIES:
        if installed(library) is None:
            continue
        module = importlib.import_module(f"lrsched.proof.{library}_rows")
        rows += module.ROWS
    return rows


def installed(library: str) -> str | None:
    """The version of a library, or None."""
    if importlib.util.find_spec(library) is None:
        return None
    return importlib.metadata.version(library)


def run(rows: Sequence[Row]) -> list[Result]:
    """Run the rows; one result for each, in order. DeepSpeed's share one process."""
    through_engine = [row for row in rows if row.library == "deepspeed"]
    used = iter(_engine_learning_rates(through_engine))
    return [_compared(row, next(used)) if row.library == "deepspeed" else _in_a_torch_loop(row) for row in rows]


def updates_of(row: Row) -> int:
    """How many updates the row compares: the run and 20 % more."""
    return row.updates or -(-row.schedule().total_steps * 6 // 5)


def _in_a_torch_loop(row: Row) -> Result:
    import torch

    assert row.scheduler is not None, "rows outside DeepSpeed bring their scheduler"
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=row.peak_lr)
    try:
        scheduler = row.scheduler(optimizer)
        used = []
        for _ in range(updates_of(row)):
            used.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            scheduler.step()
    except Exception as error:
        return Result(row, problem=f"{type(error).__name__}: {error}")
    return _compared(row, used)


def _compared(row: Row, used: list[float] | str) -> Result:
    if isinstance(used, str):
        return Result(row, problem=used)
    try:
        wanted = row.schedule().lr(np.arange(len(used)))
    except ScheduleError as error:
        return Result(row, problem=str(error))
    off = np.abs(np.array(used) - wanted) / row.peak_lr
    # What is not a number is as wrong as can be.
    off = np.where(np.isnan(off), np.inf, off)
    k = int(off.argmax())
    return Result(row, len(used), float(off[k]), k)


def _engine_learning_rates(rows: Sequence[Row]) -> list[list[float] | str]:
    if not rows:
        return []
    cases: list[dict[str, Any]] = []
    for row in rows:
        case = {"peak_lr": row.peak_lr, "updates": updates_of(row)}
        how = {"schedule": row.schedule().to_dict()} if row.block is None else {"block": row.block}
        cases.append(case | how)
    command = [sys.executable, "-m", "lrsched.proof.deepspeed_engine"]
    done = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return [f"DeepSpeed's engine failed: {lines[-1]}"] * len(rows)
    found: list[list[float]] = json.loads(done.stdout.splitlines()[-1])
    return [
        used if len(used) == case["updates"] else f"the engine made {len(used)} updates instead of {case['updates']}"
        for used, case in zip(found, cases, strict=True)
    ]
