"""What a sweep leaves behind: the winner's config, the numbers, the report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from recipes.config_file import parse_config, to_yaml
from recipes.launching.terminal import duration
from recipes.storage import Storage
from recipes.sweeping.answer import Answer, as_json, verdict
from recipes.sweeping.ledger import RunRecord
from recipes.sweeping.report import write_report
from recipes.sweeping.trial import shown

if TYPE_CHECKING:
    from recipes.sweeping.conduct import Sweep

WINNER, ANSWER, RESULTS = "winner.yaml", "answer.json", "results.parquet"


def write_results(sweep: Sweep, answer: Answer) -> None:
    """Of a sweep in any state; what cannot be said yet is not written."""
    folder = sweep.folder
    folder.write_text(ANSWER, json.dumps(as_json(answer), indent=1) + "\n")
    write_parquet(folder, answer)
    winner = winner_yaml(sweep, answer) if answer.winner is not None else ""
    if winner:
        folder.write_text(WINNER, winner)
    write_report(sweep, answer, winner)


def winner_yaml(sweep: Sweep, answer: Answer) -> str:
    """A config for `recipes.train`, in the place where the sweep's own folder lies."""
    settings, winner = sweep.config.sweep, answer.winner.run
    content = sweep.maker.config(winner.point).model_dump(mode="json")
    content["run"] |= {"name": f"{settings.name}_winner", "storage_path": settings.storage_path}
    text = to_yaml(parse_config(content))
    head = [
        f"# What: the winner of the sweep {settings.name}: trial {winner.name}, {shown(winner.point)}.",
        f"# Run:  python -m recipes.train {sweep.folder}/{WINNER}",
    ]
    return "\n".join([*head, text])


def write_parquet(folder: Storage, answer: Answer) -> None:
    """One row for every run and rung, and for every end: what a data frame can work on."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [row for run in (*answer.trials, *answer.finals) for row in _rows(run)]
    schema = pa.schema(
        [
            *(("run", pa.string()), ("trial", pa.int64()), ("seed", pa.int64()), ("family", pa.string())),
            *(("state", pa.string()), ("kind", pa.string()), ("step", pa.int64()), ("score", pa.float64())),
            *(("raw", pa.float64()), ("extra_updates", pa.int64()), ("seconds", pa.float64()), ("goes_on", pa.bool_())),
            *(("message", pa.string()), ("point", pa.string())),
        ]
    )
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), stream)
    folder.write_bytes(RESULTS, stream.getvalue())


def _rows(run: RunRecord) -> list[dict[str, Any]]:
    common = {
        "run": run.name,
        "trial": run.trial,
        "seed": run.seed,
        "family": run.point.get("family"),
        "state": run.state,
        "point": json.dumps(run.point),
    }
    rungs = [common | {"kind": "rung"} | rung for _, rung in sorted(run.rungs.items())]
    for row in rungs:
        row.pop("time")
    end = {"kind": "end", "step": run.step, "score": run.score, "message": run.message or None}
    return [*rungs, common | end]


def say_answer(sweep: Sweep, answer: Answer) -> str:
    """The answer on the terminal."""
    winner = answer.winner
    total, spent = answer.updates_exhaustive, answer.updates_spent
    lines = [f"winner: trial {winner.run.name}, {shown(winner.run.point)}"]
    if winner.interval is None:
        lines.append(
            f"held-out loss {winner.trial_score:.4f} in the search, one seed: final.top_k is 0 or its runs failed"
        )
    else:
        lines.append(f"held-out loss {winner.interval} over {winner.interval.num} new seeds (95 % confidence interval)")
    for other in answer.candidates[1:]:
        difference = answer.behind.get(other.run.trial)
        if difference is not None:
            lines.append(
                f"trial {other.run.name}, {shown(other.run.point)}: {difference} behind the winner over the same seeds: "
                f"{verdict(difference)}"
            )
    saved = f", about {duration(answer.seconds_saved)} saved" if answer.seconds_saved else ""
    lines.append(f"{spent:,} updates spent of {total:,} exhaustive ({spent / total:.0%}){saved}")
    lines.append(f"train it: python -m recipes.train {sweep.folder}/{WINNER}")
    return "\n".join(lines)
