"""Which number format the forward and backward passes use."""

from __future__ import annotations

from pathlib import Path

NATIVE_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def resolve_precision(precision: str, use_gpu: bool) -> str:
    """``"bf16"`` or ``"fp32"`` for ``auto``; anything else as given.

    A CPU without bf16 instructions emulates them: a 2048 x 2048 matmul took 500 times longer than
    in fp32 when this rule was written, so ``auto`` is fp32 there.
    """
    if precision != "auto":
        return precision
    return "bf16" if (_gpu_has_bf16() if use_gpu else _cpu_has_bf16()) else "fp32"


def _gpu_has_bf16() -> bool:
    import torch

    # Without a GPU on this machine the workers' are not known yet: every data-centre GPU since 2020 has bf16.
    return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)


def _cpu_has_bf16() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.lower().startswith(("flags", "features"))), "")
    return bool(NATIVE_BF16_FLAGS & set(flags.split()))
