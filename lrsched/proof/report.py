"""``lrsched verify``: the proof run on the installed libraries, as a table."""

from __future__ import annotations

import functools

from lrsched.errors import NotExpressible, ScheduleError
from lrsched.proof.row import Row
from lrsched.proof.run import LIBRARIES, Result, all_rows, installed, run
from lrsched.schedule import Schedule

_NAME, _LIBRARY = 62, 20


def verify(schedule: Schedule | None = None) -> int:
    """Print the table; 1 if an installed library applies something else, else 0.

    schedule: prove its forms only; without one, every row of the registry.
    """
    notes: list[str] = []
    rows = all_rows() if schedule is None else _rows_of(schedule, notes)
    print(f"{'schedule':<{_NAME}}{'library':<{_LIBRARY}}{'updates':>8}{'deviation':>11}  verdict")
    wrong = 0
    for library in LIBRARIES:
        version = installed(library)
        if version is None:
            print(f"{'-':<{_NAME}}{library:<{_LIBRARY}}{'':>8}{'':>11}  not installed")
            continue
        for result in run([row for row in rows if row.library == library]):
            print(_line(result, f"{library} {version.partition('+')[0]}"))
            wrong += not result.good
    for note in notes:
        print(note)
    if not rows:
        raise ScheduleError("", "nothing to verify: none of torch, transformers, deepspeed is installed", "install one")
    print(
        f"{wrong} of {len(rows)} differ. Deviation: the largest over that many updates"
        f"{', past the end of the run too' if schedule is None else ''}, as a part of the peak; allowed: 1e-12."
    )
    return int(wrong > 0)


def _line(result: Result, library: str) -> str:
    if result.problem:
        return f"{result.row.name:<{_NAME}}{library:<{_LIBRARY}}{'':>8}{'':>11}  FAILED: {result.problem}"
    verdict = "equal" if result.good else f"DIFFERS, most at k={result.k}"
    return f"{result.row.name:<{_NAME}}{library:<{_LIBRARY}}{result.updates:>8}{result.deviation:>11.1e}  {verdict}"


def _rows_of(schedule: Schedule, notes: list[str]) -> list[Row]:
    """The forms of one schedule; ``notes`` takes why one is missing."""
    row = functools.partial(Row, shape=schedule.decay.shape, schedule=lambda: schedule, peak_lr=schedule.peak_lr)
    rows = []
    if installed("torch"):
        rows.append(row("torch form", library="torch", scheduler=schedule.to_torch))
    if installed("transformers"):
        from lrsched.proof.transformers_rows import trainer_scheduler

        try:
            arguments = schedule.to_transformers()
            name = f"transformers' {arguments['lr_scheduler_type']}"
            real = functools.partial(trainer_scheduler, arguments)
            rows.append(row(name, library="transformers", scheduler=real, updates=schedule.total_steps))
        except NotExpressible as reason:
            notes.append(f"transformers: {reason}")
    if installed("deepspeed"):
        rows.append(row("torch form in DeepSpeed's engine", library="deepspeed"))
        try:
            block = schedule.to_deepspeed()
            name = f"DeepSpeed's {block['type']}"
            rows.append(row(name, library="deepspeed", block=block, updates=schedule.total_steps))
        except NotExpressible as reason:
            notes.append(f"deepspeed: {reason}")
    return rows
