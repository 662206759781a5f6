"""A Parquet input cut into pieces that workers take one after the other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa
from pyarrow import parquet as pq

from recipes.data.readers import suffix_of
from recipes.errors import UserError
from recipes.prediction.reading import InputFile, readable, rows_of_table
from recipes.prediction.rows import TextRows

# A piece is long enough for full batches of texts alike in length, and short enough to lose little with a worker.
_FEWEST_ROWS, _MOST_ROWS, _PIECES = 128, 8192, 64
# Footers are read from object stores, where each costs a round trip.
_READERS = 16


@dataclass(frozen=True)
class Piece:
    """Rows ``begin`` up to ``end``, counted from 0, of one file. index: in the order of the input, from 0."""

    index: int
    file: InputFile
    begin: int
    end: int

    @property
    def num_rows(self) -> int:
        return self.end - self.begin

    def named(self) -> str:
        """``"a.parquet rows 1 to 128"``"""
        return f"{self.file.name} rows {self.begin + 1} to {self.end}"


def cut(files: list[InputFile], column: str) -> list[Piece]:
    """All rows of all files, in pieces whose sizes depend on the number of rows alone.

    column: of the predictions.

    Raises:
        UserError: a file that is not Parquet, is broken, lacks the texts' column, has ``column`` already, or other columns
            than the files before; not a single row.
    """
    for file in files:
        if suffix_of(file.path) != ".parquet":
            raise UserError(
                f"--input: {file.name} is not Parquet, which workers read; leave out --num-workers for other files"
            )
    with ThreadPoolExecutor(_READERS) as threads:
        footers = list(threads.map(_footer, files))
    first = footers[0].schema.to_arrow_schema()
    for file, footer in zip(files, footers, strict=True):
        schema = footer.schema.to_arrow_schema()
        file.check_columns(schema.names)
        if column in schema.names:
            raise UserError(f"--output-column: {file.name} has a column '{column}' already; give another name")
        if not schema.equals(first):
            raise UserError(
                f"--input: {file.name} has other columns or types than {files[0].name}: take them one by one"
            )
        rows_of_table(file, schema.empty_table(), 1)  # refuses a column that holds no text
    total = sum(footer.num_rows for footer in footers)
    if not total:
        raise UserError("--input: there is not a single row")
    most = min(max(-(-total // _PIECES), _FEWEST_ROWS), _MOST_ROWS)
    pieces: list[Piece] = []
    for file, footer in zip(files, footers, strict=True):
        for begin in range(0, footer.num_rows, most):
            pieces.append(Piece(len(pieces), file, begin, min(begin + most, footer.num_rows)))
    return pieces


def _footer(file: InputFile) -> pq.FileMetaData:
    with readable(file), file.filesystem.open_input_file(file.path) as stream:
        return pq.ParquetFile(stream).metadata


def read_piece(piece: Piece) -> TextRows:
    """Of the file only the row groups that the piece lies in are read.

    Raises:
        UserError: the file is broken, or no longer what it was.
    """
    file = piece.file
    with readable(file), file.filesystem.open_input_file(file.path) as stream:
        parquet = pq.ParquetFile(stream)
        sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.metadata.num_row_groups)]
        starts = list(accumulate(sizes, initial=0))
        groups = [i for i, size in enumerate(sizes) if starts[i] < piece.end and starts[i] + size > piece.begin]
        at, parts = (starts[groups[0]] if groups else 0), []
        for batch in parquet.iter_batches(row_groups=groups, batch_size=_MOST_ROWS):
            begin, end = max(piece.begin - at, 0), min(piece.end - at, batch.num_rows)
            if begin < end:
                parts.append(batch.slice(begin, end - begin))
            at += batch.num_rows
            if at >= piece.end:
                break
    table = pa.Table.from_batches(parts, parquet.schema_arrow)
    if table.num_rows != piece.num_rows:
        raise UserError(f"--input: {file.name} has changed: {table.num_rows} rows instead of {piece.num_rows}")
    return rows_of_table(file, table, piece.begin + 1)
