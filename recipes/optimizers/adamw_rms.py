"""AdamW whose step is relative to the size of the parameter."""

from __future__ import annotations

import math
from typing import Any

import torch

from recipes.optimizers.segmented import SegmentedOptimizer
from recipes.optimizers.segments import Layout


class AdamWRMS(SegmentedOptimizer):
    """nanoT5's AdamWScale (Nawrot, arXiv 2309.02373): Adam's update times the root mean square of the parameter.

        m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
        w <- w - lr max(min_rms, RMS(w)) sqrt(1 - beta2^t) / (1 - beta1^t)  m / (sqrt(v) + eps)
        w <- w - lr weight_decay w

    RMS(w) is that of the whole parameter before the update. As there, eps is added before the bias of v is corrected,
    and weight decay comes after the update and is not relative to RMS(w).
    State: step, exp_avg (m), exp_avg_sq (v), the latter two in the shape of the flat tensor, under torch AdamW's names.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        min_rms: float = 1e-3,
    ):
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "min_rms": min_rms}
        super().__init__(groups, defaults)

    def _new_state(self, flat: torch.Tensor, layout: Layout) -> dict[str, torch.Tensor]:
        return {"exp_avg": torch.zeros_like(flat), "exp_avg_sq": torch.zeros_like(flat)}

    def _update(
        self,
        flat: torch.Tensor,
        grad: torch.Tensor,
        state: dict[str, torch.Tensor],
        layout: Layout,
        group: dict[str, Any],
    ) -> None:
        (beta1, beta2), lr, step = group["betas"], group["lr"], state["step"].item()
        exp_avg, exp_avg_sq = state["exp_avg"], state["exp_avg_sq"]
        exp_avg.mul_(beta1).add_(grad, alpha=1 - beta1)
        exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        update = exp_avg_sq.sqrt().add_(group["eps"])
        torch.div(exp_avg, update, out=update)
        rms = layout.rms(layout.over_ranks(layout.sums_of_squares(flat)))
        layout.scale(update, rms.clamp_(min=group["min_rms"]))
        flat.add_(update, alpha=-lr * math.sqrt(1 - beta2**step) / (1 - beta1**step))
        if group["weight_decay"]:
            flat.mul_(1 - lr * group["weight_decay"])
