"""How many parameters a T5 has, from its description alone: no weights, no network, no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.config import ModelBlock, RunConfig, ShapeBlock
from recipes.config.published import CHECKPOINTS, MODEL_TYPES
from recipes.errors import UserError, nearest

# ByT5's ids: 3 special, 256 bytes, 125 sentinels.
_NUM_BYTE_IDS = 384
# What tokenizers of published models know; most models round the number up.
_TOKENIZER_IDS = {"t5": 32100, "mt5": 250100, "byt5": _NUM_BYTE_IDS}


@dataclass(frozen=True)
class T5Shape:
    """The numbers that decide a T5's size.

    d_model: width of the residual stream. d_kv: of one head. d_ff: inside the feed-forward layers. gated: two input
    matrices there (T5 v1.1) instead of one. tied: one matrix for embedding and classifier.
    """

    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_decoder_layers: int
    num_heads: int
    gated: bool
    tied: bool
    vocab_size: int
    num_buckets: int = 32

    @property
    def inner(self) -> int:
        """Width of all heads together."""
        return self.num_heads * self.d_kv

    @property
    def attention_matrices(self) -> int:
        """Parameters of one attention: q, k, v, o."""
        return 4 * self.d_model * self.inner

    @property
    def feed_forward_matrices(self) -> int:
        return (3 if self.gated else 2) * self.d_model * self.d_ff

    def part_sizes(self) -> list[tuple[set[str], int]]:
        """Of every parameter tensor what ``model.freeze`` calls it, and its elements; in no particular order."""
        d, matrix = self.d_model, self.d_model * self.inner
        feed_forward = [d * self.d_ff] * (3 if self.gated else 2)
        sizes = [({"embedding"}, self.vocab_size * d)] + [({"classifier"}, self.vocab_size * d)] * (not self.tied)
        for stack, layers, attentions in (("encoder", self.num_layers, 1), ("decoder", self.num_decoder_layers, 2)):
            sizes += [({stack}, size) for size in layers * ([matrix] * 4 * attentions + feed_forward)]
            norms = [d] * (layers * (attentions + 1) + 1) + [self.num_buckets * self.num_heads]
            sizes += [({stack, "norms"}, size) for size in norms]
        return sizes

    def parameter_sizes(self) -> list[int]:
        """Elements of every parameter tensor, in no particular order."""
        return [size for _, size in self.part_sizes()]

    def num_trained(self, model: ModelBlock) -> int:
        """Parameters that an optimizer steps: those not frozen, or LoRA's own."""
        if model.lora is None:
            return sum(size for parts, size in self.part_sizes() if not parts & set(model.freeze))
        into, out_of = self.d_model + self.inner, self.d_model + self.d_ff
        attentions = self.num_layers + 2 * self.num_decoder_layers
        each = dict.fromkeys("qkvo", attentions * into)
        inputs = ("wi_0", "wi_1") if self.gated else ("wi",)
        each |= dict.fromkeys((*inputs, "wo"), (self.num_layers + self.num_decoder_layers) * out_of)
        return model.lora.rank * sum(each.get(target, 0) for target in model.lora.targets)

    @property
    def num_parameters(self) -> int:
        return sum(self.parameter_sizes())


def shape_of(config: RunConfig, vocab_size: int | None = None) -> T5Shape:
    """The shape of a config's model.

    vocab_size: token ids of a model of one's own shape, where the config alone does not tell.

    Raises:
        UserError: a hub name that is not in `CHECKPOINTS`, a folder without a T5's config.json, an unknown vocabulary, or
            ``vocab_size`` for a model that has its own.
    """
    model = config.model
    if vocab_size is not None and model.shape is None:
        raise UserError(f"--vocab-size {vocab_size}: model {model.hub or model.folder} has its own; leave it out")
    if model.hub is not None:
        if model.hub not in CHECKPOINTS:
            raise UserError(
                f"model.hub {model.hub}: not one of the published T5 sizes known here"
                f"{_nearest_published(model.hub)}; for another model give model.folder or model.shape"
            )
        return published_shape(model.hub)
    if model.folder is not None:
        return _shape_of_folder(Path(model.folder))
    return shape_of_block(model.shape, vocab_size or _vocab_size(config))


def published_shape(name: str) -> T5Shape:
    """Of a name in `CHECKPOINTS`."""
    size, rows = CHECKPOINTS[name]
    return shape_of_block(ShapeBlock(preset=size), rows)


def _nearest_published(name: str) -> str:
    text = nearest(name, list(CHECKPOINTS))
    return text.removesuffix("?") if "did you mean" in text else ""


def shape_of_block(block: ShapeBlock, vocab_size: int) -> T5Shape:
    return T5Shape(
        d_model=block.d_model,
        d_kv=block.d_kv,
        d_ff=block.d_ff,
        num_layers=block.num_layers,
        num_decoder_layers=block.num_decoder_layers or block.num_layers,
        num_heads=block.num_heads,
        gated=block.feed_forward_proj.startswith("gated"),
        tied=block.tie_word_embeddings,
        vocab_size=vocab_size,
        num_buckets=block.relative_attention_num_buckets,
    )


def _shape_of_folder(folder: Path) -> T5Shape:
    content = _read_json(folder / "config.json", f"model.folder {folder}")
    if content.get("model_type") not in MODEL_TYPES:
        raise UserError(f"model.folder {folder}: its config.json is of a {content.get('model_type')}, not a T5")
    names = ("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size")
    wrong = [name for name in names if not isinstance(content.get(name), int) or content[name] < 1]
    if wrong:
        raise UserError(
            f"model.folder {folder}: {wrong[0]} in its config.json is {content.get(wrong[0])!r}, not a count"
        )
    return T5Shape(
        **{name: content[name] for name in names},
        num_decoder_layers=content.get("num_decoder_layers") or content["num_layers"],
        gated=content.get("feed_forward_proj", "relu").startswith("gated"),
        tied=content.get("tie_word_embeddings", True),
        num_buckets=content.get("relative_attention_num_buckets", 32),
    )


def _vocab_size(config: RunConfig) -> int:
    """Token ids of the config's tokenizer; a Unigram one may come out smaller on little text."""
    tokenizer = config.data.tokenizer
    if tokenizer.kind == "unigram":
        return tokenizer.vocab_size
    if tokenizer.kind == "bytes":
        return _NUM_BYTE_IDS
    if tokenizer.kind == "hub":
        if tokenizer.path not in CHECKPOINTS:
            raise UserError(
                f"data.tokenizer.path {tokenizer.path}: its number of token ids is not known here without the network; "
                "give --vocab-size"
            )
        family = tokenizer.path.rsplit("/", 1)[-1].split("-")[0]
        return _TOKENIZER_IDS.get(family, _TOKENIZER_IDS["t5"])
    return _ids_of_folder(Path(tokenizer.path))


def _ids_of_folder(folder: Path) -> int:
    content = _read_json(folder / "tokenizer.json", f"data.tokenizer.path {folder}")
    vocabulary: Any = content.get("model", {}).get("vocab", [])
    added = [entry["id"] for entry in content.get("added_tokens", [])]
    return max([len(vocabulary) - 1, *added]) + 1


def _read_json(path: Path, where: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{where}: no {path.name} there; give a save_pretrained folder") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: {path.name} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise UserError(f"{where}: {path.name} is not a JSON object")
    return content
