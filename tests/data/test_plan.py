import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.data.plan import BatchPlan, evaluation_plan
from recipes.errors import UserError
from tests.data.corpus import shared_data

SETTINGS = settings(deadline=None, max_examples=60)


def lengths(num: int, seed: int, longest: int = 60) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.integers(1, longest, num).astype(np.int32), draw.integers(1, longest, num).astype(np.int32)


def plan(num=500, data_seed=0, *, longest=60, seed=7, examples=32, budget=600, ranks=2, packed=True) -> BatchPlan:
    source, target = lengths(num, data_seed, longest)
    return BatchPlan(
        source, target, seed=seed, examples_per_update=examples, micro_batch_tokens=budget, num_ranks=ranks,
        packed=packed,
    )  # fmt: skip


def flat(ranks) -> list[int]:
    return sorted(int(i) for rank in ranks for batch in rank for i in batch)


@SETTINGS
@given(num=st.integers(1, 200), examples=st.integers(1, 250), seed=st.integers(0, 2**31))
def test_the_stream_is_one_permutation_after_the_other(num, examples, seed):
    one = plan(num, seed=seed, examples=examples, ranks=1)
    stream = np.concatenate([one.examples(k) for k in range(3 * num // examples + 1)])
    for epoch in range(len(stream) // num):
        part = stream[epoch * num : (epoch + 1) * num]
        assert part.tolist() == np.random.default_rng([seed, epoch]).permutation(num).tolist()


@SETTINGS
@given(
    num=st.integers(1, 300), examples=st.integers(8, 80), ranks=st.integers(1, 8), budget=st.integers(120, 3000),
    data_seed=st.integers(0, 1000), k=st.integers(0, 50), packed=st.booleans(),
)  # fmt: skip
def test_an_update_whatever_the_ranks_and_the_budget(num, examples, ranks, budget, data_seed, k, packed):
    mine = plan(num, data_seed, examples=examples, budget=budget, ranks=ranks, packed=packed)
    batches = mine.micro_batches(k)
    # The same examples as one rank with a huge budget, each as often.
    assert flat(batches) == sorted(plan(num, data_seed, examples=examples, budget=10**6, ranks=1).examples(k).tolist())
    assert len(batches) == ranks
    assert len({len(rank) for rank in batches}) == 1
    for rank in batches:
        for batch in rank:
            tokens = mine.lengths.real_tokens(batch) if packed else mine.lengths.padded_tokens(batch)
            assert tokens <= budget
    assert all(any(len(batch) for batch in rank) for rank in batches)
    assert mine.target_tokens(k) == sum(mine.lengths.target[batch].sum() for rank in batches for batch in rank)


@SETTINGS
@given(
    num=st.integers(0, 200),
    ranks=st.integers(1, 8),
    budget=st.integers(120, 3000),
    data_seed=st.integers(0, 1000),
    packed=st.booleans(),
)
def test_evaluation_takes_every_example_once(num, ranks, budget, data_seed, packed):
    source, target = lengths(num, data_seed)
    batches = evaluation_plan(source, target, micro_batch_tokens=budget, num_ranks=ranks, packed=packed)
    assert flat(batches) == list(range(num))
    assert len({len(rank) for rank in batches}) == 1


def test_fewer_held_out_examples_than_ranks():
    one = np.array([5], np.int32)
    batches = evaluation_plan(one, one, micro_batch_tokens=100, num_ranks=3, packed=True)
    assert [[len(batch) for batch in rank] for rank in batches] == [[1], [0], [0]]


def test_a_far_update_needs_no_update_before_it():
    one, other = plan(), plan()
    for k in range(40):
        one.examples(k)
    assert one.examples(10**9).tolist() == other.examples(10**9).tolist()
    assert one.examples(3).tolist() == plan().examples(3).tolist()


def test_seed_and_update_change_the_examples():
    assert plan(seed=1).examples(0).tolist() != plan(seed=2).examples(0).tolist()
    assert plan(seed=1).examples(0).tolist() != plan(seed=1).examples(1).tolist()


def test_an_update_may_span_epochs():
    small = plan(10, examples=25, ranks=1)
    assert np.bincount(small.examples(0), minlength=10).min() == 2
    assert small.updates_per_epoch == 0.4
    assert plan(100, examples=64).updates_per_epoch == 1.5625


def test_the_plan_is_the_same_in_every_process():
    script = (
        "from tests.data.test_plan import plan; p = plan(2000, examples=96, ranks=3);"
        "print([[batch.tolist() for batch in rank] for k in (0, 7, 1000) for rank in p.micro_batches(k)])"
    )
    mine = plan(2000, examples=96, ranks=3)
    here = [[batch.tolist() for batch in rank] for k in (0, 7, 1000) for rank in mine.micro_batches(k)]
    for _ in range(2):
        there = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        assert there.strip() == str(here)


def test_an_example_over_the_budget_is_named():
    source, target = np.array([5, 50, 9], np.int32), np.array([5, 20, 95], np.int32)
    with pytest.raises(UserError) as caught:
        BatchPlan(
            source,
            target,
            seed=0,
            examples_per_update=4,
            micro_batch_tokens=60,
            num_ranks=1,
            where="a.jsonl row {}".format,
        )
    assert str(caught.value) == (
        "training.micro_batch_tokens: 60 is less than a.jsonl row 2 alone needs: 9 source + 95 target = 104 tokens "
        "(2 such examples); give at least 104, or lower data.max_source_tokens and data.max_target_tokens"
    )
    with pytest.raises(UserError, match="held-out example 2 alone needs"):
        evaluation_plan(source, target, micro_batch_tokens=60, num_ranks=1, packed=True)


def test_fewer_examples_than_ranks_and_none_at_all():
    with pytest.raises(UserError, match=r"training\.examples_per_update: 3 is fewer than the 4 workers"):
        plan(examples=3, ranks=4)
    with pytest.raises(UserError, match="not a single training example"):
        plan(0)


def test_long_examples_that_do_not_divide_leave_one_micro_batch_empty():
    ten = np.full(5, 10, np.int32)
    mine = BatchPlan(ten, ten, seed=0, examples_per_update=5, micro_batch_tokens=20, num_ranks=2)
    assert [[len(batch) for batch in rank] for rank in mine.micro_batches(0)] == [[1, 1, 1], [1, 1, 0]]


def test_statistics_of_a_hand_made_case():
    source, target = np.array([4, 4, 2, 2], np.int32), np.array([4, 4, 2, 2], np.int32)

    def statistics(budget, ranks, packed):
        settings = {"seed": 0, "examples_per_update": 4, "micro_batch_tokens": budget, "num_ranks": ranks}
        return BatchPlan(source, target, **settings, packed=packed).statistics()

    for packed in (True, False):
        even = statistics(16, 1, packed)
        assert (even.padding_ratio, even.slowest_rank_ratio, even.micro_batches_per_rank) == (0.0, 1.0, 2.0)
    assert statistics(32, 1, False).padding_ratio == pytest.approx(1 - 24 / 32)
    assert statistics(32, 1, True).padding_ratio == 0
    uneven = statistics(16, 3, True)
    assert uneven.slowest_rank_ratio == pytest.approx(8 / (24 / 3))


@pytest.mark.parametrize("packed", [True, False])
def test_ranks_are_balanced_and_little_is_padded(packed):
    statistics = plan(20_000, examples=1024, budget=1000, ranks=4, packed=packed).statistics(range(5))
    assert statistics.slowest_rank_ratio < (1.001 if packed else 1.03)
    assert statistics.padding_ratio <= (0 if packed else 0.25)


def test_ranks_are_balanced_on_captions():
    """In words, which is close to tokens; few examples a rank, and many."""
    table = pq.read_table(shared_data("multi30k_en_de", "train.parquet"))
    source, target = (
        np.array([len(text.split()) + 1 for text in table[name].to_pylist()], np.int32) for name in ("en", "de")
    )
    for examples, ranks in ((32, 2), (128, 2), (256, 8), (1024, 8)):
        settings = {"seed": 0, "examples_per_update": examples, "micro_batch_tokens": 1400, "num_ranks": ranks}
        assert BatchPlan(source, target, **settings).statistics().slowest_rank_ratio < 1.01, (examples, ranks)
