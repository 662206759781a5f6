"""A run under random kills, against the same run left alone: the final weights must be equal to the last bit.

    python benchmarks/soak.py [--kills 20] [--seed 0] [--updates 400]

A random process of the run (a worker, Ray Train's controller, or the command itself) is killed with -9 at a random
moment; when the command has ended, the same command is given again. Prints each kill and the verdict.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.conftest import small_run, write_pairs
from tests.slow.faults import CONTROLLER, WORKER, Run, last_step, lines, weights


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=400)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        return soak(Path(folder), options.kills, random.Random(options.seed), options.updates)


def soak(place: Path, kills: int, chance: random.Random, updates: int) -> int:
    """Both runs, one after the other."""
    write_pairs(place / "pairs.jsonl")
    begin = time.monotonic()
    alone = start(place, "alone", updates)
    if alone.wait(3600):
        print(alone.said())
        return 1
    print(f"left alone: {time.monotonic() - begin:.0f} s for {updates} updates", flush=True)
    begin, folder, run = time.monotonic(), place / "runs" / "killed", None
    while kills > 0 or run.process.poll() != 0:
        if run is None or run.process.poll() is not None:
            run = start(place, "killed", updates)
        if kills == 0:
            run.wait(3600)
            continue
        # One kill in four while the run starts, the others some way into its updates.
        if chance.random() < 0.25:
            time.sleep(chance.uniform(2.0, 20.0))
        else:
            reached = last_step(folder)
            while last_step(folder) <= reached and run.process.poll() is None:
                time.sleep(0.1)
            time.sleep(chance.uniform(0.0, 5.0))
        if run.process.poll() is None:
            kills -= 1
            print(
                f"{time.monotonic() - begin:6.0f} s, update {last_step(folder)}: killed {kill(run, chance)}", flush=True
            )
        elif run.process.poll() == 0:
            print(f"finished with {kills} kills left: give it more --updates")
            return 1
    same = weights(folder) == weights(place / "runs" / "alone")
    same_lines = lines(folder) == lines(place / "runs" / "alone")
    print(f"done in {time.monotonic() - begin:.0f} s; weights equal: {same}; metrics equal: {same_lines}")
    return 0 if same and same_lines else 1


def start(place: Path, name: str, updates: int) -> Run:
    arguments = small_run(
        place / "pairs.jsonl",
        place / "runs",
        f"run.name={name}",
        f"schedule.total_steps={updates}",
        "checkpoint.every_steps=10",
        "training.eval_every_steps=25",
        "scaling.max_failures=100",
        "run.resume=auto",
    )
    return Run(arguments, place / f"{name}.log").start()


def kill(run: Run, chance: random.Random) -> str:
    """Kill -9 something of the run; what it was."""
    victims = {"a worker": run.family(WORKER), "the controller": run.family(CONTROLLER), "the command": [None]}
    name = chance.choice(
        [name for name, found in victims.items() for _ in range(3 if name == "a worker" else 1) if found]
    )
    if name == "the command":
        run.kill()
    else:
        chance.choice(victims[name]).kill()
    return name


if __name__ == "__main__":
    sys.exit(main())
