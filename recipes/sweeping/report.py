"""A sweep's report.html: the answer, how it was found, what was stopped; one self-contained file."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from recipes.errors import StorageError
from recipes.launching.terminal import duration
from recipes.reporting import page_parts as parts
from recipes.reporting.metrics import read_metrics
from recipes.reporting.page_style import FRAME, STYLE
from recipes.sweeping.answer import Answer, Candidate, Interval, verdict
from recipes.sweeping.kendall import kendall_tau
from recipes.sweeping.ledger import RunRecord
from recipes.sweeping.report_pictures import Curve, draw_finals, draw_losses, draw_parameters, draw_rates
from recipes.sweeping.space import FAMILY
from recipes.sweeping.trial import TRIALS, shown

if TYPE_CHECKING:
    from recipes.sweeping.conduct import Sweep

REPORT = "report.html"


def write_report(sweep: Sweep, answer: Answer, winner_yaml: str) -> None:
    """Of a sweep in any state. winner_yaml: the text of winner.yaml, empty while there is no winner."""
    curves = [_curve(sweep, answer, run) for run in answer.trials]
    body = [
        _head(sweep, answer),
        _headline(answer),
        _answer(answer),
        _pictures(sweep, curves, answer),
        _stopped(answer),
        _rungs(sweep, answer),
        _trials(answer),
        _settings(sweep, winner_yaml),
    ]
    page = FRAME.format(head="", title=parts.text(sweep.config.sweep.name), style=STYLE + _STYLE, body="\n".join(body))
    sweep.folder.write_text(REPORT, page)


_STYLE = """
.wide { overflow-x: auto; }
.wide td, .wide th { white-space: nowrap; }
.wide td.long { white-space: normal; min-width: 16rem; }
"""


def _curve(sweep: Sweep, answer: Answer, run: RunRecord) -> Curve:
    try:
        lines = read_metrics(sweep.folder / TRIALS / run.name).train
    except StorageError:
        lines = []
    return Curve(
        name=run.name,
        family=str(run.point.get(FAMILY, "")),
        schedule=sweep.maker.schedule(run.point),
        loss=run.score if run.state == "finished" else None,
        state=run.state,
        is_winner=answer.winner is not None and answer.winner.run.name == run.name,
        step=run.step,
        train=[(line["step"], line["loss"]) for line in lines if parts.is_number(line.get("loss"))],
        rungs=[(step, rung["score"]) for step, rung in sorted(run.rungs.items())],
    )


def _last_score(run: RunRecord) -> float | None:
    return run.rungs[max(run.rungs)]["score"] if run.rungs else None


def _head(sweep: Sweep, answer: Answer) -> str:
    ended = sum(answer.count(state) for state in ("finished", "stopped", "failed"))
    counts = ", ".join(f"{answer.count(state)} {state}" for state in ("finished", "stopped", "failed"))
    over = ended == answer.num_trials
    words = (
        f"{answer.num_trials} trials: {counts}"
        if over
        else f"Not over: {ended} of {answer.num_trials} trials have ended ({counts})"
    )
    style = "finished" if over and answer.winner else "unfinished"
    return f"<header><h1>{parts.text(sweep.config.sweep.name)}</h1>{parts.paragraph(words, f'state {style}')}</header>"


def _headline(answer: Answer) -> str:
    winner = answer.winner
    cards = []
    if winner is not None:
        seeds = winner.interval
        meaning = f"± {seeds.half_width:.4f} (95 %), {seeds.num} new seeds" if seeds and seeds.half_width else "one run"
        loss = seeds.mean if seeds else winner.trial_score
        cards += [
            ("Winner", str(winner.run.point.get(FAMILY, winner.run.name)), f"trial {winner.run.name}"),
            ("Held-out loss", f"{loss:.4f}", f"nats per target token; {meaning}"),
        ]
    spent, exhaustive = answer.updates_spent, answer.updates_exhaustive
    cards.append(("Updates spent", parts.count(spent), f"{spent / exhaustive:.0%} of {exhaustive:,} exhaustive"))
    extra = sum(rung["extra_updates"] for run in answer.trials for rung in run.rungs.values())
    cards.append(("Of them for scores", parts.count(extra), "updates of the branches at rungs"))
    if answer.seconds_saved is not None:
        cards.append(
            ("Time saved", duration(max(0.0, answer.seconds_saved)), "against training every trial to the end, about")
        )
    if answer.finals:
        cards.append(
            ("Final seeds", parts.count(sum(run.updates for run in answer.finals)), "updates beside the search")
        )
    return parts.numbers(cards)


def _answer(answer: Answer) -> str:
    winner = answer.winner
    if winner is None:
        return parts.section("Answer", parts.paragraph("None: no trial has finished.", "bad"))
    inner = [parts.paragraph(f"Trial {winner.run.name}: {shown(winner.run.point)}.")]
    others = [each for each in answer.candidates[1:] if each.run.trial in answer.behind]
    for other in others:
        inner.append(parts.paragraph(_compared(other, answer.behind[other.run.trial])))
    if winner.interval is None:
        inner.append(
            parts.paragraph("No run with another seed: the loss was picked for being low, and is too low.", "bad")
        )
    head = ("trial", "schedule", "loss in the search", "with new seeds", "each seed", "behind the winner")
    rows = [_candidate(each, answer.behind.get(each.run.trial)) for each in answer.candidates[:10]]
    inner.append(_table(head, rows, long=(1,)))
    trained = [each for each in answer.candidates if each.seeds]
    if any(len(each.seeds) > 1 for each in trained):
        inner.append(parts.picture("Losses with new seeds and their 95 % intervals", partial(draw_finals, trained)))
    return parts.section("Answer", *inner)


def _compared(other: Candidate, difference: Interval) -> str:
    words = {
        "worse": "is worse, beyond what the seeds vary",
        "better": "is better",
        "cannot be told apart": "cannot be told apart from the winner with so many seeds",
        "one seed cannot tell": "may or may not be worse: one seed cannot tell",
    }[verdict(difference)]
    return f"Trial {other.run.name} ({shown(other.run.point)}) {words}: {difference} nats behind over {difference.num} common seeds."


def _candidate(each: Candidate, behind: Interval | None) -> tuple[str, ...]:
    seeds = ", ".join(f"{loss:.4f}" for _, loss in sorted(each.seeds.items()))
    final = str(each.interval) if each.interval else parts.MISSING
    return (
        each.run.name,
        shown(each.run.point),
        f"{each.trial_score:.4f}",
        final,
        seeds or parts.MISSING,
        str(behind or parts.MISSING),
    )


def _pictures(sweep: Sweep, curves: list[Curve], answer: Answer) -> str:
    if not curves:
        return ""
    inner = [
        parts.picture("Learning rate of every trial, coloured by result", partial(draw_rates, curves)),
        parts.picture("Training loss of every trial with rungs", partial(draw_losses, curves, sweep.rungs[:-1])),
    ]
    values = _parameter_values(answer)
    if values:
        inner.append(parts.picture("Result against each parameter", partial(draw_parameters, curves, values)))
        inner.append(
            parts.paragraph(
                "Filled: finished, its final loss; open, above: stopped at that rung; cross: failed; orange: the winner.",
                "faint",
            )
        )
    return parts.section("Trials", *inner)


def _parameter_values(answer: Answer) -> dict[str, dict[str, Any]]:
    """Parameter -> run -> value; percentages as numbers."""
    values: dict[str, dict[str, Any]] = {}
    for run in answer.trials:
        for name, value in run.point.items():
            if isinstance(value, str) and "%" in value:
                name, value = f"{name} ({value[value.index('%') :]})", float(value[: value.index("%")])
            if isinstance(value, (int, float, str, bool)) or value is None:
                values.setdefault(name, {})[run.name] = value
    return values


def _stopped(answer: Answer) -> str:
    rows = []
    for run in answer.trials:
        if run.state != "stopped":
            continue
        step = max(run.rungs)
        others = [other.rungs[step]["score"] for other in answer.trials if step in other.rungs]
        score = run.rungs[step]["score"]
        rank = sorted(others).index(score) + 1
        behind = f"{score - min(others):.4f}"
        rows.append((run.name, shown(run.point), parts.count(step), f"{score:.4f}", f"{rank} of {len(others)}", behind))
    head = ("trial", "schedule", "stopped at update", "score", "rank there in the end", "behind the best there")
    inner = _table(head, rows, long=(1,)) if rows else parts.paragraph("No trial was stopped.", "faint")
    failed = [
        (run.name, shown(run.point), parts.count(run.step), run.message)
        for run in answer.trials
        if run.state == "failed"
    ]
    failures = _table(("failed trial", "schedule", "after update", "why"), failed, long=(1, 3)) if failed else ""
    return parts.section("Stopped and failed", inner, failures)


def _rungs(sweep: Sweep, answer: Answer) -> str:
    """How well each rung's order foretold the end, over the trials whose end is known."""
    rows = []
    for step in sweep.rungs[:-1]:
        known = [run for run in answer.trials if step in run.rungs and run.state == "finished"]
        scored = sum(step in run.rungs for run in answer.trials)
        taus = [
            kendall_tau([run.rungs[step][name] for run in known], [run.score for run in known])
            for name in ("score", "raw")
        ]
        words = [f"{tau:.2f}" if tau is not None else parts.MISSING for tau in taus]
        rows.append((parts.count(step), parts.count(scored), parts.count(len(known)), *words))
    if not rows:
        return ""
    method = sweep.config.scoring.method
    head = ("rung", "trials scored", "of them finished", f"Kendall tau of the {method} score", "of the raw loss")
    note = "Kendall tau between the order at the rung and at the end: 1 the same, 0 none, -1 reversed."
    if sweep.config.scheduler.kind == "asha":
        note += " Only survivors have an end to compare with, which makes it lower than over all trials; scheduler.kind=fifo tells the truth."
    return parts.section("Rungs", parts.paragraph(note, "faint"), _table(head, rows))


def _trials(answer: Answer) -> str:
    order = {"finished": 0, "stopped": 1, "running": 2, "waiting": 3, "failed": 4}

    def key(run: RunRecord) -> tuple[int, int, float]:
        score = run.score if run.score is not None else _last_score(run)
        return order[run.state], -run.step, score if score is not None else float("inf")

    rows = []
    for run in sorted(answer.trials, key=key):
        score = run.score if run.score is not None else _last_score(run)
        shown_score = f"{score:.4f}" if score is not None else parts.MISSING
        rows.append(
            (run.name, run.state, parts.count(run.step), parts.count(run.updates), shown_score, shown(run.point))
        )
    head = ("trial", "state", "updates made", "spent", "loss or last score", "schedule")
    return parts.section("All trials", _table(head, rows, long=(5,)))


def _settings(sweep: Sweep, winner_yaml: str) -> str:
    inner = [parts.folded("The winner, ready to train (winner.yaml)", winner_yaml)] if winner_yaml else []
    for name, what in (("sweep.yaml", "Resolved sweep"), ("environment.json", "Versions, machine and command")):
        if sweep.folder.exists(name):
            inner.append(parts.folded(f"{what} ({name})", parts.without_credentials(sweep.folder.read_text(name))))
    return parts.section("Settings", *inner)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], long: tuple[int, ...] = ()) -> str:
    """long: columns whose text may be broken into lines."""
    cells = "".join(f"<th>{parts.text(name)}</th>" for name in head)
    lines = [
        "<tr>"
        + "".join(f"<td{' class=long' if i in long else ''}>{parts.text(cell)}</td>" for i, cell in enumerate(row))
        + "</tr>"
        for row in rows
    ]
    return (
        f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>\n'
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )
