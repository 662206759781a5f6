"""The page's part on held-out metrics: a curve and its numbers for each, the best evaluation, why a run ended early."""

from __future__ import annotations

from typing import Any

from recipes.reporting import page_parts as parts
from recipes.reporting.metrics import metric_fields
from recipes.reporting.run_files import RunFiles

_WIDTH, _HEIGHT = 160, 32


def held_out_metrics(run: RunFiles) -> str:
    """A section, or nothing where only the loss was measured."""
    names = list(dict.fromkeys(name for record in run.metrics.eval for name in metric_fields(record)))
    inner = [parts.paragraph(words) for words in _words(run)]
    if names:
        inner.insert(0, _table([(name, _points(run, name)) for name in names]))
    return parts.section("Held-out metrics", *inner) if inner else ""


def _points(run: RunFiles, name: str) -> list[tuple[int, float]]:
    found = [(record["step"], record.get(name)) for record in run.metrics.eval]
    return [(step, value) for step, value in found if parts.is_number(value)]


def _words(run: RunFiles) -> list[str]:
    words = []
    stopped, best = run.summary.get("stopped_early"), run.summary.get("best")
    if stopped:
        words.append(f"{str(stopped)[:1].upper()}{str(stopped)[1:]}.")
    if isinstance(best, dict):
        words.append(
            f"Best {best.get('metric')}: {_number(best.get('value'))} at update {parts.count(best.get('update'))}; "
            f"the export is of update {parts.count(run.summary.get('exported_update'))}."
        )
    signatures = run.summary.get("metric_signatures")
    if isinstance(signatures, dict):
        words += [f"{name}: {signature}" for name, signature in signatures.items()]
    return words


def _number(value: Any) -> str:
    return f"{value:.4g}" if parts.is_number(value) else parts.MISSING


def _table(metrics: list[tuple[str, list[tuple[int, float]]]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("metric", "last", "lowest", "highest", "over updates"))
    rows = []
    for name, points in metrics:
        cells = [parts.MISSING] * 3
        if points:
            lowest, highest = (pick(points, key=lambda point: point[1]) for pick in (min, max))
            cells = [
                _number(points[-1][1]),
                *(f"{_number(value)} (update {step:,})" for step, value in (lowest, highest)),
            ]
        label = parts.text(name.removeprefix("eval_").replace("_", " "))
        numbers = "".join(f"<td>{parts.text(cell)}</td>" for cell in cells)
        rows.append(f"<tr><th scope=row>{label}</th>{numbers}<td>{_curve(points)}</td></tr>")
    table = f'<table class="phases"><thead><tr>{head}</tr></thead><tbody>\n' + "\n".join(rows) + "\n</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _curve(points: list[tuple[int, float]]) -> str:
    """A line in the text's colour, from the first evaluation to the last, from the lowest value to the highest."""
    if len(points) < 2:
        return ""
    (first, last), values = (points[0][0], points[-1][0]), [value for _, value in points]
    low, high = min(values), max(values)
    drawn = " ".join(
        f"{2 + (_WIDTH - 4) * (step - first) / max(1, last - first):.1f},"
        f"{_HEIGHT - 2 - (_HEIGHT - 4) * ((value - low) / (high - low) if high > low else 0.5):.1f}"
        for step, value in points
    )
    return (
        f'<svg role="img" aria-label="curve" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}">'
        f'<polyline points="{drawn}" fill="none" stroke="currentColor" stroke-width="1.5"></polyline></svg>'
    )
