"""Floating-point operations of one example."""

from __future__ import annotations

import numpy as np

from recipes.planning.shapes import T5Shape


def forward_flops(shape: T5Shape, source: int, target: int) -> tuple[float, float]:
    """(layers, classifier): FLOPs of a forward pass of one example of ``source`` and ``target`` tokens.

    A multiplication and an addition count as two, so a token costs 2 FLOPs per weight of every matrix it goes through.
    With d = d_model, i = heads * d_kv, F = weights of the feed-forward layer, S and T tokens:

        encoder layer   2 S (4 d i + F) + 4 S^2 i                      (q k^T and scores times v, each 2 S^2 i)
        decoder layer   2 T (4 d i + F) + 4 T^2 i                      self-attention and feed-forward
                      + 4 T d i + 4 S d i + 4 T S i                    cross: q and o of targets, k and v of sources
        classifier      2 T d V

    Scores are counted in full: neither torch's kernels with a bias nor T5's mask skip the upper triangle. Norms,
    softmax and embeddings are left out, as in the usual definition of model FLOPs (Chowdhery et al., arXiv 2204.02311,
    appendix B; Narayanan et al., arXiv 2104.04473).
    """
    layers, classifier = _forward(shape, source, target)
    return float(layers), float(classifier)


def _forward(shape: T5Shape, source: int | np.ndarray, target: int | np.ndarray) -> tuple:
    projections = 2 * (shape.attention_matrices + shape.feed_forward_matrices)
    encoder = source * projections + 4 * source**2 * shape.inner
    cross = 4 * (target + source) * shape.d_model * shape.inner + 4 * target * source * shape.inner
    decoder = target * projections + 4 * target**2 * shape.inner + cross
    layers = shape.num_layers * encoder + shape.num_decoder_layers * decoder
    return layers, 2 * target * shape.d_model * shape.vocab_size


def training_flops(shape: T5Shape, source: int, target: int, gradient_checkpointing: bool) -> float:
    """Forward and backward (twice the forward); with checkpointing the layers run forward once more."""
    layers, classifier = forward_flops(shape, source, target)
    return 3 * (layers + classifier) + (layers if gradient_checkpointing else 0.0)


def summed_training_flops(shape: T5Shape, sources: np.ndarray, targets: np.ndarray) -> float:
    """Forward and backward of examples with these lengths together, nothing computed twice."""
    layers, classifier = _forward(shape, np.asarray(sources, float), np.asarray(targets, float))
    return 3 * float(np.sum(layers) + np.sum(classifier))
