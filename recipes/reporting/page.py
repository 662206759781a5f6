"""report.html: one file that tells how a run went, made from the run's folder alone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from lrsched import Schedule
from lrsched.errors import ScheduleError
from recipes.reporting import live_part
from recipes.reporting import page_parts as parts
from recipes.reporting.evaluation_part import held_out_metrics
from recipes.reporting.metrics import Metrics
from recipes.reporting.page_style import CHART_STYLE, FRAME, STYLE
from recipes.reporting.pictures import LIGHT, Look, draw_loss, draw_schedule
from recipes.reporting.run_files import RunFiles, read_run
from recipes.storage import Storage

REPORT_FILE = "report.html"
_MOST_SAMPLES = 8


def write_report(run_folder: Storage, end: str = "") -> None:
    """Write ``report.html``, ``loss.png`` and ``schedule.png`` into a run's folder.

    The run may be in any state: a part whose file is missing or cannot be read says so on the page,
    and a picture there is nothing to draw for is not written. end: why a run without a summary has ended, if that is known.
    """
    run = read_run(run_folder)
    pictures = _pictures(run)
    for name, draw in (("loss.png", pictures.loss), ("schedule.png", pictures.schedule)):
        if draw is not None:
            run_folder.write_bytes(name, draw(LIGHT))
    body = _body(run, _head(run, end), _curves(run, pictures))
    run_folder.write_text(REPORT_FILE, FRAME.format(head="", title=parts.text(run.name), style=STYLE, body=body))


def write_live_report(run_folder: Storage, metrics: Metrics, now: float, next_s: float) -> None:
    """Write the ``report.html`` of a run that goes on: a browser reloads it, and its curves cost next to nothing to draw.

    metrics: of the run so far. now: `time.time()`. next_s: seconds until the next version.
    """
    run = read_run(run_folder, metrics)
    frame = FRAME.format(
        head=live_part.reloads(next_s),
        title=parts.text(run.name),
        style=STYLE + CHART_STYLE,
        body=_body(run, live_part.head(run, now, next_s), live_part.curves(run)),
    )
    run_folder.write_text(REPORT_FILE, frame)


@dataclass(frozen=True)
class _Pictures:
    """How to draw each picture; None where there is nothing to draw."""

    loss: Callable[[Look], bytes] | None
    schedule: Callable[[Look], bytes] | None
    why_no_schedule: str = ""


def _pictures(run: RunFiles) -> _Pictures:
    loss = None
    if run.metrics.train or run.metrics.eval:
        unigram = run.summary.get("unigram_loss")
        unigram = unigram if parts.is_number(unigram) else None
        loss = cache(lambda look: draw_loss(run.metrics, unigram, look))
    definition = run.setting("schedule")
    if not isinstance(definition, dict):
        return _Pictures(loss, None, "No schedule: config.yaml is missing or has none.")
    try:
        schedule = Schedule.from_dict({key: value for key, value in definition.items() if value is not None})
    except ScheduleError as error:
        return _Pictures(loss, None, f"The schedule cannot be drawn: {error}")
    total = schedule.total_steps
    used = [
        (record["step"] - 1, record["lr"])
        for record in run.metrics.train
        if parts.is_number(record.get("lr")) and 0 < record["step"] <= total
    ]
    return _Pictures(loss, cache(lambda look: draw_schedule(schedule, total, used, look)))


def _body(run: RunFiles, head: str, curves: str) -> str:
    return "\n".join(
        [
            head,
            *(parts.paragraph(problem, "bad") for problem in run.problems),
            _headline(run),
            curves,
            _smoothing(run),
            held_out_metrics(run),
            _samples(run),
            _speed(run),
            _data(run),
            _settings(run),
            _origin(run),
        ]
    )


def _smoothing(run: RunFiles) -> str:
    smoothing = run.setting("training.label_smoothing")
    if not parts.is_number(smoothing) or not smoothing:
        return ""
    words = f"The training loss contains label smoothing of {smoothing:g}; the held-out loss does not."
    return parts.paragraph(words, "faint")


def _head(run: RunFiles, end: str) -> str:
    total = run.total_updates
    of_total = f" of {parts.count(total)}" if total else ""
    if not run.summary:
        why = f"Ended: {end.rstrip('.')}." if end else "Not finished: no summary yet."
        words = f"{why} Last line of metrics: update {parts.count(run.last_step)}{of_total}."
    else:
        updates = run.summary.get("updates", run.last_step)
        if run.summary.get("state") == "finished":
            words = f"Finished after {parts.count(updates)} updates"
        else:
            words = f"Stopped at update {parts.count(updates)}{of_total}"
    style = "finished" if run.summary.get("state") == "finished" else "unfinished"
    return f"<header><h1>{parts.text(run.name)}</h1>{parts.paragraph(words, f'state {style}')}</header>"


def _headline(run: RunFiles) -> str:
    summary, last_eval = run.summary, (run.metrics.eval or [{}])[-1]
    held_out = summary.get("eval_loss", last_eval.get("eval_loss"))
    unigram = summary.get("unigram_loss")
    difference, meaning = parts.MISSING, "held-out loss against unigram loss"
    if parts.is_number(held_out) and parts.is_number(unigram):
        difference = f"{abs(unigram - held_out):.3f} {'lower' if held_out < unigram else 'higher'}"
        meaning = "than the unigram loss" + ("" if held_out < unigram else ": no better than token frequencies")
    speed, speed_meaning = summary.get("tokens_per_s"), "source and target, without padding"
    if speed is None and run.metrics.train:
        speed, speed_meaning = run.metrics.train[-1].get("tokens_per_s"), "in the last line of metrics"
    seen = (run.metrics.train or [{}])[-1].get("tokens")
    after = f", update {parts.count(last_eval['step'])}" if not summary and last_eval else ""
    num_workers = summary.get("num_workers", run.setting("scaling.num_workers"))
    zero_stage = summary.get("zero_stage", run.setting("deepspeed.zero_stage"))
    precision = summary.get("precision", run.setting("training.precision")) or parts.MISSING
    return parts.numbers(
        [
            ("Held-out loss", parts.loss(held_out), f"nats per target token{after}"),
            ("Unigram loss", parts.loss(unigram), "nats per target token: guessing by token frequency"),
            ("Difference", difference, meaning),
            ("Parameters", parts.large(summary.get("num_parameters")), _trained(summary)),
            ("Tokens per second", parts.count(_whole(speed)), speed_meaning),
            ("Tokens seen", parts.large(seen), "source and target"),
            ("Wall time", parts.duration(summary.get("wall_s")), "launch to summary"),
            ("Workers", parts.count(num_workers), f"ZeRO stage {parts.count(zero_stage)}, {precision}"),
        ]
    )


def _trained(summary: dict[str, Any]) -> str:
    trained, everything = summary.get("num_trained"), summary.get("num_parameters")
    return "trained" if trained in (None, everything) else f"{parts.large(trained)} of them trained"


def _whole(value: Any) -> Any:
    return round(value) if parts.is_number(value) else value


def _curves(run: RunFiles, pictures: _Pictures) -> str:
    inner = []
    if pictures.loss is not None:
        inner.append(parts.picture("Training and held-out loss over updates", pictures.loss))
        losses = [(record["step"], record["loss"]) for record in run.metrics.train if "loss" in record]
        lost = [step for step, value in losses if value is None]
        if lost:
            words = f"Loss not finite in {len(lost)} of {len(losses)} lines, first at update {lost[0]:,}."
            inner.append(parts.paragraph(words, "bad"))
    else:
        inner.append(parts.paragraph("No metrics: no update has been logged.", "faint"))
    if pictures.schedule is not None:
        what = "Learning rate over updates, with the rates really used"
        inner.append(parts.picture(what, pictures.schedule))
    else:
        inner.append(parts.paragraph(pictures.why_no_schedule, "faint"))
    sentence, driver = run.summary.get("schedule_sentence"), run.summary.get("schedule_driver")
    if sentence:
        inner.append(parts.paragraph(sentence))
    if driver:
        who = {"deepspeed": "DeepSpeed's own scheduler", "torch": "this project's torch scheduler"}
        inner.append(parts.paragraph(f"Stepped by {who.get(str(driver), driver)}.", "faint"))
    if run.metrics.eval:
        inner.append(parts.folded("All evaluations", _evaluations(run)))
    return parts.section("Curves", *inner)


def _evaluations(run: RunFiles) -> str:
    lines = [f"{'update':>10}  {'held-out loss':>13}  {'seconds':>8}"]
    for record in run.metrics.eval:
        values = (
            parts.count(record["step"]),
            parts.loss(record.get("eval_loss")),
            parts.seconds(record.get("eval_s")),
        )
        lines.append("{:>10}  {:>13}  {:>8}".format(*values))
    return "\n".join(lines)


def _samples(run: RunFiles) -> str:
    if not run.samples:
        why = "none were asked for" if run.setting("training.num_samples") == 0 else "the run has not written any"
        return parts.section("Samples", parts.paragraph(f"No samples: {why}.", "faint"))
    note = parts.paragraph("Held-out examples with what the exported model generates.", "faint")
    return parts.section("Samples", note, parts.samples_table(run.samples[:_MOST_SAMPLES]))


def _speed(run: RunFiles) -> str:
    summary = run.summary
    if not summary:
        return parts.section("Throughput and phases", _no_summary())
    phases, memory = summary.get("phases_s"), summary.get("peak_memory_bytes")
    rows = [
        ("tokens per second", parts.count(_whole(summary.get("tokens_per_s")))),
        ("padding share of the batches", parts.percent(summary.get("padding_ratio"))),
    ]
    if isinstance(memory, list):
        rows += [(f"peak memory, worker {rank}", parts.size(amount)) for rank, amount in enumerate(memory)]
    table = parts.shares("phase", phases) if isinstance(phases, dict) and phases else ""
    return parts.section("Throughput and phases", table, parts.figures(rows))


def _no_summary() -> str:
    return parts.paragraph("Not known: summary.json is written at the end of a run.", "faint")


def _data(run: RunFiles) -> str:
    numbers = run.summary.get("data")
    if not isinstance(numbers, dict) or not numbers:
        return parts.section("Data", _no_summary())
    rows = [(_words(name), parts.count(value)) for name, value in numbers.items()]
    fit = run.summary.get("unigram_loss_train_fit")
    if fit is not None:
        rows.append(("unigram loss with the training text's frequencies", parts.loss(fit)))
    rows += [
        (f"task {task.get('name')}", _task(task)) for task in run.summary.get("tasks") or () if isinstance(task, dict)
    ]
    return parts.section("Data", parts.figures(rows))


def _task(task: dict[str, Any]) -> str:
    """Of a mixture: what it is, and how much of it was trained on."""
    rate, epochs = task.get("rate"), task.get("epochs")
    share = (
        f"{rate:.1%} of every update, {epochs:.3g} epochs" if parts.is_number(rate) and parts.is_number(epochs) else ""
    )
    return (
        f"{task.get('objective')}, {parts.count(task.get('training_examples'))} training and "
        f"{parts.count(task.get('held_out_examples'))} held-out examples; {share}"
    )


def _settings(run: RunFiles) -> str:
    inner = []
    for name, content in (("config.yaml", run.config_text), ("ds_config.json", run.ds_config_text)):
        what = "Resolved config" if name == "config.yaml" else "DeepSpeed config"
        if content:
            inner.append(parts.folded(f"{what} ({name})", parts.without_credentials(content)))
        else:
            inner.append(parts.paragraph(f"{what}: {name} is missing or empty.", "faint"))
    return parts.section("Settings", *inner)


def _origin(run: RunFiles) -> str:
    """Versions, machine, git commit and command, under whatever names environment.json gives them."""
    rows = list(_flat(run.environment))
    inner = parts.figures(rows) if rows else parts.paragraph("Not known: no environment.json.", "faint")
    return parts.section("Versions and machine", inner)


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{_words(name)} ")
        elif isinstance(value, list) and all(isinstance(word, str) for word in value):
            yield prefix + _words(name), parts.without_credentials(shlex.join(value))
        elif str(name).endswith("_bytes") and parts.is_number(value):
            yield prefix + _words(name).removesuffix(" bytes"), parts.size(value)
        else:
            shown = value if isinstance(value, str) else parts.MISSING if value is None else json.dumps(value)
            yield prefix + _words(name), parts.without_credentials(shown)


def _words(name: Any) -> str:
    return str(name).replace("_", " ")
