"""Scalars for TensorBoard, written with TensorBoard's own record format.

`torch.utils.tensorboard` can hide points of an earlier attempt from TensorBoard but not remove them,
so other readers see those steps twice; it also needs torch, and writes from a thread of its own.
"""

from __future__ import annotations

import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.storage import Storage

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

# A record is: length (uint64), its checksum (uint32), the bytes, their checksum (uint32).
_HEADER = struct.Struct("<QI")
_FOOTER_BYTES = 4


class TensorBoardEvents:
    """One event file that holds the run so far, without the points after ``resume_step``.

    A resumed run copies the points it keeps (with their times) into a file of its own and removes
    the files before, so that no reader meets a step twice. Object stores get the file at ``flush``.
    """

    def __init__(self, folder: Storage, resume_step: int):
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._folder = folder
        self._scratch = None
        if folder.local is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="tensorboard-")
        older = [name for name in folder.names() if "tfevents" in name]
        kept = _points_up_to(resume_step, folder, older)
        self._name = _next_name(older)
        self._path = (Path(self._scratch.name) if self._scratch else folder.local) / self._name
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._records = RecordWriter(self._path.open("wb"))
        self._write_start()
        for event in kept:
            self._records.write(event.SerializeToString())
        self._unsent = True
        self.flush()
        _remove(folder, older, self._path)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Add the scalars of one step; nothing happens without scalars."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        if not scalars:
            return
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self._records.write(event.SerializeToString())
        self._unsent = True
        if self._scratch is None:
            self._records.flush()

    def flush(self) -> None:
        """Bring the file to its folder."""
        self._records.flush()
        if self._scratch is not None and self._unsent:
            self._folder.write_bytes(self._name, self._path.read_bytes())
        self._unsent = False

    def close(self) -> None:
        self._records.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _write_start(self) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        # A TensorBoard that is looking on, and has read the file before this one, drops its points
        # from step 0 on at this mark, and reads them again from here.
        start = SessionLog(status=SessionLog.START)
        now = time.time()
        self._records.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        self._records.write(Event(wall_time=now, step=0, session_log=start).SerializeToString())


def _next_name(older: list[str]) -> str:
    """TensorBoard reads files in the order of their names, and the clocks of two nodes may differ."""
    numbers = [int(part) for name in older for part in name.split(".") if part.isdigit()]
    number = max([int(time.time()), *(n + 1 for n in numbers)])
    return f"events.out.tfevents.{number:010d}"


def _points_up_to(resume_step: int, folder: Storage, names: list[str]) -> list[Event]:
    """Scalars of steps up to ``resume_step``; of two of the same step and names, the one written last."""
    points = {}
    if resume_step > 0:
        for name in names:
            for event in _read_events(folder.read_bytes(name)):
                if event.HasField("summary") and event.step <= resume_step:
                    points[event.step, tuple(value.tag for value in event.summary.value)] = event
    return list(points.values())


def _read_events(content: bytes) -> Iterator[Event]:
    """The whole and undamaged events at the start of a file."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    offset = 0
    while offset + _HEADER.size <= len(content):
        length, header_checksum = _HEADER.unpack_from(content, offset)
        begin = offset + _HEADER.size
        offset = begin + length + _FOOTER_BYTES
        footer = content[begin + length : offset]
        if masked_crc32c(struct.pack("<Q", length)) != header_checksum or len(footer) < _FOOTER_BYTES:
            return
        data = content[begin : begin + length]
        if masked_crc32c(data) != struct.unpack("<I", footer)[0]:
            return
        yield Event.FromString(data)


def _remove(folder: Storage, names: list[str], present: Path) -> None:
    """Remove event files of earlier attempts, after the new one is in place."""
    if not names:
        return
    if folder.local is not None:
        for name in names:
            (folder.local / name).unlink(missing_ok=True)
    else:
        # A Storage deletes folders only, so what stays is written again.
        content = present.read_bytes()
        folder.delete_folder()
        folder.write_bytes(present.name, content)
