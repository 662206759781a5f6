"""Notices from outside that all ranks must act on together: stop, or a node about to be taken away."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

_NOTHING, _LOOK, _STOP = 0, 1, 2


def never() -> bool:
    """No notice ever comes."""
    return False


@dataclass
class Notices:
    """Asked after every update, on all ranks alike.

    stop_requested: asked on rank 0. node_leaving: asked on all ranks together (it may wait for
    them all). Both are asked once in every_s seconds of rank 0's clock, so that an update pays for one
    broadcast of a byte over the network of the hosts, and nothing else.
    """

    stop_requested: Callable[[], bool] = never
    node_leaving: Callable[[], bool] = never
    every_s: float = 1.0
    _asked_at: float = field(default_factory=time.monotonic)
    _leaving_seen: bool = False
    _group: Any = None

    def __post_init__(self) -> None:
        self._group = dist.new_group(backend="gloo")

    def poll(self) -> tuple[bool, bool]:
        """(whether to stop after this update, whether to write a checkpoint at once)."""
        word = torch.tensor([self._word()], dtype=torch.uint8)
        dist.broadcast(word, src=0, group=self._group)
        heard = int(word)
        if heard == _STOP:
            return True, True
        if heard == _NOTHING:
            return False, False
        leaving = self.node_leaving()
        new, self._leaving_seen = leaving and not self._leaving_seen, leaving
        return False, new

    def _word(self) -> int:
        now = time.monotonic()
        if dist.get_rank() != 0 or now - self._asked_at < self.every_s:
            return _NOTHING
        self._asked_at = now
        return _STOP if self.stop_requested() else _LOOK
