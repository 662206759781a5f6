from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.data.chunks import Texts, joined_chunks, separate_chunks
from recipes.data.denoising import Denoiser

SETTINGS = settings(deadline=None, max_examples=150)


def kinds(*longest):
    return [Denoiser(f"kind {i}", 0.15, 3.0, longest_chunk=num) for i, num in enumerate(longest)]


def parts_of(lengths, cuts):
    """Texts of these lengths whose ids count on and on, in parts that begin at ``cuts``."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(offsets[-1], dtype=np.int32)
    for begin, end in pairwise(sorted({0, *[cut % (len(lengths) + 1) for cut in cuts], len(lengths)})):
        yield Texts(ids[offsets[begin] : offsets[end]], offsets[begin : end + 1] - offsets[begin])


texts = {
    "lengths": st.lists(st.integers(1, 30), min_size=1, max_size=40),
    "cuts": st.lists(st.integers(0, 40), max_size=6),
}


@SETTINGS
@given(**texts, longest=st.lists(st.integers(2, 25), min_size=1, max_size=3), seed=st.integers(0, 9))
def test_joined_chunks_are_the_texts_in_a_row(lengths, cuts, longest, seed):
    chunks = list(joined_chunks(parts_of(lengths, cuts), kinds(*longest), np.random.default_rng(seed)))
    whole = sum(lengths)
    ids = [int(i) for chunk in chunks for i in chunk.ids]
    assert ids == list(range(whole - (len(ids) < whole)))  # at most one token is left out, the last
    owner = np.repeat(np.arange(len(lengths)), lengths)
    for chunk in chunks:
        assert chunk.text == owner[chunk.ids[0]]
    for chunk in chunks[:-1]:
        assert len(chunk.ids) == longest[chunk.denoiser]
    assert len(chunks) == 0 or 2 <= len(chunks[-1].ids) <= longest[chunks[-1].denoiser]


@SETTINGS
@given(**texts, longest=st.lists(st.integers(2, 25), min_size=1, max_size=3), seed=st.integers(0, 9))
def test_how_texts_come_in_parts_changes_nothing(lengths, cuts, longest, seed):
    for cut in (joined_chunks, separate_chunks):
        found, expected = (
            [(chunk.ids.tolist(), chunk.denoiser, chunk.text) for chunk in cut(parts, kinds(*longest), draw)]
            for parts, draw in (
                (parts_of(lengths, cuts), np.random.default_rng(seed)),
                (parts_of(lengths, []), np.random.default_rng(seed)),
            )
        )
        assert found == expected


@SETTINGS
@given(**texts, longest=st.integers(2, 25))
def test_separate_chunks_hold_one_text_each(lengths, cuts, longest):
    chunks = list(separate_chunks(parts_of(lengths, cuts), kinds(longest), np.random.default_rng(0)))
    begins = np.concatenate([[0], np.cumsum(lengths)])
    for number, length in enumerate(lengths):
        ids = [int(i) for chunk in chunks if chunk.text == number for i in chunk.ids]
        left_out = length == 1 or length % longest == 1
        assert ids == list(range(begins[number], begins[number] + length - left_out))


def test_denoisers_are_drawn_alike():
    [part] = parts_of([30_000], [])
    chunks = list(joined_chunks(iter([part]), kinds(10, 10, 10), np.random.default_rng(1)))
    assert np.bincount([chunk.denoiser for chunk in chunks]) == pytest.approx([1000] * 3, abs=110)
