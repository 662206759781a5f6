"""Messages from the workers to the terminal, past Ray Train's own once-per-poll reports."""

from __future__ import annotations

import time
from typing import Any

BEAT_S = 2.0


class Channel:
    """A Ray actor between launcher and workers: keeps messages in order, the wish to stop, and when a worker last lived."""

    def __init__(self) -> None:
        self._messages: list[dict[str, Any]] = []
        self._stop = False
        self._heard_at = time.monotonic()

    def put(self, message: dict[str, Any]) -> None:
        self._messages.append(message)

    def take(self) -> tuple[list[dict[str, Any]], float]:
        """The messages since the last call, and the seconds since a worker's last sign of life."""
        messages, self._messages = self._messages, []
        return messages, time.monotonic() - self._heard_at

    def beat(self) -> None:
        """A worker runs; it says so every BEAT_S, whatever it is at."""
        self._heard_at = time.monotonic()

    def request_stop(self) -> None:
        """The run shall end with a checkpoint of its own."""
        self._stop = True

    def stop_requested(self) -> bool:
        return self._stop
