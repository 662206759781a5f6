"""Skipped updates and loss spikes: what counts as one, and when to give up."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from recipes.config import TrainingBlock


class TooManySkipped(RuntimeError):
    """Updates were skipped one after the other until the limit."""


@dataclass
class Skips:
    """What was left out so far, and the losses that a spike is measured against.

    num_batches: global batches that made no update; the run's data position is step + num_batches.
    in_a_row: skips since the last update that was applied. recent: mean losses of the last applied
    updates, kept only where the config asks for spikes to be found.
    """

    num_batches: int = 0
    in_a_row: int = 0
    recent: deque[float] = field(default_factory=deque)

    def is_spike(self, loss: float, settings: TrainingBlock) -> bool:
        """Whether ``loss`` stands out of a full window of losses."""
        full = len(self.recent) == settings.spike_window_steps
        return full and not loss <= settings.spike_ratio * sum(self.recent) / len(self.recent)

    def applied(self, loss: float | None, settings: TrainingBlock) -> None:
        """Note an update that was made."""
        self.in_a_row = 0
        if loss is not None:
            self.recent.append(loss)
            while len(self.recent) > settings.spike_window_steps:
                self.recent.popleft()

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"num_batches": self.num_batches, "in_a_row": self.in_a_row, "recent": list(self.recent)}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Skips:
        """From the checkpoint."""
        return cls(state["num_batches"], state["in_a_row"], deque(state["recent"]))
