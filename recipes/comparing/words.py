"""Metrics and verdicts in words, and the comparison as a text for the terminal."""

from __future__ import annotations

import json
from typing import Any

from recipes.comparing.findings import Findings, Verdict
from recipes.reporting import page_parts as parts
from recipes.reporting.pictures import short

_NAMES = {
    "loss": "Training loss, nats per target token",
    "eval_loss": "Held-out loss, nats per target token",
    "lr": "Learning rate",
    "tokens_per_s": "Tokens per second",
    "mfu": "Model FLOPs utilisation",
    "updates": "Updates",
    "tokens": "Tokens seen",
    "training_s": "Time of training",
    "num_workers": "Workers",
    "num_parameters": "Parameters",
    "skipped_batches": "Batches left out",
}


def metric_name(metric: str) -> str:
    if metric in _NAMES:
        return _NAMES[metric]
    kind, slash, task = metric.partition("/")
    if slash and kind in _NAMES:
        return f"{_NAMES[kind]}: {task}"
    words = metric.removeprefix("eval_").replace("_", " ")
    return f"Held-out {words}" if metric.startswith("eval_") else words


def metric_text(metric: str, value: Any) -> str:
    if not parts.is_number(value):
        return parts.MISSING
    if metric == "lr":
        return short(value)
    if metric == "mfu":
        return parts.percent(value)
    if metric == "tokens_per_s":
        return parts.count(round(value))
    return f"{value:.4f}" if abs(value) < 1000 else parts.count(value)


def in_words(value: Any) -> str:
    """A setting as YAML shows it, near enough; a key that a config lacks is a dash."""
    if value is None:
        return "null"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def verdict_words(verdict: Verdict) -> str:
    """Who is best, by how much, and who comes next."""
    name = metric_name(verdict.metric).split(",")[0] if "/" not in verdict.metric else metric_name(verdict.metric)
    (first, value), (second, next_value) = verdict.values[:2]
    where = "" if verdict.at is None else f" at update {verdict.at:,}, the last that all have"
    if verdict.margin == 0:
        return f"{name}{where}: the same for {first} and {second}, {metric_text(verdict.metric, value)}."
    how = {True: "lowest", False: "highest", None: "highest (which is better is not known)"}[verdict.lower_is_better]
    # A learning rate's few characters do for a difference of any size.
    margin = short(verdict.margin) if verdict.margin < 100 else parts.count(verdict.margin)
    share = f", {short(100 * verdict.margin / abs(next_value))} %" if next_value else ""
    return (
        f"{name}{where}: {how} with {first}, {metric_text(verdict.metric, value)}; next {second}, "
        f"{metric_text(verdict.metric, next_value)} ({margin} apart{share})."
    )


def as_text(findings: Findings) -> str:
    """For the terminal: the runs, what differs, who is best."""
    lines = [f"{label}: {_in_short(numbers)}" for label, numbers in findings.finals.items()]
    for title, rows in (("settings", findings.settings), ("versions and machines", findings.surroundings)):
        lines += ["", f"{title} that differ:" if rows else f"{title}: the same"]
        for key, row in rows.items():
            shown = "; ".join(f"{label} {parts.shorten(in_words(value), 60)}" for label, value in row.items())
            lines.append(f"  {key}: {shown}")
    lines += ["", *map(verdict_words, findings.verdicts), *findings.caveats]
    return parts.without_credentials("\n".join(lines))


def _in_short(numbers: dict[str, Any]) -> str:
    shown = [str(numbers["state"]), f"{numbers['updates']:,} updates" if numbers["state"] == "finished" else ""]
    for name in ("eval_loss", "loss"):
        if parts.is_number(numbers.get(name)):
            shown.append(f"{name} {metric_text(name, numbers[name])}")
    if numbers["training_s"] is not None:
        shown.append(f"{parts.duration(numbers['training_s'])} of training")
    return ", ".join(filter(None, shown))
