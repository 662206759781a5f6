"""Texts enough for several windows, and the cache that they become."""

import json
from pathlib import Path

from recipes.config_file import load_config
from recipes.data.cache import prepare_data
from recipes.data.tokenizer import train_unigram
from recipes.storage import Storage
from tests.conftest import WORDS, small_run

# A window has at most 16,384 rows: nine of them.
NUM_ROWS, NUM_WINDOWS = 150_000, 9


def write_texts(folder: Path) -> None:
    """pairs.jsonl, a tokenizer, and in ``alone`` the cache that one process makes of them."""
    words = [f"{a}{b}" for a in WORDS for b in WORDS]
    rows = [[words[(i * (j + 3) + j * j) % len(words)] for j in range(2 + i % 9)] for i in range(NUM_ROWS)]
    pairs = [{"source": " ".join([*row, str(i)]), "target": " ".join(reversed(row))} for i, row in enumerate(rows)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)) + "\n")
    train_unigram([pair["source"] for pair in pairs[:2000]], 600).save(folder / "tokenizer")
    prepare(in_tasks(folder, folder / "alone", 0))


def in_tasks(texts: Path, storage: Path, num: int, *overrides: str) -> list[str]:
    """Arguments of a `recipes.train` command that tokenises them in so many tasks."""
    tokenizer = f"data.tokenizer={{kind: folder, path: {texts / 'tokenizer'}}}"
    tasks = f"scaling.num_tokenizing_tasks={num}"
    return small_run(texts / "pairs.jsonl", storage, tokenizer, "data.held_out_ratio=0.01", tasks, *overrides)


def prepare(arguments: list[str], **options) -> None:
    """What the command does with the texts, in this process."""
    config = load_config(arguments[0], arguments[1:])
    prepare_data(config.data, Storage(config.run.storage_path), lambda text: None, **options)


def cached(storage: Path) -> dict[str, bytes]:
    """The files of the only cache, but for the description, in which the time is."""
    [meta] = storage.glob("token_cache/*/meta.json")
    files = {path.relative_to(meta.parent): path for path in meta.parent.rglob("*") if path.is_file() and path != meta}
    return {str(name): path.read_bytes() for name, path in files.items()}


def parts(storage: Path) -> list[Path]:
    """Windows that are tokenised, of a cache that is not whole yet."""
    return list(storage.glob("token_cache/.*.part/ids/*.arrow"))
