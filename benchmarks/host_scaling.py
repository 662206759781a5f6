"""From one to two to four hosts with the same processor time each: measured, and as recipes.plan foretells it. Root.

    sudo .venv/bin/python benchmarks/host_scaling.py [--cpus 0.4] [--rounds 2] [--json scaling.json] [--picture scaling.png]

Test hosts (cluster/test_hosts), of which each may take so many cores' worth of time, so that more hosts are more processor.
Hosts that do not train compute and copy for nothing meanwhile: two virtual CPUs may be one core, which is slower for each
when both work. On one, two and four hosts the same update of four examples is trained at ZeRO 1, 2 and 3, without Ray
(benchmarks/host_update.py: the recipe's own engine and update; Ray Train only starts its processes).

The prediction is calibrated on one host at stage 1, and on collectives of no training, and on nothing else: FLOP/s, time of an
operation and memory bandwidth; latency, bandwidth and imbalance between two and between four hosts. All other rows check it.
A round measures everything, one after the other, with a calibration of its own: the machine is not always as fast.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean
from subprocess import Popen
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.host_update import EXAMPLES, SHAPE, SOURCE_TOKENS, STAGES, TARGET_TOKENS, VOCAB
from cluster.test_hosts.hosts import Hosts, process_tree
from recipes.planning.activations import TrainedModel
from recipes.planning.flops import training_flops
from recipes.planning.hardware import Hardware, hardware_for
from recipes.planning.prediction import Batch, Prediction, World, predict
from recipes.planning.shapes import T5Shape
from recipes.planning.step_costs import launches_per_micro_batch, launches_per_step, memory_bytes
from recipes.planning.zero import Zero

NAMES = ["w1", "w2", "w3", "w4"]
HOSTS = (1, 2, 4)
PROGRAM = Path(__file__).with_name("host_update.py")
MODEL = TrainedModel(
    T5Shape(**SHAPE, num_decoder_layers=3, gated=True, tied=False, vocab_size=VOCAB), "fp32", dropout=False
)
_BURN = (
    "import torch; torch.set_num_threads(1); x = torch.randn(256, 256); y = torch.randn(2**21)\n"
    "while True:\n for _ in range(20): x @ x\n y.clone()"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpus", default="0.4", help="cores of each host")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="PNG or SVG; needs matplotlib")
    options = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory(prefix="host_scaling_") as temporary:
        shared = Path(temporary) / "shared"
        shared.mkdir()
        hosts = Hosts(Path(temporary) / "hosts", "t5s", "10.80.0", (shared,))
        hosts.up(NAMES)
        try:
            for i in range(options.rounds):
                measured = {num: measure(hosts, shared / f"{i}_{num}", num, options.cpus) for num in HOSTS}
                rounds.append(compare(measured))
        finally:
            hosts.down()
    print(table(rounds))
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=1) + "\n")
    if options.picture:
        draw(rounds, options.picture)


def measure(hosts: Hosts, place: Path, num_hosts: int, cpus: str) -> dict[str, Any]:
    """What host_update.py finds on so many hosts. place: of its files, which all hosts see."""
    among, settings = NAMES[:num_hosts], {"WORLD_SIZE": num_hosts, "MASTER_ADDR": hosts.address(NAMES[0])}
    settings |= {
        "MASTER_PORT": 29500 + num_hosts,
        "GLOO_SOCKET_IFNAME": "eth0",
        "LOCAL_RANK": 0,
        "DS_ACCELERATOR": "cpu",
    }
    with contextlib.ExitStack() as stack:
        started = {
            name: stack.enter_context(running(hosts, name, place, {}, "-c", _BURN)) for name in NAMES[num_hosts:]
        }
        for rank, name in enumerate(among):
            words = (settings | {"RANK": rank}, str(PROGRAM), str(place))
            started[name] = stack.enter_context(running(hosts, name, place, *words))
        log = place.with_name(f"{place.name}.{NAMES[0]}.log")
        ready = [place.with_name(f"{place.name}.ready{rank}") for rank in range(num_hosts)]
        wait_for(lambda: all(path.exists() for path in ready), log)
        for name, process in started.items():
            hosts.limit(name, cpus, process.pid)
        place.touch()
        for name in among:
            if started[name].wait(timeout=200):
                raise SystemExit(f"nothing was measured on {num_hosts} hosts:\n{log.read_text()[-2000:]}")
    found = json.loads(next(line for line in log.read_text().splitlines() if line.startswith("{")))
    print(found, file=sys.stderr, flush=True)
    return found


@contextlib.contextmanager
def running(hosts: Hosts, name: str, place: Path, settings: dict[str, Any], *words: str) -> Iterator[Popen[bytes]]:
    """A Python program in a host, ended at the end."""
    given = [f"{key}={value}" for key, value in settings.items()]
    command = hosts.command(name, "env", *given, sys.executable, *words)
    with place.with_name(f"{place.name}.{name}.log").open("wb") as log:
        process = Popen(command, stdout=log, stderr=log)
    try:
        yield process
    finally:
        # nsenter's end is not that of what it started.
        for each in reversed(process_tree(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        process.wait(timeout=30)


def wait_for(condition: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + 90
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"not in time:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)


def on_paper(hardware: Hardware, stage: int, hosts: int) -> Prediction:
    example = SOURCE_TOKENS + TARGET_TOKENS
    batch = Batch(EXAMPLES, EXAMPLES * example, SOURCE_TOKENS, TARGET_TOKENS)
    return predict(MODEL, batch, hardware, World(hosts, 1, Zero(stage)))


def calibrated(alone: dict[str, Any]) -> Hardware:
    """A host, from its update at stage 1, that update's step, and a forward and backward pass with nothing to multiply."""
    launch_s = alone["fixed_s"] / launches_per_micro_batch(MODEL, Zero(1), 1)
    memory_s = alone["step_s"] - launch_s * launches_per_step(MODEL, Zero(1), 1)
    compute_s = alone["update_s"]["1"] - alone["step_s"] - alone["fixed_s"]
    flops = EXAMPLES * training_flops(MODEL.shape, SOURCE_TOKENS, TARGET_TOKENS, False)
    return hardware_for(
        "cpu", "fp32", peak_tflops=flops / compute_s / 1e12, memory_gib=6, inter_gbit=1.0, compute_ratio=1, link_ratio=1,
        memory_gbyte_s=memory_bytes(MODEL, Zero(1), 1, 1) / memory_s / 1e9, launch_us=1e6 * launch_s, fused_attention=False,
    )  # fmt: skip


def compare(measured: dict[int, dict[str, Any]]) -> dict[str, Any]:
    host, rows = calibrated(measured[1]), []
    alone_s = measured[1]["update_s"]["1"]
    for hosts, found in measured.items():
        hardware = host
        if hosts > 1:
            hardware = replace(
                host, inter_gbit=found["gbit_per_s"], intra_gbit=found["gbit_per_s"],
                inter_latency_us=1e3 * found["latency_ms"], imbalance_ratio=found["imbalance_ratio"],
            )  # fmt: skip
        for stage in STAGES:
            paper, seconds = on_paper(hardware, stage, hosts), found["update_s"][str(stage)]
            parts = {name: getattr(paper, name) for name in ("busy_s", "step_s", "waiting_s", "comm_s")}
            rows.append(
                {
                    "stage": stage,
                    "hosts": hosts,
                    "update_s": seconds,
                    "efficiency": alone_s / hosts / seconds,
                    "paper_update_s": paper.update_s,
                    "paper_efficiency": alone_s / hosts / paper.update_s,
                    "paper_over_measured": paper.update_s / seconds,
                    "calibrates": (stage, hosts) == (1, 1),
                }
                | {f"paper_{name}": value for name, value in parts.items()}
            )
    numbers = {name: getattr(host, name) for name in ("peak_tflops", "launch_us", "memory_gbyte_s")}
    return {"host": numbers, "measured": list(measured.values()), "rows": rows}


def table(rounds: list[dict[str, Any]]) -> str:
    """Means over the rounds, and the ratio of each."""
    lines = []
    for i, each in enumerate(rounds, 1):
        host, links = each["host"], [found for found in each["measured"] if found["hosts"] > 1]
        lines.append(
            f"round {i}: a host has {1e3 * host['peak_tflops']:.1f} GFLOP/s, {host['launch_us']:.0f} us per operation, "
            f"memory of {host['memory_gbyte_s']:.1f} GB/s; "
            + "; ".join(
                f"{link['hosts']} hosts {link['latency_ms']:.1f} ms per step of a ring, {link['gbit_per_s']:.1f} Gbit/s, "
                f"imbalance {link['imbalance_ratio']:.0%}"
                for link in links
            )
        )
    heads = ("ZeRO", "hosts", "update, s", "efficiency", "on paper, s", "busy", "step", "waiting", "collectives")
    lines += ["", "| " + " | ".join((*heads, "efficiency", "paper / measured, by round")) + " |", "|---" * 11 + "|"]
    for rows in zip(*(each["rows"] for each in rounds), strict=True):
        average = {key: mean(row[key] for row in rows) for key in rows[0]}
        parts = " | ".join(f"{average[f'paper_{part}_s']:.2f}" for part in ("busy", "step", "waiting", "comm"))
        ratios = ", ".join(f"{row['paper_over_measured']:.2f}" for row in rows)
        lines.append(
            f"| {rows[0]['stage']} | {rows[0]['hosts']} | {average['update_s']:.2f} | {average['efficiency']:.0%} | "
            f"{average['paper_update_s']:.2f} | {parts} | {average['paper_efficiency']:.0%} | "
            f"{'calibrates' if rows[0]['calibrates'] else ratios} |"
        )
    return "\n".join(lines)


def draw(rounds: list[dict[str, Any]], path: Path) -> None:
    """Measured updates as crosses, one for each round, beside the paper's as stacked bars (means of the rounds)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    place = figure.subplots()
    together = list(zip(*(each["rows"] for each in rounds), strict=True))
    bottom = [0.0] * len(together)
    for part in ("busy", "step", "waiting", "comm"):
        heights = [mean(row[f"paper_{part}_s"] for row in rows) for rows in together]
        place.bar(range(len(together)), heights, 0.6, bottom, label=f"on paper: {part}")
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    points = [(i, row["update_s"]) for i, rows in enumerate(together) for row in rows]
    place.plot(*zip(*points, strict=True), "kx", label="measured")
    place.set_xticks(range(len(together)), [f"{rows[0]['hosts']} x\nZeRO {rows[0]['stage']}" for rows in together])
    place.set_xlabel("hosts")
    place.set_ylabel("seconds per update")
    place.legend(fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main()
