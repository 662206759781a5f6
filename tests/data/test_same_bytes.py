"""What is trained on does not depend on how texts are read: every column of a cache, by its hash, of all kinds of input."""

import json
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv, ipc

from recipes.config import DataBlock
from recipes.config_file import parse_as
from recipes.data import build, encoding, readers
from recipes.data.cache import prepare_data
from recipes.storage import Storage
from tests.data.corpus import pairs, write_lines

# Of the tokenizer, the training split, the held-out split and the numbers in meta.json, as they were when all texts were
# read into memory at once.
EXPECTED = {
    "bytes": ["14608eb930c29f24", "5cf45a8c6a377e99", "7da739425237fa21", "015c5964f1fd8d50"],
    "unigram": ["8cdd8e3f0eb56398", "ea9a23124b72511c", "dfc9e37b52d964ce", "5bff7aeb6a7ea368"],
    "unigram of a sample": ["2fd7595414ea363e", "f2a62de265050e9a", "902373b82c529fd5", "da7a41be44b0bd8b"],
}


def mixed_input(folder):
    """Pairs in a folder of three formats, with unusable rows and duplicates; pairs beside a file that is held out, with rows
    in common; lines for span corruption; a CSV file for UL2."""
    rows = pairs(700, seed=1)
    (folder / "pairs").mkdir()
    pq.write_table(pa.Table.from_pylist(rows[:300]), folder / "pairs" / "a.parquet", row_group_size=70)
    lines = [json.dumps(row) for row in rows[300:420] + rows[310:330]]
    lines[5:5] = ["", '{"source": null, "target": "x"}', "no JSON", '{"source": " ", "target": "x"}']
    (folder / "pairs" / "b.jsonl").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    csv.write_csv(pa.Table.from_pylist(rows[420:460]), folder / "pairs" / "c.tsv", csv.WriteOptions(delimiter="\t"))
    write_lines(folder / "train.jsonl", rows[460:560])
    pq.write_table(pa.Table.from_pylist(rows[530:580]), folder / "eval.parquet")
    texts = [f"{row['source']} {row['target']}" for row in rows[580:]]
    (folder / "lines.txt").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    csv.write_csv(pa.table({"text": texts[::-1], "n": range(len(texts))}), folder / "texts.csv")
    return [
        {"name": "turn", "source": str(folder / "pairs"), "prefix": "turn: ", "held_out_ratio": 0.2},
        {"name": "apart", "source": str(folder / "train.jsonl"), "eval_source": str(folder / "eval.parquet")},
        {"name": "fill", "source": str(folder / "lines.txt"), "objective": {"kind": "span_corruption"}},
        {
            "name": "both",
            "source": str(folder / "texts.csv"),
            "source_column": "text",
            "objective": {"kind": "ul2", "join": False},
        },
    ]


def hashes(prepared) -> list[str]:
    def mark(content: bytes) -> str:
        return sha256(content).hexdigest()[:16]

    place = Storage(prepared.uri).local
    found = [mark((place / "tokenizer" / "tokenizer.json").read_bytes())]
    for split in ("train", "held_out"):
        table = ipc.open_file(str(place / f"{split}.arrow")).read_all().combine_chunks()
        columns = []
        for name in table.column_names:
            column = table[name].combine_chunks()
            values = [column.offsets, column.values] if name in ("source", "target") else [column]
            columns += [np.asarray(part).tobytes() for part in values]
        found.append(mark(b"".join(columns)))
    numbers = {
        name: value for name, value in prepared.meta.items() if name in ("train", "held_out", "denoisers", "baseline")
    }
    numbers["baseline"] = {name: round(value, 9) for name, value in numbers["baseline"].items()}
    numbers["tasks"] = [
        {name: value for name, value in task.items() if "source" not in name} for task in prepared.meta["tasks"]
    ]
    return [*found, mark(json.dumps(numbers, sort_keys=True).encode())]


@pytest.mark.parametrize("windows", ["one", "many"])
@pytest.mark.parametrize("kind", EXPECTED)
def test_every_column_is_what_it_was(tmp_path, monkeypatch, kind, windows):
    if windows == "many":  # of some rows each, where else a file is one
        monkeypatch.setattr(readers, "MOST_ROWS", 7)
        monkeypatch.setattr(readers, "_BLOCK_BYTES", 700)
        monkeypatch.setattr(encoding, "_TEXTS_AT_ONCE", 3)
        monkeypatch.setattr(build, "_IDS_PER_BATCH", 160 * 16)
    if kind == "unigram of a sample":
        monkeypatch.setattr(build, "MAX_TRAINING_CHARS", 9000)
    tokenizer = {"kind": "bytes"} if kind == "bytes" else {"kind": "unigram", "vocab_size": 420}
    settings = {"max_source_tokens": 90, "max_target_tokens": 70, "on_too_long": "truncate", "on_bad_row": "skip"}
    config = parse_as(DataBlock, {"tasks": mixed_input(tmp_path), "tokenizer": tokenizer, **settings}, "data")
    prepared = prepare_data(config, Storage(tmp_path / "runs"), lambda words: None)
    assert hashes(prepared) == EXPECTED[kind]
    # The name too does not depend on how the texts were read.
    monkeypatch.undo()
    assert prepare_data(config, Storage(tmp_path / "runs"), lambda words: None) == prepared
