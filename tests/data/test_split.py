import numpy as np
import pytest

from recipes.data.split import held_out_mask, split_examples
from recipes.errors import UserError
from tests.data.corpus import data_block, pairs, write_lines


def split(config):
    said = []
    train, held_out, dropped = split_examples(config, said.append)
    texts = [[text for part in side.windows() for text in part.sources.to_pylist()] for side in (train, held_out)]
    assert [len(side) for side in (train, held_out)] == [len(side) for side in texts]
    return *texts, dropped, said


def test_a_fixed_hash_decides():
    assert np.flatnonzero(held_out_mask([f"text {i}" for i in range(40)], 0.1)).tolist() == [2, 3, 6, 18, 33, 38]
    texts = [f"text {i}" for i in range(2000)]
    assert 150 < held_out_mask(texts, 0.1).sum() < 250
    assert (held_out_mask(texts, 0.05) <= held_out_mask(texts, 0.1)).all()


def test_split_is_disjoint_complete_and_independent_of_other_rows(tmp_path):
    rows = pairs(300)
    train, held_out, _, _ = split(data_block(write_lines(tmp_path / "a.jsonl", rows), held_out_ratio=0.2))
    assert set(train).isdisjoint(held_out)
    assert sorted(train + held_out) == sorted(row["source"] for row in rows)
    fewer, held_out_of_fewer, _, _ = split(data_block(write_lines(tmp_path / "b.jsonl", rows[50:]), held_out_ratio=0.2))
    assert set(fewer) <= set(train)
    assert set(held_out_of_fewer) <= set(held_out)


def test_the_same_source_is_on_one_side_only(tmp_path):
    rows = [{"source": f"question {i % 30}", "target": f"answer {i}"} for i in range(300)]
    train, held_out, _, _ = split(data_block(write_lines(tmp_path / "a.jsonl", rows), held_out_ratio=0.3))
    assert set(train).isdisjoint(held_out)
    assert len(train) % 10 == len(held_out) % 10 == 0


def test_an_empty_side_is_refused_with_numbers(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"source": "one", "target": "x"}])
    with pytest.raises(
        UserError, match=r"data\.held_out_ratio: 0\.05 of 1 examples left [01] to train on and [01] held"
    ):
        split(data_block(path))


def test_training_rows_that_are_also_held_out_are_dropped_and_told(tmp_path):
    rows = pairs(40)
    train_path = write_lines(tmp_path / "train.jsonl", rows)
    eval_path = write_lines(tmp_path / "eval.jsonl", [*rows[:3], {"source": "new", "target": "x"}])
    train, held_out, dropped, said = split(data_block(train_path, eval_source=str(eval_path)))
    assert train == [row["source"] for row in rows[3:]]
    assert held_out[-1] == "new"
    assert dropped == 3
    assert said == ["data: 3 training examples dropped, their source text is in data.eval_source"]


def test_nothing_left_to_train_on(tmp_path):
    path = write_lines(tmp_path / "train.jsonl", pairs(4))
    with pytest.raises(UserError, match=r"data\.eval_source: all 4 source texts .* nothing is left to train on"):
        split(data_block(path, eval_source=str(path)))
