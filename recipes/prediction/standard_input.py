"""Texts from a pipe or a terminal, one a line, handed on as they come."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

from recipes.prediction.rows import TextRows

# A line that waits so long for others is answered without them.
_PATIENCE_S = 0.1
_CHUNK = 1 << 16
_BOM = b"\xef\xbb\xbf"


def line_windows(descriptor: int, num_lines: int) -> Iterator[TextRows]:
    """Lines in windows of ``num_lines``, fewer where the input ends or pauses.

    Reads no further than the window that is wanted, by the descriptor itself: a thread that waits in Python's own
    stream would keep the process from ending.
    """
    number, rest, ended = 1, b"", False
    lines: list[bytes] = []
    while lines or not ended:
        while len(lines) < num_lines and not ended and _more(descriptor, wait=not lines):
            chunk = os.read(descriptor, _CHUNK)
            ended = not chunk
            *whole, rest = (rest + chunk).split(b"\n")
            lines += whole
            if ended and rest:
                lines.append(rest)
        window, lines = lines[:num_lines], lines[num_lines:]
        if window:
            yield _rows(window, number)
            number += len(window)


def _more(descriptor: int, wait: bool) -> bool:
    ready, _, _ = select.select([descriptor], [], [], None if wait else _PATIENCE_S)
    return bool(ready)


def _rows(lines: list[bytes], first: int) -> TextRows:
    texts: list[str | None] = []
    notes = {}
    for i, line in enumerate(lines):
        if first == 1 and i == 0:
            line = line.removeprefix(_BOM)
        try:
            texts.append(line.decode("utf-8").removesuffix("\r"))
        except UnicodeDecodeError:
            texts.append(None)
            notes[i] = "not UTF-8"
    return TextRows(texts, "standard input line", range(first, first + len(lines)), notes)
