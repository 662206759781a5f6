"""How a run's start grows with the data: ``python benchmarks/growth_data.py [--rows 10000,...] [--times 5] [--json FILE] [--picture FILE]``.

Of each number of examples a token file is written (16 + 14 tokens on average). Then, each time in a process of its own that has
done the same with 4,096 examples before: the file is opened, the batch plan made, the first update planned for eight ranks; and the second epoch is
shuffled, which is what an update at the border of two epochs waits for; and the evaluation of a twentieth of the examples
planned, which is what is held out by default. Medians of the seconds; anonymous memory (RssAnon of
/proc/self/status) as it is afterwards, less what was there before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from process_memory import memory_now

from recipes.config import MixingBlock, TaskBlock
from recipes.data.plan import BatchPlan, evaluation_plan
from recipes.data.streams import mixing_rates
from recipes.data.token_files import ROWS_PER_BATCH, TokenSplit, TokenWriter
from recipes.data.tokenizer import offsets_of

_MIB = 1 << 20
_EXAMPLES_PER_UPDATE = 2048
_SMALL = "small.arrow"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", default="10000,100000,1000000,10000000")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--json")
    parser.add_argument("--picture")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_one(Path(options.one))))
        return
    found = []
    for rows in map(int, options.rows.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "train.arrow"
            _write(file, rows)
            _write(file.with_name(_SMALL), 4096)
            found.append({"rows": rows, "file_mib": file.stat().st_size / _MIB} | _measured(file, options.times))
        print("  ".join(f"{name} {value:,.3f}" for name, value in found[-1].items()), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    if options.picture:
        _draw(found, options.picture)


def _write(file: Path, rows: int) -> None:
    draw = np.random.default_rng(0)
    with TokenWriter(file) as writer:
        for begin in range(0, rows, ROWS_PER_BATCH):
            numbers = np.arange(begin, min(rows, begin + ROWS_PER_BATCH))
            sides = []
            for mean in (16, 14):
                offsets = offsets_of(2 + draw.poisson(mean - 2, len(numbers)))
                sides.append((draw.integers(3, 8000, int(offsets[-1]), np.int32), offsets))
            writer.write(*sides, np.zeros(len(numbers), np.int32), numbers)


def _measured(file: Path, times: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", str(file)]
    results = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(times)
    ]
    return {name: statistics.median(result[name] for result in results) for name in results[0]}


def _one(file: Path) -> dict[str, float]:
    _steps(file.with_name(_SMALL))  # libraries load parts of themselves at the first use
    return _steps(file)


def _steps(file: Path) -> dict[str, float]:
    before, clock = memory_now()[0], time.perf_counter
    began = clock()
    split = TokenSplit(file, ["a"])
    opened = clock()
    sizes = split.task_sizes(1)
    plan = BatchPlan(
        split.source_lengths,
        split.target_lengths,
        seed=1,
        examples_per_update=_EXAMPLES_PER_UPDATE,
        micro_batch_tokens=16_384,
        num_ranks=8,
        tasks=(sizes, mixing_rates(MixingBlock(), [TaskBlock(source="a", name="a")], sizes)),
        packed=True,
    )
    plan.micro_batches(0)
    planned, memory = clock(), memory_now()[0]
    plan.examples(-(-len(split) // _EXAMPLES_PER_UPDATE))
    shuffled, memory_two = clock(), memory_now()[0]
    part = len(split) // 20
    evaluation_plan(
        split.source_lengths[:part], split.target_lengths[:part], micro_batch_tokens=16_384, num_ranks=8, packed=True
    )
    return {
        "open_seconds": opened - began,
        "plan_seconds": planned - opened,
        "next_epoch_seconds": shuffled - planned,
        "held_out_seconds": clock() - shuffled,
        "memory_mib": (memory - before) / _MIB,
        "memory_two_epochs_mib": (memory_two - before) / _MIB,
    }


def _draw(found: list[dict[str, float]], file: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (time_axes, memory_axes) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    rows = [one["rows"] for one in found]
    for name, label in (
        ("open_seconds", "opening the file"),
        ("plan_seconds", "plan and first update"),
        ("held_out_seconds", "plan of held-out examples"),
    ):
        time_axes.plot(rows, [one[name] for one in found], "o-", label=label)
    for name, label in (("memory_mib", "first epoch"), ("memory_two_epochs_mib", "at the border of two epochs")):
        memory_axes.plot(rows, [one[name] for one in found], "o-", label=label)
    for axes, title in ((time_axes, "seconds"), (memory_axes, "anonymous memory, MiB")):
        axes.set(xscale="log", yscale="log", xlabel="training examples", title=title)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(file, metadata={"Date": None} if file.endswith(".svg") else None)


if __name__ == "__main__":
    main()
