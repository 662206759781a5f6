"""The two pictures of a run, as PNG bytes: its schedule and its losses.

matplotlib is used through its objects (no pyplot), so drawing leaves no global state behind and
needs no display. Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from recipes.reporting.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DOTS_PER_INCH = 200
_MOST_POINTS = 20_000


@dataclass(frozen=True)
class Look:
    """Colours and proportions. A narrow picture is made for a phone held upright."""

    paper: str = "#ffffff"
    ink: str = "#1f2328"
    faint: str = "#6b7280"
    grid: str = "#e5e7eb"
    blue: str = "#0072B2"
    orange: str = "#D55E00"
    narrow: bool = False

    @property
    def inches(self) -> tuple[float, float]:
        return (3.6, 2.9) if self.narrow else (9.0, 3.6)

    @property
    def points(self) -> float:
        return 9.0 if self.narrow else 11.0


LIGHT = Look()
DARK_COLOURS = {
    "paper": "#16181d",
    "ink": "#e6e8eb",
    "faint": "#9aa3af",
    "grid": "#2c3038",
    "blue": "#56B4E9",
    "orange": "#E69F00",
}


class LearningRates(Protocol):
    def lr(self, k: Any) -> Any:
        """The learning rate of update ``k`` (from 0), for one number or an array."""


def draw_schedule(
    schedule: LearningRates,
    total_steps: int,
    used: Sequence[tuple[int, float]] = (),
    look: Look = LIGHT,
) -> bytes:
    """The learning rate over the ``total_steps`` updates of a run.

    ``used``: some (updates made, learning rate the next update really used), drawn as circles.
    """
    steps = _some_steps(schedule, total_steps)
    rates = np.asarray(schedule.lr(steps), dtype=float)
    top, end = int(np.argmax(rates)), len(steps) - 1
    figure, axes = empty_picture(look)
    axes.plot(steps, rates, color=look.blue, linewidth=2, solid_capstyle="round", zorder=3)
    if _reads_better_as_log(rates):
        axes.set_yscale("log")
        axes.set_ylim(rates.min() / 1.6, rates.max() * (rates.max() / rates.min()) ** 0.3)
    else:
        axes.set_ylim(min(0.0, rates.min() * 1.1), rates.max() * (1.4 if look.narrow else 1.3) or 1.0)
    axes.set_xlim(0, max(steps[end], 1))
    if 0 < top < end:
        axes.axvspan(0, steps[top], color=look.faint, alpha=0.12, linewidth=0)
    if len(used):
        chosen = [used[i] for i in spread(len(used), 12 if look.narrow else 24)]
        axes.plot(*zip(*chosen, strict=True), "o", markersize=6, markerfacecolor="none",
                  markeredgecolor=look.orange, markeredgewidth=1.3, zorder=4, clip_on=False)  # fmt: skip
    _mark_schedule(axes, look, steps, rates, top)
    finish(figure, axes, look, "Learning rate" + (" (circles: really used)" if len(used) else ""))
    axes.yaxis.set_major_formatter(lambda value, _: short(value))
    return png(figure)


def _some_steps(schedule: LearningRates, total_steps: int) -> np.ndarray:
    """Every update of a short run; of a long one, evenly spread ones, the first peak and the last."""
    if total_steps <= _MOST_POINTS:
        return np.arange(max(total_steps, 1))
    spread = np.linspace(0, total_steps - 1, _MOST_POINTS).round().astype(np.int64)
    near_top = spread[int(np.argmax(schedule.lr(spread)))]
    gap = total_steps // _MOST_POINTS + 1
    around = np.arange(max(near_top - gap, 0), min(near_top + gap + 1, total_steps))
    top = around[int(np.argmax(schedule.lr(around)))]
    return np.unique(np.append(spread, top))


def _reads_better_as_log(rates: np.ndarray) -> bool:
    """On a linear axis more than half of the run would lie flat on the ground."""
    return rates.min() > 0 and float(np.median(rates)) < 0.02 * rates.max()


def _mark_schedule(axes: Axes, look: Look, steps: np.ndarray, rates: np.ndarray, top: int) -> None:
    """Dots at the peak and at both ends, with their values where no curve runs."""
    end = len(steps) - 1
    if rates.max() == rates.min():
        words = f"constant {short(rates[0])}"
    else:
        place = "the last update" if top == end else "the first update" if top == 0 else f"update {steps[top]:,}"
        words = f"peak {short(rates[top])} at {place}"
        if top > 0:
            words += f"\nwarm-up from {short(rates[0])}"
        _label_ends(axes, look, [(rates[end], "last update", short(rates[end]), look.ink)], two_lines=True)
    dots = sorted({0, top, end})
    axes.plot(steps[dots], rates[dots], "o", color=look.ink, markersize=5, zorder=5, clip_on=False)
    side = "left" if steps[top] < 0.6 * steps[end] or end == 0 else "right"
    axes.annotate(words, (steps[top], rates[top]), (0, 8), textcoords="offset points", ha=side, va="bottom",
                  color=look.ink, linespacing=1.25, zorder=6)  # fmt: skip


def draw_loss(metrics: Metrics, unigram_loss: float | None = None, look: Look = LIGHT) -> bytes:
    """Training and held-out loss over updates, in nats per target token.

    ``unigram_loss``: what guessing by word frequency alone would reach, drawn as a line to be below.
    """
    figure, axes = empty_picture(look)
    train, held_out = _curve(metrics.train, "loss"), _curve(metrics.eval, "eval_loss")
    finite = [array[1][np.isfinite(array[1])] for array in (train, held_out)]
    if not sum(map(len, finite)):
        axes.text(0.5, 0.5, "no loss logged yet", transform=axes.transAxes, ha="center", color=look.faint)
        axes.set_yticks([])
        finish(figure, axes, look, "Loss")
        return png(figure)
    smooth = smoothed(train[1])
    is_smoothed = len(train[0]) >= 20
    labels = []
    if len(finite[0]):
        axes.plot(*train, color=look.blue, linewidth=1 if is_smoothed else 2, alpha=0.35 if is_smoothed else 1,
                  marker="" if is_smoothed else "o", markersize=3)  # fmt: skip
        if is_smoothed:
            axes.plot(train[0], smooth, color=look.blue, linewidth=2)
        labels.append((_last(smooth if is_smoothed else train[1]), "training", look.blue))
    if len(finite[1]):
        axes.plot(*held_out, color=look.orange, linewidth=1.2, marker="o", markersize=5, zorder=4,
                  clip_on=False)  # fmt: skip
        labels.append((_last(held_out[1]), "held-out", look.orange))
    drawn = np.concatenate([smooth if is_smoothed else train[1], held_out[1]])
    low, high = np.nanmin(np.concatenate(finite)), np.nanmax(drawn)
    if len(finite[0]):
        high = max(high, np.quantile(finite[0], 0.995))  # one wild line must not flatten the rest
    if unigram_loss is not None and math.isfinite(unigram_loss):
        axes.axhline(unigram_loss, color=look.faint, linewidth=1.3, linestyle=(0, (5, 3)))
        labels.append((unigram_loss, "unigram", look.faint))
        low, high = min(low, unigram_loss), max(high, unigram_loss)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(low - room, high + room)
    axes.set_xlim(0, max([*train[0], *held_out[0], 1]))
    labels = [(value, name, f"{value:.3f}", colour) for value, name, colour in labels]
    _label_ends(axes, look, labels, two_lines=look.narrow)
    finish(figure, axes, look, "Loss, nats per target token" + (" (thick: smoothed)" if is_smoothed else ""))
    return png(figure)


def _curve(records: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values; a value that was not finite (null in the file) is NaN, a gap in the line."""
    steps = np.array([record["step"] for record in records], dtype=float)
    values = [record.get(name) for record in records]
    return steps, np.array([v if isinstance(v, (int, float)) else math.nan for v in values], dtype=float)


def smoothed(values: np.ndarray) -> np.ndarray:
    """Weighted mean of neighbours (Gaussian, 1/80 of the curve wide); not late, as a running mean is."""
    if not len(values):
        return values
    width = min(max(len(values) / 80, 1.0), 200.0)
    reach = int(3 * width)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    known = np.isfinite(values)

    def weighted(array: np.ndarray) -> np.ndarray:
        return np.convolve(np.pad(array, reach), kernel, mode="valid")

    weight = weighted(known.astype(float))
    total = weighted(np.where(known, values, 0.0))
    return np.divide(total, weight, out=np.full(len(values), math.nan), where=weight > 1e-9)


def _last(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)][-1])


def _label_ends(axes: Axes, look: Look, labels: list[tuple[float, str, str, str]], two_lines: bool) -> None:
    """(height, name, value, colour) right of the curves, moved apart where they would overlap."""
    to_axes = axes.transData + axes.transAxes.inverted()
    labels = sorted(labels)
    wanted = [to_axes.transform((axes.get_xlim()[1], height))[1] for height, *_ in labels]
    # The height of one label as a share of the axes, which take about 0.72 of the picture.
    room = (2.7 if two_lines else 1.5) * look.points / 72 / (look.inches[1] * 0.72)
    for height, (_, name, value, colour) in zip(apart(wanted, room), labels, strict=True):
        text = f"{name}\n{value}" if two_lines else f"{name} {value}"
        axes.annotate(text, (1.0, height), (9, 0), xycoords="axes fraction", va="center", color=colour,
                      textcoords="offset points", linespacing=1.15, fontweight="bold")  # fmt: skip


def apart(heights: list[float], room: float) -> list[float]:
    """Ascending heights, moved as little as possible until neighbours are ``room`` apart.

    Labels that would touch become one block around the mean of their heights.
    """
    blocks: list[list[float]] = []
    for height in heights:
        blocks.append([height])
        while len(blocks) > 1 and _foot(blocks[-1], room) < _foot(blocks[-2], room) + len(blocks[-2]) * room:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [_foot(block, room) + (i + 0.5) * room for block in blocks for i in range(len(block))]


def _foot(block: list[float], room: float) -> float:
    """Where a block of labels begins, above the ground of the axes and the numbers below it."""
    return max(sum(block) / len(block) - len(block) * room / 2, 0.0)


def spread(count: int, most: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def empty_picture(look: Look) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=look.inches, dpi=_DOTS_PER_INCH, facecolor=look.paper, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot(facecolor=look.paper)


def finish(figure: Figure, axes: Axes, look: Look, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", color=look.ink, fontsize=look.points + 1, pad=10)
    axes.set_xlabel("updates made", color=look.faint, fontsize=look.points)
    axes.xaxis.set_major_locator(MaxNLocator(4 if look.narrow else 8, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="y", color=look.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=look.faint, labelsize=look.points, length=0)
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(look.faint)
    for text in axes.texts:
        text.set_fontsize(look.points)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)


def png(figure: Figure) -> bytes:
    """A palette of 64 colours is enough for lines on paper, at a third of the bytes."""
    from PIL import Image

    figure.canvas.draw()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB").quantize(64)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, dpi=(_DOTS_PER_INCH, _DOTS_PER_INCH))
    return buffer.getvalue()


def short(value: float) -> str:
    """A learning rate in few characters: 0, 0.02, 1e-3, 9.98e-4."""
    if value == 0 or not math.isfinite(value) or 0.01 <= abs(value) < 1000:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
