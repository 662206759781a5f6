"""What a tracker is told of a run, and what it remembers between a run and its resume."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from recipes.errors import UserError
from recipes.reporting.page_parts import without_credentials
from recipes.storage import Storage

FOLDER = "trackers"


class Point(NamedTuple):
    """One number: the update it is of, its name, and `time.time()` when it was heard."""

    step: int
    tag: str
    value: float
    at: float


class Tracker(Protocol):
    """All methods are called on one thread, and may raise whatever the library raises."""

    def log(self, points: list[Point]) -> None:
        """Add points; steps never go back for one tag."""

    def finish(self, state: str, files: dict[str, bytes]) -> None:
        """state: finished, failed or killed. files: name -> content, kept with the run."""


@dataclass
class Memory:
    """What the run's folder keeps of a tracker: where the run stands, and up to which update each number was sent.

    where: server and project; a run that goes on elsewhere is another one there.
    """

    folder: Storage
    name: str
    where: str = ""
    run_id: str = ""
    sent: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Storage, name: str, where: str) -> Memory:
        """Raises UserError where the file is broken."""
        memory, file = cls(folder, name, where), f"{FOLDER}/{name}.json"
        if not folder.exists(file):
            return memory
        try:
            kept = json.loads(folder.read_text(file))
            if kept["where"] == where:
                memory.run_id, memory.sent = kept["run_id"], kept["sent"]
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{folder}/{file} is not what this command writes: remove it, and the run becomes a new one in {name}"
            ) from None
        return memory

    def write(self) -> None:
        content = {"where": self.where, "run_id": self.run_id, "sent": self.sent}
        self.folder.write_text(f"{FOLDER}/{self.name}.json", json.dumps(content, indent=1))

    def take_new(self, points: list[Point]) -> list[Point]:
        """The points that were not sent before; from now on they count as sent.

        Noted before they are sent: a command that is killed in between loses a point, and never sends one twice.
        """
        new = []
        for point in points:
            if point.step > self.sent.get(point.tag, -1):
                self.sent[point.tag] = point.step
                new.append(point)
        if new:
            self.write()
        return new


def public(value: Any) -> Any:
    """The same without keys and secrets in storage addresses."""
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, dict):
        return {name: public(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [public(item) for item in value]
    return value
