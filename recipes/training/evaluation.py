"""Held-out loss: every held-out example once, over all ranks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from recipes.training.update import summed_loss

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

    from recipes.data.batches import MicroBatch


def held_out_loss(engine: DeepSpeedEngine, micro_batches: Iterable[MicroBatch]) -> tuple[float, int]:
    """Mean loss in nats per target token, and the number of target tokens, over all ranks.

    Every rank must bring the same number of micro-batches: ZeRO-3 gathers weights in each forward.
    """
    engine.eval()
    totals = torch.zeros(2, dtype=torch.float64, device=engine.device)
    with torch.no_grad():
        for batch in micro_batches:
            totals[0] += summed_loss(engine, batch).double()
            totals[1] += (batch.labels != -100).sum()
    engine.train()
    dist.all_reduce(totals)
    loss_sum, num_tokens = totals.tolist()
    return loss_sum / num_tokens, int(num_tokens)
