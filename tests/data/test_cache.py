import json
import math
import multiprocessing
import os
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from recipes.data import fingerprint
from recipes.data.cache import open_data, prepare_data
from recipes.data.split import held_out_mask
from recipes.data.tokenizer import bytes_tokenizer
from recipes.errors import UserError
from recipes.storage import Storage
from tests.data.corpus import data_block, pairs, write_lines

ROWS = pairs(200)


@pytest.fixture
def source(tmp_path):
    return write_lines(tmp_path / "a.jsonl", ROWS)


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / "runs")


def quiet(_: str) -> None:
    pass


def caches(storage: Storage) -> list[str]:
    return [name for name in storage.names("token_cache") if name != "index"]


def test_every_text_comes_back_with_its_place(source, storage):
    data = open_data(prepare_data(data_block(source, held_out_ratio=0.2), storage, quiet))
    mask = held_out_mask([row["source"] for row in ROWS], 0.2)
    for split, wanted in ((data.train, ~mask), (data.held_out, mask)):
        rows = [(i + 1, row) for i, (row, keep) in enumerate(zip(ROWS, wanted, strict=True)) if keep]
        assert len(split) == len(rows)
        for i, (number, row) in enumerate(rows):
            assert data.tokenizer.decode(split.source(i)) == row["source"]
            assert data.tokenizer.decode(split.target(i)) == row["target"]
            assert split.source(i)[-1] == data.eos_id == 1
            assert (split.source_lengths[i], split.target_lengths[i]) == (len(split.source(i)), len(split.target(i)))
            assert split.where(i) == f"a.jsonl row {number}"
    assert data.train.source_lengths.dtype == np.int32
    assert (data.vocab_size, data.pad_id) == (384, 0)


def test_ids_are_views_of_the_mapped_file(source, storage):
    split = open_data(prepare_data(data_block(source), storage, quiet)).train
    assert not split.source(3).flags.owndata
    assert not split.source(3).flags.writeable
    assert np.shares_memory(split.source(3), split.source(3))
    with pytest.raises(IndexError, match=f"example {len(split)} of {len(split)}"):
        split.target(len(split))


def test_meta_counts_what_is_there(source, storage):
    prepared = prepare_data(data_block(source, tokenizer={"kind": "unigram", "vocab_size": 300}), storage, quiet)
    data, meta = open_data(prepared), prepared.meta
    assert data.meta == meta
    for name, split in (("train", data.train), ("held_out", data.held_out)):
        assert meta[name]["examples"] == len(split)
        assert meta[name]["source_tokens"] == split.source_lengths.sum()
        assert meta[name]["target_tokens"] == split.target_lengths.sum()
        assert meta[name]["longest_target"] == split.target_lengths.max()
        assert (meta[name]["rows_read"], meta[name]["rows_skipped"]) == (200, {})
        assert meta[name]["truncated_sources"] == 0
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "sentinel_ids": list(range(299, 199, -1))}
    assert meta["tokenizer"] == {"kind": "unigram", "vocab_size": 300} | ids
    assert data.tokenizer.vocab_size == 300


def test_baselines_in_closed_form(source, storage):
    data = open_data(prepare_data(data_block(source), storage, quiet))
    train, held_out = (
        Counter(int(token) for i in range(len(split)) for token in split.target(i))
        for split in (data.train, data.held_out)
    )
    total, seen = held_out.total(), train.total() + 384
    entropy = -sum(count / total * math.log(count / total) for count in held_out.values())
    cross = -sum(count / total * math.log((train[token] + 1) / seen) for token, count in held_out.items())
    assert data.meta["baseline"] == pytest.approx({"held_out_entropy": entropy, "train_unigram": cross}, rel=1e-12)
    assert entropy < cross


def test_prefix_is_tokenised_with_the_source(source, storage):
    data = open_data(prepare_data(data_block(source, prefix="turn: "), storage, quiet))
    assert data.tokenizer.decode(data.train.source(0)).startswith("turn: 0: ")
    assert not data.tokenizer.decode(data.train.target(0)).startswith("turn: ")


def test_second_start_finds_the_same_cache(source, storage):
    first = prepare_data(data_block(source), storage, quiet)
    before = {path: path.stat().st_mtime_ns for path in Path(first.uri).rglob("*")}
    said: list[str] = []
    assert prepare_data(data_block(source), storage, said.append) == first
    assert {path: path.stat().st_mtime_ns for path in Path(first.uri).rglob("*")} == before
    assert len(said) == 1
    assert said[0].startswith("data: 19")


def test_the_same_texts_elsewhere_are_the_same_data(source, storage, tmp_path):
    first = prepare_data(data_block(source), storage, quiet)
    (tmp_path / "moved").mkdir()
    moved = shutil.copy(source, tmp_path / "moved")
    assert prepare_data(data_block(moved, on_bad_row="skip"), storage, quiet) == first


@pytest.mark.parametrize(
    "change",
    [
        {"prefix": "x"},
        {"max_source_tokens": 400},
        {"held_out_ratio": 0.3},
        {"on_too_long": "truncate"},
        {"tokenizer": {}},
    ],
    ids=str,
)
def test_other_settings_are_other_data(source, storage, change):
    first = prepare_data(data_block(source), storage, quiet)
    assert prepare_data(data_block(source, **change), storage, quiet).uri != first.uri


def test_another_text_is_other_data(source, storage):
    first = prepare_data(data_block(source), storage, quiet)
    content = source.read_text()
    source.write_text(content.replace("house", "mouse", 1))  # the same size
    os.utime(source, ns=(0, 0))
    assert prepare_data(data_block(source), storage, quiet).uri != first.uri


def test_a_file_just_written_is_read_again(source, storage):
    prepare_data(data_block(source), storage, quiet)
    assert storage.names("token_cache/index") == []


def test_an_old_file_is_known_by_its_stamp(source, storage, monkeypatch):
    monkeypatch.setattr(fingerprint, "_SETTLED_SECONDS", -1.0)
    one = prepare_data(data_block(source), storage, quiet)
    index = storage.names("token_cache/index")
    other = prepare_data(data_block(source, prefix="x"), storage, quiet)
    assert len(index) == 1
    # An index that names the other cache is followed: the texts were not read.
    storage.write_text(f"token_cache/index/{index[0]}", json.dumps({"fingerprint": other.meta["fingerprint"]}))
    assert prepare_data(data_block(source), storage, quiet) == other
    for broken in ("", "[]", '{"fingerprint": "gone"}'):
        storage.write_text(f"token_cache/index/{index[0]}", broken)
        assert prepare_data(data_block(source), storage, quiet) == one


@pytest.mark.parametrize("damage", ["cut", "file gone", "meta gone", "meta broken"])
def test_a_damaged_cache_is_made_again(source, storage, damage):
    prepared = prepare_data(data_block(source), storage, quiet)
    folder = Path(prepared.uri)
    if damage == "cut":
        (folder / "train.arrow").write_bytes((folder / "train.arrow").read_bytes()[:-100])
    elif damage == "file gone":
        (folder / "tokenizer" / "tokenizer.json").unlink()
    elif damage == "meta gone":
        (folder / "meta.json").unlink()
    else:
        (folder / "meta.json").write_text("{")
    with pytest.raises(UserError, match="holds no whole token cache"):
        open_data(prepared)
    again = prepare_data(data_block(source), storage, quiet)
    assert again.uri == prepared.uri
    assert len(open_data(again).train) == prepared.meta["train"]["examples"]


def test_half_made_folders_are_left_alone_and_not_seen(source, storage):
    half = storage.local / "token_cache" / ".half.part"
    half.mkdir(parents=True)
    prepared = prepare_data(data_block(source), storage, quiet)
    assert caches(storage) == [".half.part", Path(prepared.uri).name]


def prepare_there(source: Path, storage: Path) -> str:
    return prepare_data(data_block(source), Storage(storage), quiet).uri


def test_two_processes_at_once_get_one_cache(source, storage):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        uris = pool.starmap(prepare_there, [(source, storage.local)] * 4)
    assert len(set(uris)) == 1
    assert caches(storage) == [Path(uris[0]).name]
    assert len(open_data(uris[0]).train) > 150


def test_relative_storage_is_opened_from_anywhere(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepared = prepare_data(data_block("a.jsonl"), Storage("runs"), quiet)
    monkeypatch.chdir("/")
    assert len(open_data(prepared).train) > 150


def test_an_object_store_is_copied_to_the_node_once(source, tmp_path, monkeypatch):
    pytest.importorskip("fsspec")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    storage = Storage("fsspec+memory://bucket/runs")
    prepared = prepare_data(data_block(source), storage, quiet)
    assert prepared.uri == f"fsspec+memory://bucket/runs/token_cache/{prepared.meta['fingerprint']}"
    assert prepare_data(data_block(source), storage, quiet) == prepared
    data = open_data(prepared)
    copy = tmp_path / f"token_cache_{os.getuid()}" / prepared.meta["fingerprint"]
    assert data.tokenizer.decode(data.train.source(0)) == ROWS[0]["source"]
    before = (copy / "train.arrow").stat().st_ino
    assert len(open_data(prepared.uri).held_out) == len(data.held_out)
    assert (copy / "train.arrow").stat().st_ino == before
    (copy / "train.arrow").write_bytes(b"half a download")
    assert len(open_data(prepared).train) == len(data.train)
    storage.delete_folder()


def test_too_long_texts_are_refused_by_row_and_number(tmp_path, storage):
    rows = [*ROWS, {"source": "s" * 300, "target": "t" * 90}, {"source": "short", "target": "t" * 99}]
    source = write_lines(tmp_path / "long.jsonl", rows)
    config = data_block(source, max_source_tokens=290, max_target_tokens=85)
    with pytest.raises(UserError) as caught:
        prepare_data(config, storage, quiet)
    lines = str(caught.value).split("\n")
    named = "training source texts have more than 290 tokens: long.jsonl row 201 (301 tokens) (longest: 301); raise"
    assert any(line.startswith(f"data.max_source_tokens: 1 {named} the limit") for line in lines)
    assert any(line.startswith("data.max_target_tokens: ") and "data.on_too_long=truncate" in line for line in lines)
    assert caches(storage) == []


def test_too_long_texts_are_cut_and_counted(source, storage):
    said: list[str] = []
    config = data_block(source, max_source_tokens=30, max_target_tokens=20, on_too_long="truncate")
    prepared = prepare_data(config, storage, said.append)
    data = open_data(prepared)
    mask = held_out_mask([row["source"] for row in ROWS], 0.05)
    for name, split, wanted in (("train", data.train, ~mask), ("held_out", data.held_out, mask)):
        rows = [row for row, keep in zip(ROWS, wanted, strict=True) if keep]
        lengths = np.array([len(row["source"]) + 1 for row in rows])
        assert split.source_lengths.tolist() == np.minimum(lengths, 30).tolist()
        assert prepared.meta[name]["truncated_sources"] == (lengths > 30).sum()
        assert prepared.meta[name]["longest_source"] == lengths.max()
        assert all(split.target(i)[-1] == 1 for i in range(len(split)))
    cut = int(np.argmax(data.train.source_lengths == 30))
    whole = bytes_tokenizer().encode_batch([data.tokenizer.decode(data.train.source(cut))])[0]
    assert len(whole) == 30
    assert any("training source texts cut off (longest: " in line for line in said)


def test_texts_that_name_the_end_token_are_told(tmp_path, storage):
    rows = [*ROWS, *({"source": f"{i} <s>old</s> price", "target": "x"} for i in range(9))]
    said: list[str] = []
    prepare_data(data_block(write_lines(tmp_path / "b.jsonl", rows)), storage, said.append)
    assert any("training source texts name the end token themselves, first b.jsonl row 20" in line for line in said)


def test_a_vocabulary_smaller_than_asked_is_told(source, storage):
    said: list[str] = []
    prepared = prepare_data(data_block(source, tokenizer={"vocab_size": 30000}), storage, said.append)
    assert 200 < prepared.meta["tokenizer"]["vocab_size"] < 30000
    assert any("fewer than data.tokenizer.vocab_size 30,000" in line for line in said)


def test_unknown_characters_are_counted(tmp_path, storage):
    train = write_lines(tmp_path / "train.jsonl", ROWS)
    held_out = write_lines(tmp_path / "held_out.jsonl", [{"source": "house 日 garden 本", "target": "house"}])
    config = data_block(train, eval_source=str(held_out), tokenizer={"vocab_size": 400})
    meta = prepare_data(config, storage, quiet).meta
    assert (meta["held_out"]["source_unknown_tokens"], meta["train"]["source_unknown_tokens"]) == (2, 0)
    assert meta["held_out"]["rows_read"] == 1


def test_saved_tokenizer_of_another_cache(source, storage):
    first = prepare_data(data_block(source, tokenizer={"vocab_size": 300}), storage, quiet)
    folder = f"{first.uri}/tokenizer"
    config = data_block(source, tokenizer={"kind": "folder", "path": folder})
    data = open_data(prepare_data(config, storage, quiet))
    assert data.train.source(5).tolist() == open_data(first).train.source(5).tolist()
    assert data.vocab_size == 300


def test_the_standard_library_is_data_and_its_second_start_is_fast(storage):
    config = data_block("pydoc", on_too_long="truncate", max_source_tokens=200)
    first = prepare_data(config, storage, quiet)
    assert first.meta["train"]["examples"] > 3000
    started = time.perf_counter()
    assert prepare_data(config, storage, quiet) == first
    assert time.perf_counter() - started < 1
    data = open_data(first)
    file, _, line = data.train.where(17).partition(" row ")
    assert file.endswith(".py")
    assert int(line) > 0
