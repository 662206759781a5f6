"""Storage: whole files or none, on a local disk and on a filesystem that is not local."""

import os
import pickle

import pytest

from recipes.errors import StorageError
from recipes.storage import Storage


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / "s")


def test_text_comes_back(storage):
    storage.write_text("a/b.txt", "Größe\n")
    assert storage.read_text("a/b.txt") == "Größe\n"
    assert (storage / "a").read_text("b.txt") == "Größe\n"
    assert storage.files() == {"a/b.txt": 8}
    assert storage.names() == ["a"]
    assert storage.names("absent") == []


def test_a_failed_write_leaves_the_old_file_and_no_other(storage, monkeypatch):
    storage.write_text("a.txt", "old")
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        storage.write_text("a.txt", "new")
    assert storage.read_text("a.txt") == "old"
    assert storage.names() == ["a.txt"]


def test_it_travels_by_pickle_with_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = pickle.dumps(Storage("runs") / "x")
    monkeypatch.chdir("/")
    assert pickle.loads(there).local == tmp_path / "runs" / "x"


def test_publish_folder_shows_it_whole_and_the_first_wins(storage, tmp_path):
    for text in ("first", "second"):
        source = tmp_path / text
        source.mkdir()
        (source / "f").write_text(text)
        storage.publish_folder(source, "done/x")
        assert not source.exists()
    assert storage.read_text("done/x/f") == "first"


def test_check_writable_leaves_nothing(storage):
    storage.check_writable()
    assert storage.names() == []


@pytest.mark.parametrize(
    ("uri", "words"),
    [("/proc/nowhere", "/proc/nowhere: cannot be written: "), ("ftp://host/x", "ftp://host/x: not a storage")],
)
def test_a_place_that_cannot_be_used_is_one_line(uri, words):
    with pytest.raises(StorageError) as caught:
        Storage(uri).check_writable()
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        Storage(tmp_path / "f").check_writable()


def test_an_object_store(tmp_path):
    store = Storage("mock://bucket/runs")
    assert store.local is None
    store.write_text("a/b.txt", "x")
    store.check_writable()
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "f").write_text("y")
    store.upload_folder(tmp_path / "up", "a")
    assert store.files() == {"a/b.txt": 1, "a/f": 1}
    store.download_folder("a", tmp_path / "down")
    assert sorted(path.name for path in (tmp_path / "down").iterdir()) == ["b.txt", "f"]
    store.delete_folder("a")
    assert not store.exists("a")
