"""The T5 to train: its origin, its initial weights, its parameter groups."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recipes.config import ModelBlock, OptimizerBlock, ShapeBlock
from recipes.config.published import MODEL_TYPES
from recipes.errors import UserError
from recipes.training.lora import add_lora

if TYPE_CHECKING:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

PAD, EOS = 0, 1


def build_model(block: ModelBlock, vocab_size: int, seed: int) -> T5ForConditionalGeneration:
    """The model on the CPU in fp32, in training mode, with SDPA attention.

    From scratch the weights depend on ``seed`` alone, so every rank builds the same ones.

    Raises:
        UserError: no such folder, no T5 in it, fewer embeddings than ``vocab_size`` token ids, or nothing of what is to
            be frozen or adapted.
    """
    import torch

    if block.shape is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _from_shape(block.shape, vocab_size)
    else:
        model = _from_pretrained(block)
        check_embeddings(block, model.config, vocab_size)
    if block.lora is not None:
        add_lora(model, block.lora, seed)
    freeze(model, block.freeze)
    if block.gradient_checkpointing:
        # Its name since transformers 5.23; the older one warns there.
        enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
    model.config.use_cache = False
    return model.train()


def check_embeddings(block: ModelBlock, config: T5Config, vocab_size: int) -> None:
    """Whether a model of this config, from the folder or the Hub, has an embedding for every token id.

    Raises:
        UserError: it has fewer.
    """
    if config.vocab_size < vocab_size:
        raise UserError(
            f"model {block.folder or block.hub} has {config.vocab_size} embeddings but the tokenizer has "
            f"{vocab_size} token ids: give the model's own tokenizer in data.tokenizer"
        )


def skeleton(config: T5Config, has_own_classifier: bool) -> T5ForConditionalGeneration:
    """The model of a config without any weights: its parameters have shapes and no memory."""
    import torch
    from transformers import T5ForConditionalGeneration

    with torch.device("meta"):
        model = T5ForConditionalGeneration(config)
        if has_own_classifier:
            model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    return model


def model_config(block: ModelBlock, vocab_size: int) -> T5Config:
    """The config of the model that `build_model` builds.

    Raises:
        UserError: as `build_model`.
    """
    return _pretrained_config(block) if block.shape is None else _shape_config(block.shape, vocab_size)


def _shape_config(shape: ShapeBlock, vocab_size: int) -> T5Config:
    from transformers import T5Config

    return T5Config(
        vocab_size=vocab_size,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=PAD,
        attn_implementation="sdpa",
        **shape.model_dump(exclude_none=True, exclude={"preset"}),
    )


def _from_shape(shape: ShapeBlock, vocab_size: int) -> T5ForConditionalGeneration:
    import torch

    from recipes.layers.packed_t5 import PackedT5

    model = PackedT5(_shape_config(shape, vocab_size))
    if not shape.tie_word_embeddings:
        # transformers 5 ties every T5 it builds and unties on loading when the file holds two
        # matrices. The classifier gets T5X's scale: with the embedding's (1.0) the first logits
        # have a spread of sqrt(d_model).
        std = shape.initializer_factor * shape.d_model**-0.5
        model.lm_head.weight = torch.nn.Parameter(torch.randn(vocab_size, shape.d_model) * std)
    return model


def _origin(block: ModelBlock) -> tuple[str, dict[str, Any]]:
    """Folder or name of the weights to start from, and what transformers is told beside it."""
    origin = str(block.folder or block.hub)
    return origin, {"local_files_only": True} if block.folder else {"revision": block.revision}


def _pretrained_config(block: ModelBlock) -> T5Config:
    from transformers import AutoConfig, T5Config

    origin, options = _origin(block)
    try:
        config = AutoConfig.from_pretrained(origin, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"model {origin} cannot be loaded: {str(error).splitlines()[0]}") from None
    if config.model_type not in MODEL_TYPES:
        raise UserError(f"model {origin} is a {config.model_type}, not a T5")
    if config.model_type == "mt5":
        # A T5 v1.1 in all but name: the classifier's input is never scaled, which T5's config takes from this key.
        config = T5Config.from_dict(config.to_dict() | {"model_type": "t5", "tie_word_embeddings": False})
    if block.dropout_rate is not None:
        config.dropout_rate = block.dropout_rate
    return config


def _from_pretrained(block: ModelBlock) -> T5ForConditionalGeneration:
    import torch
    from transformers.utils import logging

    from recipes.layers.packed_t5 import PackedT5

    logging.disable_progress_bar()
    origin, options = _origin(block)
    config = _pretrained_config(block)
    try:
        return PackedT5.from_pretrained(
            origin,
            config=config,
            dtype=torch.float32,
            attn_implementation="sdpa",
            # Where there is no safetensors file: a pickle of tensors, and of nothing that could run.
            weights_only=True,
            **options,
        )
    except (OSError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"model {origin} cannot be loaded: {str(error).splitlines()[0]}") from None


def freeze(model: torch.nn.Module, parts: Sequence[str]) -> None:
    """Take some parts (``model.freeze``) out of training: no gradient, no optimizer state, no decay.

    Raises:
        UserError: the classifier is to be frozen and is the embedding.
    """
    if "classifier" in parts and not untied(model):
        raise UserError("model.freeze: the classifier is the embedding in this model: name that")
    for name, parameter in model.named_parameters():
        if parts_of(name, parameter) & set(parts):
            parameter.requires_grad_(False)


def parts_of(name: str, parameter: torch.Tensor) -> set[str]:
    """What ``model.freeze`` calls a parameter of a T5."""
    top = name.split(".", 1)[0]
    parts = {{"shared": "embedding", "lm_head": "classifier"}.get(top, top)}
    return parts | {"norms"} if _is_norm(name, parameter) else parts


def _is_norm(name: str, parameter: torch.Tensor) -> bool:
    return parameter.ndim < 2 or "relative_attention_bias" in name


def parameter_groups(model: torch.nn.Module, optimizer: OptimizerBlock, peak_lr: float) -> list[dict[str, Any]]:
    """The optimizer's groups with their weight decay and lr.

    First the matrices, which decay, at ``peak_lr``; then norms, biases and relative position bias,
    which do not decay. What is frozen is in none. With ``embedding_lr_ratio`` other than 1 that group is at ``ratio * peak_lr``,
    and the embedding (decaying) is a third one at the same lr.
    """
    ratio = optimizer.embedding_lr_ratio
    matrices, others, embedding = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if _is_norm(name, parameter):
            others.append(parameter)
        elif ratio != 1.0 and name == "shared.weight":
            embedding.append(parameter)
        else:
            matrices.append(parameter)
    decay = optimizer.weight_decay
    groups = [
        {"params": matrices, "weight_decay": decay, "lr": peak_lr},
        {"params": others, "weight_decay": 0.0, "lr": ratio * peak_lr},
        {"params": embedding, "weight_decay": decay, "lr": ratio * peak_lr},
    ]
    return [group for group in groups if group["params"]]


def group_lr_ratios(optimizer: OptimizerBlock, model: ModelBlock | None = None) -> list[float]:
    """Each group's lr as a multiple of the schedule's, in the order of `parameter_groups`; model: none, all is trained."""
    ratio = optimizer.embedding_lr_ratio
    if model is not None and model.lora is not None:
        return [1.0]
    frozen = model.freeze if model is not None else ()
    norms = [ratio] if "norms" not in frozen else []
    return [1.0, *norms, *([ratio] if ratio != 1.0 and "embedding" not in frozen else [])]


def untied(model: T5ForConditionalGeneration) -> bool:
    """Whether the classifier has a matrix of its own."""
    return model.lm_head.weight is not model.shared.weight
