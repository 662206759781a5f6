"""Feeds one tracker from a thread of its own, so that a slow server slows nothing, and a lost one costs one line."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from recipes.reporting.heard import Heard
from recipes.reporting.metrics import scalars
from recipes.reporting.page_parts import is_number
from recipes.tracking.tracker import Memory, Point, Tracker

# Points are gathered for so long.
_EVERY_S = 5.0
# For what is still to be sent at the end, and the files.
_FINISH_S = 30.0


class Pump:
    """make: builds the tracker, once training has begun. memory: of this tracker.

    safe_step: the update up to which no rewind can take points back; they are sent from then on. None: all are at once.
    """

    def __init__(
        self,
        memory: Memory,
        make: Callable[[], Tracker],
        say: Callable[[str], None],
        safe_step: Callable[[], int] | None = None,
        finish_s: float = _FINISH_S,
    ):
        self._memory, self._make, self._say, self._safe_step = memory, make, say, safe_step
        self._finish_s = finish_s
        self._inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._tracker: Tracker | None = None
        self._waiting: list[Point] = []

    def hear(self, message: dict[str, Any]) -> None:
        """A message of the workers, in the order they were sent."""
        if "started" in message and self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"to {self._memory.name}", daemon=True)
            self._thread.start()
        if self._thread is not None and self._thread.is_alive() and ("started" in message or "metrics" in message):
            self._inbox.put(message | {"at": time.time()})

    def finish(self, state: str, files: dict[str, bytes]) -> None:
        """Send what is left; waits for a while, and no longer."""
        if self._thread is None:
            return
        self._inbox.put({"state": state, "files": files})
        self._over.set()
        self._thread.join(self._finish_s)
        if self._thread.is_alive():
            self._say(f"{self._memory.name} has not answered for {self._finish_s:g} s: the end of the run is not in it")

    def _run(self) -> None:
        try:
            while not self._pass_on():
                self._over.wait(_EVERY_S)
        except Exception as error:
            words = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._say(
                f"{self._memory.name} failed ({type(error).__name__}: {words[:300]}); training goes on without it"
            )

    def _pass_on(self) -> bool:
        """What has been heard since the last time; whether the run has ended."""
        end = None
        while end is None and not self._inbox.empty():
            message = self._inbox.get()
            if "started" in message:
                self._starts(message["started"], message["at"])
            elif "metrics" in message:
                self._add(message["metrics"], message["at"])
            else:
                end = message
        self._send(all_safe=end is not None and end["state"] == "finished")
        if end is None:
            return False
        if self._tracker is not None:
            self._tracker.finish(end["state"], end["files"])
        return True

    def _starts(self, step: int, at: float) -> None:
        if self._tracker is None:
            self._tracker = self._make()
        # What an earlier command did not send, or what was before the tracker was asked for.
        kept = Heard(self._memory.folder)
        kept.starts(step)
        self._waiting = [point for record in kept.records for point in _points(record, at)]

    def _add(self, record: dict[str, Any], at: float) -> None:
        if "rewound_from" in record:
            self._waiting = [point for point in self._waiting if point.step <= record["step"]]
        self._waiting += _points(record, at)

    def _send(self, all_safe: bool) -> None:
        if not self._waiting:
            return
        safe = math.inf if all_safe or self._safe_step is None else self._safe_step()
        ready = [point for point in self._waiting if point.step <= safe]
        self._waiting = [point for point in self._waiting if point.step > safe]
        new = self._memory.take_new(ready)
        if new:
            self._tracker.log(new)


def _points(record: dict[str, Any], at: float) -> list[Point]:
    return [Point(record["step"], tag, float(value), at) for tag, value in scalars(record).items() if is_number(value)]
