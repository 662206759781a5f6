"""T5's norm in half of the passes over memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.models.t5.modeling_t5 import T5LayerNorm


class Norm(T5LayerNorm):
    """transformers' module, with the function below."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        ours = hidden_states.dtype == self.weight.dtype and hidden_states.dtype in (torch.float32, torch.bfloat16)
        if not ours or torch.compiler.is_compiling():
            return super().forward(hidden_states)
        return rms_norm(hidden_states, self.weight, self.variance_epsilon)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """``weight * x / sqrt(mean(x ** 2) + epsilon)``, the mean over the last dimension (Zhang and Sennrich, arXiv 1910.07467), as T5's.

    The mean and the quotient are computed in fp32, and the quotient is rounded to bf16 before it is multiplied, as transformers
    does. x: (..., d_model), weight: (d_model,), both fp32 or both bf16. For the backward pass only x and a number for each
    token are kept.
    """
    return _Normed.apply(x, weight, epsilon)


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        full = x.float()
        length = torch.linalg.vector_norm(full, dim=-1, keepdim=True)
        scale = length.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (full * scale).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Any, of_output: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        normed, of_output = x.float() * scale, of_output.float()
        product, full_weight = of_output * normed, weight.float()
        along = (product @ full_weight).unsqueeze(-1).div_(-x.shape[-1])
        of_x = (of_output * full_weight).addcmul_(normed, along).mul_(scale)
        return of_x.to(x.dtype), product.flatten(0, -2).sum(0).to(weight.dtype), None
