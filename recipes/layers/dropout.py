"""Dropout that is cheap on CPUs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Chances are multiples of 2 ** -16: 16 random bits an element.
_CHANCES = 1 << 16
_OF_A_WORD = 4


class Dropout(nn.Dropout):
    """torch's module, with the function below."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training)


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Each element is 0 with probability ``rate``, by itself, and else divided by 1 - rate; not in training: x. As torch's.

    On CPUs torch draws a number for every element from a slow generator. Here a call draws one number from torch's default generator, so a run
    that goes on with that one's state has the same dropout, and with it seeds NumPy's SFC64, of which 64 bits serve four elements: the rate is
    rounded to a multiple of 2 ** -16, and what is kept is divided by 1 minus that, so the mean stays that of x.
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
        kept = _drawn(x.numel()).view(x.shape) >= lost - _CHANCES // 2
        # torch multiplies by booleans one by one, and turns bytes into numbers many at once.
        kept = kept.view(torch.uint8)
        ctx.save_for_backward(kept)
        ctx.scale = _CHANCES / (_CHANCES - lost)
        return _without_lost(x, kept, ctx.scale)

    @staticmethod
    def backward(ctx: Any, of_output: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return _without_lost(of_output, kept, ctx.scale), None


def _drawn(num: int) -> Tensor:
    """Numbers from -2 ** 15 up to 2 ** 15, each as likely."""
    seed = int(torch.empty((), dtype=torch.int64).random_())
    words = np.random.SFC64(seed).random_raw(-(-num // _OF_A_WORD))
    return torch.from_numpy(words.view(np.int16))[:num]


def _without_lost(x: Tensor, kept: Tensor, scale: float) -> Tensor:
    return kept.to(x.dtype).mul_(x).mul_(scale)
