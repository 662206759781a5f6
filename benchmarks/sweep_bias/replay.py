"""ASHA replayed on the truth: which score keeps the winner, and what it costs.

    python benchmarks/sweep_bias/replay.py truth.jsonl [...] [--sweeps 2000] [--json out.json]

Reads what run_truth.py wrote. A replayed sweep takes the runs of one seed of a random set of schedules, in random order,
lets a successive halving stop them by one of the scores, and picks the finished run with the lowest final loss. The
truth is a schedule's mean final loss over the seeds. Prints Markdown tables: one of rank correlations, one of sweeps.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.sweep_bias import law
from benchmarks.sweep_bias.recorder import BRANCHES
from recipes.sweeping.rungs import best_of, in_best_part, rung_steps, survives
from recipes.sweeping.scoring import Scoring

# (part of the run at the first rung, reduction factor): rungs at 30, 60, 120; at 60, 120; at 30, 120; at 60 of 240 updates.
SETTINGS = ((8, 2), (4, 2), (8, 4), (4, 4))
SLOTS = 4
# All scores have their correlations told; these have sweeps replayed.
SWEPT = (
    *("raw", "averaged 0.1", "floor 0.2", "rest 0.2", "rest 0.4"),
    *("rest 0.2 law", "raw projected", "rest 0.2 projected"),
)
CLOSE = 0.01


@dataclass(frozen=True)
class Record:
    """One run. scores, costs: rung -> score's name -> loss, updates of its branch."""

    schedule: str
    seed: int
    final: float
    total_steps: int
    scores: dict[int, dict[str, float]]
    costs: dict[int, dict[str, int]]


@dataclass(frozen=True)
class Outcome:
    """finished: runs that made all updates. spent: updates of all runs, branches included."""

    finished: list[Record]
    spent: int


def read(paths: list[Path]) -> dict[str, list[Record]]:
    """Task -> its runs, of the seeds that all schedules have, with the law of law.py as one more score."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for path in paths:
        for content in map(json.loads, path.read_text().splitlines()):
            found[content["task"], content["seed"]].append(content)
    whole = {task: max(len(runs) for (of, _), runs in found.items() if of == task) for task, _ in found}
    records: dict[str, list[Record]] = defaultdict(list)
    for (task, _), runs in sorted(found.items()):
        if len(runs) == whole[task]:
            records[task] += _records(runs)
    return records


def _records(runs: list[dict[str, Any]]) -> list[Record]:
    steps = [int(step) for step in runs[0]["rungs"]]
    more = {step: law.predictions(runs, step, BRANCHES, Scoring().projection_exponent) for step in steps}
    records = []
    for i, run in enumerate(runs):
        scores = {
            step: run["rungs"][str(step)] | {name: found[i] for name, found in more[step].items()} for step in steps
        }
        costs = {step: dict(run["costs"][str(step)]) for step in steps}
        for step in steps:
            costs[step] |= {name: costs[step][name.rsplit(" ", 1)[0]] for name in more[step]}
        total = run["definition"]["total_steps"]
        records.append(Record(run["schedule"], run["seed"], run["final"], total, scores, costs))
    return records


def truth(records: list[Record]) -> dict[str, float]:
    """Schedule -> mean final loss over the seeds."""
    finals = defaultdict(list)
    for record in records:
        finals[record.schedule].append(record.final)
    return {schedule: float(np.mean(losses)) for schedule, losses in finals.items()}


def kendall_tau(first: list[float], second: list[float]) -> float:
    """Kendall's tau-b of two lists of numbers."""
    a, b = (np.sign(np.subtract.outer(x, x)) for x in (np.asarray(first), np.asarray(second)))
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def synchronous(trials: list[Record], score: str, rungs: list[int], factor: int) -> Outcome:
    """All runs reach a rung before any goes on; the best 1/factor do."""
    spent, before = 0, 0
    for step in rungs[:-1]:
        spent += sum(step - before + trial.costs[step][score] for trial in trials)
        trials = [trials[i] for i in best_of([trial.scores[step][score] for trial in trials], factor)]
        before = step
    return Outcome(trials, spent + len(trials) * (rungs[-1] - before))


def stopping(
    trials: list[Record],
    score: str,
    rungs: list[int],
    factor: int,
    goes_on: Callable[[float, Sequence[float], int], bool] = survives,
    slots: int = SLOTS,
) -> Outcome:
    """Tune's ASHA: some runs at a time, each judged at a rung by those that were there before it."""
    waiting, running, seen = list(reversed(trials)), [], defaultdict(list)
    finished, spent, order = [], 0, 0

    def begin(now: float) -> None:
        nonlocal order
        if waiting:
            trial = waiting.pop()
            order += 1
            heapq.heappush(running, (now + rungs[0], order, 0, trial))

    for _ in range(slots):
        begin(0.0)
    while running:
        now, number, level, trial = heapq.heappop(running)
        step = rungs[level]
        spent += step - (rungs[level - 1] if level else 0)
        if level == len(rungs) - 1:
            finished.append(trial)
            begin(now)
            continue
        cost, found = trial.costs[step][score], trial.scores[step][score]
        spent += cost
        go_on = goes_on(found, seen[level], factor)
        seen[level].append(found)
        if go_on:
            heapq.heappush(running, (now + cost + rungs[level + 1] - step, number, level + 1, trial))
        else:
            begin(now + cost)
    return Outcome(finished, spent)


def promotion(trials: list[Record], score: str, rungs: list[int], factor: int, slots: int = SLOTS) -> Outcome:
    """ASHA as published (Li et al. 2020): a free slot takes a paused run up that is in the best 1/factor of its rung."""
    waiting, running, seen = list(reversed(trials)), [], [[] for _ in rungs]
    promoted: set[tuple[int, str]] = set()
    finished, spent, order = [], 0, 0

    def next_run() -> tuple[int, Record] | None:
        # The last rungs of a small sweep hold fewer than factor runs: when all is still, the best goes on.
        still = not waiting and not running and not finished
        for level in reversed(range(len(rungs) - 1)):
            scores = [found for found, _ in seen[level]]
            for i in best_of(scores, factor) if len(scores) >= factor or (scores and still) else []:
                trial = seen[level][i][1]
                if (level, trial.schedule) not in promoted:
                    promoted.add((level, trial.schedule))
                    return level + 1, trial
        return (0, waiting.pop()) if waiting else None

    def fill(now: float) -> None:
        nonlocal order
        while len(running) < slots and (found := next_run()) is not None:
            level, trial = found
            cost = trial.costs[rungs[level]][score] if level < len(rungs) - 1 else 0
            length = rungs[level] - (rungs[level - 1] if level else 0) + cost
            order += 1
            heapq.heappush(running, (now + length, order, level, length, trial))

    fill(0.0)
    while running:
        now, _, level, length, trial = heapq.heappop(running)
        spent += length
        if level == len(rungs) - 1:
            finished.append(trial)
        else:
            seen[level].append((trial.scores[rungs[level]][score], trial))
        fill(now)
    return Outcome(finished, spent)


KINDS = {
    "ASHA, stopping": stopping,
    "ASHA, stopping, strict": partial(stopping, goes_on=in_best_part),
    "ASHA, promotion": promotion,
    "synchronous": synchronous,
}


def correlations(records: list[Record]) -> dict[str, dict[int, tuple[float, float]]]:
    """Score -> rung -> Kendall's tau with the same runs' final losses, and with the truth; means over the seeds."""
    true = truth(records)
    seeds = sorted({record.seed for record in records})
    names = list(records[0].scores[min(records[0].scores)])
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for name in names:
        found[name] = {}
        for step in sorted(records[0].scores):
            pairs = []
            for seed in seeds:
                runs = [record for record in records if record.seed == seed]
                at_rung = [record.scores[step][name] for record in runs]
                pairs.append(
                    (
                        kendall_tau(at_rung, [record.final for record in runs]),
                        kendall_tau(at_rung, [true[record.schedule] for record in runs]),
                    )
                )
            found[name][step] = (float(np.mean([p[0] for p in pairs])), float(np.mean([p[1] for p in pairs])))
    return found


def ceiling(records: list[Record]) -> float:
    """Kendall's tau of one seed's final losses with the truth: what no score at a rung can be asked to beat."""
    true = truth(records)
    taus = []
    for seed in sorted({record.seed for record in records}):
        runs = [record for record in records if record.seed == seed]
        taus.append(kendall_tau([record.final for record in runs], [true[record.schedule] for record in runs]))
    return float(np.mean(taus))


def draw(records: list[Record], rng: np.random.Generator, share: float) -> list[Record]:
    """The runs of one seed and of a random share of the schedules, in random order."""
    seed = rng.choice(sorted({record.seed for record in records}))
    runs = [record for record in records if record.seed == seed]
    return [runs[i] for i in rng.permutation(len(runs))[: max(2, round(share * len(runs)))]]


def judge(outcome: Outcome, trials: list[Record], true: dict[str, float], total: int) -> dict[str, float]:
    """What became of one replayed sweep."""
    best = min(true[trial.schedule] for trial in trials)
    last = {record.schedule for record in outcome.finished}
    winner = min(outcome.finished, key=lambda record: record.final)
    return {
        "best_survives": float(any(true[name] == best for name in last)),
        "close_survives": float(any(true[name] <= best * (1 + CLOSE) for name in last)),
        "winner_close": float(true[winner.schedule] <= best * (1 + CLOSE)),
        "behind": true[winner.schedule] / best - 1,
        "spent": outcome.spent / (total * len(trials)),
        "finished": len(outcome.finished),
    }


def replay(records: list[Record], num_sweeps: int, share: float) -> list[dict[str, Any]]:
    """Every kind, setting and score on the same random sweeps; means over them, and the exhaustive sweep."""
    true, total = truth(records), records[0].total_steps
    rows = []
    drawn = [draw(records, np.random.default_rng([7, i]), share) for i in range(num_sweeps)]
    everything = [judge(Outcome(trials, total * len(trials)), trials, true, total) for trials in drawn]
    rows.append({"kind": "exhaustive", "setting": "", "score": ""} | _means(everything))
    for kind, run in KINDS.items():
        for part, factor in SETTINGS:
            setting, rungs = f"{total // part} / {factor}", rung_steps(total // part, factor, total)
            for name in SWEPT:
                judged = [judge(run(trials, name, rungs, factor), trials, true, total) for trials in drawn]
                rows.append({"kind": kind, "setting": setting, "score": name} | _means(judged))
    return rows


def _means(judged: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([one[key] for one in judged])) for key in judged[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("truth", type=Path, nargs="+")
    parser.add_argument("--sweeps", type=int, default=2000)
    parser.add_argument("--share", type=float, default=0.64, help="part of the schedules in one sweep")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    for task, records in read(options.truth).items():
        rows = replay(records, options.sweeps, options.share)
        results[task] = {"rows": rows, "taus": correlations(records), "ceiling": ceiling(records)}
        print(describe(task, records, results[task]))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def describe(task: str, records: list[Record], result: dict[str, Any]) -> str:
    true = truth(records)
    seeds = len({record.seed for record in records})
    lines = [
        f"\n## {task}: {len(true)} schedules, {seeds} seeds\n",
        "| schedule | final loss | behind |",
        "|---|---|---|",
    ]
    best = min(true.values())
    lines += [
        f"| {name} | {loss:.4f} | {loss / best - 1:.1%} |" for name, loss in sorted(true.items(), key=lambda kv: kv[1])
    ]
    steps = sorted(records[0].scores)
    lines += ["", "| score | " + " | ".join(f"tau at {step}" for step in steps) + " |", "|---" * (len(steps) + 1) + "|"]
    for name, found in result["taus"].items():
        lines.append(f"| {name} | " + " | ".join(f"{found[step][1]:.2f}" for step in steps) + " |")
    lines.append(f"\none seed's own final order against the truth: {result['ceiling']:.2f}\n")
    lines += [
        "| kind | rung / factor | score | best survives | one within 1 % survives | winner within 1 % | behind | updates |"
    ]
    lines += ["|---" * 8 + "|"]
    for row in result["rows"]:
        lines.append(
            f"| {row['kind']} | {row['setting']} | {row['score']} | {row['best_survives']:.0%} | {row['close_survives']:.0%} | "
            f"{row['winner_close']:.0%} | {row['behind']:.2%} | {row['spent']:.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
