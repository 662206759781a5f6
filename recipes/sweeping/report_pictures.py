"""The pictures of a sweep's report, as PNG bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lrsched import Schedule
from recipes.reporting.pictures import Look, empty_picture, finish, png, short, smoothed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NOT_SCORED = 1e9


@dataclass(frozen=True)
class Curve:
    """A trial to draw. result: its final loss or else its last score; None: it has none. finished: to the end.

    train: (update, loss) of its metrics. rungs: (update, score).
    """

    name: str
    family: str
    schedule: Schedule | None
    result: float | None
    finished: bool
    is_winner: bool
    step: int
    train: list[tuple[int, float]] = field(default_factory=list)
    rungs: list[tuple[int, float]] = field(default_factory=list)


def draw_rates(curves: Sequence[Curve], look: Look) -> bytes:
    """The learning rate of every trial, as far as it was trained, coloured by its result."""
    figure, axes = empty_picture(look)
    colours = _colours(curves, look)
    for curve in _best_last(curves):
        if curve.schedule is None:
            continue
        total = curve.schedule.total_steps
        rates = np.asarray(curve.schedule.lr(np.arange(total)), float)
        colour, width = colours[curve.name], 2.6 if curve.is_winner else 1.2
        trained = max(curve.step, 1)
        axes.plot(
            np.arange(trained), rates[:trained], color=colour, linewidth=width, zorder=4 if curve.is_winner else 3
        )
        axes.plot(np.arange(trained - 1, total), rates[trained - 1 :], color=colour, linewidth=0.7, alpha=0.35)
    # Room above the highest peak for the legend.
    axes.set_ylim(0, axes.get_ylim()[1] * 1.35)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(lambda value, _: short(value))
    _scale(axes, curves, look)
    finish(
        figure,
        axes,
        look,
        "Learning rate (thin: not trained)" if look.narrow else "Learning rate (thin: after the trial was stopped)",
    )
    return png(figure)


def draw_losses(curves: Sequence[Curve], rungs: Sequence[int], look: Look) -> bytes:
    """Training loss of every trial, smoothed, with its scores at the rungs as dots."""
    figure, axes = empty_picture(look)
    colours, values = _colours(curves, look), []
    for curve in _best_last(curves):
        colour, width = colours[curve.name], 2.6 if curve.is_winner else 1.2
        if curve.train:
            steps, losses = np.array(curve.train, float).T
            soft = smoothed(losses)
            values += list(soft[np.isfinite(soft)])
            axes.plot(steps, soft, color=colour, linewidth=width, zorder=4 if curve.is_winner else 3)
        dots = [*curve.rungs, *([(curve.step, curve.result)] if curve.finished else [])]
        if dots:
            values += [value for _, value in dots]
            axes.plot(*zip(*dots, strict=True), "o", color=colour, markersize=4.5, markeredgecolor=look.paper,
                      markeredgewidth=0.6, zorder=5, clip_on=False)  # fmt: skip
    for rung in rungs:
        axes.axvline(rung, color=look.faint, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    if values:
        low, high = min(values), float(np.quantile(values, 0.98))
        axes.set_ylim(low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1))
    axes.set_xlim(left=0)
    _scale(axes, curves, look)
    finish(
        figure,
        axes,
        look,
        "Training loss; dots: scores"
        if look.narrow
        else "Training loss, smoothed; dots: held-out scores at the rungs (dashed) and the end",
    )
    return png(figure)


def draw_parameters(curves: Sequence[Curve], values: dict[str, dict[str, Any]], look: Look) -> bytes:
    """The result against each parameter. values: parameter -> run -> its value there."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 1 if look.narrow else 3
    rows = math.ceil(len(values) / columns)
    width, height = look.inches
    figure = Figure(figsize=(width, 0.75 * height * rows), dpi=200, facecolor=look.paper, layout="constrained")
    FigureCanvasAgg(figure)
    scored = [curve for curve in curves if curve.result is not None]
    results = [curve.result for curve in scored]
    top = _top(results) if results else 1.0
    for i, (name, of_run) in enumerate(values.items()):
        axes = figure.add_subplot(rows, columns, i + 1, facecolor=look.paper)
        _panel(axes, name, [curve for curve in scored if curve.name in of_run], of_run, top, look)
        if results:
            room = 0.08 * (top - min(results) or 1.0)
            axes.set_ylim(min(results) - room, top + room)
    return png(figure)


def _top(results: list[float]) -> float:
    """The highest value shown at its place: a few that are far off would press all others together."""
    usual = float(np.quantile(results, 0.98))
    low, high = min(results), max(results)
    return high if high - low <= 1.5 * (usual - low) else usual


def _panel(axes: Axes, name: str, curves: list[Curve], of_run: dict[str, Any], top: float, look: Look) -> None:
    """Results above ``top`` are arrow heads at it."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in of_run.values())
    if numbers:
        place = {run: float(value) for run, value in of_run.items()}
        found = list(place.values())
        if found and min(found) > 0 and max(found) > 8 * min(found):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=8))
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(lambda value, _: short(value))
    else:
        words = sorted({str(value) for value in of_run.values()})
        place = {run: words.index(str(value)) for run, value in of_run.items()}
        axes.set_xticks(
            range(len(words)), words, rotation=30 if len(words) > 3 else 0, ha="right" if len(words) > 3 else "center"
        )
        axes.set_xlim(-0.5, len(words) - 0.5)
    for curve in curves:
        colour = look.orange if curve.is_winner else look.blue
        place_y, marker = (curve.result, "o") if curve.result <= top else (top, "^")
        axes.plot([place[curve.name]], [place_y], marker, markersize=5.5, color=colour, clip_on=False,
                  markerfacecolor=colour if curve.finished else "none", zorder=4 if curve.is_winner else 3)  # fmt: skip
    axes.set_title(name, loc="left", color=look.ink, fontsize=look.points)
    axes.grid(axis="y", color=look.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=look.faint, labelsize=look.points - 1.5, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(look.faint)


def _best_last(curves: Sequence[Curve]) -> list[Curve]:
    return sorted(
        curves, key=lambda curve: (curve.is_winner, -(curve.result if curve.result is not None else _NOT_SCORED))
    )


def _colours(curves: Sequence[Curve], look: Look) -> dict[str, Any]:
    """By rank of the result, so that one wild trial does not take the whole scale; the winner stands out."""
    from matplotlib import colormaps

    scored = sorted((c for c in curves if c.result is not None), key=lambda curve: curve.result)
    dark = look.paper != "#ffffff"
    low, high = (0.95, 0.3) if dark else (0.15, 0.85)
    colours: dict[str, Any] = {curve.name: look.faint for curve in curves}
    for rank, curve in enumerate(scored):
        part = rank / max(1, len(scored) - 1)
        colours[curve.name] = look.orange if curve.is_winner else colormaps["viridis"](low + (high - low) * part)
    return colours


def _scale(axes: Axes, curves: Sequence[Curve], look: Look) -> None:
    """A legend of three: the winner, the best and the worst of the others."""
    from matplotlib.lines import Line2D

    colours = _colours(curves, look)
    scored = sorted((c for c in curves if c.result is not None and not c.is_winner), key=lambda curve: curve.result)
    winner = [curve for curve in curves if curve.is_winner]
    entries = [(winner[0], "winner")] if winner else []
    entries += [(scored[0], "best of the others"), (scored[-1], "worst")] if len(scored) > 1 else []
    lines = [Line2D([], [], color=colours[curve.name], linewidth=2.5) for curve, _ in entries]
    words = [f"{word}: {curve.name} {curve.family}, {curve.result:.3f}" for curve, word in entries]
    if lines:
        axes.legend(lines, words, loc="upper right", frameon=False, labelcolor=look.ink, fontsize=look.points - 1.5)
