"""Cross-entropy that keeps nothing but the scores it was given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recipes.data.batches import IGNORED

# Elements that are turned into fp32 at once.
AT_ONCE = 1 << 24


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
        step = max(1, AT_ONCE // logits.shape[1])
        for begin in range(0, len(logits), step):
            part, wanted = logits[begin : begin + step], labels[begin : begin + step, None]
            counts, column = wanted != IGNORED, wanted.clamp(min=0)
            scores = part.to(dtype)
            normaliser = scores.logsumexp(dim=-1, keepdim=True)
            wanted_score = scores.gather(1, column)
            if label_smoothing:
                wanted_score.lerp_(scores.mean(dim=-1, keepdim=True), label_smoothing)
            loss += ((normaliser - wanted_score) * counts).sum()
            shares = scores.sub_(normaliser).exp_()
            if label_smoothing:
                shares.sub_(label_smoothing / logits.shape[1])
            shares.scatter_add_(1, column, torch.full_like(normaliser, label_smoothing - 1)).mul_(counts)
            if shares.dtype != part.dtype:
                part.copy_(shares)
        ctx.save_for_backward(logits)
        return loss

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(of_loss), None, None
