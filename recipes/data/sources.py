"""Text pairs as the config names them, with the place of every pair for messages."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from recipes.config import DataBlock, TaskBlock
from recipes.data import pydoc
from recipes.data.readers import READERS, TEXT_ALONE, Columns, Place, read_columns, suffix_of
from recipes.errors import UserError

NUM_NAMED_ROWS = 5


@dataclass(frozen=True)
class Examples:
    """Usable (source, target) texts in the order of their files.

    Attributes:
        sources, targets: the texts, without prefix.
        file_names: files they came from; for pydoc, relative to the standard library.
        file_index: position in ``file_names`` of every example (int32).
        rows: 1-based row, or line, of every example in its file (int64).
        num_read: rows read, unusable ones included.
        skipped: how many unusable rows were left out, by reason.
    """

    sources: pa.ChunkedArray
    targets: pa.ChunkedArray
    file_names: list[str]
    file_index: np.ndarray
    rows: np.ndarray
    num_read: int
    skipped: dict[str, int]

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, i: int) -> str:
        """``"train.parquet row 7"``"""
        return f"{self.file_names[self.file_index[i]]} row {self.rows[i]}"

    def select(self, mask: np.ndarray) -> Examples:
        keep = pa.array(mask)
        return Examples(
            self.sources.filter(keep), self.targets.filter(keep), self.file_names,
            self.file_index[mask], self.rows[mask], self.num_read, self.skipped,
        )  # fmt: skip

    def digest(self) -> str:
        """Names texts, order and places: equal for equal content, wherever it is stored."""
        state = sha256()
        for column in (self.sources, self.targets):
            array = pa.concat_arrays([chunk for chunk in column.chunks if len(chunk)] or [pa.array([], column.type)])
            lengths = pc.binary_length(array).to_numpy(zero_copy_only=False).astype(np.int64)
            begin, end = (array.offset, array.offset + len(array))
            offsets = np.frombuffer(array.buffers()[1], np.int64)
            state.update(lengths.tobytes())
            if end > begin:
                state.update(memoryview(array.buffers()[2])[offsets[begin] : offsets[end]])
        state.update(self.rows.astype(np.int64).tobytes())
        state.update(self.file_index.astype(np.int32).tobytes())
        state.update(repr((self.file_names, self.num_read, sorted(self.skipped.items()))).encode())
        return state.hexdigest()


def read_examples(
    config: DataBlock, part: Literal["source", "eval_source"] = "source", task: TaskBlock | None = None
) -> Examples:
    """Read ``data.source`` (or ``data.eval_source``), or that of a task. Of text alone the targets are the sources.

    Raises:
        UserError: nothing there, a broken file, a missing column, no row, or unusable rows with on_bad_row: refuse.
    """
    task = task or config.texts[0]
    uri = task.eval_source if part == "eval_source" else task.source
    alone = task.objective.of_text_alone
    if uri == "pydoc":
        return _from_pydoc(alone)
    filesystem, files = list_files(str(uri), f"{task.at}.{part}", alone)
    target_column = None if alone else task.target_column
    columns = [
        read_columns(Place(task.at, part, filesystem, path, name, task.source_column, target_column))
        for path, name in files
    ]
    names = [f"{task.name}: {name}" if task.name else name for _, name in files]
    return _usable(columns, names, f"{task.at}.{part}", str(uri), config.on_bad_row)


def too_long_refusal(side: str, what: str, limit: int, num_too_long: int, named: list[str], longest: int) -> str:
    """The line that refuses texts of more tokens than ``data.max_<side>_tokens``; named: the first of them."""
    others = num_too_long - len(named)
    more = f" and {others:,} more" if others else ""
    return (
        f"data.max_{side}_tokens: {num_too_long:,} {what} texts have more than {limit} tokens: {', '.join(named)}{more} "
        f"(longest: {longest}); raise the limit, or cut them off with data.on_too_long=truncate"
    )


def list_files(uri: str, field_name: str, alone: bool = False) -> tuple[fs.FileSystem, list[tuple[str, str]]]:
    """The files a source consists of, as (path on the filesystem, short name), by name.

    alone: texts are wanted, not pairs.

    Raises:
        UserError: there is nothing, or nothing of a known kind.
    """
    kinds = [suffix for suffix in sorted(READERS) if alone or suffix not in TEXT_ALONE]
    known = ", ".join(kinds)
    try:
        if "://" in uri:
            filesystem, root = fs.FileSystem.from_uri(uri)
        else:
            filesystem, root = fs.LocalFileSystem(), Path(uri).expanduser().absolute().as_posix()
        info = filesystem.get_file_info(root)
        if info.type == fs.FileType.NotFound:
            raise UserError(f"{field_name}: {uri}: there is no such file or folder{_beside(filesystem, root)}")
        if info.is_file:
            if suffix_of(root) in TEXT_ALONE and not alone:
                raise UserError(
                    f"{field_name}: {uri}: plain text has no targets: give pairs ({known}), or set an objective of text "
                    "alone, such as span_corruption"
                )
            if suffix_of(root) not in kinds:
                raise UserError(f"{field_name}: {uri}: a file's name must end in one of {known}")
            return filesystem, [(root, root.rsplit("/", 1)[-1])]
        below = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{field_name}: {uri}: cannot be reached: {' '.join(str(error).split())[:300]}") from None
    files = sorted((entry.path, entry.path[len(root) :].lstrip("/")) for entry in below if entry.is_file)
    # Names that begin with _ or . are other programs' marks (_SUCCESS, .crc).
    known_files = [
        (path, name)
        for path, name in files
        if suffix_of(path) in kinds and not any(piece[0] in "._" for piece in name.split("/"))
    ]
    if not known_files:
        found = ", ".join(name for _, name in files[:NUM_NAMED_ROWS]) or "nothing"
        raise UserError(f"{field_name}: {uri}: the folder has no file that ends in one of {known} (found: {found})")
    return filesystem, known_files


def _beside(filesystem: fs.FileSystem, path: str) -> str:
    """What the folder holds instead of the missing file."""
    folder = path.rsplit("/", 1)[0] or "/"
    entries = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    names = sorted(entry.base_name for entry in entries if entry.base_name[:1] != ".")[:NUM_NAMED_ROWS]
    return f" ({folder} has: {', '.join(names)})" if names else ""


def _from_pydoc(alone: bool) -> Examples:
    pairs = pydoc.read_pairs()
    names = sorted({pair.file for pair in pairs})
    index = {name: i for i, name in enumerate(names)}
    return Examples(
        pa.chunked_array([pa.array([pair.source for pair in pairs], pa.large_string())]),
        pa.chunked_array([pa.array([pair.source if alone else pair.target for pair in pairs], pa.large_string())]),
        names,
        np.array([index[pair.file] for pair in pairs], np.int32),
        np.array([pair.line for pair in pairs], np.int64),
        len(pairs),
        {},
    )


def _usable(columns: list[Columns], names: list[str], field_name: str, uri: str, on_bad_row: str) -> Examples:
    """Join the files; unusable rows are refused, or left out and counted."""
    sources = pa.chunked_array([chunk for part in columns for chunk in part.source.chunks], pa.large_string())
    targets = pa.chunked_array([chunk for part in columns for chunk in part.target.chunks], pa.large_string())
    sizes = [len(part.rows) for part in columns]
    if not sum(sizes):
        raise UserError(f"{field_name}: {uri}: there is not a single row")
    file_index = np.repeat(np.arange(len(columns), dtype=np.int32), sizes)
    rows = np.concatenate([part.rows for part in columns])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    notes = {
        int(start) + i: note for start, part in zip(starts, columns, strict=True) for i, note in part.notes.items()
    }
    good = np.ones(len(rows), bool)
    reasons: dict[int, str] = {}
    for label, column in (("target", targets), ("source", sources)):
        null = pc.is_null(column).to_numpy()
        empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0).fill_null(False).to_numpy()
        good &= ~(null | empty)
        reasons.update(dict.fromkeys(np.flatnonzero(null).tolist(), f"{label} is null"))
        reasons.update(dict.fromkeys(np.flatnonzero(empty).tolist(), f"{label} is empty"))
    reasons.update(notes)
    everything = Examples(sources, targets, names, file_index, rows, len(rows), dict(Counter(reasons.values())))
    if good.all():
        return everything
    bad = np.flatnonzero(~good).tolist()
    if on_bad_row == "refuse":
        named = ", ".join(f"{everything.where(i)} ({reasons[i]})" for i in bad[:NUM_NAMED_ROWS])
        more = f" and {len(bad) - NUM_NAMED_ROWS:,} more" if len(bad) > NUM_NAMED_ROWS else ""
        raise UserError(
            f"{field_name}: {len(bad):,} of {len(rows):,} rows of {uri} cannot be used: {named}{more}; "
            "mend them, or leave them out with data.on_bad_row=skip"
        )
    if len(bad) == len(rows):
        raise UserError(
            f"{field_name}: not one of the {len(rows):,} rows of {uri} can be used ({reasons[bad[0]]}, ...)"
        )
    return everything.select(good)
