"""Matrix products that use the whole of a CPU that is not Intel's."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Multiplications from which oneDNN pays: it makes code for every new shape, and packed batches have a new one each time
# (0.3 to 0.6 ms; so many multiplications are 1.3 ms of MKL on a core).
ENOUGH = 1 << 26


class Linear(nn.Linear):
    """torch's module, with the function below."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.t() + bias``. x: (..., in), weight: (out, in), bias: (out,) or None.

    torch gives fp32 products on CPUs to MKL, which uses AVX-512 on Intel's CPUs only: on others it takes twice as long as oneDNN
    (docs/performance.md). There large products go to oneDNN; the sums are added up in another order, so results are equal to rounding.
    """
    wanted = bias is None and x.dtype == torch.float32 and x.device.type == "cpu" and not torch.compiler.is_compiling()
    if not wanted or x.numel() * len(weight) < ENOUGH or not mkl_is_slow():
        return F.linear(x, weight, bias)
    return _Product.apply(x.reshape(-1, x.shape[-1]), weight).view(*x.shape[:-1], len(weight))


@cache
def mkl_is_slow() -> bool:
    """Whether this CPU has AVX-512 and MKL does not use it. False where oneDNN is not there to take its place."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    try:
        return "GenuineIntel" not in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


class _Product(torch.autograd.Function):
    """x @ weight.t() of two matrices. Kept are the two; the weight as the parameter it is, which ZeRO-3 takes away meanwhile."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight)

    @staticmethod
    def backward(ctx: Any, of_output: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_output = of_output.contiguous()
        of_x = product(of_output, weight.t()) if ctx.needs_input_grad[0] else None
        return of_x, _of_weight(x, of_output) if ctx.needs_input_grad[1] else None


def _of_weight(x: Tensor, of_output: Tensor) -> Tensor:
    """of_output.t() @ x. oneDNN copies the left matrix and is faster with few long rows: the smaller one is left."""
    if of_output.shape[1] <= x.shape[1]:
        return product(of_output.t(), x.t())
    return product(x.t(), of_output.t()).t()


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.t() by oneDNN, as torch's own compiler calls it. a: (rows, in), b: (columns, in), fp32 on a CPU."""
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
