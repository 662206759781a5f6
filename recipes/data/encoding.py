"""Texts to ids, window after window, several at once, each kept on the disk: a stopped start goes on from there."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol
from zlib import crc32

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from recipes.data.sources import Examples
from recipes.data.split import ExampleStream
from recipes.data.tokenizer import TextTokenizer, offsets_of

Ids = tuple[np.ndarray, np.ndarray]  # of texts in a row, and where each begins, as a tokenizer returns them
Texts = Sequence[tuple[pa.ChunkedArray, str]]  # columns, each with what goes in front of its texts
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


class Pool(Protocol):
    """Tokenises windows somewhere.

    Attributes:
        num_at_once: windows that are to be begun before the first of them is waited for.
    """

    num_at_once: int

    def begin(self, texts: Texts) -> Callable[[], list[Ids]]:
        """Returns at once; what is returned waits for the ids of each column, as :func:`encode` returns them."""


# Opens a pool for a tokenizer, and closes it.
PoolOf = Callable[[TextTokenizer], AbstractContextManager[Pool]]


class _Threads:
    num_at_once = _CALLS_AT_ONCE + 1

    def __init__(self, tokenizer: TextTokenizer, executor: ThreadPoolExecutor):
        self._tokenizer, self._executor = tokenizer, executor

    def begin(self, texts: Texts) -> Callable[[], list[Ids]]:
        return self._executor.submit(encode, self._tokenizer, texts).result


@contextmanager
def in_threads(tokenizer: TextTokenizer) -> Iterator[Pool]:
    """This process alone; `tokenizers` takes all cores by itself."""
    with ThreadPoolExecutor(_CALLS_AT_ONCE) as executor:
        try:
            yield _Threads(tokenizer, executor)
        finally:
            executor.shutdown(cancel_futures=True)


class Encoder:
    """Encodes windows of examples and keeps their ids on the disk.

    Attributes:
        num_reused: windows whose ids a start before this one left behind.
    """

    def __init__(self, pool: Pool, folder: Path, say: Callable[[str], None]):
        """
        Args:
            pool: does the work.
            folder: keeps the ids, a file for each window, until all is done. It must belong to these texts alone.
            say: is told now and then how far it is.
        """
        self._pool, self._folder, self._say = pool, folder, say
        self.num_reused = 0
        folder.mkdir(exist_ok=True)

    def encoded(self, name: str, examples: ExampleStream, prefix: str, sides: Sequence[str]) -> Iterator[Encoded]:
        """All windows in order.

        Args:
            name: tells these examples from others in the folder.
            prefix: in front of every source.
            sides: source, or source and target.
        """
        begun = (
            self._begun(self._folder / f"{name}.{number:06}.arrow", window, prefix, sides)
            for number, window in enumerate(examples.windows())
        )
        running = deque(islice(begun, self._pool.num_at_once))
        num_done, told_at = 0, time.monotonic()
        while running:
            encoded = running.popleft()()
            running.extend(islice(begun, 1))
            yield encoded
            num_done += len(encoded.examples)
            if time.monotonic() - told_at > _TELL_EVERY_S:
                self._say(f"data: {num_done:,} of {len(examples):,} examples tokenised")
                told_at = time.monotonic()

    def _begun(self, path: Path, window: Examples, prefix: str, sides: Sequence[str]) -> Callable[[], Encoded]:
        place = crc32(window.file_index.tobytes(), crc32(window.rows.tobytes()))
        kept = _read_part(path, place, sides)
        if kept is not None:
            self.num_reused += 1
            return lambda: _encoded(window, kept)
        texts = [(window.sources, prefix) if side == "source" else (window.targets, "") for side in sides]
        ids_of = self._pool.begin(texts)

        def finish() -> Encoded:
            ids = ids_of()
            _write_part(path, place, sides, ids)
            return _encoded(window, ids)

        return finish


def encode(tokenizer: TextTokenizer, texts: Texts) -> list[Ids]:
    """Of each column."""
    return [_ids(tokenizer, column, prefix) for column, prefix in texts]


def _ids(tokenizer: TextTokenizer, column: pa.ChunkedArray, prefix: str) -> Ids:
    texts = column.to_pylist()
    if prefix:
        texts = [prefix + text for text in texts]
    found = [tokenizer.encode_batch(part) for part in _portions(texts)]
    lengths = np.concatenate([np.diff(offsets) for _, offsets in found])
    return np.concatenate([ids for ids, _ in found]), offsets_of(lengths)


def _encoded(window: Examples, ids: Sequence[Ids]) -> Encoded:
    return Encoded(window, ids[0], ids[1] if len(ids) > 1 else None)


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
