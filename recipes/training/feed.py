"""Global batches for one rank, the next one made while this one is computed."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from recipes.data.batches import MicroBatch, to_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipes.data.plan import BatchPlan
    from recipes.data.token_files import TokenSplit


@dataclass(frozen=True)
class GlobalBatch:
    """What update number ``position`` trains on.

    examples: all of them; target_tokens, real_tokens: of all of them. micro_batches: this rank's, on the CPU.
    """

    position: int
    examples: np.ndarray
    target_tokens: int
    real_tokens: int
    micro_batches: list[MicroBatch]

    def on(self, device: torch.device) -> Iterator[MicroBatch]:
        """This rank's micro-batches, each copied when its turn comes."""
        return (batch.to(device) for batch in self.micro_batches)


class Feed:
    """A thread of its own looks up and packs one global batch ahead. Nothing else may use the plan meanwhile."""

    def __init__(self, train: TokenSplit, plan: BatchPlan, *, seed: int, rank: int, pad_id: int, device: torch.device):
        self._train, self._plan, self._seed, self._rank, self._pad_id = train, plan, seed, rank, pad_id
        self._pin = device.type == "cuda"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[int, Future[GlobalBatch] | None] = (-1, None)

    def take(self, position: int) -> GlobalBatch:
        """The global batch at this place of the data; the one after it is begun."""
        foreseen, future = self._next
        if future is None or foreseen != position:
            future = self._thread.submit(self._made, position)
        batch = future.result()
        self._next = (position + 1, self._thread.submit(self._made, position + 1))
        return batch

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _made(self, position: int) -> GlobalBatch:
        plan, drawn = self._plan, self._train.drawn_from(self._seed, position)
        batches = [
            to_tensors(drawn, batch, self._pad_id, plan.packed) for batch in plan.micro_batches(position)[self._rank]
        ]
        examples = plan.examples(position)
        return GlobalBatch(
            position,
            examples,
            plan.target_tokens(position),
            plan.lengths.real_tokens(examples),
            [batch.pinned() for batch in batches] if self._pin else batches,
        )
