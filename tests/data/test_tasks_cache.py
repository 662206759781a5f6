"""Caches of text alone and of several tasks."""

import numpy as np
import pytest

from recipes.config import DataBlock
from recipes.config_file import parse_as
from recipes.data.cache import open_data, prepare_data
from recipes.data.plan import held_out_plan
from recipes.errors import UserError
from recipes.storage import Storage
from tests.data.corpus import data_block, pairs, write_lines


def quiet(words):
    pass


@pytest.fixture
def texts(tmp_path):
    lines = [f"{row['source']} {row['target']}" for row in pairs(120)]
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / "runs")


def text_of(data, split, i):
    """The text of a chunk's pair, its gaps filled."""
    source, target = (ids.tolist()[:-1] for ids in split.pair(i))
    sentinels = data.meta["tokenizer"]["sentinel_ids"]
    gaps, last = {}, None
    for token in target:
        if token in sentinels:
            last = token
            gaps[last] = []
        else:
            gaps[last].append(token)
    return data.tokenizer.decode([token for given in source for token in gaps.get(given, [given])])


def opened(config, storage):
    return open_data(prepare_data(config, storage, quiet))


def test_joined_lines_fill_every_chunk(texts, storage):
    config = data_block(texts, objective={"kind": "span_corruption"}, max_source_tokens=100, max_target_tokens=100)
    data = opened(config, storage)
    assert set(data.train.source_lengths[:-1].tolist()) == {100}
    assert 3 <= data.train.source_lengths[-1] <= 100
    for split in (data.train, data.held_out):
        for i in range(len(split)):
            pair = split.pair(i)
            assert (len(pair.source), len(pair.target)) == (split.source_lengths[i], split.target_lengths[i])
    lines = [line for line in texts.read_text().splitlines() if line]
    whole = "".join(text_of(data, data.train, i) for i in range(len(data.train)))
    kept = [line for line in lines if line in whole]
    assert whole == "".join(kept)
    assert "".join(text_of(data, data.held_out, i) for i in range(len(data.held_out))) == "".join(
        line for line in lines if line not in kept
    )
    # A chunk is named by the line that it begins in, blank lines counted.
    begins = np.cumsum([0, *map(len, kept)])
    place = sum(len(text_of(data, data.train, i)) for i in range(5))
    line = 2 * lines.index(kept[int(np.searchsorted(begins, place, side="right")) - 1]) + 1
    assert data.train.where(5) == f"texts.txt row {line}"


def test_noise_is_drawn_from_its_key_alone(texts, storage):
    config = data_block(texts, objective={"kind": "span_corruption"})
    data = opened(config, storage)

    def sources(*key):
        split = data.train.drawn_from(*key) if key else data.train
        return [split.source(i).tolist() for i in range(3)]

    assert sources(1, 7) == sources(1, 7)
    assert len({str(sources(*key)) for key in ((), (1, 7), (2, 7), (1, 8))}) == 4
    assert len({str(source) for source in sources(1, 7)}) == 3


def test_texts_may_stay_alone(texts, storage):
    objective = {"kind": "span_corruption", "join": False}
    data = opened(data_block(texts, objective=objective, held_out_ratio=0.2), storage)
    lines = [line for line in texts.read_text().splitlines() if line]
    found = [text_of(data, split, i) for split in (data.train, data.held_out) for i in range(len(split))]
    assert sorted(found) == sorted(lines)


def test_ul2_marks_its_kinds_and_splits_once(texts, storage):
    objective = {"kind": "ul2", "max_chunk_tokens": 40}
    data = opened(data_block(texts, objective=objective, held_out_ratio=0.3), storage)
    train = data.train
    marks = [data.tokenizer.decode(train.source(i)[:3]) for i in range(len(train))]
    counts = {mark: marks.count(mark) for mark in marks}
    assert set(counts) == {"[R]", "[S]", "[X]"}
    num = len(train)
    for mark, share in (("[R]", 2 / 7), ("[S]", 1 / 7), ("[X]", 4 / 7)):
        assert abs(counts[mark] - num * share) < 4 * (num * share * (1 - share)) ** 0.5
    assert [bool(train.is_pair[i]) for i in range(num)] == [mark == "[S]" for mark in marks]
    continued = next(i for i in range(num) if train.is_pair[i])
    assert train.source(continued).tolist() == train.drawn_from(1, 2).source(continued).tolist()


def mixture(texts, tmp_path, **settings):
    rows = write_lines(tmp_path / "pairs.jsonl", pairs(90))
    tasks = [
        {"name": "turn", "source": str(rows), "prefix": "turn: "},
        {"name": "fill", "source": str(texts), "objective": {"kind": "span_corruption", "join": False}},
    ]
    return parse_as(DataBlock, {"tasks": tasks, "tokenizer": {"kind": "bytes"}, **settings}, "data")


def test_tasks_stand_one_after_the_other(texts, tmp_path, storage):
    config = mixture(texts, tmp_path)
    data = opened(config, storage)
    turn, fill = data.meta["tasks"]
    assert (turn["name"], turn["objective"], fill["name"], fill["objective"]) == (
        "turn", "seq2seq", "fill", "span_corruption",
    )  # fmt: skip
    for name, split in (("train", data.train), ("held_out", data.held_out)):
        sizes = [task[f"{name}_examples"] for task in (turn, fill)]
        assert split.tasks.tolist() == [0] * sizes[0] + [1] * sizes[1]
        assert data.meta[name]["examples"] == sum(sizes)
        assert data.meta[name]["source_tokens"] == sum(len(split.source(i)) for i in range(len(split)))
        assert split.where(0).startswith("turn: pairs.jsonl row ")
        assert split.where(len(split) - 1).startswith("fill: texts.txt row ")
        assert [bool(split.is_pair[i]) for i in (0, len(split) - 1)] == [True, False]
    assert turn["train_examples"] + turn["held_out_examples"] == 90
    assert data.tokenizer.decode(data.train.source(0)).startswith("turn: ")


def test_every_task_is_evaluated_by_itself(texts, tmp_path, storage):
    from recipes.config import RunConfig

    content = {
        "run": {"name": "a"}, "model": {"shape": {}}, "schedule": {"peak_lr": 1e-3, "total_steps": 2},
        "data": mixture(texts, tmp_path).model_dump(mode="json"), "scaling": {"num_workers": 2},
    }  # fmt: skip
    config = parse_as(RunConfig, content, "config")
    held_out = opened(config.data, storage).held_out
    plans = held_out_plan(config, held_out, 2)
    assert len(plans) == 2
    for task, ranks in enumerate(plans):
        examples = sorted(int(i) for rank in ranks for batch in rank for i in batch)
        assert examples == np.flatnonzero(held_out.tasks == task).tolist()
        assert len({len(rank) for rank in ranks}) == 1


def test_how_tasks_are_mixed_is_not_in_the_cache(texts, tmp_path, storage):
    plain = prepare_data(mixture(texts, tmp_path), storage, quiet)
    other = mixture(texts, tmp_path, mixing={"by": "temperature", "temperature": 3})
    assert prepare_data(other, storage, quiet) == plain


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "give one of source and tasks; given: none"),
        ({"source": "a", "tasks": [{"name": "b", "source": "c"}]}, "give one of source and tasks; given: both"),
        ({"prefix": "x", "tasks": [{"name": "b", "source": "c"}]}, "prefix has no effect beside tasks"),
        ({"source": "a", "mixing": {"max_examples": 3}}, "mixing has no effect without tasks"),
        ({"tasks": [{"name": "b", "source": "c"}] * 2}, "the name b is given twice"),
        (
            {"tasks": [{"name": "b", "source": "c", "rate": 2}]},
            "b has a rate, which has no effect with mixing.by: exam",
        ),
        ({"tasks": [{"name": "b", "source": "c"}], "mixing": {"by": "rate"}}, "b needs a rate with mixing.by: rate"),
        ({"tasks": [{"name": "b", "source": "c", "prefx": "d"}]}, "did you mean 'tasks.0.prefix'?"),
        ({"source": "a", "objective": {"noise_ratio": 0.3}}, "noise_ratio has no effect with kind: seq2seq"),
        ({"source": "a", "objective": {"kind": "ul2", "noise_ratio": 0.3}}, "it belongs to span_corruption"),
        ({"source": "a", "objective": {"kind": "span_corruption", "noise_ratio": 1}}, "noise_ratio is 1"),
        ({"tasks": [{"name": "b", "source": "c"}], "mixing": {"temperature": 2}}, "temperature has no effect with by"),
    ],
)
def test_settings_without_sense_are_refused(content, words):
    with pytest.raises(UserError) as caught:
        parse_as(DataBlock, content, "data")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_wrong_with_a_task_names_it(texts, tmp_path, storage):
    config = parse_as(DataBlock, {"tasks": [{"name": "turn", "source": str(tmp_path / "no.jsonl")}]}, "data")
    with pytest.raises(UserError, match=r"^data.tasks\[turn\].source: .*/no.jsonl: there is no such file"):
        prepare_data(config, storage, quiet)
    short = tmp_path / "short.txt"
    short.write_text("a\nb\nc\nd\n" * 3)
    objective = {"kind": "span_corruption", "join": False}
    with pytest.raises(UserError, match=r"training texts of .* are shorter than two tokens"):
        prepare_data(data_block(short, objective=objective, held_out_ratio=0.5), storage, quiet)
    assert not [path for path in (tmp_path / "runs" / "token_cache").iterdir() if path.name != "index"]


def test_text_that_is_not_utf8_is_named(tmp_path, storage):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"good\n\n\xe9t\xe9\nmore\n")
    with pytest.raises(UserError, match=r"latin.txt row 3 \(source is not UTF-8\)"):
        prepare_data(data_block(path, objective={"kind": "prefix_lm"}), storage, quiet)
