"""One optimizer update: the screen that says what training does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from deepspeed import DeepSpeedEngine

    from recipes.data.batches import MicroBatch


class NonFiniteGradient(RuntimeError):
    """Raised inside the optimizer's step, before a weight changes, where DeepSpeed does not look itself."""


@dataclass(frozen=True)
class UpdateResult:
    """loss_sum: this rank's summed loss in nats, still on the device. lrs: what the optimizer used, by group.

    applied: False where the update was skipped, on all ranks alike: its gradient is not finite, or it
    was refused. Weights, optimizer state and schedule are then as before.
    """

    loss_sum: torch.Tensor
    lrs: list[float]
    grad_norm: float
    applied: bool


def run_update(
    engine: DeepSpeedEngine,
    micro_batches: Iterable[MicroBatch],
    target_tokens: int,
    accept: Callable[[torch.Tensor], bool] = lambda loss_sum: True,
    label_smoothing: float = 0.0,
) -> UpdateResult:
    """Forward and backward each micro-batch, then clip and step.

    The gradient is that of the mean loss over all ``target_tokens`` of the global batch, however the
    batch is split: DeepSpeed averages over ranks, so each summed loss is scaled by
    world_size / target_tokens. DeepSpeed steps the schedule inside `engine.step`; nobody else does.

    accept: asked once before the step, with this rank's summed loss; all ranks must answer alike.
    """
    scale = engine.dp_world_size / target_tokens
    losses = []
    for batch in micro_batches:
        loss = summed_loss(engine, batch, label_smoothing)
        engine.backward(loss * scale, scale_wrt_gas=False)
        losses.append(loss.detach())
    loss_sum = sum(losses)
    if not accept(loss_sum):
        # An infinite gradient on top makes DeepSpeed itself drop the update, at every ZeRO stage.
        engine.backward(summed_loss(engine, batch) * float("inf"), scale_wrt_gas=False)
    lrs = lrs_in_use(engine)
    try:
        engine.step()
        applied = engine.was_step_applied()
    except NonFiniteGradient:
        engine.zero_grad()
        applied = False
    grad_norm = float(engine.get_global_grad_norm())
    return UpdateResult(loss_sum, lrs, grad_norm, applied and math.isfinite(grad_norm))


def target_logits(model: torch.nn.Module, batch: MicroBatch) -> torch.Tensor:
    """Scores of every token at every place of the targets, each given the true tokens before it: (rows, places, vocabulary)."""
    return model(**batch.inputs()).logits


def summed_loss(model: torch.nn.Module, batch: MicroBatch, label_smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy in nats, summed over the micro-batch's target tokens (padding does not count)."""
    from recipes.layers.cross_entropy import summed_cross_entropy

    return summed_cross_entropy(target_logits(model, batch).flatten(0, 1), batch.labels.flatten(), label_smoothing)


def lrs_in_use(engine: DeepSpeedEngine) -> list[float]:
    """The lr of every parameter group in the next `engine.step`, read before the scheduler moves."""
    return [float(group["lr"]) for group in engine.optimizer.param_groups]
