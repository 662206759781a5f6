"""Between the sweep's command and the processes of its trials."""

from __future__ import annotations

from typing import Any


class Board:
    """A Ray actor: runs to do, what the scheduler decided at their rungs, and messages for the terminal."""

    def __init__(self) -> None:
        self._orders: dict[str, Any] = {}
        self._decisions: dict[tuple[str, int], bool] = {}
        self._rungs: dict[str, list[dict[str, Any]]] = {}
        self._failures: dict[str, dict[str, Any]] = {}
        self._messages: list[dict[str, Any]] = []
        self._stop = False

    def order(self, name: str, order: Any) -> None:
        """order: an `Order`, kept under the name of its run."""
        self._orders[name] = order

    def take_order(self, name: str) -> Any:
        return self._orders[name]

    def decide(self, name: str, step: int, goes_on: bool) -> None:
        self._decisions[name, step] = goes_on

    def decision(self, name: str, step: int) -> bool | None:
        """Whether a run goes on after a rung; None: not decided yet."""
        return self._decisions.get((name, step))

    def put_rung(self, name: str, score: dict[str, Any]) -> None:
        """From a worker of Ray Train to its trial."""
        self._rungs.setdefault(name, []).append(score)

    def take_rungs(self, name: str) -> list[dict[str, Any]]:
        return self._rungs.pop(name, [])

    def begins(self, name: str) -> None:
        """A run, or another attempt at it: what ended the last one does not end this one."""
        self._failures.pop(name, None)

    def put_failure(self, name: str, step: int, message: str) -> None:
        """The first word of an attempt that is about to fail counts."""
        self._failures.setdefault(name, {"step": step, "message": message})

    def take_failure(self, name: str) -> dict[str, Any] | None:
        return self._failures.pop(name, None)

    def put(self, message: dict[str, Any]) -> None:
        self._messages.append(message)

    def take(self) -> list[dict[str, Any]]:
        messages, self._messages = self._messages, []
        return messages

    def request_stop(self) -> None:
        """Every run shall end with a checkpoint of its own."""
        self._stop = True

    def stop_requested(self) -> bool:
        return self._stop
