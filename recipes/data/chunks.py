"""Texts cut into chunks, each for one of an objective's denoisers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from recipes.data.denoising import Denoiser

# Chunks shorter than this have nothing to keep, or nothing to take out.
FEWEST_TOKENS = 2
_DRAWN_AT_ONCE = 4096


class Texts(NamedTuple):
    """Some texts in a row: text i is ``ids[offsets[i]:offsets[i + 1]]``, without an end token."""

    ids: np.ndarray
    offsets: np.ndarray


class Chunk(NamedTuple):
    """denoiser: its number. text: number of the text that the chunk begins in, counted over all."""

    ids: np.ndarray
    denoiser: int
    text: int


def joined_chunks(parts: Iterator[Texts], denoisers: Sequence[Denoiser], draw: np.random.Generator) -> Iterator[Chunk]:
    """Texts one after the other, nothing between them, as T5 was trained; every chunk but the last as long as may be.

    A single token at the very end is left out.
    """
    kinds = _drawn(len(denoisers), draw)
    kind = next(kinds)
    rest, first = np.zeros(0, np.int32), 0
    starts: list[int] = []  # where the texts of ``rest`` begin in it, the first of them perhaps before it
    for part in parts:
        ids = np.concatenate([rest, part.ids])
        begins = np.concatenate([np.array(starts, np.int64), part.offsets[:-1] + len(rest)])
        done = 0
        while len(ids) - done >= denoisers[kind].longest_chunk:
            chunk = ids[done : done + denoisers[kind].longest_chunk]
            yield Chunk(chunk, kind, first + _text_at(begins, done))
            done += len(chunk)
            kind = next(kinds)
        rest = ids[done:]
        gone = _text_at(begins, done) if len(rest) else len(begins)
        starts, first = (begins[gone:] - done).tolist(), first + gone
    if len(rest) >= FEWEST_TOKENS:
        yield Chunk(rest, kind, first)


def separate_chunks(
    parts: Iterator[Texts], denoisers: Sequence[Denoiser], draw: np.random.Generator
) -> Iterator[Chunk]:
    """Each text alone, cut where it is longer than a chunk may be. A single token, alone or left over, is left out."""
    kinds = _drawn(len(denoisers), draw)
    number = 0
    for part in parts:
        for begin, end in zip(part.offsets[:-1].tolist(), part.offsets[1:].tolist(), strict=True):
            while end - begin >= FEWEST_TOKENS:
                kind = next(kinds)
                chunk = part.ids[begin : min(end, begin + denoisers[kind].longest_chunk)]
                yield Chunk(chunk, kind, number)
                begin += len(chunk)
            number += 1


def _text_at(begins: np.ndarray, place: int) -> int:
    """Which text a place belongs to."""
    return int(np.searchsorted(begins, place, side="right")) - 1


def _drawn(num: int, draw: np.random.Generator) -> Iterator[int]:
    """Numbers below ``num``, each as likely, without end."""
    while True:
        yield from draw.integers(num, size=_DRAWN_AT_ONCE).tolist() if num > 1 else [0] * _DRAWN_AT_ONCE
