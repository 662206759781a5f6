"""A tokenising that was killed goes on where it was."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from recipes.data import readers
from recipes.data.cache import prepare_data
from recipes.data.staging import staging_folder
from recipes.data.tokenizer import TextTokenizer
from recipes.errors import UserError
from recipes.storage import Storage
from tests.data.corpus import data_block, pairs, write_lines

_BLOCK_BYTES = 4000
SETTINGS = {"tokenizer": {"kind": "unigram", "vocab_size": 420}, "held_out_ratio": 0.2}

# Dies by itself in the middle, right after a part is whole.
KILLED = """
import os, signal, sys
from recipes.data import encoding, readers
from recipes.data.cache import prepare_data
from recipes.storage import Storage
from tests.data.corpus import data_block

source, storage, block_bytes = sys.argv[1:]
readers._BLOCK_BYTES = int(block_bytes)
write = encoding._write_part

def write_and_die(path, *content):
    write(path, *content)
    if len(list(path.parent.glob("*.arrow"))) >= 5:
        os.kill(os.getpid(), signal.SIGKILL)

encoding._write_part = write_and_die
prepare_data(data_block(source, tokenizer={"kind": "unigram", "vocab_size": 420}, held_out_ratio=0.2), Storage(storage))
"""


def quiet(words):
    pass


def content(folder: str) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file() and path.name != "meta.json"
    }


@pytest.fixture
def source(tmp_path):
    return write_lines(tmp_path / "a.jsonl", pairs(600))


@pytest.fixture
def killed(tmp_path, source):
    """The storage of a start that was killed, and the parts that it left."""
    program = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "runs"), str(_BLOCK_BYTES)]
    assert subprocess.run(program, cwd=Path(__file__).parents[2], capture_output=True).returncode == -9
    parts = sorted((tmp_path / "runs" / "token_cache").glob(".*.part/ids/*.arrow"))
    assert len(parts) >= 5
    return Storage(tmp_path / "runs"), parts


def test_a_killed_start_is_gone_on_with(tmp_path, source, killed, monkeypatch):
    monkeypatch.setattr(readers, "_BLOCK_BYTES", _BLOCK_BYTES)
    encoded = []
    encode = TextTokenizer.encode_batch
    monkeypatch.setattr(
        TextTokenizer, "encode_batch", lambda self, texts: encoded.append(len(texts)) or encode(self, texts)
    )
    unbroken = prepare_data(data_block(source, **SETTINGS), Storage(tmp_path / "other"), quiet)
    assert sum(encoded) == 1200
    encoded.clear()

    storage, parts = killed
    said: list[str] = []
    # One of the parts did not survive: the machine went down before it was on the disk.
    damaged = bytearray(parts[1].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    parts[1].write_bytes(damaged)
    again = prepare_data(data_block(source, **SETTINGS), storage, said.append)
    assert f"data: {len(parts) - 1} parts were there already, from a start that was stopped" in said
    assert not any("training a vocabulary" in words for words in said)
    assert 0 < sum(encoded) < 1000
    assert content(again.uri) == content(unbroken.uri)
    assert again.meta["fingerprint"] == unbroken.meta["fingerprint"]
    assert [name for name in storage.names("token_cache") if name != "index"] == [Path(again.uri).name]


def test_the_folder_of_a_living_process_is_waited_for(tmp_path):
    made, took, said = [], [], []

    def second():
        with staging_folder(tmp_path, "name", lambda: bool(made), said.append) as folder:
            took.append(folder)

    with staging_folder(tmp_path, "name", lambda: bool(made), said.append) as folder:
        other = threading.Thread(target=second)
        other.start()
        while not said:
            other.join(0.01)
        assert "another process tokenises the same texts; waiting for it" in said[0]
        assert (folder.is_dir(), took) == (True, [])
        made.append(True)
        folder.rmdir()
    other.join()
    assert took == [None]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("error", "left"), [(KeyboardInterrupt, [".name.lock", ".name.part"]), (UserError, [])])
def test_what_an_interrupted_start_leaves_and_a_refused_one_does_not(tmp_path, error, left):
    def interrupted():
        with staging_folder(tmp_path, "name", lambda: False, quiet) as folder:
            (folder / "a").write_text("")
            raise error("x")

    with pytest.raises(error, match="x"):
        interrupted()
    assert sorted(path.name for path in tmp_path.iterdir()) == left


@pytest.mark.parametrize(
    ("num_rows", "words"), [(600, "data: a file of the texts was changed"), (300, "data.source: .* was changed")]
)
def test_a_file_that_changes_between_two_readings_is_refused(tmp_path, source, num_rows, words):
    def change(line):
        if "training a vocabulary" in line:  # said between the first reading and the second
            write_lines(source, pairs(num_rows, seed=1))

    with pytest.raises(UserError, match=words):
        prepare_data(data_block(source, **SETTINGS), Storage(tmp_path / "runs"), change)
    assert [path.name for path in (tmp_path / "runs" / "token_cache").iterdir()] == []
