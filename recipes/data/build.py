"""Making the files of a token cache out of texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recipes.config import DataBlock, TaskBlock
from recipes.data.chunks import Texts, joined_chunks, separate_chunks
from recipes.data.counts import SplitCounts
from recipes.data.denoising import Denoiser, Pair, denoisers
from recipes.data.sources import Examples
from recipes.data.token_files import PAIR, ROWS_PER_BATCH, TokenSplit, TokenWriter
from recipes.data.tokenizer import MAX_TRAINING_CHARS, TextTokenizer, offsets_of, train_unigram, truncate_tokens
from recipes.errors import UserError

Say = Callable[[str], None]
_NAMES = {"train": "training", "held_out": "held-out"}
_NO_IDS = np.zeros(0, np.int32)
_CHARS_AT_ONCE = 4_000_000
# Chunks are cut the same way whatever the run's seed, so that runs with other seeds share a cache.
_CUTTING = 1
# Enough for token frequencies; the held-out ones are all counted.
NUM_DRAWN_FOR_BASELINE = 20_000


class TaskTexts(NamedTuple):
    """A task's texts. num_dropped: training examples that are also held out, and were taken away."""

    task: TaskBlock
    train: Examples
    held_out: Examples
    num_dropped: int


def build_cache(
    folder: Path, config: DataBlock, parts: Sequence[TaskTexts], tokenizer: TextTokenizer | None, say: Say
) -> dict[str, Any]:
    """Write ``train.arrow``, ``held_out.arrow`` and ``tokenizer/`` into ``folder`` and return the meta data.

    Args:
        tokenizer: None trains one on the training texts of all tasks.

    Raises:
        UserError: texts longer than the limits with on_too_long: refuse; no room in the vocabulary; an objective that
            the limits or the tokenizer leave no room for.
    """
    started = time.monotonic()
    tokenizer = tokenizer or _trained_tokenizer(config, parts, say)
    tokenizer.save(folder / "tokenizer")
    plans = _objectives(config, parts, tokenizer)
    kinds = [denoiser for plan in plans for denoiser in plan.denoisers]
    counts, splits = {}, {}
    for name in _NAMES:
        path = folder / f"{name}.arrow"
        counts[name] = SplitCounts(tokenizer.vocab_size, say_name=_NAMES[name])
        with TokenWriter(path) as writer:
            for plan in plans:
                examples = getattr(plan.texts, name)
                if plan.denoisers:
                    _write_chunks(writer, plan, examples, tokenizer, counts[name])
                else:
                    _write_pairs(writer, plan, examples, tokenizer, config, counts[name])
        splits[name] = TokenSplit(path, counts[name].file_names, kinds, tokenizer.sentinel_ids, tokenizer.eos_id)
        counts[name].count_drawn_targets(splits[name], None if name == "held_out" else NUM_DRAWN_FOR_BASELINE)
    too_long = [line for name in counts for line in counts[name].refusals(config)]
    if too_long:
        raise UserError("\n".join(too_long))
    for name in counts:
        counts[name].tell(say)
    _check_each_has_examples(parts, splits)
    sizes = {name: np.bincount(splits[name].tasks, minlength=len(parts)).tolist() for name in splits}
    return {
        "settings": config.model_dump(mode="json"),
        "train": counts["train"].meta(splits["train"]),
        "held_out": counts["held_out"].meta(splits["held_out"]),
        "tasks": [
            {
                "name": part.task.name,
                "objective": part.task.objective.kind,
                "source": part.task.source,
                "eval_source": part.task.eval_source,
                "train_examples": sizes["train"][i],
                "held_out_examples": sizes["held_out"][i],
                "dropped_from_train": part.num_dropped,
            }
            for i, part in enumerate(parts)
        ],
        "denoisers": [denoiser.to_dict() for denoiser in kinds],
        "baseline": _baselines(counts["train"].target_ids, counts["held_out"].target_ids),
        "tokenizer": {
            "kind": config.tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "pad_id": tokenizer.pad_id,
            "eos_id": tokenizer.eos_id,
            "unk_id": tokenizer.unk_id,
            "sentinel_ids": list(tokenizer.sentinel_ids),
        },
        "seconds": round(time.monotonic() - started, 3),
    }


@dataclass(frozen=True)
class _TaskPlan:
    """number: the task's. denoisers: of an objective of text alone, else none; first: the first one's number."""

    number: int
    texts: TaskTexts
    denoisers: list[Denoiser]
    first: int


def _objectives(config: DataBlock, parts: Sequence[TaskTexts], tokenizer: TextTokenizer) -> list[_TaskPlan]:
    plans: list[_TaskPlan] = []
    first = 0
    for number, part in enumerate(parts):
        objective, kinds = part.task.objective, []
        if objective.of_text_alone:
            kinds = denoisers(
                objective, part.task.prefix, tokenizer, config.max_source_tokens, config.max_target_tokens
            )
        plans.append(_TaskPlan(number, part, kinds, first))
        first += len(kinds)
    return plans


def _trained_tokenizer(config: DataBlock, parts: Sequence[TaskTexts], say: Say) -> TextTokenizer:
    wanted = config.tokenizer.vocab_size
    say(
        f"data: training a vocabulary of {wanted:,} ids on {sum(len(part.train) for part in parts):,} "
        f"{'texts' if all(part.task.objective.of_text_alone for part in parts) else 'examples'}"
    )
    tokenizer = train_unigram(_training_texts(parts), wanted)
    if tokenizer.vocab_size < wanted:
        say(
            f"data: the training text supports {tokenizer.vocab_size:,} token ids, "
            f"fewer than data.tokenizer.vocab_size {wanted:,}"
        )
    return tokenizer


def _training_texts(parts: Sequence[TaskTexts]) -> Iterator[str]:
    """Sources and targets; of very much text every n-th example, so that training stays in minutes."""
    columns = []
    for task, train, *_ in parts:
        columns.append((train.sources, task.prefix))
        if not task.objective.of_text_alone:
            columns.append((train.targets, ""))
        elif task.objective.kind == "ul2":
            yield from vars(task.objective.mode_prefixes).values()
    chars = sum(int(pc.sum(pc.utf8_length(column)).as_py()) for column, _ in columns)
    step = max(1, -(-chars // MAX_TRAINING_CHARS))
    for column, begin in columns:
        picked = pa.array(np.arange(0, len(column), step))
        for chunk in column.take(picked).chunks:
            for start in range(0, len(chunk), ROWS_PER_BATCH):
                yield from (begin + text for text in chunk.slice(start, ROWS_PER_BATCH).to_pylist())


def _check_each_has_examples(parts: Sequence[TaskTexts], splits: dict[str, TokenSplit]) -> None:
    for i, part in enumerate(parts):
        for name, split in splits.items():
            if not (split.tasks == i).any():
                raise UserError(
                    f"{part.task.at}: the {_NAMES[name]} texts of {part.task.source} are shorter than two tokens in all; "
                    "give more text"
                )


def _write_pairs(
    writer: TokenWriter,
    plan: _TaskPlan,
    examples: Examples,
    tokenizer: TextTokenizer,
    config: DataBlock,
    counts: SplitCounts,
) -> None:
    prefix = plan.texts.task.prefix
    limits = {"source": config.max_source_tokens, "target": config.max_target_tokens}
    first_file = counts.add_files(examples)
    for start in range(0, len(examples), ROWS_PER_BATCH):
        encoded = {}
        for name, column in (("source", examples.sources), ("target", examples.targets)):
            texts = column.slice(start, ROWS_PER_BATCH).to_pylist()
            if name == "source" and prefix:
                texts = [prefix + text for text in texts]
            ids, offsets = tokenizer.encode_batch(texts)
            counts.count_side(name, ids, offsets, limits[name], tokenizer, examples, start)
            encoded[name] = truncate_tokens(ids, offsets, limits[name], tokenizer.eos_id)
        counts.count_targets(encoded["target"][0])
        stop = start + ROWS_PER_BATCH
        writer.write(
            encoded["source"],
            encoded["target"],
            examples.file_index[start:stop] + first_file,
            examples.rows[start:stop],
            plan.number,
        )


def _write_chunks(
    writer: TokenWriter, plan: _TaskPlan, examples: Examples, tokenizer: TextTokenizer, counts: SplitCounts
) -> None:
    """Chunks whose noise is drawn when they are read; those of a prefix language model are split here, once for all.

    Which denoiser a chunk has, and where such a chunk is split, decides its lengths: the batch plan needs them.
    """
    first_file = counts.add_files(examples)
    draw = np.random.default_rng([_CUTTING, plan.number])
    cut = joined_chunks if plan.texts.task.objective.join else separate_chunks
    chunks = cut(_encoded(examples, tokenizer, counts), plan.denoisers, draw)
    while batch := list(islice(chunks, ROWS_PER_BATCH)):
        pairs, kinds = [], []
        for chunk in batch:
            denoiser = plan.denoisers[chunk.denoiser]
            if denoiser.takes_spans:
                pairs.append(Pair(chunk.ids, _NO_IDS))
                kinds.append(plan.first + chunk.denoiser)
            else:
                pairs.append(denoiser.draw(chunk.ids, (), tokenizer.eos_id, draw))
                kinds.append(PAIR)
                counts.count_targets(pairs[-1].target)
        texts = np.array([chunk.text for chunk in batch])
        writer.write(
            _flat([pair.source for pair in pairs]),
            _flat([pair.target for pair in pairs]),
            examples.file_index[texts] + first_file,
            examples.rows[texts],
            plan.number,
            np.array(kinds, np.int16),
        )


def _encoded(examples: Examples, tokenizer: TextTokenizer, counts: SplitCounts) -> Iterator[Texts]:
    """Ids of the sources without their end tokens, some texts at a time."""
    lengths = pc.utf8_length(examples.sources).to_numpy()
    part = (np.cumsum(lengths) - lengths) // _CHARS_AT_ONCE
    for number in np.unique(part).tolist():
        begin, end = np.searchsorted(part, [number, number + 1]).tolist()
        ids, offsets = tokenizer.encode_batch(examples.sources.slice(begin, end - begin).to_pylist())
        counts.count_unknown("source", ids, tokenizer)
        keep = np.ones(len(ids), bool)
        keep[offsets[1:] - 1] = False
        yield Texts(ids[keep], offsets - np.arange(len(offsets)))


def _flat(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(rows), offsets_of([len(row) for row in rows])


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
