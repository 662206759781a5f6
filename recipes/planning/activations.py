"""What the forward pass keeps for the backward pass."""

from __future__ import annotations

from dataclasses import dataclass

from recipes.planning.shapes import T5Shape


@dataclass(frozen=True)
class TrainedModel:
    """A T5 and how it is trained. precision: bf16 (fp32 master weights) or fp32. trained: parameters that the optimizer
    steps (LoRA's are not part of the shape); None: all. optimizer: as optimizer.name."""

    shape: T5Shape
    precision: str = "bf16"
    gradient_checkpointing: bool = False
    dropout: bool = False
    trained: int | None = None
    optimizer: str = "adamw"

    @property
    def num_trained(self) -> int:
        return self.shape.num_parameters if self.trained is None else self.trained

    @property
    def element_bytes(self) -> int:
        return 2 if self.precision == "bf16" else 4


def activation_bytes(model: TrainedModel, source: int, target: int, fused_attention: bool) -> float:
    """Bytes kept for the backward pass of one example of ``source`` and ``target`` tokens, classifier included.

    Counted tensor by tensor from `recipes.layers.packed_t5` in plain (not compiled) torch, the way Korthikanti et al.
    (arXiv 2205.05198, section 4) count GPT's; a test compares with what autograd really keeps. With e bytes per element
    (2 or 4), d = d_model, i = heads * d_kv, f = d_ff, q tokens, k tokens attended to:

        norm            2 e d q: input and output
        self-attention  norm + 4 e i q (q, k, v, out)           + scores
        cross-attention norm + 2 e i q + 2 e i k                 + scores
        feed-forward    norm + 4 e f q gated, e f q with ReLU
        dropout         1 byte per element of every sub-layer's output and of f

    Scores are e h q k even with fused attention: T5 adds its position bias to the mask anew in every layer, and torch
    keeps that (heads x q x k) sum. Without fused attention (a CPU, or a GPU kernel that takes no bias) torch computes in
    fp32: 4 h q k of softmax for self-attention, and q, k, v in fp32; with dropout 12 h q k, cross-attention too.

    With gradient checkpointing a layer keeps its input only (e d q) and one layer at a time is computed again.
    """
    shape, e = model.shape, model.element_bytes
    fused = fused_attention
    encoder = _self_attention(model, source, fused) + _feed_forward(model, source)
    decoder = _self_attention(model, target, fused) + _feed_forward(model, target)
    decoder += _cross_attention(model, target, source, fused)
    if model.gradient_checkpointing:
        inputs = e * shape.d_model * (shape.num_layers * source + shape.num_decoder_layers * target)
        layers = inputs + max(encoder, decoder)
    else:
        layers = shape.num_layers * encoder + shape.num_decoder_layers * decoder
    ends = _norm(model, source) + _norm(model, target)
    return layers + ends + classifier_bytes(model, target)


def classifier_bytes(model: TrainedModel, target: int) -> float:
    """Logits of one example, e bytes for each of V target tokens: the loss writes their gradient over them."""
    return model.element_bytes * model.shape.vocab_size * target


def _norm(model: TrainedModel, tokens: int) -> float:
    return 2 * model.element_bytes * model.shape.d_model * tokens


def _dropout(model: TrainedModel, elements: float) -> float:
    return elements if model.dropout else 0.0


def _self_attention(model: TrainedModel, tokens: int, fused: bool) -> float:
    shape, e = model.shape, model.element_bytes
    scores = shape.num_heads * tokens**2
    if fused:
        kept = 4 * e * shape.inner * tokens + e * scores
    else:
        kept = (3 * 4 + e) * shape.inner * tokens + (12 if model.dropout else 4) * scores
    return _norm(model, tokens) + kept + _dropout(model, shape.d_model * tokens)


def _cross_attention(model: TrainedModel, target: int, source: int, fused: bool) -> float:
    shape, e = model.shape, model.element_bytes
    scores = shape.num_heads * target * source
    if fused or not model.dropout:
        kept = 2 * e * shape.inner * (target + source) + e * scores
    else:
        kept = shape.inner * ((4 + e) * target + 2 * 4 * source) + 12 * scores
    return _norm(model, target) + kept + _dropout(model, shape.d_model * target)


def _feed_forward(model: TrainedModel, tokens: int) -> float:
    shape, e = model.shape, model.element_bytes
    hidden = shape.d_ff * tokens
    kept = (4 if shape.gated else 1) * e * hidden + _dropout(model, hidden)
    if model.dropout and not shape.gated:
        # ReLU's own output is kept beside the dropped one, which the next matrix needs.
        kept += e * hidden
    return _norm(model, tokens) + kept + _dropout(model, shape.d_model * tokens)
