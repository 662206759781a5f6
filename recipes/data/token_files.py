"""Token ids of one split in an Arrow IPC file, memory-mapped for reading.

Columns: ``source`` and ``target`` (lists of int32 ids, the end token included), ``file`` and ``row`` (where the example
came from). All record batches but the last have the same number of rows, so example i is found by division.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pyarrow import ipc

ROWS_PER_BATCH = 65_536
_IDS = pa.large_list(pa.field("item", pa.int32(), nullable=False))
SCHEMA = pa.schema([("source", _IDS), ("target", _IDS), ("file", pa.int32()), ("row", pa.int64())])
Side = Literal["source", "target"]


class TokenWriter:
    """Writes an Arrow file batch by batch; every batch but the last must hold ROWS_PER_BATCH examples."""

    def __init__(self, path: Path):
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = ipc.new_file(self._sink, SCHEMA)

    def write(
        self,
        source: tuple[np.ndarray, np.ndarray],
        target: tuple[np.ndarray, np.ndarray],
        file: np.ndarray,
        row: np.ndarray,
    ) -> None:
        """``source`` and ``target`` are (ids, offsets) as a tokenizer returns them."""
        lists = [
            pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(ids, pa.int32()), type=_IDS)
            for ids, offsets in (source, target)
        ]
        columns = [*lists, pa.array(file, pa.int32()), pa.array(row, pa.int64())]
        self._writer.write_batch(pa.record_batch(columns, schema=SCHEMA))

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        self._sink.close()


class TokenSplit:
    """Examples of one split; ids are views of the mapped file, nothing is read before it is used.

    Attributes:
        source_lengths, target_lengths: tokens of every example, the end token included (int32).
    """

    def __init__(self, path: Path, file_names: list[str]):
        self._file_names = file_names
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
        self.source_lengths = self._lengths("source")
        self.target_lengths = self._lengths("target")

    def _lengths(self, side: Side) -> np.ndarray:
        parts = [np.diff(offsets) for offsets in self._offsets[side]]
        return np.concatenate(parts or [np.zeros(0)]).astype(np.int32)

    def __len__(self) -> int:
        return len(self.source_lengths)

    def source(self, i: int) -> np.ndarray:
        """Source ids of example i, a read-only view."""
        return self._view("source", i)

    def target(self, i: int) -> np.ndarray:
        """Target ids of example i, a read-only view."""
        return self._view("target", i)

    def _view(self, side: Side, i: int) -> np.ndarray:
        if not 0 <= i < len(self):
            raise IndexError(f"example {i} of {len(self)}")
        batch, place = divmod(int(i), self._rows_per_batch)
        offsets = self._offsets[side][batch]
        return self._ids[side][batch][offsets[place] : offsets[place + 1]]

    def where(self, i: int) -> str:
        """Where example i came from: ``"train.parquet row 7"``."""
        batch, place = divmod(int(i), self._rows_per_batch)
        return f"{self._file_names[self._file[batch][place]]} row {self._row[batch][place]}"
