"""Text pairs as the config names them, with the place of every pair for messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from recipes.config import DataBlock, TaskBlock
from recipes.data import pydoc
from recipes.data.readers import READERS, TEXT, TEXT_ALONE, Place, read_windows, suffix_of
from recipes.errors import UserError

NUM_NAMED_ROWS = 5


@dataclass(frozen=True)
class Examples:
    """Some (source, target) texts in the order of their files.

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
    num_read: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, i: int) -> str:
        """``"train.parquet row 7"``"""
        return f"{self.file_names[self.file_index[i]]} row {self.rows[i]}"

    def select(self, mask: np.ndarray) -> Examples:
        if mask.all():
            return self
        keep = pa.array(mask)
        sources = self.sources.filter(keep)
        return Examples(
            sources, sources if self.targets is self.sources else self.targets.filter(keep), self.file_names,
            self.file_index[mask], self.rows[mask], self.num_read, self.skipped,
        )  # fmt: skip

    def digest(self) -> str:
        """See :class:`TextDigest`."""
        state = TextDigest()
        state.add(self)
        return state.name(self.file_names, self.num_read, self.skipped)


class TextDigest:
    """Names texts, order and places: equal for equal content, wherever it is stored and in whatever portions it comes."""

    def __init__(self) -> None:
        parts = ("source lengths", "source", "target lengths", "target", "rows", "files")
        self._states = {part: sha256() for part in parts}

    def add(self, examples: Examples) -> None:
        for side, column in (("source", examples.sources), ("target", examples.targets)):
            for chunk in column.chunks:
                if not len(chunk):
                    continue
                offsets = np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
                self._states[f"{side} lengths"].update(np.diff(offsets).tobytes())
                if offsets[-1] > offsets[0]:
                    self._states[side].update(memoryview(chunk.buffers()[2])[offsets[0] : offsets[-1]])
        self._states["rows"].update(examples.rows.astype(np.int64).tobytes())
        self._states["files"].update(examples.file_index.astype(np.int32).tobytes())

    def name(self, file_names: list[str], num_read: int, skipped: dict[str, int]) -> str:
        whole = [state.hexdigest() for state in self._states.values()]
        return sha256(repr((whole, file_names, num_read, sorted(skipped.items()))).encode()).hexdigest()


class TextSource:
    """``data.source`` (or ``data.eval_source``), or that of a task. Of text alone the targets are the sources.

    Attributes:
        file_names: for messages.

    Raises:
        UserError: nothing is there, or nothing of a known kind.
    """

    def __init__(
        self, config: DataBlock, part: Literal["source", "eval_source"] = "source", task: TaskBlock | None = None
    ):
        self.task = task or config.texts[0]
        self.field_name = f"{self.task.at}.{part}"
        self.uri = str(getattr(self.task, part))
        self._refuses = config.on_bad_row == "refuse"
        alone = self.task.objective.of_text_alone
        self._pydoc = _from_pydoc(alone) if self.uri == "pydoc" else None
        if self._pydoc is not None:
            self.file_names = self._pydoc.file_names
            return
        filesystem, files = list_files(self.uri, self.field_name, alone)
        columns = (self.task.source_column, None if alone else self.task.target_column)
        self._places = [Place(self.task.at, part, filesystem, path, name, *columns) for path, name in files]
        self.file_names = [f"{self.task.name}: {name}" if self.task.name else name for _, name in files]

    def windows(self) -> Iterator[tuple[Examples, dict[int, str]]]:
        """All rows, some at a time, unusable ones included; and why a row has no text, by place in the window, where it
        is not simply null.

        Raises:
            UserError: a broken file, or a missing column.
        """
        if self._pydoc is not None:
            yield self._pydoc, {}
            return
        for number, place in enumerate(self._places):
            for columns in read_windows(place):
                files = np.full(len(columns.rows), number, np.int32)
                yield (
                    Examples(columns.source, columns.target, self.file_names, files, columns.rows, len(columns.rows)),
                    columns.notes,
                )

    def usable(self, unusable: UnusableRows) -> Iterator[tuple[Examples, np.ndarray]]:
        """Every window with a mask of the rows that have texts; the others are noted in ``unusable``.

        Raises:
            UserError: as `windows`; and, when all has been read, that there is no row, no usable one, or with
                on_bad_row: refuse an unusable one.
        """
        for window, notes in self.windows():
            yield window, unusable.find(window, notes)
        unusable.check(self.field_name, self.uri, self._refuses)


class UnusableRows:
    """Counted, and the first of them named, window after window.

    Attributes:
        num_read: rows, usable or not.
        by_reason: how many cannot be used.
    """

    def __init__(self) -> None:
        self.num_read = 0
        self.by_reason: Counter[str] = Counter()
        self._first: list[tuple[str, str]] = []

    def find(self, window: Examples, notes: dict[int, str]) -> np.ndarray:
        """True where a row has both texts."""
        good = np.ones(len(window), bool)
        reasons: dict[int, str] = {}
        sides = {"source": window.sources} if window.targets is window.sources else {}
        for label, column in (sides or {"target": window.targets, "source": window.sources}).items():
            null = pc.is_null(column).to_numpy()
            empty = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0).fill_null(False).to_numpy()
            good &= ~(null | empty)
            reasons.update(dict.fromkeys(np.flatnonzero(null).tolist(), f"{label} is null"))
            reasons.update(dict.fromkeys(np.flatnonzero(empty).tolist(), f"{label} is empty"))
        reasons.update(notes)
        self.num_read += len(window)
        self.by_reason.update(reasons.values())
        for i in np.flatnonzero(~good)[: NUM_NAMED_ROWS - len(self._first)].tolist():
            self._first.append((window.where(i), reasons[i]))
        return good

    def check(self, field_name: str, uri: str, refuses: bool) -> None:
        """Raise UserError for no rows, none that can be used, or one that cannot where that is refused."""
        num_bad = self.by_reason.total()
        if not self.num_read:
            raise UserError(f"{field_name}: {uri}: there is not a single row")
        if num_bad and refuses:
            named = ", ".join(f"{where} ({reason})" for where, reason in self._first)
            more = f" and {num_bad - NUM_NAMED_ROWS:,} more" if num_bad > NUM_NAMED_ROWS else ""
            raise UserError(
                f"{field_name}: {num_bad:,} of {self.num_read:,} rows of {uri} cannot be used: {named}{more}; "
                "mend them, or leave them out with data.on_bad_row=skip"
            )
        if num_bad == self.num_read:
            raise UserError(
                f"{field_name}: not one of the {self.num_read:,} rows of {uri} can be used ({self._first[0][1]}, ...)"
            )


def read_examples(
    config: DataBlock, part: Literal["source", "eval_source"] = "source", task: TaskBlock | None = None
) -> Examples:
    """All usable examples in memory.

    Raises:
        UserError: nothing there, a broken file, a missing column, no row, or unusable rows with on_bad_row: refuse.
    """
    source, unusable = TextSource(config, part, task), UnusableRows()
    parts = [window.select(good) for window, good in source.usable(unusable)]
    sources, targets = (
        pa.chunked_array([chunk for part in parts for chunk in getattr(part, side).chunks], TEXT)
        for side in ("sources", "targets")
    )
    return Examples(
        sources, targets, source.file_names, np.concatenate([part.file_index for part in parts]),
        np.concatenate([part.rows for part in parts]), unusable.num_read, dict(unusable.by_reason),
    )  # fmt: skip


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
    sources = pa.chunked_array([pa.array([pair.source for pair in pairs], TEXT)])
    return Examples(
        sources,
        sources if alone else pa.chunked_array([pa.array([pair.target for pair in pairs], TEXT)]),
        names,
        np.array([index[pair.file] for pair in pairs], np.int32),
        np.array([pair.line for pair in pairs], np.int64),
        len(pairs),
    )
