"""From one to two to four hosts with the same processor time each: measured, and as recipes.plan foretells it. Root.

    sudo .venv/bin/python benchmarks/host_scaling.py [--cpus 0.4] [--json scaling.json]

A cluster of test hosts (cluster/test_hosts); each may take so many cores' worth of time, so that more hosts are more
processor. Hosts that do not train compute for nothing meanwhile: two virtual CPUs may be one core, which is slower for
each when both work. The same update of four examples is trained on 1, 2 and 4 of them. The prediction knows the FLOP/s of the
run on one host and the all-reduce that recipes.doctor measures between the limited hosts, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from cluster.test_hosts.lab import CHECKOUT, Lab
from recipes.config_file import load_config
from recipes.planning.activations import TrainedModel
from recipes.planning.flops import training_flops
from recipes.planning.hardware import Hardware, hardware_for
from recipes.planning.prediction import Batch, World, predict
from recipes.planning.shapes import shape_of
from recipes.planning.zero import zero_of

SOURCE_TOKENS, TARGET_TOKENS, EXAMPLES = 128, 32, 4
RUNS = [(1, 1), (1, 2), (3, 2), (1, 4), (2, 4), (3, 4)]  # (ZeRO stage, hosts)
_WARM_UPDATES, _NUM_UPDATES = 3, 7
_BURN = "import torch; torch.set_num_threads(1); x = torch.randn(256, 256)\nwhile True: x @ x"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpus", default="0.4", help="cores of each host")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="host_scaling_") as temporary:
        lab = Lab(Path(temporary) / "hosts", Path(temporary) / "shared", 4, prefix="t5s", network="10.80.0", num_cpus=1)
        lab.up()
        try:
            for host in lab.workers:
                lab.hosts.limit(host, options.cpus)
            config = write_config(lab.shared)
            latency_ms, gbit = all_reduce(lab, config)
            measured = {(stage, hosts): update_s(lab, config, stage, hosts) for stage, hosts in RUNS}
        finally:
            lab.down()
        rows = compare(config, measured, latency_ms, gbit)
    print(table(rows, latency_ms, gbit))
    if options.json:
        options.json.write_text(
            json.dumps({"latency_ms": latency_ms, "gbit_per_s": gbit, "rows": rows}, indent=1) + "\n"
        )


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


def all_reduce(lab: Lab, config: Path) -> tuple[float, float]:
    """Milliseconds for four bytes, Gbit/s for 16 MiB, between the limited hosts, by the doctor."""
    words = f"cd {CHECKOUT} && RAY_ADDRESS={lab.address} python -m recipes.doctor {config} scaling.num_workers=4"
    said = lab.do("head", words, 300, check=False).stdout
    found = re.search(r"gloo over 4 nodes: ([\d.]+) ms for 4 bytes, ([\d.]+) Gbit/s", said)
    if found is None:
        raise SystemExit(f"no all-reduce was measured:\n{said}")
    return float(found[1]), float(found[2])


def update_s(lab: Lab, config: Path, stage: int, hosts: int) -> float:
    """Median seconds of an update once it runs."""
    name = f"stage{stage}_{hosts}"
    words = [
        *("python -m recipes.train", str(config), f"run.name={name}", f"deepspeed.zero_stage={stage}"),
        f"scaling.num_workers={hosts}",
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
    idle = [host for host in lab.workers if lab.do(host, "pgrep -f ray::RayTrainWorker", check=False).returncode]
    # By ssh, so that it counts as the host's.
    burning = [
        lab.start("op", f"ssh {host} {sys.executable} -c {shlex.quote(shlex.quote(_BURN))}", log) for host in idle
    ]
    first = len(lines_after(_WARM_UPDATES)) + _WARM_UPDATES
    lines = lines_after(first + _NUM_UPDATES)[first:]
    lab.do("head", "pkill -TERM -f '^python -m recipes.train'", check=False)
    process.wait(timeout=120)
    for host, each in zip(idle, burning, strict=True):
        lab.do(host, "pkill -KILL -f torch.randn", check=False)
        each.wait(timeout=30)
    seconds = median(1 / rate for rate in _updates_per_s(lines))
    print(f"{name}: {seconds:.3f} s per update", file=sys.stderr, flush=True)
    return seconds


def _updates_per_s(lines: list[str]) -> list[float]:
    """All updates here have the same tokens."""
    tokens = EXAMPLES * (SOURCE_TOKENS + TARGET_TOKENS)
    return [line["tokens_per_s"] / tokens for line in map(json.loads, lines)]


def compare(
    config: Path, measured: dict[tuple[int, int], float], latency_ms: float, gbit: float
) -> list[dict[str, Any]]:
    run = load_config(config)
    model = TrainedModel(shape_of(run), "fp32", False, dropout=False)
    batch = Batch(EXAMPLES, run.training.micro_batch_tokens, SOURCE_TOKENS, TARGET_TOKENS)
    alone_s = measured[1, 1]
    flops = EXAMPLES * training_flops(model.shape, SOURCE_TOKENS, TARGET_TOKENS, False)
    rows = []
    for (stage, hosts), seconds in measured.items():
        hardware = on_paper(flops / alone_s / 1e12, gbit, latency_ms)
        paper = predict(model, batch, hardware, World(hosts, 1, zero_of(run.deepspeed, stage)))
        rows.append(
            {
                "stage": stage,
                "hosts": hosts,
                "update_s": seconds,
                "efficiency": alone_s / hosts / seconds,
                "comm_ratio": max(0.0, 1 - alone_s / hosts / seconds),
                "paper_update_s": paper.update_s,
                "paper_comm_ratio": paper.exposed_comm_s / paper.update_s,
                "paper_over_measured": paper.update_s / seconds,
            }
        )
    return rows


def on_paper(tflops: float, gbit: float, latency_ms: float) -> Hardware:
    # An all-reduce over four hosts is six steps of a ring.
    return hardware_for(
        "cpu", "fp32", peak_tflops=tflops, memory_gib=6, intra_gbit=gbit, inter_gbit=gbit,
        intra_latency_us=latency_ms * 1000 / 6, inter_latency_us=latency_ms * 1000 / 6,
        compute_ratio=1, link_ratio=1, overlap_ratio=0, reserved_gib=0, fused_attention=False,
    )  # fmt: skip


def table(rows: list[dict[str, Any]], latency_ms: float, gbit: float) -> str:
    lines = [f"all-reduce between the limited hosts: {latency_ms:g} ms for 4 bytes, {gbit:g} Gbit/s for 16 MiB", ""]
    lines += [
        "| ZeRO | hosts | update, s | efficiency | not computing | on paper, s | not computing | paper / measured |"
    ]
    lines += ["|---" * 8 + "|"]
    for row in rows:
        lines.append(
            f"| {row['stage']} | {row['hosts']} | {row['update_s']:.2f} | {row['efficiency']:.0%} | {row['comm_ratio']:.0%} | "
            f"{row['paper_update_s']:.2f} | {row['paper_comm_ratio']:.0%} | {row['paper_over_measured']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
