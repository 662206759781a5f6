"""Messages from the workers to the terminal, past Ray Train's own once-per-poll reports."""

from __future__ import annotations

from typing import Any


class Channel:
    """A Ray actor that keeps messages in order until the launcher takes them."""

    def __init__(self) -> None:
        self._messages: list[dict[str, Any]] = []

    def put(self, message: dict[str, Any]) -> None:
        self._messages.append(message)

    def take(self) -> list[dict[str, Any]]:
        messages, self._messages = self._messages, []
        return messages
