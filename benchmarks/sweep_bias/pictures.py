"""The pictures of docs/sweeps.md about the bias, from what run_truth.py and replay.py wrote.

python benchmarks/sweep_bias/pictures.py truth.jsonl [...] --replay replay.json [--out docs/sweeps]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.sweep_bias.replay import CLOSE, Record, read, truth
from lrsched import Schedule
from recipes.sweeping.scoring import branch_lrs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TASKS = {"pydoc": "pydoc", "multi30k": "Multi30k en-de", "pydoc_long": "pydoc, 4 times as long"}
GREY, RED, BLUE = "#6b7280", "#c2410c", "#1d4ed8"
# Of the many scores that were replayed, those that the pictures show; dashed ones know the sum of the lrs.
SHOWN = {
    "raw": {"color": "#1f2328", "linestyle": "-"},
    "averaged 0.1": {"color": "#9ca3af", "linestyle": "-"},
    "floor 0.2": {"color": RED, "linestyle": "-"},
    "rest 0.2": {"color": "#60a5fa", "linestyle": "-"},
    "rest 0.4": {"color": BLUE, "linestyle": "-"},
    "raw projected": {"color": "#86efac", "linestyle": "--"},
    "rest 0.2 projected": {"color": "#15803d", "linestyle": "--"},
    "rest 0.2 law": {"color": "#9333ea", "linestyle": "--"},
}
MARKER = {"marker": "o", "markersize": 4, "linewidth": 1.3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("truth", type=Path, nargs="+")
    parser.add_argument("--replay", type=Path, required=True, help="what replay.py wrote with --json")
    parser.add_argument("--score", default="rest 0.2 projected", help="the score shown beside raw")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "docs" / "sweeps")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    records, results = read(options.truth), json.loads(options.replay.read_text())
    records, results = ({task: found[task] for task in TASKS if task in found} for found in (records, results))
    for name, figure in {
        "branches": branches(),
        "truth": finals(records),
        "ranks": ranks(records, options.score),
        "taus": taus(results),
        "kept_and_spent": kept_and_spent(results),
    }.items():
        _finish(figure)
        # No date or version inside: the same numbers draw the same file.
        figure.savefig(options.out / f"{name}.png", format="png", metadata={"Software": None})


def branches() -> Figure:
    """What the lr does on a branch at update 60 of 240, for three schedules."""
    figure, grid = _figure(8.4, 2.6, 1, 3)
    blocks = {
        "cosine": {"shape": "cosine"},
        "wsd": {"shape": "wsd", "decay_steps": "20%"},
        "cosine, t_max 25 %, then held": {"shape": "cosine", "t_max": 60, "eta_min": 0.1},
    }
    for axes, (name, decay) in zip(grid[0], blocks.items(), strict=True):
        schedule = Schedule.from_dict({"peak_lr": 1.0, "total_steps": 240, "warmup": {"steps": 12}, "decay": decay})
        axes.plot(schedule.lr(np.arange(240)), color=GREY, linewidth=1.0, label="the schedule")
        for path, colour in (("floor", RED), ("rest", BLUE)):
            lrs = branch_lrs(schedule, 60, 0.4, path)
            axes.plot(60 + np.arange(len(lrs)), lrs, color=colour, linewidth=2.2, label=f"branch: {path}")
        axes.axvline(60, color=GREY, linewidth=0.8, linestyle=":")
        axes.set(title=name, xlabel="update", ylim=(0, 1.08))
    grid[0][0].set_ylabel("lr / peak")
    grid[0][2].legend(fontsize=7, loc="upper right")
    return figure


def finals(records: dict[str, list[Record]]) -> Figure:
    """Every schedule's final losses, in the order of their means."""
    names = max(len(truth(runs)) for runs in records.values())
    figure, grid = _figure(4.2 * len(records), 0.6 + 0.17 * names, 1, len(records))
    for axes, (task, runs) in zip(grid[0], records.items(), strict=True):
        true = truth(runs)
        order = sorted(true, key=lambda name: -true[name])
        best = min(true.values())
        axes.axvspan(best, best * (1 + CLOSE), color=BLUE, alpha=0.12, linewidth=0)
        for y, name in enumerate(order):
            axes.plot([run.final for run in runs if run.schedule == name], [y] * _seeds(runs), ".", color=GREY, ms=4)
            axes.plot(true[name], y, "|", color=BLUE, ms=9, mew=2)
        axes.set_yticks(range(len(order)), order)
        axes.set(
            title=TASKS[task],
            xlabel="final held-out loss (blue: mean; within 1 %)",
            ylim=(-1, len(order)),
        )
    return figure


def ranks(records: dict[str, list[Record]], score: str) -> Figure:
    """Rank after a quarter of the run against rank in truth: raw, and the other score."""
    figure, grid = _figure(7.0, 3.2 * len(records), len(records), 2)
    for row, (task, runs) in zip(grid, records.items(), strict=True):
        true, rung = truth(runs), runs[0].total_steps // 4
        best = min(true.values())
        position = {name: i + 1 for i, name in enumerate(sorted(true, key=lambda name: true[name]))}
        for axes, name in zip(row, ("raw", score), strict=True):
            axes.axvspan(0, len(true) / 2, color="0.94", zorder=0)
            for seed in {run.seed for run in runs}:
                ordered = sorted((run for run in runs if run.seed == seed), key=lambda run: run.scores[rung][name])
                for i, run in enumerate(ordered):
                    close = true[run.schedule] <= best * (1 + CLOSE)
                    axes.plot(i + 1, position[run.schedule], "o", color=RED if close else GREY, ms=5 if close else 3)
            axes.set(title=f"{TASKS[task]}: {name} at update {rung}", xlabel="rank at the rung (grey: the better half)")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
            axes.invert_yaxis()
        row[0].set_ylabel("rank of the mean final loss\n(red: within 1 % of the best)")
    return figure


def taus(results: dict[str, Any]) -> Figure:
    """Kendall's tau of every score's order at every rung with the truth."""
    figure, grid = _figure(2.6 + 2.9 * len(results), 3.0, 1, len(results))
    for axes, (task, result) in zip(grid[0], results.items(), strict=True):
        for score, style in SHOWN.items():
            found = result["taus"][score]
            steps = [int(step) for step in found]
            axes.plot(steps, [found[str(step)][1] for step in steps], label=score, **style, **MARKER)
        axes.axhline(result["ceiling"], color=GREY, linewidth=1.0, linestyle=":")
        axes.set(title=TASKS[task], xlabel="rung, update", xticks=steps, ylim=(-0.4, 1))
    grid[0][0].set_ylabel("Kendall's tau with the true order\n(dotted: one seed's own final order)")
    grid[0][-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def kept_and_spent(results: dict[str, Any]) -> Figure:
    """Sweeps whose winner is close to the best, against what they spent; a dot for each setting of rungs."""
    kinds = list(dict.fromkeys(row["kind"] for row in next(iter(results.values()))["rows"] if row["setting"]))
    figure, grid = _figure(2.6 + 2.9 * len(results), 2.4 * len(kinds), len(kinds), len(results))
    for column, (task, result) in enumerate(results.items()):
        everything = next(row for row in result["rows"] if row["kind"] == "exhaustive")
        for row, kind in zip(grid, kinds, strict=True):
            axes = row[column]
            axes.fill_between([0, 40], 90, 101, color=BLUE, alpha=0.10, linewidth=0)
            for score, style in SHOWN.items():
                rows = [each for each in result["rows"] if each["score"] == score and each["kind"] == kind]
                points = sorted((100 * each["spent"], 100 * each["winner_close"]) for each in rows)
                axes.plot(*zip(*points, strict=True), label=score, **style, **(MARKER | {"linewidth": 0.7}))
            axes.axhline(100 * everything["winner_close"], color=GREY, linewidth=1.0, linestyle=":")
            axes.set(title=f"{TASKS[task]}: {kind}", ylim=(0, 103), xlim=(15, 85))
    for axes in grid[-1]:
        axes.set_xlabel("updates, % of the exhaustive sweep")
    for row in grid:
        row[0].set_ylabel("winner within 1 %, %")
    grid[0][-1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def _seeds(runs: list[Record]) -> int:
    return len({run.seed for run in runs})


def _figure(width: float, height: float, rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(row) for row in grid]


def _finish(figure: Figure) -> None:
    for axes in figure.axes:
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
        axes.title.set_fontsize(9)
        axes.xaxis.label.set_fontsize(8)
        axes.yaxis.label.set_fontsize(8)


if __name__ == "__main__":
    main()
