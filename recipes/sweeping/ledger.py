"""What happened in a sweep, on disk before anything follows from it: the truth that a resume starts from.

Tune forgets a scheduler's rungs when its process dies; the ledger does not. ``ledger.jsonl``, one JSON object a line:

    {"event": "drawn", "run": "003", "trial": 3, "point": {...}}                  the trial was made
    {"event": "started", "run": "003"}                                           handed to a process, also after a resume
    {"event": "rung", "run": "003", "step": 90, "score": 4.6, "raw": 4.8, "extra_updates": 9, "seconds": 2.1,
     "goes_on": true}                                                             scored, and what was decided
    {"event": "called_back", "run": "003"}                                       goes on after all, from where it paused
    {"event": "finished", "run": "003", "step": 270, "score": 4.2}               trained to the end
    {"event": "failed", "run": "003", "step": 41, "message": "..."}              will not be tried again

``run`` is the name of the run's folder; those of the final seeds are runs of their own. Every line has a
``time`` (seconds since 1970).
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from recipes.errors import UserError
from recipes.storage import Storage

FILE = "ledger.jsonl"


@dataclass
class RunRecord:
    """All that is known of one run.

    trial: its number, seed: None for the trial itself. state: waiting, running (now, or when the sweep was last
    cut off), stopped (at a rung; it may be called back), finished or failed. score: the held-out loss of a finished one. starts, ended:
    seconds since 1970.
    """

    name: str
    trial: int
    point: dict[str, Any]
    seed: int | None = None
    state: str = "waiting"
    step: int = 0
    score: float | None = None
    message: str = ""
    rungs: dict[int, dict[str, Any]] = field(default_factory=dict)
    starts: list[float] = field(default_factory=list)
    ended: float | None = None

    @property
    def ended_for_good(self) -> bool:
        return self.state in ("stopped", "finished", "failed")

    @property
    def updates(self) -> int:
        """Optimizer updates spent on it, those of the scores' branches included."""
        return self.step + sum(rung["extra_updates"] for rung in self.rungs.values())


class Ledger:
    """The records of a sweep's folder, and the way to add to them.

    ``runs`` is the state that the lines add up to, in the order the runs were drawn.
    """

    def __init__(self, folder: Storage):
        self.folder = folder
        self.runs: dict[str, RunRecord] = {}
        self._lines: list[str] = []
        self._lock = threading.Lock()
        if folder.exists(FILE):
            self._read()

    def _read(self) -> None:
        for number, line in enumerate(self.folder.read_text(FILE).splitlines(), 1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{self.folder}/{FILE} line {number} is damaged ({type(error).__name__}): mend or remove that line"
                ) from None
            self._lines.append(line)

    def drawn(self, name: str, trial: int, point: dict[str, Any], seed: int | None = None) -> None:
        self._add({"event": "drawn", "run": name, "trial": trial, "point": point} | ({"seed": seed} if seed else {}))

    def started(self, name: str) -> None:
        self._add({"event": "started", "run": name})

    def rung(self, name: str, score: dict[str, Any], goes_on: bool) -> None:
        """score: the fields of a `RungScore`."""
        self._add({"event": "rung", "run": name, **score, "goes_on": goes_on})

    def called_back(self, name: str) -> None:
        self._add({"event": "called_back", "run": name})

    def finished(self, name: str, step: int, score: float) -> None:
        self._add({"event": "finished", "run": name, "step": step, "score": score})

    def failed(self, name: str, step: int, message: str) -> None:
        self._add({"event": "failed", "run": name, "step": step, "message": message})

    def _add(self, event: dict[str, Any]) -> None:
        """On disk first: whole, or not at all; an object store cannot append."""
        event = event | {"time": round(time.time(), 3)}
        with self._lock:
            lines = [*self._lines, json.dumps(event)]
            self.folder.write_text(FILE, "\n".join(lines) + "\n")
            self._lines = lines
            self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        kind, name, when = event["event"], event["run"], event["time"]
        if kind == "drawn":
            self.runs[name] = RunRecord(name, event["trial"], event["point"], event.get("seed"))
            return
        run = self.runs[name]
        if kind == "started":
            run.state = "running"
            run.starts.append(when)
            return
        if kind == "called_back":
            run.state, run.ended = "waiting", None
            return
        run.step = max(run.step, event["step"])
        if kind == "rung":
            fields = ("step", "score", "raw", "extra_updates", "seconds", "goes_on")
            run.rungs[event["step"]] = {key: event[key] for key in fields} | {"time": when}
            if not event["goes_on"]:
                run.state, run.ended = "stopped", when
        elif kind in ("finished", "failed"):
            run.state, run.ended = kind, when
            run.score, run.message = event.get("score"), event.get("message", "")
        else:
            raise ValueError(kind)

    def trials(self) -> list[RunRecord]:
        """The runs of the search, without those of the final seeds."""
        return [run for run in list(self.runs.values()) if run.seed is None]

    def finals(self) -> list[RunRecord]:
        return [run for run in list(self.runs.values()) if run.seed is not None]
