"""From one to two to four hosts with the same processor time each: measured, and as recipes.plan foretells it. Root.

    sudo .venv/bin/python benchmarks/host_scaling.py [--cpus 0.4] [--json scaling.json]

A cluster of test hosts (cluster/test_hosts); the training worker of each may take so many cores' worth of time, so that more
hosts are more processor (Ray's own processes are not limited: on a real node they have cores of their own). Hosts that do
not train compute and copy for nothing meanwhile: two virtual CPUs may be one core, which is slower for each when both work.

The prediction is calibrated on one host, and on collectives of no training, and on nothing else: FLOP/s, time of an operation
and memory bandwidth from three runs on one host (four examples in one micro-batch, in four, and eight in one); latency,
bandwidth and imbalance from benchmarks/busy_hosts.py on two and on four hosts. The runs on two and four hosts check it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from cluster.test_hosts.lab import CHECKOUT, Lab
from recipes.config import RunConfig
from recipes.config_file import load_config
from recipes.planning.activations import TrainedModel
from recipes.planning.hardware import Hardware, hardware_for
from recipes.planning.prediction import Batch, Prediction, World, predict
from recipes.planning.shapes import shape_of
from recipes.planning.zero import zero_of

SOURCE_TOKENS, TARGET_TOKENS, EXAMPLES = 128, 32, 4
RUNS = [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2), (1, 4), (2, 4), (3, 4)]  # (ZeRO stage, hosts)
# (examples per update, examples per micro-batch) of the runs on one host at stage 1 that calibrate.
CALIBRATIONS = [(EXAMPLES, EXAMPLES), (EXAMPLES, 1), (2 * EXAMPLES, 2 * EXAMPLES)]
_WARM_UPDATES, _NUM_UPDATES = 3, 7
_WORKER = "ray::RayTrainWorker"
_BURN = (
    "import torch; torch.set_num_threads(1); x = torch.randn(256, 256); y = torch.randn(2**21)\n"
    "while True:\n for _ in range(20): x @ x\n y.clone()"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpus", default="0.4", help="cores of each host")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="host_scaling_") as temporary:
        lab = Lab(Path(temporary) / "hosts", Path(temporary) / "shared", 4, prefix="t5s", network="10.80.0", num_cpus=1)
        lab.up()
        try:
            config = write_config(lab.shared)
            network = {hosts: busy_network(lab, hosts, options.cpus) for hosts in (2, 4)}
            alone = {batch: update_s(lab, config, 1, 1, options.cpus, batch) for batch in CALIBRATIONS}
            measured = {(1, 1): alone[CALIBRATIONS[0]]}
            for stage, hosts in RUNS[1:]:
                measured[stage, hosts] = update_s(lab, config, stage, hosts, options.cpus)
        finally:
            lab.down()
        result = compare(load_config(config), alone, measured, network)
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def write_config(shared: Path) -> Path:
    """A T5 of 8 million parameters on texts of one length, so that the plan's examples are the run's."""
    lines = []
    for i in range(2000):
        text = (f"{i} " * 200)[: SOURCE_TOKENS - 1]
        lines.append(json.dumps({"source": text, "target": text[: TARGET_TOKENS - 1]}))
    (shared / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    path = shared / "scaling.yaml"
    path.write_text(f"""
run: {{name: scaling, storage_path: {shared}/runs}}
model: {{shape: {{d_model: 256, d_kv: 64, d_ff: 1024, num_layers: 3, num_heads: 4}}}}
data: {{source: {shared}/pairs.jsonl, tokenizer: {{kind: bytes}}, max_source_tokens: {SOURCE_TOKENS}, max_target_tokens: {TARGET_TOKENS}}}
schedule: {{peak_lr: 1.0e-3, total_steps: 100000}}
training: {{examples_per_update: {EXAMPLES}, micro_batch_tokens: {EXAMPLES * (SOURCE_TOKENS + TARGET_TOKENS)}, log_every_steps: 1,
            eval_every_steps: 100000, num_samples: 0, precision: fp32}}
checkpoint: {{every_steps: 100000}}
scaling: {{cpus_per_worker: 1, stop_grace_s: 0}}
""")
    return path


def busy_network(lab: Lab, hosts: int, cpus: str) -> dict[str, float]:
    """What benchmarks/busy_hosts.py finds between so many limited hosts."""
    start, log = lab.shared / f"start{hosts}", lab.shared / f"network{hosts}.log"
    among = lab.workers[:hosts]
    settings = f"WORLD_SIZE={hosts} MASTER_ADDR={lab.hosts.address(among[0])} MASTER_PORT={29500 + hosts} GLOO_SOCKET_IFNAME=eth0"
    program = CHECKOUT / "benchmarks" / "busy_hosts.py"
    with burning(lab, lab.workers[hosts:], cpus):
        # By ssh, so that the processes are the hosts' own.
        running = [
            lab.start(
                "op", f"ssh {host} RANK={rank} {settings} {sys.executable} {program} {start}", Path(f"{log}{rank}")
            )
            for rank, host in enumerate(among)
        ]
        for host in among:
            wait_for(lambda host=host: lab.do(host, "pgrep -f [b]usy_hosts.py", check=False).returncode == 0, log)
            lab.hosts.limit(host, cpus, program.name)
        start.touch()
        for process in running:
            if process.wait(timeout=200):
                raise SystemExit(f"no network was measured:\n{Path(f'{log}0').read_text()}")
    found = json.loads(Path(f"{log}0").read_text().strip().splitlines()[-1])
    print(found, file=sys.stderr, flush=True)
    return found


@contextlib.contextmanager
def burning(lab: Lab, hosts: list[str], cpus: str) -> Iterator[None]:
    """Let hosts compute for nothing."""
    logs = [lab.shared / f"burn_{host}.log" for host in hosts]
    words = f"{sys.executable} -c {shlex.quote(shlex.quote(_BURN))}"
    processes = [lab.start("op", f"ssh {host} {words}", log) for host, log in zip(hosts, logs, strict=True)]
    for host, log in zip(hosts, logs, strict=True):
        wait_for(lambda host=host: lab.do(host, "pgrep -f [t]orch.randn", check=False).returncode == 0, log)
        lab.hosts.limit(host, cpus, "torch.randn")
    try:
        yield
    finally:
        for host, process in zip(hosts, processes, strict=True):
            lab.do(host, "pkill -KILL -f [t]orch.randn", check=False)
            process.wait(timeout=30)


def wait_for(condition: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"not in time; {log} may say why")
        time.sleep(0.2)


def update_s(
    lab: Lab, config: Path, stage: int, hosts: int, cpus: str, batch: tuple[int, int] = CALIBRATIONS[0]
) -> float:
    """Median seconds of an update once it runs. batch: examples per update, and per micro-batch at most."""
    examples, at_once = batch
    name = f"stage{stage}_{hosts}_{examples}_{at_once}"
    words = [
        *("python -m recipes.train", str(config), f"run.name={name}", f"deepspeed.zero_stage={stage}"),
        f"scaling.num_workers={hosts} training.examples_per_update={examples}",
        f"training.micro_batch_tokens={at_once * (SOURCE_TOKENS + TARGET_TOKENS)}",
    ]
    log = lab.shared / f"{name}.log"
    command = f"cd {CHECKOUT} && RAY_ADDRESS={lab.address} exec {' '.join(words)}"
    process = lab.start("head", command, log)
    path, end = lab.shared / "runs" / name / "metrics.jsonl", time.monotonic() + 500

    def lines_after(num: int) -> list[str]:
        lines: list[str] = []
        while len(lines) < num:
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{name}: {log.read_text()[-2000:]}")
            time.sleep(0.5)
            lines = path.read_text().splitlines() if path.exists() else []
        return lines

    lines_after(_WARM_UPDATES)
    idle = [host for host in lab.workers if lab.do(host, f"pgrep -f {_WORKER}", check=False).returncode]
    for host in set(lab.workers) - set(idle):
        lab.hosts.limit(host, cpus, _WORKER)
    with burning(lab, idle, cpus):
        first = len(lines_after(_WARM_UPDATES)) + _WARM_UPDATES
        lines = lines_after(first + _NUM_UPDATES)[first:]
    lab.do("head", "pkill -TERM -f '^python -m recipes.train'", check=False)
    process.wait(timeout=120)
    tokens = examples * (SOURCE_TOKENS + TARGET_TOKENS)
    seconds = median(tokens / line["tokens_per_s"] for line in map(json.loads, lines))
    print(f"{name}: {seconds:.3f} s per update", file=sys.stderr, flush=True)
    return seconds


def on_paper(config: RunConfig, hardware: Hardware, stage: int, hosts: int, batch: tuple[int, int]) -> Prediction:
    model = TrainedModel(shape_of(config), "fp32", False, dropout=False)
    examples, at_once = batch
    whole = Batch(examples, at_once * (SOURCE_TOKENS + TARGET_TOKENS), SOURCE_TOKENS, TARGET_TOKENS)
    return predict(model, whole, hardware, World(hosts, 1, zero_of(config.deepspeed, stage)))


def calibrated(config: RunConfig, alone: dict[tuple[int, int], float]) -> Hardware:
    """The three numbers of a host that give the three measured runs: FLOP/s, time of an operation, memory bandwidth."""
    unit = hardware_for(
        "cpu", "fp32", peak_tflops=1e-12, memory_gib=6, inter_gbit=1.0, compute_ratio=1, link_ratio=1,
        memory_gbyte_s=1e-9, launch_us=0.0, fused_attention=False,
    )  # fmt: skip
    found = [on_paper(config, unit, 1, 1, batch) for batch in alone]
    counts = [[p.compute_s, p.num_launches + p.step_launches, p.memory_bytes] for p in found]
    per_flop, per_launch, per_byte = (float(each) for each in np.linalg.solve(counts, list(alone.values())))
    if min(per_flop, per_launch, per_byte) <= 0:
        raise SystemExit(f"the runs on one host contradict each other, the machine was not quiet: {alone}")
    return replace(
        unit, peak_tflops=1e-12 / per_flop, launch_us=1e6 * per_launch, memory_gbyte_s=1e-9 / per_byte
    )  # fmt: skip


def compare(
    config: RunConfig,
    alone: dict[tuple[int, int], float],
    measured: dict[tuple[int, int], float],
    network: dict[int, dict[str, float]],
) -> dict[str, Any]:
    host = calibrated(config, alone)
    rows = []
    for (stage, hosts), seconds in measured.items():
        hardware = host
        if hosts > 1:
            link = network[hosts]
            hardware = replace(
                host, inter_gbit=link["gbit_per_s"], intra_gbit=link["gbit_per_s"],
                inter_latency_us=1e3 * link["latency_ms"], imbalance_ratio=link["imbalance_ratio"],
            )  # fmt: skip
        paper = on_paper(config, hardware, stage, hosts, CALIBRATIONS[0])
        parts = {name: getattr(paper, name) for name in ("busy_s", "step_s", "waiting_s", "comm_s")}
        rows.append(
            {
                "stage": stage,
                "hosts": hosts,
                "update_s": seconds,
                "efficiency": measured[stage, 1] / hosts / seconds,
                "paper_update_s": paper.update_s,
                "paper_efficiency": on_paper(config, host, stage, 1, CALIBRATIONS[0]).update_s / hosts / paper.update_s,
                "paper_over_measured": paper.update_s / seconds,
                "calibrates": (stage, hosts) == (1, 1),
            }
            | {f"paper_{name}": value for name, value in parts.items()}
        )
    return {
        "gflop_per_s": 1e3 * host.peak_tflops,
        "launch_us": host.launch_us,
        "memory_gbyte_s": host.memory_gbyte_s,
        "one_host": [{"examples": a, "at_once": b, "update_s": s} for (a, b), s in alone.items()],
        "network": list(network.values()),
        "rows": rows,
    }


def table(result: dict[str, Any]) -> str:
    lines = [
        f"a host: {result['gflop_per_s']:.1f} GFLOP/s, {result['launch_us']:.0f} us per operation, "
        f"memory {result['memory_gbyte_s']:.1f} GB/s"
    ]
    for link in result["network"]:
        lines.append(
            f"{link['hosts']} hosts: {link['latency_ms']:.2f} ms per step of a ring, {link['gbit_per_s']:.2f} Gbit/s, "
            f"imbalance {link['imbalance_ratio']:.0%}"
        )
    heads = (
        "ZeRO",
        "hosts",
        "update, s",
        "efficiency",
        "on paper, s",
        "of it computing",
        "step",
        "waiting",
        "collectives",
    )
    lines += ["", "| " + " | ".join((*heads, "efficiency", "paper / measured")) + " |", "|---" * 11 + "|"]
    for row in result["rows"]:
        parts = " | ".join(f"{row[f'paper_{name}_s']:.2f}" for name in ("busy", "step", "waiting", "comm"))
        ratio = "calibrates" if row["calibrates"] else f"{row['paper_over_measured']:.2f}"
        lines.append(
            f"| {row['stage']} | {row['hosts']} | {row['update_s']:.2f} | {row['efficiency']:.0%} | "
            f"{row['paper_update_s']:.2f} | {parts} | {row['paper_efficiency']:.0%} | {ratio} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
