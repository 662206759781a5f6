import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.config import MixingBlock, TaskBlock
from recipes.data.streams import Streams, mixing_rates

SETTINGS = settings(deadline=None, max_examples=40)


def tasks(*rates):
    return [TaskBlock(name=f"t{i}", source="x", rate=rate) for i, rate in enumerate(rates)]


def streams(sizes=(300, 20, 5), rates=(0.5, 0.3, 0.2), seed=3, examples=16):
    return Streams(sizes, np.array(rates), seed=seed, examples_per_update=examples)


@pytest.mark.parametrize(
    ("mixing", "weights"),
    [
        ({}, [1000, 100, 10]),
        ({"max_examples": 50}, [50, 50, 10]),
        ({"by": "temperature", "temperature": 2}, [1000**0.5, 10, 10**0.5]),
        ({"by": "temperature", "temperature": 4, "max_examples": 256}, [4, 100**0.25, 10**0.25]),
        ({"by": "temperature", "temperature": 1}, [1000, 100, 10]),
        ({"by": "rate"}, [1.0, 3.0, 0.5]),
    ],
)
def test_rates_are_those_of_seqio(mixing, weights):
    by_rate = mixing.get("by") == "rate"
    found = mixing_rates(MixingBlock(**mixing), tasks(*(weights if by_rate else [None] * 3)), [1000, 100, 10])
    assert found == pytest.approx(np.array(weights) / sum(weights), rel=1e-12)


@SETTINGS
@given(
    seed=st.integers(0, 2**31), examples=st.integers(1, 40), sizes=st.lists(st.integers(1, 60), min_size=2, max_size=4)
)
def test_each_task_goes_through_its_epochs_one_after_the_other(seed, examples, sizes):
    rates = np.full(len(sizes), 1 / len(sizes))
    mine = streams(sizes, rates, seed, examples)
    updates = [mine.examples(k) for k in range(30)]
    assert {len(update) for update in updates} == {examples}
    stream = np.concatenate(updates)
    first = 0
    for task, size in enumerate(sizes):
        own = stream[(stream >= first) & (stream < first + size)] - first
        for epoch in range(len(own) // size + 1):
            part = own[epoch * size : (epoch + 1) * size]
            assert part.tolist() == np.random.default_rng([seed, task, epoch]).permutation(size)[: len(part)].tolist()
        first += size


@SETTINGS
@given(k=st.integers(0, 3000))
def test_an_update_does_not_depend_on_those_asked_for_before(k):
    one, other = streams(), streams()
    for before in (0, k + 700, 5):
        other.examples(before)
    assert one.examples(k).tolist() == other.examples(k).tolist()


def test_blocks_of_updates_join_without_a_seam():
    mine, given_before = streams(), np.zeros(3, int)
    for k in range(3 * 256 + 5):
        begins, counts = mine.parts(k)
        assert begins == given_before.tolist()
        assert sum(counts) == 16
        given_before += counts


def test_parts_are_multinomial():
    mine = streams()
    counts = np.array([mine.parts(k)[1] for k in range(5000)])
    rates = np.array([0.5, 0.3, 0.2])
    assert counts.mean(axis=0) == pytest.approx(16 * rates, abs=0.12)
    assert counts.var(axis=0) == pytest.approx(16 * rates * (1 - rates), rel=0.08)


def test_seeds_differ():
    assert streams(seed=1).examples(0).tolist() != streams(seed=2).examples(0).tolist()
