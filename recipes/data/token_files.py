"""Token ids of one split in an Arrow IPC file, memory-mapped for reading.

Columns: ``source`` and ``target`` (lists of int32 ids, the end token included), ``file`` and ``row`` (where the example
came from), ``task``, and ``denoiser``: -1 where source and target are a pair; else the source is a chunk of text, the
target empty, and the pair is drawn anew whenever it is read. Examples of a task stand together. All record batches but
the last have the same number of rows, so example i is found by division.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from recipes.data.denoising import Denoiser, Pair

ROWS_PER_BATCH = 65_536
PAIR = -1
_IDS = pa.large_list(pa.field("item", pa.int32(), nullable=False))
SCHEMA = pa.schema(
    [
        ("source", _IDS), ("target", _IDS), ("file", pa.int32()), ("row", pa.int64()),
        ("task", pa.int16()), ("denoiser", pa.int16()),
    ]
)  # fmt: skip
Side = Literal["source", "target"]
# What the noise of held-out examples is drawn from, the same in every evaluation of every run.
_FIXED = (0,)


class TokenWriter:
    """Writes an Arrow file; rows come in any number at a time."""

    def __init__(self, path: Path, rows_per_batch: int = ROWS_PER_BATCH):
        self._rows_per_batch = rows_per_batch
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = ipc.new_file(self._sink, SCHEMA)
        self._pending: list[pa.RecordBatch] = []
        self._num_pending = 0

    def write(
        self,
        source: tuple[np.ndarray, np.ndarray],
        target: tuple[np.ndarray, np.ndarray],
        file: np.ndarray,
        row: np.ndarray,
        task: int = 0,
        denoiser: np.ndarray | None = None,
    ) -> None:
        """``source`` and ``target`` are (ids, offsets) as a tokenizer returns them; denoiser: none, all are pairs."""
        num = len(row)
        lists = [
            pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(ids, pa.int32()), type=_IDS)
            for ids, offsets in (source, target)
        ]
        kinds = np.full(num, PAIR, np.int16) if denoiser is None else denoiser
        columns = [
            *lists, pa.array(file, pa.int32()), pa.array(row, pa.int64()),
            pa.array(np.full(num, task, np.int16)), pa.array(kinds, pa.int16()),
        ]  # fmt: skip
        self._pending.append(pa.record_batch(columns, schema=SCHEMA))
        self._num_pending += num
        if self._num_pending >= self._rows_per_batch:
            self._flush(self._num_pending // self._rows_per_batch * self._rows_per_batch)

    def _flush(self, num_rows: int) -> None:
        table = pa.Table.from_batches(self._pending, SCHEMA).combine_chunks()
        for begin in range(0, num_rows, self._rows_per_batch):
            self._writer.write_table(table.slice(begin, min(self._rows_per_batch, num_rows - begin)))
        self._pending = table.slice(num_rows).to_batches()
        self._num_pending -= num_rows

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._num_pending:
            self._flush(self._num_pending)
        self._writer.close()
        self._sink.close()


class TokenSplit:
    """Examples of one split; ids are views of the mapped file, nothing is read before it is used.

    Attributes:
        source_lengths, target_lengths: tokens of every example, the end token included (int32).
        tasks: number of every example's task (int16).
        is_pair: of every example whether its target is a text of its own, and not what was taken out of the source.
    """

    def __init__(
        self,
        path: Path,
        file_names: list[str],
        denoisers: Sequence[Denoiser] = (),
        sentinel_ids: Sequence[int] = (),
        eos_id: int = 1,
    ):
        """denoisers: what the numbers in the column of that name mean."""
        self._file_names = file_names
        self._denoisers, self._sentinel_ids, self._eos_id = denoisers, sentinel_ids, eos_id
        self._drawn_from: tuple[int, ...] = _FIXED
        self._map = pa.memory_map(str(path))
        reader = ipc.open_file(self._map)
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._ids: dict[Side, list[np.ndarray]] = {"source": [], "target": []}
        self._offsets: dict[Side, list[np.ndarray]] = {"source": [], "target": []}
        for batch in batches:
            for side in ("source", "target"):
                column = batch.column(side)
                self._ids[side].append(column.values.to_numpy())
                self._offsets[side].append(column.offsets.to_numpy())
        self._rows_per_batch = max(1, batches[0].num_rows if batches else 1)
        self._file = [batch.column("file").to_numpy() for batch in batches]
        self._row = [batch.column("row").to_numpy() for batch in batches]
        self.tasks = _joined([batch.column("task").to_numpy() for batch in batches], np.int16)
        self._denoiser = _joined([batch.column("denoiser").to_numpy() for batch in batches], np.int16)
        self.is_pair = self._denoiser == PAIR
        self.source_lengths, self.target_lengths = self._stored_lengths("source"), self._stored_lengths("target")
        for number, denoiser in enumerate(denoisers):
            chunks = self._denoiser == number
            if not chunks.any():
                continue
            source, target = denoiser.lengths(self.source_lengths[chunks].astype(np.int64))
            self.source_lengths[chunks], self.target_lengths[chunks] = source, target

    def _stored_lengths(self, side: Side) -> np.ndarray:
        return _joined([np.diff(offsets).astype(np.int32) for offsets in self._offsets[side]], np.int32)

    def __len__(self) -> int:
        return len(self.source_lengths)

    def task_sizes(self, num_tasks: int) -> list[int]:
        """Examples of every task."""
        return np.diff(np.searchsorted(self.tasks, np.arange(num_tasks + 1))).tolist()

    def drawn_from(self, *key: int) -> TokenSplit:
        """The same examples with the noise of another draw: a pure function of ``key`` and the example's number."""
        other = copy.copy(self)
        other._drawn_from = key
        return other

    def pair(self, i: int) -> Pair:
        """Source and target ids of example i; of a pair, read-only views."""
        if not 0 <= i < len(self):
            raise IndexError(f"example {i} of {len(self)}")
        if self.is_pair[i]:
            return Pair(self._view("source", i), self._view("target", i))
        draw = np.random.default_rng([*self._drawn_from, int(i)])
        denoiser = self._denoisers[self._denoiser[i]]
        return denoiser.draw(self._view("source", i), self._sentinel_ids, self._eos_id, draw)

    def source(self, i: int) -> np.ndarray:
        """Source ids of example i."""
        return self.pair(i).source

    def target(self, i: int) -> np.ndarray:
        """Target ids of example i."""
        return self.pair(i).target

    def _view(self, side: Side, i: int) -> np.ndarray:
        batch, place = divmod(int(i), self._rows_per_batch)
        offsets = self._offsets[side][batch]
        return self._ids[side][batch][offsets[place] : offsets[place + 1]]

    def where(self, i: int) -> str:
        """Where example i came from, or where its chunk begins: ``"train.parquet row 7"``."""
        batch, place = divmod(int(i), self._rows_per_batch)
        return f"{self._file_names[self._file[batch][place]]} row {self._row[batch][place]}"


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts or [np.zeros(0, dtype)])
