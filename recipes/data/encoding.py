"""Texts to ids on all cores, window after window, each on the disk before the next: a stopped start goes on from there."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from recipes.data.sources import Examples
from recipes.data.split import ExampleStream
from recipes.data.tokenizer import TextTokenizer, offsets_of

Ids = tuple[np.ndarray, np.ndarray]  # of texts in a row, and where each begins, as a tokenizer returns them
# `tokenizers` uses all cores for one call; a second one fills the gaps, in which Python makes and takes apart its texts.
_CALLS_AT_ONCE = 2
# Of a call. An id takes about 150 bytes until it is in an array, so more texts miss the caches; fewer leave cores idle.
_TEXTS_AT_ONCE = 2048
_CHARS_AT_ONCE = 1_000_000
_TELL_EVERY_S = 30.0
_LIST = pa.large_list(pa.field("item", pa.int32(), nullable=False))


class Encoded(NamedTuple):
    """A window of examples with the ids of its texts, end tokens included; target: None where only sources were wanted."""

    examples: Examples
    source: Ids
    target: Ids | None


class Encoder:
    """Encodes windows of examples and keeps their ids on the disk.

    Attributes:
        num_reused: windows whose ids a start before this one left behind.
    """

    def __init__(self, tokenizer: TextTokenizer, folder: Path, say: Callable[[str], None]):
        """
        Args:
            folder: keeps the ids, a file for each window, until all is done. It must belong to these texts alone.
            say: is told now and then how far it is.
        """
        self._tokenizer, self._folder, self._say = tokenizer, folder, say
        self.num_reused = 0
        folder.mkdir(exist_ok=True)

    def encoded(self, name: str, examples: ExampleStream, prefix: str, sides: Sequence[str]) -> Iterator[Encoded]:
        """All windows in order.

        Args:
            name: tells these examples from others in the folder.
            prefix: in front of every source.
            sides: source, or source and target.
        """
        windows = enumerate(examples.windows())
        num_done, told_at = 0, time.monotonic()
        with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
            running: deque[Future[tuple[Encoded, bool]]] = deque()

            def begin(most: int) -> None:
                for number, window in islice(windows, most):
                    path = self._folder / f"{name}.{number:06}.arrow"
                    running.append(pool.submit(self._window, path, window, prefix, sides))

            try:
                begin(_CALLS_AT_ONCE + 1)
                while running:
                    encoded, reused = running.popleft().result()
                    begin(1)
                    self.num_reused += reused
                    yield encoded
                    num_done += len(encoded.examples)
                    if time.monotonic() - told_at > _TELL_EVERY_S:
                        self._say(f"data: {num_done:,} of {len(examples):,} examples tokenised")
                        told_at = time.monotonic()
            finally:
                pool.shutdown(cancel_futures=True)

    def _window(self, path: Path, window: Examples, prefix: str, sides: Sequence[str]) -> tuple[Encoded, bool]:
        place = crc32(window.file_index.tobytes(), crc32(window.rows.tobytes()))
        ids = _read_part(path, place, sides)
        reused = ids is not None
        if ids is None:
            ids = [
                self._ids(window.sources, prefix) if side == "source" else self._ids(window.targets, "")
                for side in sides
            ]
            _write_part(path, place, sides, ids)
        return Encoded(window, ids[0], ids[1] if len(ids) > 1 else None), reused

    def _ids(self, column: pa.ChunkedArray, prefix: str) -> Ids:
        texts = column.to_pylist()
        if prefix:
            texts = [prefix + text for text in texts]
        found = [self._tokenizer.encode_batch(part) for part in _portions(texts)]
        lengths = np.concatenate([np.diff(offsets) for _, offsets in found])
        return np.concatenate([ids for ids, _ in found]), offsets_of(lengths)


def _portions(texts: list[str]) -> Iterator[list[str]]:
    begin = chars = 0
    for end, text in enumerate(texts):
        if end > begin and (end - begin >= _TEXTS_AT_ONCE or chars + len(text) > _CHARS_AT_ONCE):
            yield texts[begin:end]
            begin, chars = end, 0
        chars += len(text)
    yield texts[begin:]


def _write_part(path: Path, place: int, sides: Sequence[str], ids: Sequence[Ids]) -> None:
    lists = [pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat), type=_LIST) for flat, offsets in ids]
    marks = {"place": str(place), "checksum": str(_checksum(ids))}
    schema = pa.schema([(side, _LIST) for side in sides], marks)
    unfinished = path.with_suffix(".part")
    with pa.OSFile(str(unfinished), "wb") as sink, ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(lists, schema=schema))
    unfinished.replace(path)


def _read_part(path: Path, place: int, sides: Sequence[str]) -> list[Ids] | None:
    """The ids of a window; None where they are not there, or not as they were written (the machine went down)."""
    if not path.exists():
        return None
    try:
        reader = ipc.open_file(pa.memory_map(str(path)))
        marks = reader.schema.metadata or {}
        columns = [reader.get_batch(0).column(side) for side in sides]
    except (pa.ArrowInvalid, OSError, KeyError, IndexError):
        return None
    ids = [(column.values.to_numpy(), column.offsets.to_numpy()) for column in columns]
    if marks.get(b"place") != str(place).encode() or marks.get(b"checksum") != str(_checksum(ids)).encode():
        return None
    return ids


def _checksum(ids: Sequence[Ids]) -> int:
    value = 0
    for arrays in ids:
        for array in arrays:
            value = crc32(memoryview(np.ascontiguousarray(array)).cast("B"), value) if len(array) else value
    return value
