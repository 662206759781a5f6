"""Messages from the workers to the terminal, past Ray Train's own once-per-poll reports."""

from __future__ import annotations

from typing import Any


class Channel:
    """A Ray actor between launcher and workers: keeps messages in order, and the wish to stop."""

    def __init__(self) -> None:
        self._messages: list[dict[str, Any]] = []
        self._stop = False

    def put(self, message: dict[str, Any]) -> None:
        self._messages.append(message)

    def take(self) -> list[dict[str, Any]]:
        messages, self._messages = self._messages, []
        return messages

    def request_stop(self) -> None:
        """The run shall end with a checkpoint of its own."""
        self._stop = True

    def stop_requested(self) -> bool:
        return self._stop
