import numpy as np
import pytest

from recipes.data.token_files import TokenSplit, TokenWriter


def arrays(rows):
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return np.array([token for row in rows for token in row], np.int32), offsets


@pytest.fixture
def rows():
    draw = np.random.default_rng(0)
    return [(draw.integers(3, 99, draw.integers(1, 9)), draw.integers(3, 99, draw.integers(1, 9))) for _ in range(23)]


def test_examples_are_found_across_batches(tmp_path, rows):
    with TokenWriter(tmp_path / "a.arrow") as writer:
        for start in range(0, 23, 5):
            sources, targets = zip(*rows[start : start + 5], strict=True)
            places = np.arange(start, start + len(sources))
            writer.write(arrays(sources), arrays(targets), places % 2, places + 100)
    split = TokenSplit(tmp_path / "a.arrow", ["even", "odd"])
    assert len(split) == 23
    assert split.source_lengths.tolist() == [len(source) for source, _ in rows]
    assert split.target_lengths.tolist() == [len(target) for _, target in rows]
    for i, (source, target) in enumerate(rows):
        assert split.source(i).tolist() == source.tolist()
        assert split.target(np.int64(i)).tolist() == target.tolist()
        assert split.where(i) == f"{('even', 'odd')[i % 2]} row {100 + i}"


def test_no_examples(tmp_path):
    with TokenWriter(tmp_path / "a.arrow"):
        pass
    split = TokenSplit(tmp_path / "a.arrow", [])
    assert len(split) == 0
    assert split.source_lengths.dtype == np.int32
