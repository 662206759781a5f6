"""Chunks to pairs: nothing lost, lengths known beforehand, and the numbers of the published objectives."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.config import ObjectiveBlock
from recipes.data.denoising import Denoiser, denoisers
from recipes.data.tokenizer import bytes_tokenizer, train_unigram
from recipes.errors import UserError

SETTINGS = settings(deadline=None, max_examples=150)
EOS, SENTINELS = 1, tuple(range(10_099, 9_999, -1))
T5 = Denoiser("span_corruption", 0.15, 3.0)


def drawn(denoiser, chunk, seed=0):
    pair = denoiser.draw(np.asarray(chunk, np.int32), SENTINELS, EOS, np.random.default_rng(seed))
    return pair.source.tolist(), pair.target.tolist()


def filled(source, target):
    """The text again: each sentinel of the source replaced by what follows it in the target."""
    assert source[-1] == target[-1] == EOS
    gaps: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token in SENTINELS:
            gaps[token] = []
        else:
            gaps[list(gaps)[-1]].append(token)
    return [token for given in source[:-1] for token in (gaps[given] if given in SENTINELS else [given])], gaps


def ratios():
    return st.floats(0.01, 0.99)


@SETTINGS
@given(
    num=st.integers(2, 300), ratio=ratios(), span=st.floats(1, 70), prefix=st.integers(0, 3), seed=st.integers(0, 99)
)
def test_every_token_is_on_one_side_and_the_lengths_are_those_foretold(num, ratio, span, prefix, seed):
    denoiser = Denoiser("any", ratio, span, prefix=(5,) * prefix)
    if denoiser.num_spans(num) > len(SENTINELS):
        return
    chunk = list(range(100, 100 + num))
    source, target = drawn(denoiser, chunk, seed)
    assert source[:prefix] == [5] * prefix
    text, gaps = filled(source[prefix:], target)
    assert text == chunk
    assert list(gaps) == list(SENTINELS[: denoiser.num_spans(num)])
    assert all(gaps.values())
    # Gaps are never neighbours, and the text does not begin with one.
    kinds = [token in SENTINELS for token in source[prefix:-1]]
    assert not kinds[0]
    assert not any(a and b for a, b in pairwise(kinds))
    assert (len(source), len(target)) == tuple(map(int, denoiser.lengths(np.array(num))))
    noise = min(max(round(num * ratio), 1), num - 1)
    assert sum(map(len, gaps.values())) == noise
    assert len(gaps) == min(max(round(noise / span), 1), noise, num - noise)


def test_the_published_lengths():
    """T5: 512 tokens in, 114 out, of 568 (t5's random_spans_helper)."""
    [found] = denoisers(ObjectiveBlock(kind="span_corruption"), "", bytes_tokenizer(), 512, 114)
    assert found.longest_chunk == 568
    assert tuple(map(int, found.lengths(np.array(568)))) == (512, 114)


@pytest.mark.parametrize("limits", [(512, 512), (512, 100), (64, 64), (17, 9), (3, 3), (1024, 2000)])
def test_a_full_chunk_fills_a_limit_and_one_more_token_breaks_it(limits):
    [found] = denoisers(ObjectiveBlock(kind="span_corruption"), "", bytes_tokenizer(), *limits)
    fits = [np.array(lengths) <= limits for lengths in map(found.lengths, found.longest_chunk + np.arange(2))]
    assert [bool(fit.all()) for fit in fits] == [True, False]
    assert any(length == limit for length, limit in zip(found.lengths(found.longest_chunk), limits, strict=True))


def test_all_ways_to_cut_are_as_likely():
    denoiser = Denoiser("any", 0.5, 2.0)  # of 6 tokens 3 in 2 gaps
    seen = [tuple(drawn(denoiser, range(100, 106), seed)[0]) for seed in range(4000)]
    counts = np.unique(np.array(seen), axis=0, return_counts=True)[1]
    assert len(counts) == 4  # kept 1 + 2 or 2 + 1, taken out 1 + 2 or 2 + 1
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000 * 0.75)


def test_statistics_over_ten_thousand_chunks():
    """15 % and 3.0 tokens a gap, as the formula says: 85 tokens in 28 gaps of every 568."""
    places, chunk = np.zeros(568), np.arange(2, 570, dtype=np.int32)
    for seed in range(10_000):
        source, target = T5.draw(chunk, SENTINELS, EOS, np.random.default_rng(seed))
        taken = target[(target > EOS) & (target < 570)] - 2
        assert (len(source), len(target), len(taken)) == (512, 114, 85)
        places[taken] += 1
    assert places.sum() / 10_000 / 568 == 85 / 568
    assert (places[0], places[-1]) == (0, 10_000)  # T5's mask begins with what is kept and ends with what is not
    inner = places[60:-60] / 10_000
    assert np.abs(inner - 0.15).max() < 0.03


def test_a_prefix_model_continues_the_text():
    chunk = list(range(100, 140))
    source, target = drawn(Denoiser("S", 0.25, None, prefix=(7, 8)), chunk)
    assert source == [7, 8, *chunk[:30], EOS]
    assert target == [*chunk[30:], EOS]
    splits = [len(drawn(Denoiser("prefix_lm", None, None), range(100, 104), seed)[0]) for seed in range(900)]
    assert np.bincount(splits, minlength=5)[2:].tolist() == pytest.approx([300] * 3, abs=75)


def test_ul2_has_the_published_seven():
    found = denoisers(ObjectiveBlock(kind="ul2", max_chunk_tokens=512), "", bytes_tokenizer(), 2000, 2000)
    table = [(one.name, one.noise_ratio, one.mean_span_tokens) for one in found]
    assert table == [
        ("R", 0.15, 3.0), ("R", 0.15, 8.0), ("S", 0.25, None),
        ("X", 0.5, 3.0), ("X", 0.5, 8.0), ("X", 0.15, 64.0), ("X", 0.5, 64.0),
    ]  # fmt: skip
    assert [bytes(i - 3 for i in one.prefix) for one in found] == [b"[R]"] * 2 + [b"[S]"] + [b"[X]"] * 4
    assert {one.longest_chunk for one in found} == {512}


def refusal(objective, *limits, tokenizer=None):
    with pytest.raises(UserError) as caught:
        denoisers(objective, "", tokenizer or bytes_tokenizer(), *limits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refusals_name_the_way_out():
    many = ObjectiveBlock(kind="span_corruption", noise_ratio=0.5)
    words = refusal(many, 2000, 2000)
    assert words.startswith("data.tokenizer has 125 sentinels (<extra_id_0>, ...), span_corruption takes up to")
    most = int(words.rsplit(" ", 1)[1])
    with_remedy = ObjectiveBlock(kind="span_corruption", noise_ratio=0.5, max_chunk_tokens=most)
    [found] = denoisers(with_remedy, "", bytes_tokenizer(), 2000, 2000)
    assert found.num_spans(most) == 125 < found.num_spans(most + 6)
    assert "leave no room for a text" in refusal(ObjectiveBlock(kind="span_corruption"), 2, 2)
    without = train_unigram(["some words"] * 3, 300)
    without.sentinel_ids = ()
    assert refusal(many, 64, 64, tokenizer=without).endswith("take another tokenizer")
