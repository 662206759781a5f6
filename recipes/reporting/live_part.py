"""What the page of a run that goes on has in place of the finished one's head and pictures."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from recipes.reporting import page_parts as parts
from recipes.reporting.chart import Line, chart
from recipes.reporting.pictures import short, smoothed, spread
from recipes.reporting.run_files import RunFiles

_MOST_POINTS = 400
_SMOOTHED_FROM = 20


def reloads(next_s: float) -> str:
    """Tells a browser to load the page again, without a script."""
    return f'<meta http-equiv="refresh" content="{max(round(next_s), 5)}">\n'


def head(run: RunFiles, now: float, next_s: float) -> str:
    """Says what was true when the page was written, and how to see that its command was killed since."""
    total = run.total_updates
    of_total = f" of {parts.count(total)}" if total else ""
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    state = f"Running: update {parts.count(run.last_step)}{of_total}, last written at {at}"
    how = (
        f"Written again every {parts.duration(float(next_s))} while the command runs, and this view with it. "
        "A page that is much older than that is what a killed command has left."
    )
    words = f"{parts.paragraph(state, 'state running')}{parts.paragraph(how, 'faint')}"
    return f"<header><h1>{parts.text(run.name)}</h1>{words}</header>"


def curves(run: RunFiles) -> str:
    """Losses and learning rate so far."""
    train, held_out = _points(run.metrics.train, "loss"), _points(run.metrics.eval, "eval_loss")
    losses = [_line(1, "training", *_smooth(*train), f"{_last(train[1]):.3f}")] if len(train[0]) else []
    losses += [_line(2, "held-out", *held_out, f"{_last(held_out[1]):.3f}")] if len(held_out[0]) else []
    rates = _points(run.metrics.train, "lr")
    rate = [_line(1, "", *rates, short(_last(rates[1])))] if len(rates[0]) else []
    drawn = [
        chart("Loss, nats per target token", losses, _count, lambda value: f"{value:.4g}", "updates made"),
        chart("Learning rate", rate, _count, short, "updates made", from_zero=True),
    ]
    if not any(drawn):
        drawn = [parts.paragraph("No update has been logged yet.", "faint")]
    return parts.section("Curves", *drawn)


def _points(records: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    known = [(record["step"], record[name]) for record in records if parts.is_number(record.get(name))]
    return np.array([step for step, _ in known], float), np.array([value for _, value in known], float)


def _smooth(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (x, smoothed(y)) if len(y) >= _SMOOTHED_FROM else (x, y)


def _line(number: int, name: str, x: np.ndarray, y: np.ndarray, value: str) -> Line:
    chosen = spread(len(x), _MOST_POINTS)
    return Line(number, name or "learning rate", x[chosen], y[chosen], f"{name} {value}".strip())


def _last(values: np.ndarray) -> float:
    return float(values[-1])


def _count(value: float) -> str:
    return f"{value:,.0f}"
