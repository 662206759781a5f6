"""The pictures of a sweep's report, as PNG bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lrsched import Schedule
from recipes.reporting.pictures import Look, empty_picture, finish, png, short, smoothed
from recipes.sweeping.space import FAMILY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from recipes.sweeping.answer import Candidate


@dataclass(frozen=True)
class Curve:
    """A trial to draw. loss: its final one; None: it has none. state: as in the ledger. step: updates made.

    train: (update, loss) of its metrics. rungs: (update, score).
    """

    name: str
    family: str
    schedule: Schedule | None
    loss: float | None
    state: str
    is_winner: bool
    step: int
    train: list[tuple[int, float]] = field(default_factory=list)
    rungs: list[tuple[int, float]] = field(default_factory=list)

    @property
    def standing(self) -> tuple[float, ...] | None:
        """Orders results: finished ones by loss, then the others by how far they came, there by score; None: no result.

        A score at a rung is no final loss, and may be lower than one.
        """
        if self.loss is not None:
            return (0, 0, self.loss)
        if self.state == "failed" or not self.rungs:
            return None
        step, score = self.rungs[-1]
        return (1, -step, score)

    @property
    def outcome(self) -> str:
        """In words: the final loss, or where it was stopped."""
        if self.loss is not None:
            return f"{self.loss:.3f}"
        return f"{'stopped' if self.state == 'stopped' else 'scored'} at {self.rungs[-1][0]}"


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
        dots = [*curve.rungs, *([(curve.step, curve.loss)] if curve.loss is not None else [])]
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
    heights = Heights.of(curves)
    for i, (name, of_run) in enumerate(values.items()):
        axes = figure.add_subplot(rows, columns, i + 1, facecolor=look.paper)
        shown = [curve for curve in curves if curve.name in of_run and heights.of_curve(curve) is not None]
        _panel(axes, name, shown, of_run, heights, look)
    return png(figure)


@dataclass(frozen=True)
class Heights:
    """Where results stand on an axis: losses as they are, up to ``top``; above, a lane for each end of another kind."""

    low: float
    top: float
    lanes: tuple[str, ...]

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> Heights:
        losses = [curve.loss for curve in curves if curve.loss is not None]
        stops = {curve.rungs[-1][0] for curve in curves if curve.loss is None and curve.standing is not None}
        lanes = [f"at {step}" for step in sorted(stops, reverse=True)]
        lanes += ["failed"] if any(curve.state == "failed" for curve in curves) else []
        low, top = (min(losses), _top(losses)) if losses else (0.0, 1.0)
        return cls(low, top if top > low else low + 1e-3 * abs(low or 1.0), tuple(lanes))

    def lane(self, i: int) -> float:
        return self.top + (self.top - self.low) * (0.25 + 0.2 * i)

    def of_curve(self, curve: Curve) -> float | None:
        """None: there is nothing to show of it yet."""
        if curve.loss is not None:
            return min(curve.loss, self.top)
        if curve.state == "failed":
            return self.lane(self.lanes.index("failed"))
        return None if curve.standing is None else self.lane(self.lanes.index(f"at {curve.rungs[-1][0]}"))

    def mark(self, axes: Axes) -> None:
        """Ticks at round losses and at the lanes."""
        from matplotlib.ticker import MaxNLocator

        losses = [tick for tick in MaxNLocator(4).tick_values(self.low, self.top) if self.low <= tick <= self.top]
        places = [self.lane(i) for i in range(len(self.lanes))]
        axes.set_yticks([*losses, *places], [*(f"{tick:g}" for tick in losses), *self.lanes])
        room = 0.08 * (self.top - self.low)
        axes.set_ylim(self.low - room, (places[-1] if places else self.top) + room)


def _top(losses: list[float]) -> float:
    """The highest loss shown at its place: a few that are far off would press all others together."""
    usual = float(np.quantile(losses, 0.98))
    low, high = min(losses), max(losses)
    return high if high - low <= 1.5 * (usual - low) else usual


def _panel(axes: Axes, name: str, curves: list[Curve], of_run: dict[str, Any], heights: Heights, look: Look) -> None:
    """Losses above the top are arrow heads at it."""
    place = _places(axes, of_run)
    for curve in curves:
        colour = look.orange if curve.is_winner else look.blue
        marker = "x" if curve.state == "failed" else "^" if curve.loss is not None and curve.loss > heights.top else "o"
        axes.plot([place[curve.name]], [heights.of_curve(curve)], marker, markersize=5.5, color=colour, clip_on=False,
                  markerfacecolor=colour if curve.loss is not None else "none", zorder=4 if curve.is_winner else 3)  # fmt: skip
    heights.mark(axes)
    axes.set_title(name, loc="left", color=look.ink, fontsize=look.points)
    axes.grid(axis="y", color=look.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=look.faint, labelsize=look.points - 1.5, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(look.faint)


def _places(axes: Axes, of_run: dict[str, Any]) -> dict[str, float]:
    """Where each run's value stands on the x axis, which is set up for them."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in of_run.values()):
        words = sorted({str(value) for value in of_run.values()})
        many = len(words) > 3
        axes.set_xticks(range(len(words)), words, rotation=30 if many else 0, ha="right" if many else "center")
        axes.set_xlim(-0.5, len(words) - 0.5)
        return {run: words.index(str(value)) for run, value in of_run.items()}
    found = [float(value) for value in of_run.values()]
    if min(found) > 0 and max(found) > 8 * min(found):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=8))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    return {run: float(value) for run, value in of_run.items()}


def draw_finals(candidates: Sequence[Candidate], look: Look) -> bytes:
    """Losses with new seeds: each seed a dot, the mean a bar with its 95 % interval; the winner on top."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = empty_picture(look)
    for row, each in enumerate(candidates):
        colour, interval = look.orange if row == 0 else look.blue, each.interval
        axes.plot(list(each.seeds.values()), [row] * len(each.seeds), "o", color=colour, markersize=5,
                  markerfacecolor="none", zorder=4)  # fmt: skip
        axes.plot([interval.mean], [row], "|", color=colour, markersize=18, markeredgewidth=2.4, zorder=3)
        if interval.half_width is not None:
            ends = (interval.mean - interval.half_width, interval.mean + interval.half_width)
            axes.plot(ends, [row, row], color=colour, linewidth=2, zorder=2)
    names = [f"{each.run.name} {each.run.point.get(FAMILY, '')}".strip() for each in candidates]
    axes.set_yticks(range(len(candidates)), names)
    axes.set_ylim(len(candidates) - 0.5, -0.5)
    finish(figure, axes, look, "Held-out loss with new seeds" + ("" if look.narrow else ": each, their mean, 95 %"))
    axes.set_xlabel("nats per target token")
    axes.xaxis.set_major_locator(MaxNLocator(4 if look.narrow else 7))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return png(figure)


def _ranked(curves: Sequence[Curve]) -> list[Curve]:
    """Those with a result, best first."""
    return sorted((curve for curve in curves if curve.standing is not None), key=lambda curve: curve.standing)


def _best_last(curves: Sequence[Curve]) -> list[Curve]:
    ranked = _ranked(curves)[::-1]
    without = [curve for curve in curves if curve.standing is None]
    return sorted([*without, *ranked], key=lambda curve: curve.is_winner)


def _colours(curves: Sequence[Curve], look: Look) -> dict[str, Any]:
    """By rank of the result, so that one wild trial does not take the whole scale; the winner stands out."""
    from matplotlib import colormaps

    ranked = _ranked(curves)
    dark = look.paper != "#ffffff"
    low, high = (0.95, 0.3) if dark else (0.15, 0.85)
    colours: dict[str, Any] = {curve.name: look.faint for curve in curves}
    for rank, curve in enumerate(ranked):
        part = rank / max(1, len(ranked) - 1)
        colours[curve.name] = look.orange if curve.is_winner else colormaps["viridis"](low + (high - low) * part)
    return colours


def _scale(axes: Axes, curves: Sequence[Curve], look: Look) -> None:
    """A legend of three: the winner, the best and the worst of the others."""
    from matplotlib.lines import Line2D

    colours = _colours(curves, look)
    others = [curve for curve in _ranked(curves) if not curve.is_winner]
    winner = [curve for curve in curves if curve.is_winner]
    entries = [(winner[0], "winner")] if winner else []
    entries += [(others[0], "best of the others"), (others[-1], "worst")] if len(others) > 1 else []
    lines = [Line2D([], [], color=colours[curve.name], linewidth=2.5) for curve, _ in entries]
    words = [f"{word}: {curve.name} {curve.family}, {curve.outcome}" for curve, word in entries]
    if lines:
        axes.legend(lines, words, loc="upper right", frameon=False, labelcolor=look.ink, fontsize=look.points - 1.5)
