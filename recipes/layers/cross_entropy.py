"""Cross-entropy that keeps nothing but the scores it was given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recipes.data.batches import IGNORED

# Elements that are turned into fp32 at once; on a CPU so many that they stay in its caches.
AT_ONCE = 1 << 24
AT_ONCE_ON_CPU = 1 << 19


def summed_cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Nats, summed over the places whose label is not -100, in fp32 (fp64 for fp64).

    With label_smoothing s (Szegedy et al., arXiv 1512.00567; as torch's) the wanted distribution is 1 - s on the label
    and s spread evenly over the whole vocabulary, the label included.

    logits: (places, vocabulary), **overwritten** by their gradient, so a backward pass needs no further tensor of this size:
    torch's own keeps the log-softmax and makes its gradient, both in fp32. Whoever made the logits must not need them again
    (a matrix product does not). labels: (places,).
    """
    return _Summed.apply(logits, labels, label_smoothing)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        loss = torch.zeros((), dtype=dtype, device=logits.device)
        at_once = AT_ONCE_ON_CPU if logits.device.type == "cpu" else AT_ONCE
        step = max(1, at_once // logits.shape[1])
        for begin in range(0, len(logits), step):
            part, wanted = logits[begin : begin + step], labels[begin : begin + step, None]
            counts, column = (wanted != IGNORED).to(dtype), wanted.clamp(min=0)
            scores = part.log_softmax(dim=-1, dtype=dtype)
            wanted_score = scores.gather(1, column)
            if label_smoothing:
                wanted_score.lerp_(scores.mean(dim=-1, keepdim=True), label_smoothing)
            loss -= (wanted_score * counts).sum()
            shares = scores.exp_()
            if label_smoothing:
                shares.sub_(label_smoothing / logits.shape[1])
            shares.scatter_add_(1, column, torch.full_like(counts, label_smoothing - 1)).mul_(counts)
            part.copy_(shares)
        ctx.save_for_backward(logits)
        return loss

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(of_loss), None, None
