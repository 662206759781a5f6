"""Schedules as pictures: text for a terminal (``text_plot``) and a PNG (``save_png``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Union

from lrsched.errors import ScheduleError, need

if TYPE_CHECKING:
    import os

    import numpy as np

    from lrsched.schedule import Schedule

Schedules = Union["Schedule", Sequence["Schedule"], Mapping[str, "Schedule"]]

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Bits of the Braille characters from U+2800 on, by row and column of the dot.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_LABEL_WIDTH = 10


def text_plot(schedules: Schedules, width: int = 80, height: int = 20) -> str:
    """The curves as ``height`` lines of ``width`` characters, drawn in Braille dots.

    Several curves are marked with letters; one more line per curve then says which is which.
    The vertical axis runs from 0 to the highest peak_lr (or learning rate, where a dialect goes
    higher; what is below 0 is drawn at 0), the horizontal one over all updates of the longest run. width at least 30, height at least 6.
    """
    named = _named(schedules)
    if width < 30 or height < 6:
        raise ScheduleError("", f"{width} x {height} is too small a plot", "at least 30 x 6")
    columns, rows = width - _LABEL_WIDTH - 1, height - 2
    last = max(s.total_steps for s in named.values()) - 1
    top = max(max(s.peak_lr, float(_sampled(s, columns)[1].max())) for s in named.values())
    cells = [[0] * columns for _ in range(rows)]
    marks: dict[tuple[int, int], str] = {}
    for number, schedule in enumerate(named.values()):
        spans = _spans(schedule, columns, rows, last, top)
        for x, low, high in spans:
            for y in range(low, high + 1):
                cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
        if len(named) > 1:
            # Letters of different curves stand in different columns, so none hides another.
            for x, low, _ in spans:
                if x % 2 == 0 and (x // 2 - 2 * number) % (4 * len(named)) == 2:
                    marks[low // 4, x // 2] = _LETTERS[number % len(_LETTERS)]
    labels = {0: f"{top:.4g}", rows // 2: f"{top * (1 - (rows // 2) / rows):.4g}", rows - 1: "0"}
    lines = []
    for y, row in enumerate(cells):
        drawn = "".join(marks.get((y, x)) or chr(0x2800 + bits) for x, bits in enumerate(row))
        lines.append(f"{labels.get(y, ''):>{_LABEL_WIDTH}}┤{drawn}")
    lines.append(" " * _LABEL_WIDTH + "└" + "─" * columns)
    right = f"update k={last}"
    lines.append(" " * (_LABEL_WIDTH + 1) + "0" + right.rjust(columns - 1))
    if len(named) > 1:
        lines += [f"{_LETTERS[i % len(_LETTERS)]}: {name}" for i, name in enumerate(named)]
    return "\n".join(lines)


def save_png(schedules: Schedules, path: str | os.PathLike[str]) -> None:
    """Write the curves to a PNG file: learning rate over optimizer updates."""
    need("matplotlib", "a PNG")
    if not str(path).lower().endswith(".png"):
        raise ScheduleError("", f"{path} is not a .png file", "give it that name; PNG is what is written")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    named = _named(schedules)
    # A figure of its own: pyplot would keep it, and change the caller's backend.
    figure = Figure(figsize=(8.0, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes, lowest = figure.add_subplot(), 0.0
    for name, schedule in named.items():
        k, lr = _sampled(schedule, 100)
        # A single update has no line.
        axes.plot(k, lr, "o-" if k.size == 1 else "-", drawstyle="steps-post", linewidth=1.4, label=name)
        lowest = min(lowest, float(lr.min()))
    axes.set(xlabel="optimizer update k", ylabel="learning rate")
    axes.set_ylim(bottom=lowest)
    axes.margins(x=0.01)
    axes.grid(alpha=0.3)
    if len(named) > 1:
        axes.legend()
    else:
        axes.set_title(next(iter(named.values())).describe(), fontsize=8, wrap=True)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise ScheduleError("", f"cannot write {path}: {error.strerror}") from None


def _named(schedules: Schedules) -> dict[str, Schedule]:
    from lrsched.schedule import Schedule

    if isinstance(schedules, Schedule):
        schedules = [schedules]
    if not isinstance(schedules, Mapping):
        schedules = {f"schedule {i}": schedule for i, schedule in enumerate(schedules)}
    if not schedules:
        raise ScheduleError("", "no schedule to plot", "give at least one")
    return dict(schedules)


def _sampled(schedule: Schedule, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Some updates of the run, first, last and peak among them, and their learning rates."""
    import numpy as np

    last, warm = schedule.total_steps - 1, schedule.warmup.steps
    k = np.linspace(0, last, min(schedule.total_steps, 200 * columns)).round().astype(np.int64)
    k = np.union1d(k, np.clip([warm - 1, warm], 0, last))
    return k, schedule.lr(k)


def _spans(schedule: Schedule, columns: int, rows: int, last: int, top: float) -> list[tuple[int, int, int]]:
    """For each dot column x that the curve crosses: (x, highest dot, lowest dot), y downwards.

    A column reaches from what its updates use to where the column before ended, so that the
    curve is closed even where it jumps.
    """
    k, lr = _sampled(schedule, columns)
    xs = (k * (2 * columns - 1) / max(last, 1)).round().astype(int)
    ys = ((1.0 - lr.clip(0.0, top) / top) * (4 * rows - 1)).round().astype(int)
    spans: dict[int, tuple[int, int]] = {}
    before = None
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        low, high = spans.get(x, (y, y))
        if before is not None:
            low, high = min(low, before), max(high, before)
        spans[x] = (min(low, y), max(high, y))
        before = y
    return _without_gaps(spans)


def _without_gaps(spans: dict[int, tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Short runs have fewer updates than columns: hold each value until the next update."""
    filled, crossed = [], sorted(spans)
    for i, x in enumerate(crossed):
        filled.append((x, *spans[x]))
        following = crossed[i + 1] if i + 1 < len(crossed) else x + 1
        # The next column begins at the height where this one ended, so hold that.
        held = spans[x][1] if i + 1 == len(crossed) else _meeting(spans[x], spans[following])
        filled += [(gap, held, held) for gap in range(x + 1, following)]
    return filled


def _meeting(here: tuple[int, int], following: tuple[int, int]) -> int:
    """The height at which one column's span hands over to the next."""
    return following[1] if following[1] in here else following[0]
