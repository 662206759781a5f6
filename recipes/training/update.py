"""One optimizer update: the screen that says what training does."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from deepspeed import DeepSpeedEngine

    from recipes.data.batches import MicroBatch


class NonFiniteUpdate(RuntimeError):
    """Loss or gradient of an update is infinite or not a number; the weights were not changed."""


@dataclass(frozen=True)
class UpdateResult:
    """loss_sum: this rank's summed loss in nats, still on the device. lrs: what the optimizer used, by group."""

    loss_sum: torch.Tensor
    lrs: list[float]
    grad_norm: float


def run_update(engine: DeepSpeedEngine, micro_batches: Iterable[MicroBatch], target_tokens: int) -> UpdateResult:
    """Forward and backward each micro-batch, then clip and step.

    The gradient is that of the mean loss over all ``target_tokens`` of the global batch, however the
    batch is split: DeepSpeed averages over ranks, so each summed loss is scaled by
    world_size / target_tokens. DeepSpeed steps the schedule inside `engine.step`; nobody else does.

    Raises:
        NonFiniteUpdate: before any weight is changed.
    """
    scale = engine.dp_world_size / target_tokens
    losses = []
    for batch in micro_batches:
        loss = summed_loss(engine, batch)
        engine.backward(loss * scale, scale_wrt_gas=False)
        losses.append(loss.detach())
    lrs = lrs_in_use(engine)
    engine.step()
    grad_norm = float(engine.get_global_grad_norm())
    if not (engine.was_step_applied() and math.isfinite(grad_norm)):
        raise NonFiniteUpdate(f"gradient norm {grad_norm}")
    return UpdateResult(sum(losses), lrs, grad_norm)


def summed_loss(model: torch.nn.Module, batch: MicroBatch) -> torch.Tensor:
    """Cross-entropy in nats, summed over the micro-batch's target tokens (padding does not count)."""
    import torch.nn.functional as F

    logits = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        decoder_input_ids=batch.decoder_input_ids,
        use_cache=False,
    ).logits
    return F.cross_entropy(logits.float().flatten(0, 1), batch.labels.flatten(), ignore_index=-100, reduction="sum")


def lrs_in_use(engine: DeepSpeedEngine) -> list[float]:
    """The lr of every parameter group in the next `engine.step`, read before the scheduler moves."""
    return [float(group["lr"]) for group in engine.optimizer.param_groups]
