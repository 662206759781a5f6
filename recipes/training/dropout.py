"""Dropout that is cheap on CPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Chances are multiples of 2 ** -16, so that a word of torch's generator serves four elements.
_CHANCES = 1 << 16


class Dropout(nn.Dropout):
    """torch's module, with the function below."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training)


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Each element is 0 with probability ``rate``, by itself, and else divided by 1 - rate; not in training: x. As torch's.

    On CPUs torch draws a number for every element, which took a fifth of an update. Here a draw of 64 bits serves four: the rate is
    rounded to a multiple of 2 ** -16, and what is kept is divided by 1 minus that, so the mean stays that of x. The draws come from
    torch's default generator: a run that goes on with its state has the same.
    """
    if not training or not rate:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, rate)
    return _Dropped.apply(x, rate)


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        lost = min(round(rate * _CHANCES), _CHANCES - 1)
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= lost - _CHANCES // 2
        ctx.save_for_backward(kept)
        ctx.scale = _CHANCES / (_CHANCES - lost)
        return (x * kept).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, of_output: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (of_output * kept).mul_(ctx.scale), None
