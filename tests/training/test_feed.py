"""Batches made ahead are those that are asked for, whatever is asked for."""

import threading

import numpy as np
import pytest
import torch

from recipes.data.denoising import Pair
from recipes.data.plan import BatchPlan
from recipes.training.feed import Feed


class Texts:
    """Pairs that tell which draw they are of."""

    def __init__(self, lengths, key=()):
        self.lengths, self.key, self.seen = lengths, key, []

    def drawn_from(self, *key):
        return Texts(self.lengths, key)

    def pair(self, i):
        return Pair(np.full(self.lengths[i], 100 * self.key[1] + 1), np.full(self.lengths[i], i))


@pytest.fixture
def plan():
    lengths = np.random.default_rng(0).integers(1, 20, 50).astype(np.int32)
    return BatchPlan(lengths, lengths, seed=3, examples_per_update=8, micro_batch_tokens=100, num_ranks=2)


@pytest.fixture
def feed(plan):
    feed = Feed(Texts(plan.lengths.source), plan, seed=3, rank=1, pad_id=0, device=torch.device("cpu"))
    yield feed
    feed.close()


@pytest.mark.parametrize("positions", [[0, 1, 2, 3], [0, 1, 7, 8, 2, 2, 3], [5, 4, 3]])
def test_every_position_gives_its_own_batch(feed, plan, positions):
    for position in positions:
        batch = feed.take(position)
        assert batch.position == position
        assert batch.examples.tolist() == plan.examples(position).tolist()
        assert batch.target_tokens == plan.target_tokens(position)
        assert batch.real_tokens == 2 * batch.target_tokens
        mine = plan.micro_batches(position)[1]
        assert [sorted(set(part.labels[0].tolist())) for part in batch.micro_batches] == [sorted(p) for p in mine]
        assert {int(token) for part in batch.on(torch.device("cpu")) for token in part.input_ids} == {
            100 * position + 1
        }


def test_the_next_one_is_made_meanwhile_and_the_thread_ends(feed):
    feed.take(0)
    assert feed._next[0] == 1
    assert feed._next[1].result(timeout=10).position == 1
    assert any(thread.name.startswith("batches") for thread in threading.enumerate())
    feed.close()
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_what_goes_wrong_ahead_is_told_when_it_is_asked_for(feed, monkeypatch):
    feed.take(0)
    feed._next[1].result()
    monkeypatch.setattr(feed._train.__class__, "pair", lambda self, i: 1 / 0)
    assert feed.take(1).position == 1
    with pytest.raises(ZeroDivisionError):
        feed.take(2)
