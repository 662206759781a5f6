"""How much of the accelerators' peak the model's own arithmetic takes: model FLOPs utilisation (MFU)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from recipes.planning.flops import summed_training_flops
from recipes.planning.hardware import peak_flops_of
from recipes.planning.shapes import T5Shape


@dataclass(frozen=True)
class Utilisation:
    """Floating-point operations that a run's updates need, against what its devices could do.

    MFU = FLOPs of forward and backward for the real tokens (no padding, nothing computed twice) / (seconds of the updates
    times peak_flops); Chowdhery et al., arXiv 2204.02311, appendix B. peak_flops: of all ranks together, per second, dense
    matmul at the run's precision.
    """

    shape: T5Shape
    peak_flops: float

    def flops(self, source_lengths: np.ndarray, target_lengths: np.ndarray) -> float:
        """Of one update with examples of these lengths in tokens."""
        return summed_training_flops(self.shape, source_lengths, target_lengths)

    def mfu(self, flops: float, seconds: float) -> float:
        return flops / (seconds * self.peak_flops)


def utilisation_of(model: Any, device: torch.device, precision: str, world_size: int) -> Utilisation | None:
    """None where the device's peak is not published, or where parts of the model are not trained: then less is computed."""
    if device.type != "cuda" or not all(parameter.requires_grad for parameter in model.parameters()):
        return None
    peak = peak_flops_of(torch.cuda.get_device_name(device), precision)
    return None if peak is None else Utilisation(shape_of_model(model.config), world_size * peak)


def shape_of_model(config: Any) -> T5Shape:
    """From transformers' T5Config."""
    return T5Shape(
        d_model=config.d_model,
        d_kv=config.d_kv,
        d_ff=config.d_ff,
        num_layers=config.num_layers,
        num_decoder_layers=config.num_decoder_layers,
        num_heads=config.num_heads,
        gated=config.is_gated_act,
        tied=config.tie_word_embeddings,
        vocab_size=config.vocab_size,
    )
