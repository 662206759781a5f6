"""Batched, padded, dealt generation against transformers' own, example by example."""

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from recipes.config import GenerationBlock
from recipes.evaluation.generation import Decoding, generate, generation_batches, spread_evenly
from tests.evaluation.tiny import EOS, sources, tiny_model


def lengths(rows):
    return np.array([len(row) for row in rows])


def one_by_one(model, rows, **settings):
    """Without padding and without this project: a plain call for each source."""
    texts = []
    for row in rows:
        ids = model.generate(torch.tensor([row.tolist()]), do_sample=False, **settings)[0, 1:].tolist()
        texts.append(ids[: ids.index(EOS)] if EOS in ids else ids)
    return texts


CASES = {
    "greedy": ({}, {}),
    "beam": ({"num_beams": 3}, {"num_beams": 3}),
    "short beams": ({"num_beams": 4, "length_penalty": -3.0}, {"num_beams": 4, "length_penalty": -3.0}),
    "no repeat": ({"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 2}),
    "penalty": ({"repetition_penalty": 1.7}, {"repetition_penalty": 1.7}),
    "not before": ({"min_new_tokens": 6}, {"min_new_tokens": 6}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_batch_gives_what_each_example_gives_alone(name):
    block, theirs = CASES[name]
    model, rows = tiny_model(), sources(13)
    decoding = Decoding.of(GenerationBlock(max_new_tokens=10, **block), max_target_tokens=50, micro_batch_tokens=40)
    [batches] = generation_batches(lengths(rows), lengths(rows), decoding)
    assert max(map(len, batches)) > 1
    assert len(batches) > 1
    found = generate(model, rows.__getitem__, batches, decoding)
    expected = one_by_one(model, rows, max_new_tokens=10, **theirs)
    assert [found[i] for i in range(13)] == expected
    # Or nothing would have been compared.
    assert len({tuple(text) for text in expected}) > 5
    assert len({len(text) for text in expected}) > 1


def test_the_settings_change_the_texts():
    model, rows = tiny_model(), sources(13)
    texts = {name: str(one_by_one(model, rows, max_new_tokens=10, **theirs)) for name, (_, theirs) in CASES.items()}
    assert len(set(texts.values())) == len(texts)


def test_the_models_own_settings_are_put_aside_and_left():
    model, rows = tiny_model(), sources(5)
    decoding = Decoding(max_new_tokens=8, batch_tokens=1000)
    [batches] = generation_batches(lengths(rows), lengths(rows), decoding)
    plain = generate(model, rows.__getitem__, batches, decoding)
    own = GenerationConfig(num_beams=3, no_repeat_ngram_size=1, min_length=5, do_sample=True, temperature=9.0, top_k=3)
    model.generation_config = own
    assert generate(model, rows.__getitem__, batches, decoding) == plain
    assert model.generation_config is own


def test_nothing_random_moves():
    model, rows = tiny_model(), sources(5)
    decoding = Decoding(max_new_tokens=8, batch_tokens=1000, num_beams=2)
    before = torch.get_rng_state()
    generate(model, rows.__getitem__, [np.arange(5)], decoding)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("num", [1, 2, 7, 100, 101])
def test_every_example_once_within_the_budget_and_balanced(num, num_ranks):
    rng = np.random.default_rng([num, num_ranks])
    source, target = rng.integers(2, 60, num), rng.integers(2, 40, num)
    decoding = Decoding(max_new_tokens=40, batch_tokens=600, num_beams=2)
    ranks = generation_batches(source, target, decoding, num_ranks)
    assert len(ranks) == num_ranks
    assert sorted(i for rank in ranks for batch in rank for i in batch.tolist()) == list(range(num))
    for batch in (batch for rank in ranks for batch in rank):
        assert len(batch) == 1 or 2 * len(batch) * (source[batch].max() + 40) <= 600
    loads = [sum(len(b) * (source[b].max() + target[b].max()) for b in rank) for rank in ranks]
    if num >= 100:
        assert max(loads) < 1.15 * sum(loads) / num_ranks
    if num >= num_ranks:
        assert all(loads), "a rank is idle"


def test_an_example_above_the_budget_has_a_batch_of_its_own():
    [batches] = generation_batches(np.array([90, 2, 2]), np.array([3, 3, 3]), Decoding(10, 40))
    assert [batch.tolist() for batch in batches] == [[0], [1, 2]]


def test_spread_evenly():
    assert spread_evenly(10, 3).tolist() == [0, 4, 9]
    assert spread_evenly(3, 3).tolist() == spread_evenly(3, None).tolist() == spread_evenly(3, 9).tolist() == [0, 1, 2]
    assert spread_evenly(10, 1).tolist() == [0]
