"""Which examples are trained on and which are held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from recipes.config import DataBlock, TaskBlock
from recipes.data.sources import Examples, TextDigest, TextSource, UnusableRows
from recipes.errors import UserError


class ExampleStream:
    """Examples of one side of a split. No text is kept: each time they are asked for they are read again.

    Attributes:
        file_names, num_read, skipped: of the whole source, as in :class:`recipes.data.sources.Examples`.
        num_chars: of all sources, and of all targets.
        digest: of texts, order and places.
    """

    def __init__(self, source: TextSource):
        self.file_names = source.file_names
        self.num_read, self.skipped, self.digest = 0, {}, ""
        self.num_chars = {"source": 0, "target": 0}
        self._source = source
        self._masks: list[np.ndarray] = []  # of every window, a bit a row
        self._sizes: list[int] = []
        self._state = TextDigest()
        self._num = 0

    def __len__(self) -> int:
        return self._num

    def add(self, window: Examples, mask: np.ndarray) -> None:
        """Take these rows of the source's next window."""
        self._masks.append(np.packbits(mask))
        self._sizes.append(len(mask))
        self._num += int(mask.sum())
        picked = window.select(mask)
        self._state.add(picked)
        for side, column in (("source", picked.sources), ("target", picked.targets)):
            self.num_chars[side] += pc.sum(pc.utf8_length(column)).as_py() or 0

    def close(self, num_read: int, skipped: dict[str, int]) -> None:
        """After the last window."""
        self.num_read, self.skipped = num_read, skipped
        self.digest = self._state.name(self.file_names, num_read, skipped)

    def windows(self) -> Iterator[Examples]:
        """The examples, some at a time.

        Raises:
            UserError: the files have other rows than before.
        """
        number = 0
        for number, (window, _) in enumerate(self._source.windows(), start=1):
            if number > len(self._sizes) or len(window) != self._sizes[number - 1]:
                raise self._changed()
            mask = np.unpackbits(self._masks[number - 1], count=len(window)).astype(bool)
            if mask.any():
                yield window.select(mask)
        if number < len(self._sizes):
            raise self._changed()

    def _changed(self) -> UserError:
        return UserError(
            f"{self._source.field_name}: {self._source.uri} was changed while it was being read; start again"
        )


class Split(NamedTuple):
    """num_dropped: training examples that are also held out, and were taken away."""

    train: ExampleStream
    held_out: ExampleStream
    num_dropped: int


def split_examples(config: DataBlock, say: Callable[[str], None], task: TaskBlock | None = None) -> Split:
    """Read a task's sources and part them.

    Without ``eval_source`` the hash of the source text decides, so a source text is on one side only, the same side
    in every run, on every machine, and whatever other rows are added. With ``eval_source``, training examples whose
    source text is also held out are dropped (said, and counted in the meta data): the evaluation would else measure
    memory. Texts are told apart by 16 bytes of blake2b.

    Raises:
        UserError: one side is empty; and all that :func:`recipes.data.sources.read_examples` raises.
    """
    task = task or config.texts[0]
    source = TextSource(config, "source", task)
    if task.eval_source is None:
        train, held_out = _parted(source, lambda texts: held_out_mask(texts, task.held_out_ratio))
        if not len(train) or not len(held_out):
            raise UserError(
                f"{task.at}.held_out_ratio: {task.held_out_ratio} of {len(train) + len(held_out):,} examples left "
                f"{len(train):,} to train on and {len(held_out):,} held out; "
                "change the ratio, give more data, or name an eval_source"
            )
        return Split(train, held_out, 0)
    seen: set[bytes] = set()

    def noted(texts: list[str]) -> np.ndarray:
        seen.update(map(_name, texts))
        return np.zeros(len(texts), bool)

    held_out, _ = _parted(TextSource(config, "eval_source", task), noted)
    train, dropped = _parted(source, lambda texts: np.array([_name(text) in seen for text in texts], bool))
    if not len(train):
        raise UserError(
            f"{task.at}.eval_source: all {len(dropped):,} source texts of {task.source} are also in "
            f"{task.eval_source}; nothing is left to train on"
        )
    if len(dropped):
        say(f"data: {len(dropped):,} training examples dropped, their source text is in {task.at}.eval_source")
    return Split(train, held_out, len(dropped))


def _parted(source: TextSource, apart: Callable[[list[str]], np.ndarray]) -> tuple[ExampleStream, ExampleStream]:
    """Usable examples for whose source text ``apart`` is False, and those for which it is True."""
    streams, unusable = (ExampleStream(source), ExampleStream(source)), UnusableRows()
    for window, good in source.usable(unusable):
        picked = np.zeros(len(window), bool)
        picked[good] = apart(window.select(good).sources.to_pylist())
        streams[0].add(window, good & ~picked)
        streams[1].add(window, good & picked)
    for stream in streams:
        stream.close(unusable.num_read, dict(unusable.by_reason))
    return streams


def held_out_mask(sources: list[str], ratio: float) -> np.ndarray:
    """True where the first 8 bytes of blake2b(source) fall below ``ratio``."""
    limit = int(ratio * 2**64).to_bytes(8, "big")
    return np.fromiter(
        (blake2b(text.encode("utf-8"), digest_size=8).digest() < limit for text in sources), bool, len(sources)
    )


def _name(text: str) -> bytes:
    return blake2b(text.encode("utf-8"), digest_size=16).digest()
