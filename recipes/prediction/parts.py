"""A folder of Parquet files, one for each piece of the input, that is seen whole or not at all."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
from pyarrow import parquet as pq

from recipes.errors import RunFailed, UserError
from recipes.prediction.pieces import Piece
from recipes.storage import Storage

# What was done, in the finished folder. Readers of Parquet folders pass over names that begin with _ .
ABOUT = "_predictions.json"
_JOB = "_job.json"
# Where Ray's own words go while a job runs.
LOGS = "logs"
_READERS = 16


def part_name(index: int) -> str:
    """Sorted by name, parts are in the order of the input."""
    return f"part-{index:07d}.parquet"


class PartsFolder:
    """The output of a job while it grows, in ``OUT.partial``; on an object store, which cannot rename, in OUT itself.

    There a folder without ``_predictions.json`` is not whole yet.
    """

    def __init__(self, uri: str):
        self.output = Storage(uri.rstrip("/"))
        self.parts = self.output if self.output.local is None else Storage(f"{self.output.local}.partial")

    def check(self, overwrite: bool) -> None:
        """
        Raises:
            UserError: the output is there already, is a file, or there is no folder to put it in.
        """
        local = self.output.local
        for ending in (".parquet", ".jsonl"):
            if self.output.uri.endswith(ending):
                raise UserError(
                    f"--output {self.output}: workers write a folder of Parquet files: give a name without {ending}"
                )
        if local is not None and local.is_file():
            raise UserError(f"--output {self.output}: is a file; workers write a folder, give a new one")
        if local is not None and not local.parent.is_dir():
            raise UserError(f"--output {self.output}: there is no folder {local.parent}")
        whole = self.output.exists(ABOUT) if local is None else self.output.names() != []
        if whole and not overwrite:
            raise UserError(f"--output {self.output}: is there already; give another name, or --overwrite")

    def begin(self, job: dict[str, Any], overwrite: bool) -> set[int]:
        """Make the folder, or go on in that of an earlier start; the indices of the parts that are there.

        job: what decides the content of the parts.

        Raises:
            UserError: it has parts of another job.
        """
        text = json.dumps(job, indent=1, sort_keys=True)
        if self.parts.exists(_JOB) and self.parts.read_text(_JOB) == text:
            found = set(self.parts.names())
            return {index for index in range(job["num_parts"]) if part_name(index) in found}
        others = [name for name in self.parts.names() if name.startswith("part-")]
        if others and not overwrite:
            raise UserError(
                f"{self.parts} has {len(others)} parts of another job (other input, model or settings): give another --output, "
                "or --overwrite"
            )
        for name in (*others, ABOUT):
            if self.parts.exists(name):
                self.parts.delete_file(name)
        self.parts.make_folder()
        self.parts.write_text(_JOB, text)
        return set()

    def write(self, index: int, table: pa.Table) -> None:
        """A part, whole or not at all; a second time the same."""
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer)
        self.parts.write_bytes(part_name(index), buffer.getvalue().to_pybytes())

    def check_whole(self, pieces: list[Piece]) -> None:
        """
        Raises:
            RunFailed: a part is missing or has another number of rows than its piece.
        """
        with ThreadPoolExecutor(_READERS) as threads:
            counts = list(threads.map(self._num_rows, pieces))
        for piece, count in zip(pieces, counts, strict=True):
            if count != piece.num_rows:
                raise RunFailed(f"{self.parts}/{part_name(piece.index)} has {count} rows instead of {piece.num_rows}")

    def _num_rows(self, piece: Piece) -> int:
        try:
            with self.parts.open_file(part_name(piece.index)) as stream:
                return pq.ParquetFile(stream).metadata.num_rows
        except (OSError, pa.ArrowInvalid):
            return 0

    def drop_if_empty(self) -> None:
        """A job that was refused before its first part leaves nothing."""
        names = self.parts.names()
        if not any(name.startswith("part-") for name in names):
            self.parts.delete_folder(LOGS)
            if _JOB in names:
                self.parts.delete_file(_JOB)

    def publish(self, about: dict[str, Any], num_parts: int) -> None:
        """Give the folder its name; what killed workers have left in it goes."""
        wanted = {part_name(index) for index in range(num_parts)}
        self.parts.delete_folder(LOGS)
        for name in self.parts.names():
            if name not in wanted:
                self.parts.delete_file(name)
        self.parts.write_text(ABOUT, json.dumps(about, indent=1) + "\n")
        if self.output.local is not None:
            self.output.delete_folder()
            self.parts.local.rename(self.output.local)
