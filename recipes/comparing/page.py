"""The page of a comparison: one file, no script, nothing from the network."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from recipes.comparing.findings import Findings, Verdict
from recipes.comparing.page_style import COMPARISON_STYLE
from recipes.comparing.runs import ComparedRun
from recipes.comparing.words import in_words, metric_name, metric_text, verdict_words
from recipes.reporting import page_parts as parts
from recipes.reporting.chart import Line, chart, style_of
from recipes.reporting.page_style import CHART_STYLE, FRAME, STYLE
from recipes.reporting.pictures import short

_AXES = {"updates": "updates", "tokens": "tokens", "seconds": "time"}
_AXIS_NAMES = {"updates": "updates made", "tokens": "source and target tokens seen"}
_FROM_ZERO = ("lr", "tokens_per_s", "mfu")
_TIME_UNITS = ((3600.0, 3, "hours"), (60.0, 3, "minutes"), (1.0, 0, "seconds"))


def render(runs: Sequence[ComparedRun], findings: Findings) -> str:
    title = f"{len(runs)} runs compared"
    body = [
        f"<header><h1>{parts.text(title)}</h1></header>",
        _list(runs),
        _section_best(findings),
        _section_curves(runs, findings.metrics),
        parts.section("Settings that differ", _differences(runs, findings.settings, "All settings are the same.")),
        parts.section("Final numbers", _finals(runs, findings)),
        parts.section(
            "Versions and machines that differ",
            _differences(runs, findings.surroundings, "Commit, versions and machine are the same."),
        ),
    ]
    return FRAME.format(
        head="", title=parts.text(title), style=STYLE + CHART_STYLE + COMPARISON_STYLE, body="\n".join(body)
    )


def _list(runs: Sequence[ComparedRun]) -> str:
    rows = []
    for number, run in enumerate(runs, start=1):
        colour, dashes = style_of(number)
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        swatch = f'<svg aria-hidden="true" viewBox="0 0 38 12"><polyline points="0,6 38,6"{dashed}/></svg>'
        words = f'{parts.text(run.label)} <span class="faint">{parts.text(run.state)}</span>'
        rows.append(f'<li class="{colour}"><b>{number}</b>{swatch}<span>{words}</span></li>')
    return f'<ul class="runs">\n{"".join(rows)}\n</ul>'


def _section_best(findings: Findings) -> str:
    words = [parts.paragraph(verdict_words(verdict)) for verdict in findings.verdicts]
    caveats = [parts.paragraph(caveat, "faint") for caveat in findings.caveats]
    return parts.section(
        "Which is best at what", *(words or [parts.paragraph("Nothing to compare yet.", "faint")]), *caveats
    )


def _section_curves(runs: Sequence[ComparedRun], metrics: Sequence[str]) -> str:
    """All charts over each of the three axes; the reader's choice shows one set, by style sheet alone."""
    if not metrics:
        return parts.section("Curves", parts.paragraph("No run has metrics yet.", "faint"))
    drawn = {name: [run.progress.series(name).for_drawing(name) for run in runs] for name in metrics}
    choice, sets = [], []
    for axis, word in _AXES.items():
        checked = " checked" if axis == "updates" else ""
        choice.append(f'<input class="axis" type="radio" name="over" id="over-{axis}"{checked}>')
        choice.append(f'<label for="over-{axis}">over {word}</label>')
        charts = []
        for name, series in drawn.items():
            points = [each.along(axis) for each in series]
            lines = [Line(i + 1, run.label, *points[i]) for i, run in enumerate(runs)]
            furthest = max((float(x[-1]) for x, _ in points if len(x)), default=0.0)
            x_text, x_name = _x_axis(axis, furthest)
            charts.append(chart(metric_name(name), lines, x_text, _y_text(name), x_name, name in _FROM_ZERO))
        sets.append(f'<div class="over over-{axis}">\n' + "\n".join(filter(None, charts)) + "\n</div>")
    note = "Time of training: updates, evaluations and waits for checkpoints, without start-up and what a crash cost."
    inner = '<div class="axes">' + "\n".join([*choice, *sets]) + "</div>"
    return parts.section("Curves", inner, parts.paragraph(note, "faint"))


def _x_axis(axis: str, furthest: float) -> tuple[Callable[[float], str], str]:
    if axis != "seconds":
        return (parts.large if axis == "tokens" else lambda value: f"{value:,.0f}"), _AXIS_NAMES[axis]
    size, _, unit = next(found for found in _TIME_UNITS if furthest >= found[0] * found[1])
    return (lambda value: f"{value / size:.3g}"), f"{unit} of training"


def _y_text(metric: str) -> Callable[[float], str]:
    if metric == "lr":
        return short
    if metric == "mfu":
        return parts.percent
    return lambda value: parts.large(value) if abs(value) >= 1e4 else f"{value:.4g}"


def _head(runs: Sequence[ComparedRun]) -> str:
    cells = "".join(
        f'<th class="{style_of(i)[0]}"><b>{i}</b> {parts.text(run.label)}</th>' for i, run in enumerate(runs, start=1)
    )
    return f"<thead><tr><th></th>{cells}</tr></thead>"


def _table(runs: Sequence[ComparedRun], rows: Sequence[str]) -> str:
    body = "\n".join(rows)
    return f'<div class="wide"><table>{_head(runs)}<tbody>\n{body}\n</tbody></table></div>'


def _differences(runs: Sequence[ComparedRun], rows: dict[str, dict[str, Any]], none: str) -> str:
    if not rows:
        return parts.paragraph(none, "faint")
    body = []
    for key, row in rows.items():
        cells = []
        for run in runs:
            words = parts.without_credentials(in_words(row[run.label])) if run.label in row else parts.MISSING
            long = ' class="long"' if len(words) > 28 else ""
            cells.append(f"<td{long}>{parts.text(words)}</td>")
        body.append(f"<tr><th scope=row>{parts.text(key)}</th>{''.join(cells)}</tr>")
    return _table(runs, body)


def _finals(runs: Sequence[ComparedRun], findings: Findings) -> str:
    best = {verdict.metric: _best(verdict) for verdict in findings.verdicts if verdict.at is None}
    rows = []
    for name in next(iter(findings.finals.values())):
        if name in ("folder", "state"):
            continue
        cells = []
        for run in runs:
            mark = ' class="best"' if best.get(name) == run.label else ""
            cells.append(f"<td{mark}>{parts.text(_final_text(name, findings.finals[run.label][name]))}</td>")
        rows.append(f"<tr><th scope=row>{parts.text(metric_name(name))}</th>{''.join(cells)}</tr>")
    return _table(runs, rows)


def _best(verdict: Verdict) -> str | None:
    """The one that is best; None where which end is better is not known, or two are as good."""
    return verdict.values[0][0] if verdict.lower_is_better is not None and verdict.margin > 0 else None


def _final_text(name: str, value: Any) -> str:
    if name == "training_s":
        return parts.duration(value)
    if name in ("tokens", "num_parameters"):
        return parts.large(value)
    if name in ("updates", "num_workers", "skipped_batches"):
        return parts.count(value)
    return metric_text(name, value)


def as_json(findings: Findings) -> str:
    content = {
        "runs": findings.finals,
        "settings": findings.settings,
        "surroundings": findings.surroundings,
        "best": [
            {
                "metric": verdict.metric,
                "at_update": verdict.at,
                "lower_is_better": verdict.lower_is_better,
                "ranking": [{"run": label, "value": value} for label, value in verdict.values],
            }
            for verdict in findings.verdicts
        ],
        "caveats": findings.caveats,
    }
    return parts.without_credentials(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False, default=str))
