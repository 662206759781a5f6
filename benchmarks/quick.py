"""The figures that must not get worse, in under five minutes: ``make bench-quick``.

    python benchmarks/quick.py [--write]

Runs small versions of the benchmarks of docs/performance.md on the data that every machine has, and prints their ratios beside the committed
ones (benchmarks/quick.json); --write commits these instead. Exit code 1 where one is worse by more than its tolerance. Ratios of two
things measured side by side hardly depend on the machine; one that is busy otherwise can still spoil them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
COMMITTED = HERE / "quick.json"
LOCAL = HERE.parent / "recipes" / "configs" / "local.yaml"


class Figure(NamedTuple):
    """What is run, and which of its numbers counts. tolerance: by how much it may be worse, as a part of it."""

    what: str
    command: list[str]
    figure: tuple[Any, ...]
    higher_is_better: bool
    tolerance: float


FIGURES = [
    Figure(
        "real tokens/s over the Trainer's, grouped by length",
        ["against_trainer.py", str(LOCAL), "--rounds", "3", "--updates", "30", "--threads", "1", "--only", "Trainer, grouped, 32 at once"],
        ("results", "Trainer, grouped, 32 at once", "ratio"),
        True,
        0.1,
    ),
    Figure(
        "an update's seconds over a bare DeepSpeed loop's",
        ["against_deepspeed.py", str(LOCAL), "--updates", "200"],
        ("median_ratio",),
        False,
        0.03,
    ),
    Figure(
        "seconds of a row each over those of packed examples",
        ["packing.py", str(LOCAL), "--budgets", "2000", "--updates", "30"],
        (0, "speed_up"),
        True,
        0.1,
    ),
    Figure(
        "seconds of prepare_data over those of tokenizers alone",
        ["tokenising.py", "--rows", "100000", "--times", "3"],
        (0, "ratio"),
        False,
        0.2,
    ),
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="commit what is measured now")
    options = parser.parse_args()
    committed = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}
    now, worse = {}, []
    print(f"{'':<54}{'now':>9}{'committed':>11}")
    with tempfile.TemporaryDirectory(prefix="bench_quick_") as folder:
        for figure in FIGURES:
            now[figure.what] = value = round(measured(figure, Path(folder) / "figures.json"), 4)
            known = committed.get(figure.what)
            print(f"{figure.what:<54}{value:>9.3f}{'' if known is None else format(known, '.3f'):>11}", flush=True)
            if known is not None and is_worse(figure, value, known):
                worse.append(figure.what)
    if options.write:
        COMMITTED.write_text(json.dumps(now, indent=1) + "\n")
        return 0
    for what in worse:
        print(f"worse: {what}")
    return 1 if worse else 0


def measured(figure: Figure, file: Path) -> float:
    script, *arguments = figure.command
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments, "--json", str(file)], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(figure.command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    value = json.loads(file.read_text())
    for key in figure.figure:
        value = value[key]
    return float(value)


def is_worse(figure: Figure, value: float, known: float) -> bool:
    """By more than the tolerance."""
    return value < known * (1 - figure.tolerance) if figure.higher_is_better else value > known * (1 + figure.tolerance)


if __name__ == "__main__":
    sys.exit(main())
