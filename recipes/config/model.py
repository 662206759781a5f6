"""The T5 to train."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from recipes.config.published import SIZES
from recipes.config.values import Block, Count, Number, Share
from recipes.errors import nearest


class ShapeBlock(Block):
    """A T5 of one's own, with random weights. Defaults are the v1.1 recipe at t5-small's size."""

    preset: str | None = Field(
        None,
        description="A published size that the keys below change, such as t5-v1_1-base; shape: t5-v1_1-base is short for it "
        "alone. Families: t5, t5-v1_1, mt5, byt5, codet5; the vocabulary is the tokenizer's.",
    )
    d_model: Count = Field(512, description="Width of the residual stream.")
    d_kv: Count = Field(64, description="Width of one attention head.")
    d_ff: Count = Field(1024, description="Width inside the feed-forward layers.")
    num_layers: Count = Field(8, description="Encoder layers.")
    num_decoder_layers: Count | None = Field(None, description="Decoder layers; none: as many as the encoder has.")
    num_heads: Count = Field(6, description="Attention heads.")
    feed_forward_proj: Literal["gated-gelu", "relu"] = Field(
        "gated-gelu", description="gated-gelu (T5 v1.1) or relu (original T5)."
    )
    tie_word_embeddings: bool = Field(
        False,
        description="One matrix for input embedding and output classifier; T5 v1.1 does not tie.",
    )
    dropout_rate: Share = Field(0.0, description="Dropout probability while training.")
    relative_attention_num_buckets: Count = Field(32, description="Buckets of the relative position bias.")
    relative_attention_max_distance: Count = Field(
        128, description="Distance from which all positions share the last bucket."
    )
    initializer_factor: Annotated[Number, Field(gt=0)] = Field(
        1.0, description="Scale of the initial weights (transformers' T5Config)."
    )

    @model_validator(mode="before")
    @classmethod
    def _of_preset(cls, content: Any) -> Any:
        """A name alone is a preset, and its numbers stand in the resolved config."""
        if isinstance(content, str):
            content = {"preset": content}
        name = content.get("preset") if isinstance(content, dict) else None
        if name is None:
            return content
        if name not in SIZES:
            raise ValueError(f"preset '{name}' is not a published size{nearest(str(name), list(SIZES))}")
        return SIZES[name] | content


# The matrices of a T5 layer: attention's, and the feed-forward layer's (two inputs where it is gated).
LAYER_MATRICES = ("q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo")


class LoraBlock(Block):
    rank: Count = Field(16, description="Rank of each update: a matrix of m x n gets (m + n) * rank weights to train.")
    alpha: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="The update is scaled by alpha / rank; none: twice the rank."
    )
    dropout_rate: Share = Field(0.0, description="Dropout in front of the update, while training.")
    targets: tuple[Literal[LAYER_MATRICES], ...] = Field(
        ("q", "v"), min_length=1, description="Which matrices of every layer get one."
    )

    @property
    def scale(self) -> float:
        return 2.0 if self.alpha is None else self.alpha / self.rank


class ModelBlock(Block):
    shape: ShapeBlock | None = Field(
        None, description="Train from scratch a model of this shape (one of shape, folder, hub)."
    )
    folder: str | None = Field(None, description="Start from a save_pretrained folder.")
    hub: str | None = Field(
        None, description="Start from a model of the Hugging Face Hub; the only setting that uses the network."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of the Hub model.")
    dropout_rate: Share | None = Field(
        None, description="Dropout for a model from a folder or the Hub; none: as the model says."
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, about a third more time."
    )

    freeze: tuple[Literal["embedding", "classifier", "encoder", "decoder", "norms"], ...] = Field(
        (),
        description="Weights that stay as they are. embedding is also the classifier where the model ties them; norms are "
        "the layer norms and the relative position bias.",
    )
    lora: LoraBlock | None = Field(
        None, description="Train small updates of some matrices (LoRA, through peft) and nothing else."
    )

    @model_validator(mode="after")
    def _something_is_trained(self) -> ModelBlock:
        if {"encoder", "decoder"} <= set(self.freeze):
            raise ValueError("freeze: with encoder and decoder both frozen hardly anything is left to train")
        if self.shape is not None and self.shape.tie_word_embeddings and "classifier" in self.freeze:
            raise ValueError("freeze: the classifier is the embedding in this model: name that")
        if self.lora is not None and self.freeze:
            raise ValueError("freeze has no effect with lora, which trains none of the model's own weights")
        if self.lora is not None and self.shape is not None:
            raise ValueError(
                "lora changes a trained model a little; one of shape has random weights: give folder or hub"
            )
        return self

    @model_validator(mode="after")
    def _one_origin(self) -> ModelBlock:
        given = [name for name in ("shape", "folder", "hub") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of shape, folder, hub; given: {', '.join(given) or 'none'}")
        if self.revision is not None and self.hub is None:
            raise ValueError("revision is for a model from the hub")
        if self.dropout_rate is not None and self.shape is not None:
            raise ValueError("set shape.dropout_rate instead of dropout_rate")
        return self
