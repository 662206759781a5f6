"""What a comparison says: differing settings and surroundings, final numbers, which run is best at what."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from recipes.comparing.runs import ComparedRun
from recipes.comparing.series import in_order
from recipes.config.evaluation import FORCED_METRICS, TEXT_METRICS
from recipes.config_file import flatten
from recipes.reporting.chart import NUM_LOOKS

# They differ between any two runs and decide nothing.
_NO_SETTING = ("run.name", "run.storage_path", "run.resume", "report.")
_NO_SURROUNDING = ("command", "started", "job_package")
_RISING = {field for fields in (FORCED_METRICS | TEXT_METRICS).values() for field in fields} - {"eval_perplexity"}
_NOT_JUDGED = ("loss", "lr")


@dataclass(frozen=True)
class Verdict:
    """Values of one metric, best first.

    at: the update that all values are of; None: each of its run's last. lower_is_better: None where that is not known
    (a metric of one's own that no config names as evaluation.best); then the highest stands first.
    """

    metric: str
    values: list[tuple[str, float]]
    lower_is_better: bool | None
    at: int | None = None

    @property
    def margin(self) -> float:
        """By how much the first is ahead of the second."""
        return abs(self.values[1][1] - self.values[0][1])


@dataclass(frozen=True)
class Findings:
    """settings, surroundings: dotted key -> label -> value, only of keys whose values differ."""

    metrics: list[str]
    finals: dict[str, dict[str, Any]]
    settings: dict[str, dict[str, Any]]
    surroundings: dict[str, dict[str, Any]]
    verdicts: list[Verdict]
    caveats: list[str]


def compare(runs: Sequence[ComparedRun]) -> Findings:
    metrics = in_order({name for run in runs for name in run.progress.names()})
    settings = differing({run.label: run.config for run in runs if run.config}, _NO_SETTING)
    return Findings(
        metrics=metrics,
        finals={run.label: _finals(run, metrics) for run in runs},
        settings=settings,
        surroundings=differing(
            {run.label: flatten(run.files.environment) for run in runs if run.files.environment}, _NO_SURROUNDING
        ),
        verdicts=[verdict for name in metrics if name not in _NOT_JUDGED for verdict in _verdicts(runs, name)],
        caveats=list(_caveats(runs, settings)),
    )


def differing(values: dict[str, dict[str, Any]], without: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Keys that have not the same value for all; a key that one of them lacks has the value None there."""
    keys = dict.fromkeys(key for of_run in values.values() for key in of_run if not key.startswith(without))
    rows = {key: {label: of_run.get(key) for label, of_run in values.items()} for key in keys}
    return {key: row for key, row in rows.items() if len({json.dumps(each, default=str) for each in row.values()}) > 1}


def lower_is_better(metric: str, runs: Iterable[ComparedRun] = ()) -> bool | None:
    """Of a mixture's ``eval_bleu/<task>`` as of ``eval_bleu``; None where no run's config says it."""
    kind = metric.split("/")[0]
    if kind in ("loss", "eval_loss", "eval_perplexity"):
        return True
    if kind in _RISING or kind in ("tokens_per_s", "mfu"):
        return False
    for run in runs:
        mode = run.config.get("evaluation.best.mode")
        if str(run.config.get("evaluation.best.metric")).split("/")[0] == kind and mode in ("min", "max"):
            return mode == "min"
    return None


def _finals(run: ComparedRun, metrics: list[str]) -> dict[str, Any]:
    summary = run.files.summary
    numbers: dict[str, Any] = {
        "folder": str(run.folder),
        "state": run.state,
        "updates": run.files.last_step,
        "tokens": run.progress.total_tokens,
        "training_s": run.progress.total_seconds,
        "num_workers": summary.get("num_workers", run.files.setting("scaling.num_workers")),
        "num_parameters": summary.get("num_parameters"),
        "skipped_batches": summary.get("skipped_batches", _last(run.files.metrics.train, "skipped")),
    }
    for name in metrics:
        last = run.progress.series(name).last
        numbers[name] = None if last is None else last[1]
    # The mean over the run says more than its last line.
    if summary.get("tokens_per_s") is not None:
        numbers["tokens_per_s"] = summary["tokens_per_s"]
    return numbers


def _last(records: list[dict[str, Any]], name: str) -> Any:
    return records[-1].get(name) if records else None


def _verdicts(runs: Sequence[ComparedRun], name: str) -> Iterable[Verdict]:
    """At the end of each run; and where they ended at other updates, at the last one that all have a value of."""
    lower = lower_is_better(name, runs)
    series = {run.label: run.progress.series(name) for run in runs}
    ends = {label: each.last for label, each in series.items() if each.last is not None}
    if len(ends) < 2:
        return

    def ordered(values: dict[str, float]) -> list[tuple[str, float]]:
        return sorted(values.items(), key=lambda item: item[1], reverse=not lower)

    last = {label: value for label, (_, value) in ends.items()}
    if name == "tokens_per_s":
        means = {run.label: run.files.summary.get("tokens_per_s") for run in runs if run.label in last}
        last |= {label: value for label, value in means.items() if value is not None}
    yield Verdict(name, ordered(last), lower)
    if name.startswith("eval_") and len({update for update, _ in ends.values()}) > 1:
        common = set.intersection(*({int(update) for update in series[label].along("updates")[0]} for label in ends))
        if common:
            at = max(common)
            yield Verdict(name, ordered({label: series[label].at(at) for label in ends}), lower, at)


def _caveats(runs: Sequence[ComparedRun], settings: dict[str, dict[str, Any]]) -> Iterable[str]:
    unfinished = [f"{run.label} ({run.state})" for run in runs if run.state != "finished"]
    if unfinished:
        yield f"Not finished: {', '.join(unfinished)}. A schedule that has not annealed yet looks worse than it is."
    if len(runs) > NUM_LOOKS:
        yield f"More than {NUM_LOOKS} runs: colours and dashes come again."
    without = [run.label for run in runs if not run.progress.names()]
    if without:
        yield f"No metrics yet: {', '.join(without)}."
    held_out = [key for key in settings if key.startswith("data.")]
    if held_out:
        more = f" and {len(held_out) - 4} more" if len(held_out) > 4 else ""
        yield f"Held-out numbers may be of different data or tokens: {', '.join(held_out[:4])}{more} differ."
    yield from _chance(runs)
    for run in runs:
        yield from (f"{run.label}: {problem}" for problem in run.files.problems)


def _chance(runs: Sequence[ComparedRun]) -> Iterable[str]:
    """What runs that differ in nothing but their seed say about the differences between the others."""
    alike: dict[str, list[ComparedRun]] = {}
    for run in runs:
        deciding = {key: value for key, value in run.config.items() if not key.startswith((*_NO_SETTING, "run.seed"))}
        alike.setdefault(json.dumps(deciding, sort_keys=True, default=str), []).append(run)
    repeated = [group for group in alike.values() if len({run.config.get("run.seed") for run in group}) > 1]
    for group in repeated:
        ends = [end[1] for run in group if (end := run.progress.series("eval_loss").last) is not None]
        if len(ends) > 1:
            labels = ", ".join(run.label for run in group)
            yield f"Differ in their seed alone: {labels}; their eval_loss at the end is up to {max(ends) - min(ends):.3g} apart, by chance."
    if not repeated:
        yield "One seed for each setting: a difference may be chance, and none here is claimed to be more."
