"""Notices from outside that all ranks must act on together: stop, or a node about to be taken away."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist

# Ray takes this where the notice names no deadline.
_UNKNOWN_DEADLINE_S = 120.0
# What a last checkpoint before a deadline gets: this, and some times what the last ones took.
_LEAST_LEAD_S, _LEAD_RATIO = 2.0, 3.0


class Order(IntEnum):
    """What all ranks do after an update.

    SAVE: a checkpoint now. STOP: a checkpoint, and the run ends. HOLD: a checkpoint, and no more updates, because
    a node is about to go and Ray will start the workers again without it.
    """

    GO_ON = 0
    SAVE = 1
    STOP = 2
    HOLD = 3
    LOOK = 4


def never() -> bool:
    """No notice ever comes."""
    return False


def no_deadline() -> float | None:
    """No node ever leaves."""
    return None


@dataclass
class Notices:
    """Asked after every update, on all ranks alike.

    stop_requested: asked on rank 0. leaving_at: asked on all ranks together (it may wait for them all); when the
    first node of the run goes, in seconds of `time.time()` (inf: at a time not known), None while none does. Both
    are asked once in every_s seconds of rank 0's clock, so that an update pays for one broadcast of a
    byte over the network of the hosts, and nothing else.
    """

    stop_requested: Callable[[], bool] = never
    leaving_at: Callable[[], float | None] = no_deadline
    every_s: float = 1.0
    deadline: float | None = None
    _given_up: float = 0.0
    _asked_at: float = field(default_factory=time.monotonic)
    _group: Any = None

    def __post_init__(self) -> None:
        self._group = dist.new_group(backend="gloo")

    def poll(self, writing: bool, update_s: float, checkpoint_s: float) -> Order:
        """What to do after this update.

        Once a node is known to leave, checkpoints follow each other as fast as they are written, because the node
        may go early; shortly before the deadline training holds, so that no update is computed for nothing.

        writing: whether rank 0 still writes a checkpoint. update_s, checkpoint_s: what its last ones took.
        """
        word = self._agreed(self._first_word())
        if word == Order.LOOK:
            self._note(self.leaving_at())
        elif word == Order.STOP:
            return word
        if self.deadline is None:
            return Order.GO_ON
        lead_s = _LEAST_LEAD_S + _LEAD_RATIO * (update_s + checkpoint_s)
        if time.time() >= self.deadline - lead_s:
            return self._agreed(Order.HOLD)
        return self._agreed(Order.GO_ON if writing else Order.SAVE)

    def wait_for_the_end(self, limit_s: float = 60.0) -> bool:
        """Until Ray ends this process, or someone asks to stop (True), or limit_s after the deadline (False)."""
        order = Order.HOLD
        while order == Order.HOLD:
            time.sleep(0.2)
            late = self.deadline is None or time.time() > self.deadline + limit_s
            order = self._agreed(Order.STOP if self.stop_requested() else Order.GO_ON if late else Order.HOLD)
        self._given_up, self.deadline = self.deadline or 0.0, None
        return order == Order.STOP

    def _note(self, leaving_at: float | None) -> None:
        if leaving_at is None or leaving_at <= self._given_up:
            return
        if leaving_at == float("inf"):
            leaving_at = time.time() + _UNKNOWN_DEADLINE_S
        self.deadline = leaving_at if self.deadline is None else min(self.deadline, leaving_at)

    def _first_word(self) -> Order:
        now = time.monotonic()
        if dist.get_rank() != 0 or now - self._asked_at < self.every_s:
            return Order.GO_ON
        self._asked_at = now
        return Order.STOP if self.stop_requested() else Order.LOOK

    def _agreed(self, order: Order) -> Order:
        """Rank 0's word on all ranks."""
        word = torch.tensor([order], dtype=torch.uint8)
        dist.broadcast(word, src=0, group=self._group)
        return Order(int(word))
