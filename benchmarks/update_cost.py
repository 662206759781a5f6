"""Seconds, memory and share of the machine of one update, against model size and against sequence length.

    python benchmarks/update_cost.py [--threads 2] [--precision fp32|bf16] [--updates 5] [--sizes ...] [--json FILE] [--picture FILE]

Every case is a process of its own: one DeepSpeed engine (ZeRO 1) of the recipe, random tokens, an update of 2,048 tokens in one
micro-batch; after two to warm up the median counts. Achieved: FLOPs of forward and backward (`recipes.planning.flops`: every matrix,
attention and the classifier; not the optimizer) over the seconds of the whole update. Peak: a matmul of 2048 x 2048 in the same process, on
the same threads, in the same precision, by torch or as the recipe has it, best of twelve.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from lrsched import Schedule
from lrsched.deepspeed_form import deepspeed_backend
from lrsched.proof.deepspeed_engine import join_alone
from recipes.config_file import load_config
from recipes.data.batches import pack
from recipes.data.denoising import Pair
from recipes.layers.linear import mkl_is_slow, product
from recipes.planning.flops import summed_training_flops
from recipes.training.ds_config import deepspeed_config
from recipes.training.engine import start_engine
from recipes.training.model import build_model, parameter_groups
from recipes.training.update import run_update
from recipes.training.utilisation import shape_of_model

CONFIG = Path(__file__).parents[1] / "recipes" / "configs" / "local.yaml"
WARM, TOKENS = 2, 2048
# d_model, layers of encoder and decoder, vocabulary. The last two are t5-small and t5-base.
SIZES = {
    "5 M": (192, 4, 4000), "10 M": (256, 5, 4000), "26 M": (384, 6, 8000), "61 M": (512, 6, 32128), "223 M": (768, 12, 32128)
}  # fmt: skip
LENGTHS = (32, 64, 128, 256, 512, 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    by_size = [(name, name, 128) for name in options.sizes]
    by_length = [(f"{length} + {length // 4} tokens", "10 M", length) for length in LENGTHS]
    found = {}
    for part, cases in (("size", by_size), ("length", by_length)):
        found[part] = [alone(name, size, length, options) for name, size, length in cases]
        print(table(part, found[part]), end="\n\n", flush=True)
    if options.json:
        settings = {"precision": options.precision, "threads": options.threads, "updates": options.updates}
        options.json.write_text(json.dumps({"settings": settings} | found, indent=1) + "\n")
    if options.picture:
        draw(found, options.picture)


def alone(name: str, size: str, length: int, options: argparse.Namespace) -> dict[str, Any]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return {"name": name} | process.submit(measured, size, length, options).result()


def measured(size: str, length: int, options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    join_alone()
    d_model, num_layers, vocabulary = SIZES[size]
    config = load_config(
        CONFIG,
        [
            f"model.shape={{d_model: {d_model}, d_kv: 64, d_ff: {4 * d_model}, num_layers: {num_layers}, num_heads: {d_model // 64}}}",
            f"training.precision={options.precision}",
            "deepspeed.zero_stage=1",
        ],
    )
    peak = matmul_flops_per_s(options.precision)
    model = build_model(config.model, vocabulary, seed=0)
    shape = shape_of_model(model.config)
    schedule = Schedule.from_dict(config.schedule.model_dump(exclude_none=True))
    ds_config = deepspeed_config(config, options.precision, deepspeed_backend(schedule)[1])
    engine = start_engine(model, parameter_groups(model, config.optimizer, schedule.peak_lr), ds_config, schedule)
    target = max(1, length // 4)
    num = TOKENS // (length + target)
    draw = np.random.default_rng(0)
    texts = SimpleNamespace(
        pair=lambda i: Pair(draw.integers(2, vocabulary, length), draw.integers(2, vocabulary, target))
    )
    batch = pack(texts, np.arange(num), 0)
    seconds = []
    for _ in range(WARM + options.updates):
        began = time.perf_counter()
        run_update(engine, [batch], num * target)
        seconds.append(time.perf_counter() - began)
    torch.distributed.destroy_process_group()
    update_s = statistics.median(seconds[WARM:])
    flops = summed_training_flops(shape, np.full(num, length), np.full(num, target))
    return {
        "parameters": shape.num_parameters,
        "tokens": num * (length + target),
        "update_s": update_s,
        "tokens_per_s": num * (length + target) / update_s,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "gflop_per_s": flops / update_s / 1e9,
        "matmul_gflop_per_s": peak / 1e9,
        "share": flops / update_s / peak,
    }


def matmul_flops_per_s(precision: str, size: int = 2048) -> float:
    """Of torch's product or the recipe's, whichever is faster."""
    a, b = (torch.randn(size, size, dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[precision]) for _ in "ab")
    ways = [torch.matmul, product] if precision == "fp32" and mkl_is_slow() else [torch.matmul]
    best = float("inf")
    for way in ways * 12:
        began = time.perf_counter()
        way(a, b)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def table(part: str, rows: list[dict[str, Any]]) -> str:
    lines = [
        f"| {part} | parameters | s per update | tokens/s | peak memory, MiB | GFLOP/s | matmul | share |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['name']} | {row['parameters'] / 1e6:.1f} M | {row['update_s']:.2f} | {row['tokens_per_s']:,.0f} | "
        f"{row['peak_bytes'] / 2**20:,.0f} | {row['gflop_per_s']:.0f} | {row['matmul_gflop_per_s']:.0f} | {row['share']:.0%} |"
        for row in rows
    ]
    return "\n".join(lines)


def draw(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Time and memory against parameters, and against the length of sources."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots(2, 2)
    for column, (part, label) in enumerate((("size", "million parameters"), ("length", "source tokens of an example"))):
        rows = found[part]
        x = [row["parameters"] / 1e6 if part == "size" else int(row["name"].split()[0]) for row in rows]
        for line, (figure_name, unit, scale) in enumerate(
            (("update_s", "s per update of 2,048 tokens", 1), ("peak_bytes", "peak memory, GiB", 2**30))
        ):
            place = axes[line][column]
            place.plot(x, [row[figure_name] / scale for row in rows], "o-", color="#1f6feb")
            place.set_xscale("log", base=2 if part == "length" else 10)
            place.set_ylim(0, 1.1 * max(row[figure_name] / scale for row in rows))
            place.set_xlabel(label)
            place.set_ylabel(unit)
            place.spines[["top", "right"]].set_visible(False)
            place.set_xticks(x, [f"{value:.0f}" for value in x], minor=False)
            place.minorticks_off()
    figure.savefig(path)


if __name__ == "__main__":
    print(f"torch {torch.__version__}", file=sys.stderr)
    main()
