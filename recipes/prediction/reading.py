"""The texts of a file, or of a folder of files, with all that stands beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import csv as pa_csv
from pyarrow import fs, ipc
from pyarrow import parquet as pq

from recipes.data.readers import TEXT, Place, as_text, json_rows, suffix_of
from recipes.data.sources import list_files
from recipes.errors import UserError
from recipes.prediction.rows import TextRows

# The one column of a .txt file.
LINE_COLUMN = "text"
_TEXT_FILES = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class InputFile(Place):
    """A file, and the column that holds its texts."""

    @classmethod
    def of(cls, filesystem: fs.FileSystem, path: str, name: str, column: str) -> InputFile:
        return cls("--input", "", filesystem, path, name, column, None)

    @property
    def field_name(self) -> str:
        return self.block

    @property
    def wanted(self) -> dict[str, str]:
        return {"--source-column": self.source_column}


def input_files(uri: str, column: str | None) -> list[InputFile]:
    """The files of an input, by name. column: of the texts; None only for a .txt file.

    Raises:
        UserError: there is nothing, or nothing of a known kind.
    """
    if suffix_of(uri) == ".txt":
        if not Path(uri).is_file():
            raise UserError(f"--input {uri}: there is no such file on this machine")
        path = str(Path(uri).absolute())
        return [InputFile.of(fs.LocalFileSystem(), path, Path(uri).name, LINE_COLUMN)]
    filesystem, files = list_files(uri, "--input")
    return [InputFile.of(filesystem, path, name, str(column)) for path, name in files]


def read_rows(file: InputFile, num_rows: int) -> Iterator[TextRows]:
    """The file in windows of ``num_rows``. Parquet is read window by window, the other kinds whole.

    Raises:
        UserError: the file is broken, lacks the column, or that holds something other than text.
    """
    with readable(file):
        if suffix_of(file.path) in (".json", ".jsonl"):
            yield from _json(file, num_rows)
            return
        first = 1
        for table in _TABLES[suffix_of(file.path)](file, num_rows):
            yield rows_of_table(file, table, first)
            first += table.num_rows


@contextmanager
def readable(file: InputFile) -> Iterator[None]:
    """Faults of reading the file in one line."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--input: {file.name} cannot be read: {reason[:300]}") from None


def rows_of_table(file: InputFile, table: pa.Table, first: int) -> TextRows:
    """first: the number of the table's first row in its file, from 1."""
    notes: dict[int, str] = {}
    column = as_text(file, "--source-column", table[file.source_column], "text", notes)
    if suffix_of(file.path) in _TEXT_FILES:
        # Read as bytes only so that a row of another encoding can be named.
        table = table.set_column(table.column_names.index(file.source_column), file.source_column, column)
    texts = column.to_pylist()
    return TextRows(texts, f"{file.name} row", range(first, first + len(texts)), notes, table=table)


def _parquet(file: InputFile, num_rows: int) -> Iterator[pa.Table]:
    with file.filesystem.open_input_file(file.path) as stream:
        parquet = pq.ParquetFile(stream)
        file.check_columns(parquet.schema_arrow.names)
        for batch in parquet.iter_batches(batch_size=num_rows):
            yield pa.Table.from_batches([batch])


def _arrow(file: InputFile, num_rows: int) -> Iterator[pa.Table]:
    with file.filesystem.open_input_file(file.path) as stream:
        table = ipc.open_file(stream).read_all()
    file.check_columns(table.column_names)
    yield from _slices(table, num_rows)


def _separated(file: InputFile, num_rows: int) -> Iterator[pa.Table]:
    """All columns as text, as they stand there."""
    delimiter = "\t" if suffix_of(file.path) == ".tsv" else ","
    parse = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with file.filesystem.open_input_stream(file.path) as stream:
        names = pa_csv.open_csv(stream, parse_options=parse).schema.names
    file.check_columns(names)
    kinds = dict.fromkeys(names, TEXT) | {file.source_column: pa.large_binary()}
    with file.filesystem.open_input_stream(file.path) as stream:
        convert = pa_csv.ConvertOptions(column_types=kinds, strings_can_be_null=False)
        table = pa_csv.read_csv(stream, parse_options=parse, convert_options=convert)
    yield from _slices(table, num_rows)


def _lines(file: InputFile, num_rows: int) -> Iterator[pa.Table]:
    with file.filesystem.open_input_stream(file.path) as stream:
        content = stream.read().removeprefix(b"\xef\xbb\xbf")
    lines = [line.removesuffix(b"\r") for line in content.removesuffix(b"\n").split(b"\n")] if content else []
    yield from _slices(pa.table({LINE_COLUMN: pa.array(lines, pa.large_binary())}), num_rows)


_TABLES = {".parquet": _parquet, ".arrow": _arrow, ".csv": _separated, ".tsv": _separated, ".txt": _lines}


def _slices(table: pa.Table, num_rows: int) -> Iterator[pa.Table]:
    for begin in range(0, table.num_rows, num_rows):
        yield table.slice(begin, num_rows)


def _json(file: InputFile, num_rows: int) -> Iterator[TextRows]:
    with file.filesystem.open_input_stream(file.path) as stream:
        everything = list(json_rows(file, stream.read()))
    names = {name: None for _, record, _ in everything if isinstance(record, dict) for name in record}
    if names:
        file.check_columns(list(names))
    for begin in range(0, len(everything), num_rows):
        yield _rows_of_json(file, everything[begin : begin + num_rows])


def _rows_of_json(file: InputFile, rows: list[tuple[int, object, str]]) -> TextRows:
    texts: list[str | None] = []
    notes = {i: note for i, (_, _, note) in enumerate(rows) if note}
    for i, (_, record, note) in enumerate(rows):
        text = record.get(file.source_column) if isinstance(record, dict) else None
        if not isinstance(record, dict) and not note:
            notes[i] = "not an object"
        if text is not None and not isinstance(text, str):
            notes[i], text = "not text", None
        texts.append(text)
    records = [record if isinstance(record, dict) else {} for _, record, _ in rows]
    return TextRows(texts, f"{file.name} row", [number for number, _, _ in rows], notes, records=records)
