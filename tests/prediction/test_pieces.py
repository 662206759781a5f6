"""Cutting an input into pieces, answering them apart, and the folder they make: without Ray."""

import json
import os
import pickle
import shutil
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from recipes.errors import RunFailed, UserError
from recipes.evaluation.request import Flag
from recipes.prediction import pieces as cutting
from recipes.prediction.on_ray import Answerer, Order, Screener
from recipes.prediction.parts import PartsFolder
from recipes.prediction.pieces import cut, read_piece
from recipes.prediction.reading import input_files
from recipes.prediction.screening import Screening
from recipes.prediction.settings import read_request
from recipes.storage import Storage


def write(path, texts, row_group_size=7, **columns):
    path.parent.mkdir(exist_ok=True)
    table = {"question": pa.array(texts, pa.string()), "id": pa.array(range(len(texts)), pa.int64())} | columns
    pq.write_table(pa.table(table), path, row_group_size=row_group_size)
    return path


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(cutting, "_FEWEST_ROWS", 3)


@pytest.mark.parametrize("row_group_size", [1, 2, 7, 50])
def test_pieces_are_the_rows_in_their_order(tmp_path, small_pieces, row_group_size):
    for name, num in (("b", 20), ("a", 10), ("empty", 0), ("c", 1)):
        write(tmp_path / "in" / f"{name}.parquet", [f"{name} {i}" for i in range(num)], row_group_size)
    found = cut(input_files(str(tmp_path / "in"), "question"), "prediction")
    assert [(piece.file.name[0], piece.begin, piece.end) for piece in found] == [
        *(("a", begin, min(begin + 3, 10)) for begin in range(0, 10, 3)),
        *(("b", begin, min(begin + 3, 20)) for begin in range(0, 20, 3)),
        ("c", 0, 1),
    ]
    assert [piece.index for piece in found] == list(range(12))
    rows = [read_piece(piece) for piece in found]
    expected = [f"{name} {i}" for name, num in (("a", 10), ("b", 20), ("c", 1)) for i in range(num)]
    assert [text for part in rows for text in part.texts] == expected
    assert [text for part in rows for text in part.table["question"].to_pylist()] == expected
    assert rows[5].where(1) == "b.parquet row 5"


@pytest.mark.parametrize(("num", "size"), [(100, 100), (128, 128), (129, 128), (64 * 1000, 1000), (64 * 9000, 8192)])
def test_the_size_depends_on_the_number_of_rows(tmp_path, num, size):
    write(tmp_path / "in" / "a.parquet", pa.array(["x"] * num), row_group_size=10**6, id=pa.nulls(num))
    assert cut(input_files(str(tmp_path / "in"), "question"), "prediction")[0].num_rows == size


def test_what_cannot_be_cut(tmp_path):
    source = write(tmp_path / "in" / "a.parquet", ["x"])

    def refused(column="question", new="prediction"):
        with pytest.raises(UserError) as error:
            cut(input_files(str(tmp_path / "in"), column), new)
        return str(error.value)

    assert refused(column="quest").startswith(
        "--source-column: a.parquet has no column 'quest', did you mean 'question'?"
    )
    assert refused(column="id") == "--source-column: column 'id' of a.parquet holds int64, not text"
    assert refused(new="id") == "--output-column: a.parquet has a column 'id' already; give another name"
    other = write(tmp_path / "in" / "b.parquet", ["x"], more=[1])
    assert refused() == "--input: b.parquet has other columns or types than a.parquet: take them one by one"
    other.write_bytes(source.read_bytes()[:-10])
    assert refused().startswith("--input: b.parquet cannot be read: ")
    other.rename(tmp_path / "in" / "b.jsonl")
    assert refused().startswith("--input: b.jsonl is not Parquet, which workers read")
    (tmp_path / "in" / "b.jsonl").unlink()
    piece = cut(input_files(str(tmp_path / "in"), "question"), "prediction")[0]
    write(source, [])
    assert refused() == "--input: there is not a single row"
    with pytest.raises(UserError, match=r"a\.parquet has changed: 0 rows instead of 1"):
        read_piece(piece)


TEXTS = ["hello", "a longer question", "b", "what", "no no no", "yes", "one more", "two"]


@pytest.fixture
def order(run, tmp_path, small_pieces):
    write(tmp_path / "in" / "a.parquet", TEXTS)
    request = read_request(str(run), [])
    pieces = cut(input_files(str(tmp_path / "in"), "question"), "prediction")
    return Order(request.folder, request.settings, pieces, PartsFolder(str(tmp_path / "out")), "prediction", threads=1)


def answered(worker, index):
    """What a worker says of a piece, and what went wrong."""
    batch = worker({"piece": [index]})
    assert batch["piece"] == [index]
    return pickle.loads(batch["answer"][0])


def test_faults_of_workers_come_back_as_lines(order, tmp_path):
    worker = Answerer(order)
    write(tmp_path / "in" / "a.parquet", TEXTS[:2])
    _, fault = answered(worker, 1)
    assert (fault["user"], fault["line"]) == (True, "--input: a.parquet has changed: 0 rows instead of 3")
    assert "Traceback" in fault["traceback"]
    (tmp_path / "in" / "a.parquet").unlink()
    assert answered(worker, 0)[1]["line"].startswith("--input: a.parquet cannot be read: ")
    worker._predictor = None
    write(tmp_path / "in" / "a.parquet", TEXTS)
    _, fault = answered(worker, 0)
    assert (fault["user"], fault["line"]) == (
        False,
        "AttributeError: 'NoneType' object has no attribute 'num_truncated'",
    )
    _, fault = answered(Answerer(replace(order, folder=Storage(tmp_path))), 0)
    assert fault["user"]
    assert "neither the folder of a run" in fault["line"]


def test_parts_are_the_answers_in_order_whoever_makes_them_when(order, alone, tmp_path):
    assert order.output.begin(order.fingerprint(), overwrite=False) == set()
    for index in (2, 0):
        assert answered(Answerer(order), index) == (0, None)
    # The job is started again; a killed worker left something behind.
    (tmp_path / "out.partial" / "part-0000001.parquet.abc.part").write_text("half")
    assert order.output.begin(order.fingerprint(), overwrite=False) == {0, 2}
    with pytest.raises(RunFailed, match=r"part-0000001\.parquet has 0 rows instead of 3"):
        order.output.check_whole(order.pieces)
    worker = Answerer(order)
    for index in (1, 2):
        assert answered(worker, index) == (0, None)
    order.output.check_whole(order.pieces)
    assert not (tmp_path / "out").exists()
    order.output.publish({"rows": 8}, len(order.pieces))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "_predictions.json", *(f"part-000000{i}.parquet" for i in range(3))
    ]  # fmt: skip
    assert not (tmp_path / "out.partial").exists()
    assert pq.read_table(tmp_path / "out").to_pylist() == [
        {"question": text, "id": i, "prediction": alone(f"say: {text}")} for i, text in enumerate(TEXTS)
    ]
    assert json.loads((tmp_path / "out" / "_predictions.json").read_text()) == {"rows": 8}


def test_parts_of_another_job_are_not_taken(order, tmp_path, folder):
    order.output.begin(order.fingerprint(), overwrite=False)
    answered(Answerer(order), 0)
    shutil.copytree(folder, tmp_path / "retrained")
    os.utime(tmp_path / "retrained" / "model.safetensors")
    others = {
        "settings": replace(order, settings=replace(order.settings, prefix="do: ")),
        "column": replace(order, column="said"),
        "model": replace(order, folder=Storage(tmp_path / "retrained")),
        "cut": replace(order, pieces=[replace(piece, end=piece.end - 1) for piece in order.pieces]),
    }
    for other in others.values():
        with pytest.raises(
            UserError, match=r"out\.partial has 1 parts of another job .*: give another --output, or --overwrite"
        ):
            order.output.begin(other.fingerprint(), overwrite=False)
    write(tmp_path / "in" / "a.parquet", TEXTS[::-1])
    with pytest.raises(UserError, match="of another job"):
        order.output.begin(order.fingerprint(), overwrite=False)
    assert order.output.begin(order.fingerprint(), overwrite=True) == set()
    assert not (tmp_path / "out.partial" / "part-0000000.parquet").exists()


def test_an_output_is_refused_before_work(order, tmp_path):
    def refused(name, overwrite=False):
        with pytest.raises(UserError) as error:
            PartsFolder(str(tmp_path / name)).check(overwrite)
        return str(error.value)

    (tmp_path / "there").mkdir()
    PartsFolder(str(tmp_path / "there")).check(overwrite=False)
    (tmp_path / "there" / "mine").write_text("precious")
    assert refused("there").endswith("there: is there already; give another name, or --overwrite")
    PartsFolder(str(tmp_path / "there")).check(overwrite=True)
    assert refused("there/mine", overwrite=True).endswith("is a file; workers write a folder, give a new one")
    assert "there is no folder" in refused("absent/out")
    assert refused("out.parquet").endswith("workers write a folder of Parquet files: give a name without .parquet")


def test_what_is_found_in_pieces_is_what_is_found_at_once(order, run, tmp_path):
    texts = ["ok", "", "x" * 50, None, "ok", "y" * 60, "ok", " "]
    write(tmp_path / "in" / "a.parquet", texts)
    screener, everything = Screener(order), Screening()
    for piece in order.pieces:
        found, fault = answered(screener, piece.index)
        assert fault is None
        everything.add(found)
    with pytest.raises(UserError) as error:
        everything.refuse(order.settings)
    assert str(error.value).splitlines() == [
        "3 of 8 texts cannot be used: a.parquet row 2 (empty), a.parquet row 4 (null), a.parquet row 8 (empty); mend them, or "
        "give --on-bad-row skip, which leaves their predictions null",
        "2 texts have more than 40 tokens: a.parquet row 3 (56 tokens), a.parquet row 6 (66 tokens) (longest: 66); raise "
        "--max-source-tokens, or cut them off with --on-too-long truncate",
    ]
    assert (
        read_request(str(run), [Flag("--on-too-long", "data.on_too_long", "truncate")]).settings.on_too_long
        == "truncate"
    )


def test_the_first_rows_are_named_and_the_others_counted(order):
    everything = Screening()
    for begin in (1, 4, 7):
        everything.add(Screening(3, 3, bad=[f"row {begin + i} (null)" for i in range(3)]))
    with pytest.raises(UserError, match=r"9 of 9 texts .*: row 1 \(null\), .*, row 5 \(null\) and 4 more; mend them"):
        everything.refuse(order.settings)


def test_on_an_object_store_the_output_is_whole_with_its_last_file(order, alone, tmp_path):
    """Which cannot rename: pyarrow's generic interface, as an s3:// folder has it."""
    output = PartsFolder(str(tmp_path / "out"))
    output.output._fs = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    output.output._root = "out"
    output.parts = output.output
    assert output.output.local is None
    stored = replace(order, output=output)
    output.check(overwrite=False)
    output.begin(stored.fingerprint(), overwrite=False)
    worker = Answerer(stored)
    for index in (2, 1):
        assert answered(worker, index) == (0, None)
    # Not whole yet: the same command goes on.
    output.check(overwrite=False)
    assert output.begin(stored.fingerprint(), overwrite=False) == {1, 2}
    assert answered(worker, 0) == (0, None)
    output.check_whole(stored.pieces)
    output.publish({}, len(stored.pieces))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "_predictions.json", *(f"part-000000{i}.parquet" for i in range(3))
    ]  # fmt: skip
    found = pq.read_table(tmp_path / "out")
    assert found["prediction"].to_pylist() == [alone(f"say: {text}") for text in TEXTS]
    with pytest.raises(UserError, match="is there already"):
        output.check(overwrite=False)
    # Replaced: from its first new part on it is no longer whole.
    output.check(overwrite=True)
    again = replace(stored, settings=replace(stored.settings, prefix=""))
    assert output.begin(again.fingerprint(), overwrite=True) == set()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["_job.json"]
