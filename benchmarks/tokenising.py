"""How fast texts become a token cache, beside `tokenizers` alone, and in how much memory.

``python benchmarks/tokenising.py [--rows 10000,100000,1000000] [--pairs FILE.parquet] [--times 5] [--tasks 4]
[--json FILE] [--picture FILE]``

Of each number of rows a Parquet file is made: the pairs of ``--pairs`` over and over, or sentences of made-up words, each row
with its number in front, so that no two are the same. Then, by turns, each time in a process of its own: `encode_batch_fast` of
the same tokenizer over the same texts, 2,048 at once, nothing kept (the texts are in memory before the clock starts);
and `prepare_data` from the file to the finished cache. Medians. Importing libraries is not counted.

With ``--tasks`` also `prepare_data` in so many tasks of Ray (scaling.num_tokenizing_tasks), on a local Ray whose start and end are
counted, and `prepare_data` where all ids are given: what is left for one process however many tokenise.

Memory is the process's anonymous memory (RssAnon of /proc/self/status, every 20 ms) at its peak, less what it has after the
imports. Pages of mapped files are not in it: the kernel takes those back whenever it wants.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from process_memory import memory_now
from pyarrow import parquet as pq

from recipes.config import DataBlock, ScalingBlock
from recipes.data.cache import prepare_data
from recipes.data.encoding import Ids, PoolOf, encode
from recipes.data.tokenizer import TextTokenizer, train_unigram
from recipes.launching.tokenizing import tokenizing_pool
from recipes.storage import Storage

_ROWS_AT_ONCE = 65_536
# At which `tokenizers` alone is fastest here: with 65,536 it takes a fifth longer.
_TEXTS_AT_ONCE = 2048
_VOCABULARY = 8000
_MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default="10000,100000,1000000")
    parser.add_argument("--pairs", help="Parquet file whose first two columns are the pairs")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=0)
    parser.add_argument("--json")
    parser.add_argument("--picture")
    parser.add_argument("--one", nargs=3, metavar=("WHAT", "FILE", "TOKENIZER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_one(*options.one, options.tasks)))
        return
    found = []
    for rows in map(int, options.rows.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            found.append(_measured(rows, options, Path(folder)))
            print(_line(found[-1]), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    if options.picture:
        _draw(found, options.picture)


def _measured(rows: int, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    file, tokenizer = folder / "pairs.parquet", folder / "tokenizer"
    _write_pairs(file, rows, options.pairs)
    sample = pq.ParquetFile(file).read_row_group(0).slice(0, 20_000)
    train_unigram(sample["source"].to_pylist() + sample["target"].to_pylist(), _VOCABULARY).save(tokenizer)
    ways = ["tokenizers", "prepare_data", *(["in_tasks", "ids_given"] if options.tasks else [])]
    taken: dict[str, list[dict[str, float]]] = {what: [] for what in ways}
    for _ in range(options.times):
        for what, results in taken.items():
            command = [
                sys.executable,
                __file__,
                "--one",
                what,
                str(file),
                str(tokenizer),
                "--tasks",
                str(options.tasks),
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    found: dict[str, float] = {"rows": rows, "text_bytes": _text_bytes(file)}
    for what in ways[1:]:
        pairs = zip(taken["tokenizers"], taken[what], strict=True)
        name = "ratio" if what == "prepare_data" else f"{what}_ratio"
        found[name] = statistics.median(mine["seconds"] / theirs["seconds"] for theirs, mine in pairs)
    for what, results in taken.items():
        for name in ("seconds", "memory_mib"):
            found[f"{what}_{name}"] = statistics.median(result[name] for result in results)
    found["peak_rss_mib"] = max(result["peak_rss_mib"] for result in taken["prepare_data"])
    return found


def _line(one: dict[str, float]) -> str:
    tasks = "".join(
        f"; {what.replace('_', ' ')} {one[f'{what}_seconds']:.2f} s ({one[f'{what}_ratio']:.3f})"
        for what in ("in_tasks", "ids_given")
        if f"{what}_seconds" in one
    )
    return (
        f"{one['rows']:>9,} rows, {one['text_bytes'] / 1e6:,.0f} MB: tokenizers {one['tokenizers_seconds']:.2f} s, prepare_data "
        f"{one['prepare_data_seconds']:.2f} s ({one['ratio']:.3f} times), {one['rows'] / one['prepare_data_seconds']:,.0f} "
        f"pairs/s, {one['prepare_data_memory_mib']:.0f} MiB more memory{tasks}"
    )


def _write_pairs(file: Path, rows: int, pairs: str | None) -> None:
    if pairs is None:
        sources, targets = _made_up(min(rows, 50_000))
    else:
        table = pq.read_table(pairs)
        sources, targets = table.column(0).to_pylist(), table.column(1).to_pylist()
    schema = pa.schema([("source", pa.string()), ("target", pa.string())])
    with pq.ParquetWriter(file, schema) as writer:
        for begin in range(0, rows, _ROWS_AT_ONCE):
            numbers = range(begin, min(rows, begin + _ROWS_AT_ONCE))
            columns = [
                [f"{i}: {sources[i % len(sources)]}" for i in numbers],
                [targets[i % len(targets)] for i in numbers],
            ]
            writer.write_table(pa.table(columns, schema=schema))


def _made_up(num: int) -> tuple[list[str], list[str]]:
    """Sentences of 20,000 words whose frequencies fall as those of a language do (Zipf)."""
    draw = np.random.default_rng(0)
    syllables = [a + b for a in "bdfghklmnprstvwz" for b in ("a", "e", "i", "o", "u", "ei", "an", "er", "on", "il")]
    words = ["".join(draw.choice(syllables, size)) for size in draw.integers(1, 5, 20_000)]
    frequency = 1 / np.arange(1, len(words) + 1)
    sides = []
    for mean in (16, 14):
        sizes = 3 + draw.poisson(mean - 3, num)
        picked = iter(draw.choice(len(words), int(sizes.sum()), p=frequency / frequency.sum()).tolist())
        sides.append([" ".join(words[next(picked)] for _ in range(size)).capitalize() + "." for size in sizes])
    return sides[0], sides[1]


def _text_bytes(file: Path) -> int:
    """Of both columns; the file itself is compressed."""
    total = 0
    for batch in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE):
        total += sum(column.nbytes - 4 * len(column) for column in batch.columns)
    return total


def _one(what: str, file: str, tokenizer: str, tasks: int) -> dict[str, float]:
    if what == "tokenizers":
        work = _tokenizers_alone(file, tokenizer)
    elif what == "ids_given":
        given = _Given()
        _preparing(file, tokenizer, given.noting)()
        work = _preparing(file, tokenizer, given.giving)
    else:
        scaling = ScalingBlock(num_tokenizing_tasks=tasks if what == "in_tasks" else 0)
        work = _preparing(file, tokenizer, tokenizing_pool(scaling, lambda words: None))
    with _Memory() as memory:
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "memory_mib": (memory.peak - memory.begin) / _MIB, "peak_rss_mib": memory.rss / _MIB}


def _tokenizers_alone(file: str, tokenizer: str) -> Callable[[], None]:
    backend = TextTokenizer.load(tokenizer)._backend
    table = pq.read_table(file)
    texts = [table[side].to_pylist() for side in ("source", "target")]

    def work() -> None:
        for column in texts:
            for begin in range(0, len(column), _TEXTS_AT_ONCE):
                backend.encode_batch_fast(column[begin : begin + _TEXTS_AT_ONCE])

    return work


def _preparing(file: str, tokenizer: str, pool_of: PoolOf) -> Callable[[], None]:
    from transformers import AutoTokenizer  # noqa: F401  seconds, which have nothing to do with the texts

    block = DataBlock(source=file, held_out_ratio=0.01, tokenizer={"kind": "folder", "path": tokenizer})

    def work() -> None:
        with tempfile.TemporaryDirectory(dir=Path(file).parent) as storage:
            prepare_data(block, Storage(storage), lambda words: None, pool_of)

    return work


class _Given:
    """Notes the ids of all windows, and gives them again to who begins the same windows."""

    num_at_once = 3

    def __init__(self) -> None:
        self._ids: deque[list[Ids]] = deque()

    @contextmanager
    def noting(self, tokenizer: TextTokenizer) -> Iterator[_Given]:
        self.begin = lambda texts: self._noted(encode(tokenizer, texts))
        yield self

    def _noted(self, ids: list[Ids]) -> Callable[[], list[Ids]]:
        self._ids.append(ids)
        return lambda: ids

    @contextmanager
    def giving(self, tokenizer: TextTokenizer) -> Iterator[_Given]:
        self.begin = lambda texts: self._ids.popleft
        yield self


class _Memory:
    """Looks at this process's memory, in bytes, while a block runs.

    Attributes:
        begin, peak: anonymous memory.
        rss: peak of all resident memory, mapped files included.
    """

    def __enter__(self) -> _Memory:
        self._over = threading.Event()
        self.begin, self.rss = memory_now()
        self.peak = self.begin
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._over.wait(0.02):
            anonymous, rss = memory_now()
            self.peak, self.rss = max(self.peak, anonymous), max(self.rss, rss)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _draw(found: list[dict[str, float]], file: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (time_axes, memory_axes) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    rows = [one["rows"] for one in found]
    for axes, name, title in ((time_axes, "seconds", "seconds"), (memory_axes, "memory_mib", "anonymous memory, MiB")):
        for what, style in (("tokenizers", "o--"), ("prepare_data", "o-")):
            axes.plot(rows, [one[f"{what}_{name}"] for one in found], style, label=what)
        axes.set(xscale="log", yscale="log", xlabel="pairs", title=title)
        axes.grid(alpha=0.3)
    time_axes.legend()
    figure.savefig(file, metadata={"Date": None} if file.endswith(".svg") else None)


if __name__ == "__main__":
    main()
