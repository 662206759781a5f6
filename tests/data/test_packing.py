import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.data.packing import Lengths, _cut, balance, best_cut


def test_tokens_of_a_micro_batch():
    lengths = Lengths(np.array([3, 9, 2]), np.array([4, 1, 8]))
    assert lengths.padded_tokens(np.array([0, 1])) == 2 * (9 + 4)
    assert lengths.real_tokens(np.array([0, 1])) == 17
    assert lengths.padded_tokens(np.array([], int)) == 0


def test_cut_fills_up_to_the_limit():
    assert _cut([1, 1, 1, 1, 1], [1, 1, 1, 1, 1], 4) == ([2, 4, 5], [4, 4, 2])
    assert _cut([1, 3], [1, 3], 11) == ([1, 2], [2, 6])


def test_few_micro_batches_of_equal_cost():
    lengths = Lengths(np.full(10, 5), np.full(10, 5))
    _, packed = best_cut(np.arange(10), lengths, 80, 1)
    assert [len(batch) for batch in packed] == [5, 5]
    assert [len(batch) for batch in best_cut(np.arange(10), lengths, 80, 5)[1]] == [2, 2, 2, 2, 2]


def test_like_lengths_lie_together():
    source = np.array([2, 40] * 8)
    lengths = Lengths(source, np.full(16, 3))
    for batch in best_cut(np.arange(16), lengths, 8 * 43, 1)[1]:
        assert len(set(source[batch])) == 1


@settings(deadline=None, max_examples=100)
@given(costs=st.lists(st.integers(1, 100), min_size=1, max_size=12), num_ranks=st.integers(1, 4))
def test_balance_deals_every_micro_batch_once(costs, num_ranks):
    costs = costs * num_ranks
    lengths = Lengths(np.array(costs), np.zeros(len(costs), int))
    ranks = balance([np.array([i]) for i in range(len(costs))], lengths, num_ranks)
    assert sorted(int(batch[0]) for rank in ranks for batch in rank) == list(range(len(costs)))
    assert len({len(rank) for rank in ranks}) == 1
    loads = [sum(costs[batch[0]] for batch in rank) for rank in ranks]
    assert max(loads) - min(loads) <= max(costs)


def test_balance_against_the_mean():
    lengths = Lengths(np.array([9, 7, 3, 2, 2, 1]), np.zeros(6, int))
    ranks = balance([np.array([i]) for i in range(6)], lengths, 2)
    assert [[int(batch[0]) for batch in rank] for rank in ranks] == [[0, 3, 5], [1, 2, 4]]
