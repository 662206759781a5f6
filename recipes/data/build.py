"""Making the files of a token cache out of texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recipes.config import DataBlock
from recipes.data.sources import NUM_NAMED_ROWS, Examples, too_long_refusal
from recipes.data.token_files import ROWS_PER_BATCH, TokenWriter
from recipes.data.tokenizer import MAX_TRAINING_CHARS, TextTokenizer, train_unigram, truncate_tokens
from recipes.errors import UserError

Say = Callable[[str], None]
_NAMES = {"train": "training", "held_out": "held-out"}


def build_cache(
    folder: Path, config: DataBlock, train: Examples, held_out: Examples, tokenizer: TextTokenizer | None, say: Say
) -> dict[str, Any]:
    """Write ``train.arrow``, ``held_out.arrow`` and ``tokenizer/`` into ``folder`` and return the meta data.

    Args:
        tokenizer: None trains one on the training texts.

    Raises:
        UserError: texts longer than the limits with on_too_long: refuse; no room in the vocabulary.
    """
    started = time.monotonic()
    if tokenizer is None:
        say(f"data: training a vocabulary of {config.tokenizer.vocab_size:,} ids on {len(train):,} examples")
        tokenizer = train_unigram(_training_texts(train, config.prefix), config.tokenizer.vocab_size)
        if tokenizer.vocab_size < config.tokenizer.vocab_size:
            say(
                f"data: the training text supports {tokenizer.vocab_size:,} token ids, "
                f"fewer than data.tokenizer.vocab_size {config.tokenizer.vocab_size:,}"
            )
    tokenizer.save(folder / "tokenizer")
    counts = {}
    for name, examples in (("train", train), ("held_out", held_out)):
        counts[name] = _write_split(folder / f"{name}.arrow", config, examples, tokenizer)
    too_long = [line for name in counts for line in counts[name].refusals(name, config)]
    if too_long:
        raise UserError("\n".join(too_long))
    for name in counts:
        counts[name].tell(name, say)
    return {
        "source": config.source,
        "eval_source": config.eval_source,
        "settings": config.model_dump(mode="json"),
        "train": counts["train"].meta(train),
        "held_out": counts["held_out"].meta(held_out),
        "baseline": _baselines(counts["train"].target_ids, counts["held_out"].target_ids),
        "tokenizer": {
            "kind": config.tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "pad_id": tokenizer.pad_id,
            "eos_id": tokenizer.eos_id,
            "unk_id": tokenizer.unk_id,
        },
        "seconds": round(time.monotonic() - started, 3),
    }


@dataclass
class _SideCounts:
    """Of all sources, or all targets, of a split."""

    tokens: int = 0
    unknown: int = 0
    longest: int = 0
    num_too_long: int = 0
    first_too_long: list[str] = field(default_factory=list)
    num_inner_ends: int = 0
    first_inner_end: str = ""


class _Counts:
    def __init__(self, vocab_size: int):
        self.sides = {"source": _SideCounts(), "target": _SideCounts()}
        self.target_ids = np.zeros(vocab_size, np.int64)

    def refusals(self, split: str, config: DataBlock) -> list[str]:
        """A line for each side with texts that are too long, where that is refused."""
        if config.on_too_long == "truncate":
            return []
        limits = {"source": config.max_source_tokens, "target": config.max_target_tokens}
        lines = []
        for name, side in self.sides.items():
            if side.num_too_long:
                lines.append(
                    too_long_refusal(
                        name,
                        f"{_NAMES[split]} {name}",
                        limits[name],
                        side.num_too_long,
                        side.first_too_long,
                        side.longest,
                    )
                )
        return lines

    def tell(self, split: str, say: Say) -> None:
        for name, side in self.sides.items():
            if side.num_too_long:
                say(
                    f"data: {side.num_too_long:,} {_NAMES[split]} {name} texts cut off (longest: {side.longest} tokens)"
                )
            if side.num_inner_ends:
                say(
                    f"data: {side.num_inner_ends:,} {_NAMES[split]} {name} texts name the end token themselves, "
                    f"first {side.first_inner_end}; what follows it is lost in generated text"
                )

    def meta(self, examples: Examples) -> dict[str, Any]:
        numbers: dict[str, Any] = {
            "examples": len(examples),
            "rows_read": examples.num_read,
            "rows_skipped": examples.skipped,
        }
        for name, side in self.sides.items():
            numbers |= {
                f"{name}_tokens": side.tokens,
                f"{name}_unknown_tokens": side.unknown,
                f"longest_{name}": side.longest,
                f"truncated_{name}s": side.num_too_long,
            }
        return numbers | {"file_names": examples.file_names}


def _training_texts(examples: Examples, prefix: str) -> Iterator[str]:
    """Sources and targets; of very much text every n-th example, so that training stays in minutes."""
    chars = sum(int(pc.sum(pc.utf8_length(column)).as_py()) for column in (examples.sources, examples.targets))
    step = -(-chars // MAX_TRAINING_CHARS)
    picked = pa.array(np.arange(0, len(examples), max(1, step)))
    for column, begin in ((examples.sources, prefix), (examples.targets, "")):
        for chunk in column.take(picked).chunks:
            for start in range(0, len(chunk), ROWS_PER_BATCH):
                yield from (begin + text for text in chunk.slice(start, ROWS_PER_BATCH).to_pylist())


def _write_split(path: Path, config: DataBlock, examples: Examples, tokenizer: TextTokenizer) -> _Counts:
    counts = _Counts(tokenizer.vocab_size)
    limits = {"source": config.max_source_tokens, "target": config.max_target_tokens}
    with TokenWriter(path) as writer:
        for start in range(0, len(examples), ROWS_PER_BATCH):
            encoded = {}
            for name, column in (("source", examples.sources), ("target", examples.targets)):
                texts = column.slice(start, ROWS_PER_BATCH).to_pylist()
                if name == "source" and config.prefix:
                    texts = [config.prefix + text for text in texts]
                ids, offsets = tokenizer.encode_batch(texts)
                _count_side(counts.sides[name], ids, offsets, limits[name], tokenizer, examples, start)
                encoded[name] = truncate_tokens(ids, offsets, limits[name], tokenizer.eos_id)
                counts.sides[name].tokens += len(encoded[name][0])
            counts.target_ids += np.bincount(encoded["target"][0], minlength=tokenizer.vocab_size)
            stop = start + ROWS_PER_BATCH
            writer.write(
                encoded["source"], encoded["target"], examples.file_index[start:stop], examples.rows[start:stop]
            )
    return counts


def _count_side(
    side: _SideCounts,
    ids: np.ndarray,
    offsets: np.ndarray,
    limit: int,
    tokenizer: TextTokenizer,
    examples: Examples,
    start: int,
) -> None:
    lengths = np.diff(offsets)
    side.longest = max(side.longest, int(lengths.max()))
    if tokenizer.unk_id is not None:
        side.unknown += int((ids == tokenizer.unk_id).sum())
    too_long = np.flatnonzero(lengths > limit)
    side.num_too_long += len(too_long)
    for i in too_long[: NUM_NAMED_ROWS - len(side.first_too_long)].tolist():
        side.first_too_long.append(f"{examples.where(start + i)} ({lengths[i]} tokens)")
    ends = np.add.reduceat((ids == tokenizer.eos_id).astype(np.int32), offsets[:-1])
    inner = np.flatnonzero(ends > 1)
    side.num_inner_ends += len(inner)
    if len(inner) and not side.first_inner_end:
        side.first_inner_end = examples.where(start + int(inner[0]))


def _baselines(train: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
    """What a model must beat: nats per held-out target token for guesses that know token frequencies only.

    ``held_out_entropy`` takes the frequencies of the held-out targets themselves (no model without context can be
    better); ``train_unigram`` those of the training targets, plus one for every id.
    """
    share = held_out[held_out > 0] / held_out.sum()
    smoothed = (train + 1) / (train.sum() + len(train))
    return {
        "held_out_entropy": float(-(share * np.log(share)).sum()),
        "train_unigram": float(-(held_out / held_out.sum() * np.log(smoothed)).sum()),
    }
