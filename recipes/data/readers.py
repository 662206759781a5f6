"""One or two text columns out of one file: Parquet, Arrow, JSON Lines, JSON, CSV, TSV, plain text.

Every reader gives windows of rows as :class:`Columns`, one after the other. The fast way is pyarrow's; JSON that it cannot
take as it stands is read again line by line, so that the offending lines can be named.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv as pa_csv
from pyarrow import fs, ipc
from pyarrow import json as pa_json
from pyarrow import parquet as pq

from recipes.errors import UserError, nearest

TEXT = pa.large_string()
COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4")
_BOM = b"\xef\xbb\xbf"
# Of a window: bytes of the file, or of its columns before compression, and rows.
_BLOCK_BYTES = 1 << 23
MOST_ROWS = 16_384


@dataclass
class Columns:
    """Source and target texts of some rows of one file.

    Attributes:
        source, target: text, null where there is none; the same where only one column is wanted.
        rows: 1-based number of each row in its file; for JSON Lines and plain text the line.
        notes: why a row has no text, by position, where it is not simply null.
    """

    source: pa.ChunkedArray
    target: pa.ChunkedArray
    rows: np.ndarray
    notes: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """A file, the block and field that name it, and which of its columns are wanted.

    target_column: None where sources are all that is wanted.
    """

    block: str
    part: str
    filesystem: fs.FileSystem
    path: str
    name: str
    source_column: str
    target_column: str | None

    @property
    def field_name(self) -> str:
        return f"{self.block}.{self.part}"

    @property
    def sides(self) -> dict[str, str]:
        """Column by what it holds."""
        return {"source": self.source_column} | ({"target": self.target_column} if self.target_column else {})

    @property
    def wanted(self) -> dict[str, str]:
        return {f"{self.block}.{side}_column": column for side, column in self.sides.items()}

    def check_columns(self, present: list[str]) -> None:
        """Raise UserError, one line for each wanted column that is not among ``present``."""
        lines = [
            f"{field_name}: {self.name} has no column '{column}'{nearest(column, present)}"
            + (f" (columns: {', '.join(present)})" if "did you mean" in nearest(column, present) else "")
            for field_name, column in self.wanted.items()
            if column not in present
        ]
        if lines:
            raise UserError("\n".join(lines))


def suffix_of(path: str) -> str:
    """``".jsonl"`` for ``a/b.jsonl`` and for ``a/b.jsonl.gz``."""
    name = path.rsplit("/", 1)[-1].lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return f".{name.rsplit('.', 1)[1]}" if "." in name else ""


def read_windows(place: Place) -> Iterator[Columns]:
    """One file by its suffix (one of ``READERS``), some rows at a time: a file of any size in bounded memory.

    A .json file that is one list is the exception, which is read whole.

    Raises:
        UserError: the file is broken, or lacks a column, or a column holds something other than text.
    """
    try:
        yield from READERS[suffix_of(place.path)](place)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{place.field_name}: {place.name} cannot be read: {reason[:300]}") from None


def _read_parquet(place: Place) -> Iterator[Columns]:
    with place.filesystem.open_input_file(place.path) as stream:
        # Buffered: else a whole column of a row group is read at once, however large.
        parquet = pq.ParquetFile(stream, buffer_size=_BLOCK_BYTES)
        place.check_columns(parquet.schema_arrow.names)
        columns = list(dict.fromkeys(place.wanted.values()))
        batches = parquet.iter_batches(_rows_at_once(parquet.metadata, columns), columns=columns)
        yield from _from_batches(place, parquet.schema_arrow, batches)


def _rows_at_once(metadata: pq.FileMetaData, columns: list[str]) -> int:
    """Rows of about ``_BLOCK_BYTES``, by what the columns come to before compression."""
    num_bytes = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            num_bytes += column.total_uncompressed_size if column.path_in_schema in columns else 0
    bytes_per_row = num_bytes / max(1, metadata.num_rows)
    return int(min(max(_BLOCK_BYTES // max(1, bytes_per_row), 256), MOST_ROWS))


def _read_arrow(place: Place) -> Iterator[Columns]:
    local = isinstance(place.filesystem, fs.LocalFileSystem)
    with pa.memory_map(place.path) if local else place.filesystem.open_input_file(place.path) as stream:
        reader = ipc.open_file(stream)
        place.check_columns(reader.schema.names)
        batches = map(reader.get_batch, range(reader.num_record_batches))
        parts = (batch.slice(begin, MOST_ROWS) for batch in batches for begin in range(0, batch.num_rows, MOST_ROWS))
        yield from _from_batches(place, reader.schema, parts)


def _read_separated(place: Place) -> Iterator[Columns]:
    delimiter = "\t" if suffix_of(place.path) == ".tsv" else ","
    parse = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    read = pa_csv.ReadOptions(block_size=_BLOCK_BYTES)
    columns = list(dict.fromkeys(place.wanted.values()))
    # As bytes: text of the wrong encoding is then named by row, like anywhere else. Missing ones are named below.
    convert = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.large_binary()),
        strings_can_be_null=False,
        include_columns=columns,
        include_missing_columns=True,
    )
    with place.filesystem.open_input_stream(place.path) as stream:
        place.check_columns(pa_csv.open_csv(stream, read, parse).schema.names)
    with place.filesystem.open_input_stream(place.path) as stream:
        reader = pa_csv.open_csv(stream, read, parse, convert)
        yield from _from_batches(place, reader.schema, reader)


def _from_batches(place: Place, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[Columns]:
    yield _from_table(place, schema.empty_table(), 1)  # refuses columns of another type in a file without rows too
    first = 1
    for batch in batches:
        yield _from_table(place, pa.Table.from_batches([batch]), first)
        first += batch.num_rows


def _from_table(place: Place, table: pa.Table, first: int) -> Columns:
    """first: the number of the table's first row in its file, from 1."""
    notes: dict[int, str] = {}
    texts = [
        as_text(place, field_name, table[column], label, notes)
        for (field_name, column), label in zip(place.wanted.items(), place.sides, strict=True)
    ]
    return Columns(texts[0], texts[-1], rows=np.arange(first, first + table.num_rows), notes=notes)


def as_text(
    place: Place, field_name: str, column: pa.ChunkedArray, label: str, notes: dict[int, str]
) -> pa.ChunkedArray:
    """The column as large_string; rows that are not UTF-8 become null and are noted."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_null(kind):
        return column.cast(TEXT)
    if not any(
        is_kind(kind)
        for is_kind in (
            pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
            pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view,
        )
    ):  # fmt: skip
        raise UserError(
            f"{field_name}: column '{column_name(place, field_name)}' of {place.name} holds {kind}, not text"
        )
    raw = column.cast(kind) if pa.types.is_dictionary(column.type) else column
    raw = raw.cast(pa.large_binary())
    chunks, start = [], 0
    for chunk in raw.chunks:
        try:
            chunks.append(chunk.cast(TEXT))  # checks that it is UTF-8
        except pa.ArrowInvalid:
            chunks.append(_decode_each(chunk, label, start, notes))
        start += len(chunk)
    return pa.chunked_array(chunks, type=TEXT)


def column_name(place: Place, field_name: str) -> str:
    return place.wanted[field_name]


def _decode_each(chunk: pa.LargeBinaryArray, label: str, start: int, notes: dict[int, str]) -> pa.LargeStringArray:
    texts: list[str | None] = []
    for i, value in enumerate(chunk.to_pylist()):
        try:
            texts.append(None if value is None else value.decode("utf-8"))
        except UnicodeDecodeError:
            texts.append(None)
            notes[start + i] = f"{label} is not UTF-8"
    return pa.array(texts, TEXT)


def _line_blocks(place: Place) -> Iterator[tuple[int, bytes]]:
    """The file in blocks of whole lines, each with the number of its first line, from 1."""
    with place.filesystem.open_input_stream(place.path) as stream:
        number, parts = 1, [stream.read(_BLOCK_BYTES).removeprefix(_BOM)]
        while more := stream.read(_BLOCK_BYTES):
            end = parts[-1].rfind(b"\n") + 1
            if end:
                block = b"".join([*parts[:-1], parts[-1][:end]])
                yield number, block
                number, parts = number + block.count(b"\n"), [parts[-1][end:]]
            parts.append(more)
        yield number, b"".join(parts)


def _read_json_lines(place: Place) -> Iterator[Columns]:
    present: dict[str, None] = {}
    for number, content in _line_blocks(place):
        if number == 1 and _is_list(place, content):
            with place.filesystem.open_input_stream(place.path) as stream:
                columns, names = _from_objects(place, json_rows(place, stream.read()))
            present.update(names)
            yield columns
            break
        if not content.strip():
            continue
        if columns := _json_lines_fast(place, content, number):
            present.update(dict.fromkeys(place.wanted.values()))
        else:
            columns, names = _from_objects(place, _json_lines(content, number))
            present.update(names)
        yield columns
    if present:
        place.check_columns(list(present))


def _is_list(place: Place, content: bytes) -> bool:
    return suffix_of(place.path) == ".json" and content.lstrip()[:1] == b"["


def _json_lines_fast(place: Place, content: bytes, first: int) -> Columns | None:
    """By pyarrow's reader; None where its rows are not the lines, or a wanted value is not text."""
    columns = list(dict.fromkeys(place.wanted.values()))
    parse = pa_json.ParseOptions(
        explicit_schema=pa.schema([(column, TEXT) for column in columns]), unexpected_field_behavior="ignore"
    )
    block = max(1 << 20, len(content) // 4)
    try:
        table = pa_json.read_json(
            pa.BufferReader(content), read_options=pa_json.ReadOptions(block_size=block), parse_options=parse
        )
        table.validate(full=True)
    except pa.ArrowInvalid:
        return None
    num_lines = content.count(b"\n") + (not content.endswith(b"\n"))
    if table.num_rows != num_lines or any(table[column].null_count == table.num_rows for column in columns):
        return None
    return _from_table(place, table, first)


def json_rows(place: Place, content: bytes) -> Iterator[tuple[int, Any, str]]:
    """(1-based line or row, its value, why it has none) of JSON Lines, or of a .json file's one list."""
    content = content.removeprefix(_BOM)
    if not _is_list(place, content):
        yield from _json_lines(content, 1)
        return
    try:
        rows = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place.field_name}: {place.name} is not JSON: {error}") from None
    yield from ((number, row, "") for number, row in enumerate(rows, start=1))


def _json_lines(content: bytes, first: int) -> Iterator[tuple[int, Any, str]]:
    for number, line in enumerate(content.split(b"\n"), start=first):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line.decode("utf-8")), ""
        except UnicodeDecodeError:
            yield number, None, "line is not UTF-8"
        except (ValueError, RecursionError):
            yield number, None, "line is not JSON"


def _from_objects(place: Place, objects: Iterator[tuple[int, Any, str]]) -> tuple[Columns, dict[str, None]]:
    """From (row number, parsed value, note) of every row; and all names that occur."""
    texts: dict[str, list[str | None]] = {side: [] for side in place.sides}
    rows: list[int] = []
    notes: dict[int, str] = {}
    present: dict[str, None] = {}
    for position, (number, value, note) in enumerate(objects):
        rows.append(number)
        if not note and not isinstance(value, dict):
            note = f"{_json_kind(value)}, not an object"
        if note:
            notes[position] = note
        record = {} if note else value
        present.update(dict.fromkeys(record))
        for label, column in place.sides.items():
            text = record.get(column)
            if text is not None and not isinstance(text, str):
                notes[position] = f"{label} is {_json_kind(text)}, not text"
                text = None
            if text is not None and not _encodable(text):
                notes[position] = f"{label} is not UTF-8"
                text = None
            texts[label].append(text)
    columns = [pa.chunked_array([pa.array(side, TEXT)]) for side in texts.values()]
    return Columns(columns[0], columns[-1], rows=np.asarray(rows, np.int64), notes=notes), present


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, from a JSON escape
        return False
    return True


def _json_kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    kinds = {"int": "a number", "float": "a number", "str": "a text", "list": "a list", "dict": "an object"}
    return kinds.get(type(value).__name__, "null")


def _read_text(place: Place) -> Iterator[Columns]:
    """A text a line; lines of spaces alone part nothing and hold nothing."""
    for first, content in _line_blocks(place):
        numbered = enumerate(content.split(b"\n"), start=first)
        lines = [(number, line.rstrip(b"\r")) for number, line in numbered if line.strip()]
        notes: dict[int, str] = {}
        raw = pa.array([line for _, line in lines], pa.large_binary())
        try:
            texts = raw.cast(TEXT)
        except pa.ArrowInvalid:
            texts = _decode_each(raw, "source", 0, notes)
        column = pa.chunked_array([texts], TEXT)
        yield Columns(column, column, np.array([number for number, _ in lines], np.int64), notes)


# Files of texts without targets.
TEXT_ALONE = (".txt",)
READERS = {
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".jsonl": _read_json_lines,
    ".json": _read_json_lines,
    ".csv": _read_separated,
    ".tsv": _read_separated,
    ".txt": _read_text,
}
