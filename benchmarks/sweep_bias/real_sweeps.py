"""Real sweeps over the schedules whose truth is known: what replay.py tells of, run by `recipes.sweep` itself.

    python benchmarks/sweep_bias/real_sweeps.py benchmarks/sweep_bias/results/pydoc.jsonl --sweeps 3 --out real.jsonl
    python benchmarks/sweep_bias/real_sweeps.py benchmarks/sweep_bias/results/multi30k.jsonl --sweeps 3 \
        --multi30k ../shared/data/multi30k_en_de --out real.jsonl

Every score does the same sweeps: sixteen of the schedules, drawn by the sweep's seed, trained with one of the truth's seeds.
A line for each; what is in the file already is not run again. Then a Markdown table of all of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.sweep_bias import replay
from benchmarks.sweep_bias.schedules import schedules
from benchmarks.sweep_bias.tasks import TOTAL_STEPS, task
from recipes.storage import Storage
from recipes.sweeping.ledger import Ledger
from recipes.sweeping.rungs import in_best_part, rung_steps

# The first rung after an eighth of the run.
PART, FACTOR, NUM_TRIALS, SLOTS = 8, 4, 16, 2
# Name in the truth -> what the sweep is told.
SCORES = {
    "raw": {"method": "raw"},
    "averaged 0.1": {"method": "averaged"},
    "floor 0.2": {"method": "annealed", "branch_path": "floor"},
    "rest 0.2": {"method": "annealed", "branch_path": "rest"},
    "raw projected": {"method": "projected", "branch_ratio": 0},
    "rest 0.2 projected": {"method": "projected"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("truth", type=Path, help="of one task")
    parser.add_argument("--sweeps", type=int, default=3, help="of each score")
    parser.add_argument("--scores", nargs="+", choices=list(SCORES), default=list(SCORES))
    parser.add_argument("--rule", choices=["promote", "strict"], default="promote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--multi30k", type=Path, default=Path("../shared/data/multi30k_en_de"))
    options = parser.parse_args()
    ((name, records),) = replay.read([options.truth]).items()
    lines = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.is_file() else []
    done = {(line["task"], line["rule"], line["score"], line["sweep"]) for line in lines}
    with tempfile.TemporaryDirectory(prefix="real_sweeps_") as temporary:
        base, peak_lr = task(name, Path(temporary).absolute(), options.multi30k)
        for number in range(1, options.sweeps + 1):
            for score in options.scores:
                if (name, options.rule, score, number) in done:
                    continue
                folder = run_sweep(base, peak_lr, options.rule, score, number, TOTAL_STEPS[name], Path(temporary))
                line = {"task": name, "rule": options.rule, "score": score, "sweep": number}
                line |= judge(folder, records, options.rule, score, number)
                lines.append(line)
                with options.out.open("a") as out:
                    out.write(json.dumps(line) + "\n")
                print(json.dumps(line), flush=True)
    print(table(lines))


def truth_seed(number: int) -> int:
    return 1 + (number - 1) % 3


def run_sweep(
    base: dict[str, Any], peak_lr: float, rule: str, score: str, number: int, total_steps: int, place: Path
) -> Path:
    """One sweep by the real command; its folder."""
    own = {"sweep": {"name": f"{rule}_{score.replace(' ', '_')}_{number}", "storage_path": str(place), "seed": number}}
    own["sweep"] |= {"num_trials": NUM_TRIALS, "max_concurrent": SLOTS}
    schedule = {"peak_lr": peak_lr, "total_steps": total_steps, "warmup": {"steps": "5%"}}
    config = own | {
        "base": base | {"run": {"name": "base", "seed": truth_seed(number)}, "schedule": schedule},
        "space": {"schedule": [as_family(block) for block in schedules(peak_lr, total_steps).values()]},
        "scheduler": {"kind": "asha", "grace_steps": total_steps // PART, "reduction_factor": FACTOR, "rule": rule},
        "scoring": SCORES[score],
        "final": {"top_k": 0},
    }
    # Each trial one of two processes on two cores.
    config["base"] = config["base"] | {"scaling": {"num_workers": 1, "cpus_per_worker": 1}}
    path = place / "sweep.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "recipes.sweep", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    if result.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {result.returncode}\n{result.stderr}")
    return place / own["sweep"]["name"]


def as_family(block: dict[str, Any]) -> dict[str, Any]:
    """A schedule block as a family with nothing to vary."""
    decay = {key: value for key, value in block["decay"].items() if key != "shape"}
    return {"family": block["decay"]["shape"], **decay, "peak_lr": block["peak_lr"], "warmup": block.get("warmup")}


def judge(folder: Path, records: list[replay.Record], rule: str, score: str, number: int) -> dict[str, Any]:
    """What became of it against the truth, and against a replay of the same runs in the same order."""
    total_steps = records[0].total_steps
    names = list(schedules(1.0, total_steps))
    ledger = Ledger(Storage(folder))
    numbered = {family.name: name for family, name in zip(_families(folder), names, strict=True)}
    schedule_of = {run.name: numbered[run.point["family"]] for run in ledger.trials()}
    known = {record.schedule: record for record in records if record.seed == truth_seed(number)}
    trials = [known[schedule_of[run.name]] for run in ledger.trials()]
    finished = [run for run in ledger.trials() if run.state == "finished"]
    true = replay.truth(records)
    spent = sum(run.updates for run in ledger.trials())
    outcome = replay.Outcome([known[schedule_of[run.name]] for run in finished], spent)
    winner = min(finished, key=lambda run: run.score)
    halving = partial(replay.stopping, goes_on=in_best_part) if rule == "strict" else replay.promotion
    replayed = halving(trials, score, rung_steps(total_steps // PART, FACTOR, total_steps), FACTOR, slots=SLOTS)
    off = [run.score / known[schedule_of[run.name]].final - 1 for run in finished]
    best = min(true[trial.schedule] for trial in trials)
    times = [event for run in ledger.trials() for event in (run.starts[0], run.ended)]
    return {
        "winner": schedule_of[winner.name],
        "winner_close": true[schedule_of[winner.name]] <= best * (1 + replay.CLOSE),
        "behind": true[schedule_of[winner.name]] / best - 1,
        "best_kept": any(true[record.schedule] == best for record in outcome.finished),
        "spent": spent / (total_steps * len(trials)),
        "finished": sorted(record.schedule for record in outcome.finished),
        "replay_winner": min(replayed.finished, key=lambda record: record.final).schedule,
        "replay_finished": sorted(record.schedule for record in replayed.finished),
        "replay_spent": replayed.spent / (total_steps * len(trials)),
        "largest_difference_from_truth": max(map(abs, off)),
        "search_s": round(max(times) - min(times), 1),
        "at": time.strftime("%Y-%m-%d"),
    }


def _families(folder: Path) -> tuple[Any, ...]:
    from recipes.sweeping.space import parse_space

    return parse_space(yaml.safe_load((folder / "sweep.yaml").read_text())["space"]).families


def table(lines: list[dict[str, Any]]) -> str:
    groups = defaultdict(list)
    for line in lines:
        groups[line["task"], line["rule"], line["score"]].append(line)
    rows = [
        "| task | rule | score | sweeps | winner within 1 % | behind | best kept | updates | same winner as its replay |"
    ]
    rows.append("|---" * 9 + "|")
    for (name, rule, score), found in sorted(
        groups.items(), key=lambda item: (item[0][:2], list(SCORES).index(item[0][2]))
    ):
        num = len(found)

        def count(key: str, found: list[dict[str, Any]] = found) -> int:
            return sum(line[key] for line in found)

        same = sum(line["winner"] == line["replay_winner"] for line in found)
        rows.append(
            f"| {name} | {rule} | {score} | {num} | {count('winner_close')} | {count('behind') / num:.2%} | {count('best_kept')} | "
            f"{count('spent') / num:.0%} | {same} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
