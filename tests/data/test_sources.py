import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv, ipc

from recipes.data.sources import read_examples
from recipes.errors import UserError
from tests.data.corpus import data_block, pairs, write_lines

ROWS = pairs(6)
TABLE = pa.Table.from_pylist(ROWS)


def write_arrow(path):
    with ipc.new_file(str(path), TABLE.schema) as writer:
        writer.write_table(TABLE)


def read_error(path, **settings) -> str:
    with pytest.raises(UserError) as caught:
        read_examples(data_block(path, **settings))
    return str(caught.value)


WRITERS = {
    "a.parquet": lambda path: pq.write_table(TABLE, path),
    "a.arrow": write_arrow,
    "a.jsonl": lambda path: write_lines(path, ROWS),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress("\n".join(map(json.dumps, ROWS)).encode())),
    "lines.json": lambda path: write_lines(path, ROWS),
    "array.json": lambda path: path.write_text(json.dumps(ROWS)),
    "a.csv": lambda path: csv.write_csv(TABLE, path),
    "a.tsv": lambda path: csv.write_csv(TABLE, path, csv.WriteOptions(delimiter="\t")),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_examples(tmp_path, name):
    WRITERS[name](tmp_path / name)
    examples = read_examples(data_block(tmp_path / name))
    assert examples.sources.to_pylist() == [row["source"] for row in ROWS]
    assert examples.targets.to_pylist() == [row["target"] for row in ROWS]
    assert examples.where(4) == f"{name} row 5"
    assert (examples.num_read, examples.skipped) == (6, {})


def test_uri_and_path_read_the_same(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", ROWS)
    assert read_examples(data_block(f"file://{path}")).digest() == read_examples(data_block(path)).digest()


def test_folder_is_read_by_name_without_marks_of_other_programs(tmp_path):
    (tmp_path / "part").mkdir()
    write_lines(tmp_path / "b.jsonl", ROWS[:2])
    pq.write_table(TABLE.slice(2), tmp_path / "part" / "a.parquet")
    for name in ("_SUCCESS", ".hidden.jsonl", "README.md"):
        (tmp_path / name).write_text("no data")
    examples = read_examples(data_block(tmp_path))
    assert examples.sources.to_pylist() == [row["source"] for row in ROWS]
    assert examples.where(5) == "part/a.parquet row 4"


def test_columns_by_name_and_dictionary_encoded(tmp_path):
    table = pa.table({"en": pa.array(["one", "two", "one"]).dictionary_encode(), "de": ["eins", "zwei", "eins"]})
    pq.write_table(table, tmp_path / "a.parquet")
    examples = read_examples(data_block(tmp_path / "a.parquet", source_column="en", target_column="de"))
    assert examples.sources.to_pylist() == ["one", "two", "one"]


@pytest.mark.parametrize(
    "ending", ["\n", "\r\n", "\n\n"], ids=["line breaks", "carriage returns", "blank lines between"]
)
def test_row_of_json_lines_is_the_line(tmp_path, ending):
    path = tmp_path / "a.jsonl"
    path.write_bytes(ending.join(map(json.dumps, ROWS)).encode())
    examples = read_examples(data_block(path))
    line = 1 + 5 * ending.count("\n")
    assert examples.where(5) == f"a.jsonl row {line}"


def test_byte_order_mark_and_long_lines(tmp_path):
    rows = [*ROWS, {"source": "x" * 3_000_000, "target": "y"}]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join(map(json.dumps, rows)).encode())
    assert [len(text) for text in read_examples(data_block(path)).sources.to_pylist()][-1] == 3_000_000


def lines_with(*extra: bytes) -> bytes:
    return b"\n".join([*(json.dumps(row).encode() for row in ROWS), *extra])


BAD_LINES = {
    "null": (b'{"source": null, "target": "x"}', "source is null"),
    "absent": (b'{"source": "x"}', "target is null"),
    "empty": (b'{"source": "x", "target": " \\n "}', "target is empty"),
    "number": (b'{"source": 3, "target": "x"}', "source is a number, not text"),
    "truth": (b'{"source": true, "target": "x"}', "source is true or false, not text"),
    "object": (b'{"source": "x", "target": {"text": "y"}}', "target is an object, not text"),
    "list": (b'["x", "y"]', "a list, not an object"),
    "broken": (b'{"source": "x", "targ', "line is not JSON"),
    "latin": ('{"source": "für", "target": "x"}'.encode("latin-1"), "line is not UTF-8"),
    "surrogate": (b'{"source": "\\ud800", "target": "x"}', "source is not UTF-8"),
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=BAD_LINES)
def test_bad_json_line_is_named_or_skipped(tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_with(line, b'{"source": "last", "target": "z"}'))
    message = read_error(path)
    assert f"1 of 8 rows of {path} cannot be used: a.jsonl row 7 ({reason})" in message
    assert "data.on_bad_row=skip" in message
    assert "\n" not in message
    examples = read_examples(data_block(path, on_bad_row="skip"))
    assert (len(examples), examples.num_read, examples.skipped) == (7, 8, {reason: 1})
    assert (examples.sources.to_pylist()[-1], examples.where(6)) == ("last", "a.jsonl row 8")


def test_many_bad_rows_are_counted_and_the_first_named(tmp_path):
    pq.write_table(pa.table({"source": ["a", None] * 20, "target": ["", "b"] * 20}), tmp_path / "a.parquet")
    message = read_error(tmp_path / "a.parquet")
    assert "40 of 40 rows" in message
    assert "row 1 (target is empty), a.parquet row 2 (source is null)" in message
    assert "and 35 more" in message
    assert "not one of the 40 rows" in read_error(tmp_path / "a.parquet", on_bad_row="skip")


def test_invalid_utf8_in_a_parquet_text_column(tmp_path):
    raw = pa.array([b"fine", "für".encode("latin-1"), None], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"source": text, "target": ["x", "y", "z"]}), tmp_path / "a.parquet")
    message = read_error(tmp_path / "a.parquet")
    assert "a.parquet row 2 (source is not UTF-8), a.parquet row 3 (source is null)" in message
    examples = read_examples(data_block(tmp_path / "a.parquet", on_bad_row="skip"))
    assert examples.skipped == {"source is not UTF-8": 1, "source is null": 1}


def test_invalid_utf8_in_csv(tmp_path):
    (tmp_path / "a.csv").write_bytes("source,target\nklar,x\nfür,y\n".encode("latin-1"))
    assert "a.csv row 2 (source is not UTF-8)" in read_error(tmp_path / "a.csv")


def test_csv_text_is_taken_literally(tmp_path):
    (tmp_path / "a.csv").write_text('source,target\nNA,1\n"two\nlines","a ""b"""\n')
    examples = read_examples(data_block(tmp_path / "a.csv"))
    assert examples.sources.to_pylist() == ["NA", "two\nlines"]
    assert examples.targets.to_pylist() == ["1", 'a "b"']


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.jsonl", "array.json", "a.csv"])
def test_missing_columns_are_named_with_the_nearest(tmp_path, name):
    WRITERS[name](tmp_path / name)
    first, second = read_error(tmp_path / name, source_column="sorce", target_column="reply").split("\n")
    assert first.startswith(f"data.source_column: {name} has no column 'sorce', did you mean 'source'?")
    assert second == f"data.target_column: {name} has no column 'reply' (known: source, target)"


def test_a_column_of_numbers_is_refused_whatever_the_setting(tmp_path):
    pq.write_table(pa.table({"source": [1, 2], "target": ["x", "y"]}), tmp_path / "a.parquet")
    for on_bad_row in ("refuse", "skip"):
        message = read_error(tmp_path / "a.parquet", on_bad_row=on_bad_row)
        assert message == "data.source_column: column 'source' of a.parquet holds int64, not text"


EMPTY = {
    "a.jsonl": b"",
    "blank.jsonl": b"\n \n",
    "array.json": b"[]",
    "a.csv": b"source,target\n",
}


@pytest.mark.parametrize(("name", "content"), EMPTY.items(), ids=EMPTY)
def test_no_rows(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert read_error(tmp_path / name) == f"data.source: {tmp_path / name}: there is not a single row"


def test_parquet_without_rows(tmp_path):
    pq.write_table(TABLE.slice(0, 0), tmp_path / "a.parquet")
    assert "there is not a single row" in read_error(tmp_path / "a.parquet")


def damaged_parquet(path):
    pq.write_table(pa.table({"source": [str(i) for i in range(5000)], "target": ["x"] * 5000}), path)
    content = bytearray(path.read_bytes())
    content[1000:1100] = b"\0" * 100
    path.write_bytes(content)


BROKEN = {
    "cut.parquet": lambda path: path.write_bytes(b"PAR1 and then the download stopped"),
    "empty.parquet": lambda path: path.write_bytes(b""),
    "damaged.parquet": damaged_parquet,
    "a.arrow": lambda path: path.write_bytes(b"no arrow"),
    "array.json": lambda path: path.write_text('[{"source": "x"}'),
    "a.jsonl.gz": lambda path: path.write_bytes(b"not compressed"),
    "empty.csv": lambda path: path.write_bytes(b""),
    "ragged.csv": lambda path: path.write_text("source,target\na,b\nc\n"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_is_named_in_one_line(tmp_path, name):
    BROKEN[name](tmp_path / name)
    message = read_error(tmp_path / name)
    assert message.startswith(f"data.source: {name} ")
    assert "\n" not in message


def test_nothing_to_read(tmp_path):
    write_lines(tmp_path / "train.jsonl", ROWS)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    assert "there is no such file or folder" in read_error(tmp_path / "tain.jsonl")
    assert "notes, train.jsonl" in read_error(tmp_path / "tain.jsonl")
    assert "has no file that ends in one of .arrow" in read_error(tmp_path / "notes")
    assert "(found: a.txt)" in read_error(tmp_path / "notes")
    assert "plain text has no targets: give pairs (.arrow" in read_error(tmp_path / "notes" / "a.txt")
    assert "must end in one of" in read_error((tmp_path / "notes" / "a.txt").rename(tmp_path / "a.doc"))
    assert "cannot be reached" in read_error("nosuch://host/a.parquet")


def test_eval_source_is_named_in_errors(tmp_path):
    config = data_block(tmp_path, eval_source=str(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match=r"data\.eval_source: .*none\.jsonl"):
        read_examples(config, "eval_source")


def test_digest_tells_texts_and_borders_apart(tmp_path):
    def digest(*rows):
        return read_examples(data_block(write_lines(tmp_path / "a.jsonl", list(rows)))).digest()

    row = {"source": "ab", "target": "cd"}
    digests = {
        digest(row),
        digest({"source": "a", "target": "bcd"}),
        digest({"source": "ab", "target": "cD"}),
        digest(row, row),
        digest({"source": "abc", "target": "d"}),
    }
    assert len(digests) == 5
    assert digest(row) in digests


def test_digest_of_a_selection_is_that_of_the_same_texts(tmp_path):
    everything = read_examples(data_block(write_lines(tmp_path / "a.jsonl", ROWS)))
    first = read_examples(data_block(write_lines(tmp_path / "a.jsonl", ROWS[:4])))
    picked = everything.select(everything.rows <= 4)
    assert picked.sources.to_pylist() == first.sources.to_pylist()
    assert picked.digest() != everything.digest()
