"""Predictions beside the columns of their input, in a file that is seen whole or not at all."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs
from pyarrow import parquet as pq

from recipes.errors import UserError
from recipes.prediction.rows import TextRows
from recipes.storage import Storage

KINDS = (".parquet", ".jsonl")


def check_output(uri: str, overwrite: bool) -> None:
    """Refuse a file's name that cannot be written to, before any work.

    Raises:
        UserError: another ending than ``KINDS``, no such folder, a folder, or a file that is there already.
    """
    if _suffix(uri) not in KINDS:
        raise UserError(f"--output {uri}: a file's name must end in one of {', '.join(KINDS)}")
    folder, name = _parts(uri)
    if not folder.exists():
        raise UserError(f"--output {uri}: there is no folder {folder}")
    if folder.local is not None and (folder.local / name).is_dir():
        raise UserError(f"--output {uri}: is a folder; give a file")
    if folder.exists(name) and not overwrite:
        raise UserError(f"--output {uri}: is there already; give another name, or --overwrite")


def _suffix(uri: str) -> str:
    return Path(uri.rsplit("/", 1)[-1]).suffix


def _parts(uri: str) -> tuple[Storage, str]:
    folder, _, name = uri.rpartition("/") if "://" in uri else (str(Path(uri).absolute().parent), "/", Path(uri).name)
    return Storage(folder), name


class OutputFit:
    """Whether the rows of an input, and a column of predictions, can be written to a file; looked at before any work."""

    def __init__(self, uri: str, column: str):
        self._uri, self._column = uri, column
        self._first: tuple[str, pa.Schema] | None = None
        self._records: list[dict[str, Any]] = []

    def look(self, rows: TextRows) -> None:
        """
        Raises:
            UserError: the rows have a column of that name, or others than the files before.
        """
        if rows.table is not None:
            present = rows.table.column_names
        else:
            present = {key for record in rows.records for key in record}
        if self._column in present:
            raise UserError(f"--output-column: {rows.file} has a column '{self._column}' already; give another name")
        if _suffix(self._uri) != ".parquet":
            return
        if rows.table is None:
            self._records += rows.records
            return
        name, schema = self._first or (rows.file, rows.table.schema)
        self._first = name, schema
        if not rows.table.schema.equals(schema):
            raise UserError(
                f"--input: {rows.file} has other columns or types than {name}; write a .jsonl, or take them one by one"
            )

    def check(self) -> None:
        """
        Raises:
            UserError: objects of JSON whose fields are of several types.
        """
        if self._records:
            _table_of(self._records)
            if self._first is not None:
                raise UserError(f"--input: JSON beside {self._first[0]}; write a .jsonl, or take them one by one")


def _table_of(records: list[dict[str, Any]]) -> pa.Table:
    try:
        # All keys: pyarrow takes those of the first record.
        names = list({key: None for record in records for key in record})
        return pa.table({name: pa.array([record.get(name) for record in records]) for name in names})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--output: the rows do not fit Parquet's columns ({reason}); write a .jsonl") from None


class PredictionWriter:
    """Adds rows to a file of the kind its name says. column: of the predictions."""

    def __init__(self, path: Path, column: str):
        self._path, self._column = path, column

    def write(self, rows: TextRows, predictions: list[str | None]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Until then the file is not whole."""
        raise NotImplementedError


class _JsonLines(PredictionWriter):
    def __init__(self, path: Path, column: str):
        super().__init__(path, column)
        self._stream = path.open("w", encoding="utf-8")

    def write(self, rows: TextRows, predictions: list[str | None]) -> None:
        records = rows.records if rows.records is not None else rows.table.to_pylist()
        for record, prediction in zip(records, predictions, strict=True):
            line = json.dumps(record | {self._column: prediction}, ensure_ascii=False, default=_plain)
            self._stream.write(line + "\n")

    def close(self) -> None:
        self._stream.close()


class _Parquet(PredictionWriter):
    def __init__(self, path: Path, column: str):
        super().__init__(path, column)
        self._writer: pq.ParquetWriter | None = None
        # Objects have no types: those of all rows together decide.
        self._records: list[dict[str, Any]] = []

    def write(self, rows: TextRows, predictions: list[str | None]) -> None:
        if rows.table is not None:
            self._append(with_predictions(rows.table, self._column, predictions))
            return
        pairs = zip(rows.records, predictions, strict=True)
        self._records += [record | {self._column: text} for record, text in pairs]

    def _append(self, table: pa.Table) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        if self._records:
            self._append(_table_of(self._records))
        if self._writer is not None:
            self._writer.close()


def with_predictions(table: pa.Table, column: str, predictions: list[str | None]) -> pa.Table:
    return table.append_column(column, pa.array(predictions, pa.string()))


@contextmanager
def written(uri: str, column: str) -> Iterator[PredictionWriter]:
    """A writer whose file appears under its name when the block has ended well; otherwise nothing is left."""
    folder, name = _parts(uri)
    path = (folder.local or Path(tempfile.gettempdir())) / f".{name}.{uuid.uuid4().hex}.part"
    try:
        writer = (_Parquet if _suffix(uri) == ".parquet" else _JsonLines)(path, column)
        yield writer
        writer.close()
        if folder.local is not None:
            path.replace(folder.local / name)
        else:
            target = fs.FileSystem.from_uri(uri)
            fs.copy_files(
                str(path), target[1], source_filesystem=fs.LocalFileSystem(), destination_filesystem=target[0]
            )
    finally:
        path.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """What JSON has no form for: bytes, dates, decimals."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
