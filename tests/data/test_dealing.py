import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.data.dealing import Lengths, cut_packed, cut_padded, deal


def test_tokens_of_a_micro_batch():
    lengths = Lengths(np.array([3, 9, 2]), np.array([4, 1, 8]))
    assert lengths.padded_tokens(np.array([0, 1])) == 2 * (9 + 4)
    assert lengths.real_tokens(np.array([0, 1])) == 17
    assert lengths.padded_tokens(np.array([], int)) == lengths.real_tokens(np.array([], int)) == 0


def test_a_cut_fills_up_to_the_limit():
    one, three = np.array([1, 1, 1, 1, 1]), np.array([1, 3, 1])
    assert cut_packed(one, one, 4) == cut_padded(one, one, 4) == [2, 4, 5]
    assert cut_packed(three, three, 8) == [2, 3]
    assert cut_padded(three, three, 8) == [1, 2, 3]
    assert cut_packed(one[:0], one[:0], 4) == cut_padded(one[:0], one[:0], 4) == []


def dealt(source, target, budget, num_ranks, cut=cut_packed):
    return deal(np.arange(len(source)), Lengths(source, target), budget, num_ranks, cut)


def test_few_micro_batches_of_equal_cost():
    five = np.full(10, 5)
    assert [len(batch) for batch in dealt(five, five, 80, 1)[0]] == [5, 5]
    assert [[len(batch) for batch in rank] for rank in dealt(five, five, 80, 5)] == [[2]] * 5


def test_like_lengths_lie_together():
    source = np.array([2, 40] * 8)
    for cut in (cut_packed, cut_padded):
        [batches] = dealt(source, np.full(16, 3), 8 * 43, 1, cut)
        assert [set(source[batch].tolist()) for batch in batches] in ([{2}, {40}], [{2, 40}, {40}])


def test_the_longest_goes_where_there_is_least():
    source = np.array([9, 7, 3, 2, 2, 1])
    ranks = dealt(source, np.zeros(6, int), 100, 2)
    assert [sorted(source[rank[0]].tolist()) for rank in ranks] == [[1, 2, 9], [2, 3, 7]]


@settings(deadline=None, max_examples=200)
@given(
    pairs=st.lists(st.tuples(st.integers(1, 100), st.integers(1, 100)), min_size=1, max_size=40),
    num_ranks=st.integers(1, 4),
    budget=st.integers(200, 900),
    cut=st.sampled_from([cut_packed, cut_padded]),
)
def test_every_example_once_within_the_budget(pairs, num_ranks, budget, cut):
    source, target = (np.array(side) for side in zip(*pairs, strict=True))
    lengths = Lengths(source, target)
    ranks = dealt(source, target, budget, num_ranks, cut)
    assert sorted(i for rank in ranks for batch in rank for i in batch.tolist()) == list(range(len(pairs)))
    assert len({len(rank) for rank in ranks}) == 1
    of_batch = lengths.real_tokens if cut is cut_packed else lengths.padded_tokens
    assert max(of_batch(batch) for rank in ranks for batch in rank) <= budget
    loads = [sum(map(lengths.real_tokens, rank)) for rank in ranks]
    assert max(loads) - min(loads) <= (source + target).max()
