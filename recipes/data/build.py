"""Making the files of a token cache out of texts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from recipes.config import DataBlock, TaskBlock
from recipes.data.chunks import Texts, joined_chunks, separate_chunks
from recipes.data.counts import SplitCounts
from recipes.data.denoising import Denoiser, Pair, denoisers
from recipes.data.encoding import Encoded, Encoder, PoolOf
from recipes.data.sources import Examples
from recipes.data.split import Split
from recipes.data.token_files import PAIR, ROWS_PER_BATCH, TokenSplit, TokenWriter
from recipes.data.tokenizer import MAX_TRAINING_CHARS, TextTokenizer, offsets_of, train_unigram, truncate_tokens
from recipes.errors import UserError

Say = Callable[[str], None]
_NAMES = {"train": "training", "held_out": "held-out"}
_SIDES = ("source", "target")
_NO_IDS = np.zeros(0, np.int32)
_IDS_PER_BATCH = 1 << 26
# Chunks are cut the same way whatever the run's seed, so that runs with other seeds share a cache.
_CUTTING = 1
# Enough for token frequencies; the held-out ones are all counted.
NUM_DRAWN_FOR_BASELINE = 20_000


class TaskTexts(NamedTuple):
    """A task and its texts."""

    task: TaskBlock
    split: Split


def build_cache(
    folder: Path,
    config: DataBlock,
    parts: Sequence[TaskTexts],
    tokenizer: TextTokenizer | None,
    pool_of: PoolOf,
    say: Say,
) -> dict[str, Any]:
    """Write ``train.arrow``, ``held_out.arrow`` and ``tokenizer/`` into ``folder`` and return the meta data.

    Args:
        folder: empty, or what a start that was stopped left of the same texts, tokenizer and settings.
        tokenizer: None trains one on the training texts of all tasks.
        pool_of: where texts are tokenised.

    Raises:
        UserError: texts longer than the limits with on_too_long: refuse; no room in the vocabulary; an objective that
            the limits or the tokenizer leave no room for.
    """
    started = time.monotonic()
    tokenizer = _kept_tokenizer(folder / "tokenizer", lambda: tokenizer or _trained_tokenizer(config, parts, say))
    plans = _objectives(config, parts, tokenizer)
    with pool_of(tokenizer) as pool:
        encoder = Encoder(pool, folder / "ids", say)
        written = {name: _write_split(name, folder, config, plans, tokenizer, encoder) for name in _NAMES}
    counts, splits = ({name: both[i] for name, both in written.items()} for i in (0, 1))
    if encoder.num_reused:
        say(f"data: {encoder.num_reused:,} parts were there already, from a start that was stopped")
    too_long = [line for name in counts for line in counts[name].refusals(config)]
    if too_long:
        raise UserError("\n".join(too_long))
    for name in counts:
        counts[name].tell(say)
    _check_each_has_examples(parts, splits)
    shutil.rmtree(folder / "ids")
    sizes = {name: split.task_sizes(len(parts)) for name, split in splits.items()}
    return {
        "settings": config.model_dump(mode="json"),
        "train": counts["train"].meta(splits["train"]),
        "held_out": counts["held_out"].meta(splits["held_out"]),
        "tasks": [_task_meta(part, sizes["train"][i], sizes["held_out"][i]) for i, part in enumerate(parts)],
        "denoisers": [denoiser.to_dict() for denoiser in _kinds(plans)],
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


def _write_split(
    name: str,
    folder: Path,
    config: DataBlock,
    plans: Sequence[_TaskPlan],
    tokenizer: TextTokenizer,
    encoder: Encoder,
) -> tuple[SplitCounts, TokenSplit]:
    path, counts = folder / f"{name}.arrow", SplitCounts(tokenizer.vocab_size, say_name=_NAMES[name])
    with TokenWriter(path, _rows_per_batch(config)) as writer:
        for plan in plans:
            examples = getattr(plan.texts.split, name)
            first_file = counts.add_files(examples)
            texts = encoder.encoded(f"{name}.{plan.number}", examples, plan.prefix, plan.sides)
            write = _write_chunks if plan.denoisers else _write_pairs
            write(writer, plan, texts, first_file, tokenizer, config, counts)
    split = TokenSplit(path, counts.file_names, _kinds(plans), tokenizer.sentinel_ids, tokenizer.eos_id)
    counts.count_drawn_targets(split, None if name == "held_out" else NUM_DRAWN_FOR_BASELINE)
    return counts, split


def _task_meta(part: TaskTexts, num_train: int, num_held_out: int) -> dict[str, Any]:
    return {
        "name": part.task.name,
        "objective": part.task.objective.kind,
        "source": part.task.source,
        "eval_source": part.task.eval_source,
        "train_examples": num_train,
        "held_out_examples": num_held_out,
        "dropped_from_train": part.split.num_dropped,
    }


@dataclass(frozen=True)
class _TaskPlan:
    """number: the task's. denoisers: of an objective of text alone, else none; first: the first one's number."""

    number: int
    texts: TaskTexts
    denoisers: list[Denoiser]
    first: int

    @property
    def prefix(self) -> str:
        """What the tokenizer puts in front of every source; of chunks it is put there when they are drawn."""
        return "" if self.denoisers else self.texts.task.prefix

    @property
    def sides(self) -> tuple[str, ...]:
        return ("source",) if self.denoisers else ("source", "target")


def _kinds(plans: Sequence[_TaskPlan]) -> list[Denoiser]:
    """Of all tasks: what the numbers in the token files' column of denoisers mean."""
    return [denoiser for plan in plans for denoiser in plan.denoisers]


def _rows_per_batch(config: DataBlock) -> int:
    """Those of the token files: so many that a batch of the longest examples is some hundred MB."""
    return min(ROWS_PER_BATCH, _IDS_PER_BATCH // (config.max_source_tokens + config.max_target_tokens))


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


def _kept_tokenizer(folder: Path, make: Callable[[], TextTokenizer]) -> TextTokenizer:
    """The one in ``folder``, left by a start that was stopped; else a new one, which is put there."""
    if folder.exists():
        return TextTokenizer.load(folder)
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    tokenizer = make()
    tokenizer.save(unfinished)
    unfinished.rename(folder)
    return tokenizer


def _trained_tokenizer(config: DataBlock, parts: Sequence[TaskTexts], say: Say) -> TextTokenizer:
    wanted = config.tokenizer.vocab_size
    say(
        f"data: training a vocabulary of {wanted:,} ids on {sum(len(part.split.train) for part in parts):,} "
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
    for task, _ in parts:
        if task.objective.kind == "ul2":
            yield from vars(task.objective.mode_prefixes).values()
    wanted = [(task, split.train, ["source"] if task.objective.of_text_alone else _SIDES) for task, split in parts]
    chars = sum(train.num_chars[side] for _, train, sides in wanted for side in sides)
    step = max(1, -(-chars // MAX_TRAINING_CHARS))
    for task, train, sides in wanted:
        num_seen = 0
        for window in train.windows():
            picked = pa.array(np.arange(-num_seen % step, len(window), step))
            num_seen += len(window)
            for side in sides:
                column, begin = (window.sources, task.prefix) if side == "source" else (window.targets, "")
                yield from (begin + text for text in column.take(picked).to_pylist())


def _check_each_has_examples(parts: Sequence[TaskTexts], splits: dict[str, TokenSplit]) -> None:
    for i, part in enumerate(parts):
        for name, split in splits.items():
            if not split.task_sizes(len(parts))[i]:
                raise UserError(
                    f"{part.task.at}: the {_NAMES[name]} texts of {part.task.source} are shorter than two tokens in all; "
                    "give more text"
                )


def _write_pairs(
    writer: TokenWriter,
    plan: _TaskPlan,
    texts: Iterator[Encoded],
    first_file: int,
    tokenizer: TextTokenizer,
    config: DataBlock,
    counts: SplitCounts,
) -> None:
    limits = {"source": config.max_source_tokens, "target": config.max_target_tokens}
    for window in texts:
        cut = {}
        for name in _SIDES:
            ids, offsets = getattr(window, name)
            counts.count_side(name, ids, offsets, limits[name], tokenizer, window.examples)
            cut[name] = truncate_tokens(ids, offsets, limits[name], tokenizer.eos_id)
        counts.count_targets(cut["target"][0])
        examples = window.examples
        writer.write(cut["source"], cut["target"], examples.file_index + first_file, examples.rows, plan.number)


def _write_chunks(
    writer: TokenWriter,
    plan: _TaskPlan,
    texts: Iterator[Encoded],
    first_file: int,
    tokenizer: TextTokenizer,
    config: DataBlock,
    counts: SplitCounts,
) -> None:
    """Chunks whose noise is drawn when they are read; those of a prefix language model are split here, once for all.

    Which denoiser a chunk has, and where such a chunk is split, decides its lengths: the batch plan needs them.
    """
    places = _Places()
    draw = np.random.default_rng([_CUTTING, plan.number])
    cut = joined_chunks if plan.texts.task.objective.join else separate_chunks
    chunks = cut(_without_ends(texts, places, tokenizer, counts), plan.denoisers, draw)
    # Of several denoisers the draws of kinds and of splits take turns: another number would be other data.
    at_once = ROWS_PER_BATCH if len(plan.denoisers) > 1 else _rows_per_batch(config)
    while batch := list(islice(chunks, at_once)):
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
        files, rows = places.of(np.array([chunk.text for chunk in batch]))
        writer.write(
            _flat([pair.source for pair in pairs]),
            _flat([pair.target for pair in pairs]),
            files + first_file,
            rows,
            plan.number,
            np.array(kinds, np.int16),
        )


def _without_ends(
    texts: Iterator[Encoded], places: _Places, tokenizer: TextTokenizer, counts: SplitCounts
) -> Iterator[Texts]:
    """The sources without their end tokens."""
    for window in texts:
        ids, offsets = window.source
        counts.count_unknown("source", ids, tokenizer)
        keep = np.ones(len(ids), bool)
        keep[offsets[1:] - 1] = False
        places.add(window.examples)
        yield Texts(ids[keep], offsets - np.arange(len(offsets)))


class _Places:
    """Files and rows of texts, by number from 0, which are asked for in rising order."""

    def __init__(self) -> None:
        self._first = 0
        self._files, self._rows = np.zeros(0, np.int32), np.zeros(0, np.int64)

    def add(self, examples: Examples) -> None:
        self._files = np.concatenate([self._files, examples.file_index])
        self._rows = np.concatenate([self._rows, examples.rows])

    def of(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of these texts; those before the first of them are forgotten."""
        gone = int(texts[0]) - self._first
        self._files, self._rows, self._first = self._files[gone:], self._rows[gone:], int(texts[0])
        return self._files[texts - self._first], self._rows[texts - self._first]


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
