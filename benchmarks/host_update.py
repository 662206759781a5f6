"""One process of several that train the same small T5 between hosts: the program of host_scaling.py.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=... MASTER_PORT=... python benchmarks/host_update.py START_FILE

Waits for START_FILE (until then the hosts are not limited), then measures; rank 0 prints one line of JSON:
latency_ms: of a small all-gather, one after the other, per step of its ring. gbit_per_s: what each link of the ring carries
in an all-reduce of 16 MiB between stretches of computing, median. imbalance_ratio: how much longer than alone such a stretch
of 100 ms of processor time takes until all have ended it. update_s: by stage, median. On one host also, at stage 1,
step_s: of that update in `engine.step`; fixed_s: forward and backward pass of two tokens, in which there is nothing to multiply.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1]))

SHAPE = {"d_model": 256, "d_kv": 64, "d_ff": 1024, "num_layers": 3, "num_heads": 4}
SOURCE_TOKENS, TARGET_TOKENS, EXAMPLES, VOCAB = 128, 32, 4, 384
STAGES = (1, 2, 3)
_WARM_UPDATES, _NUM_UPDATES = 3, 9
_ROUNDS, _SMALL_CALLS, _BYTES = 15, 150, 16 * 2**20


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    import deepspeed  # noqa: F401  (seconds, before the limit)
    import transformers  # noqa: F401

    Path(f"{sys.argv[1]}.ready{dist.get_rank()}").touch()
    while not Path(sys.argv[1]).exists():
        time.sleep(0.1)
    world = dist.get_world_size()
    found: dict[str, Any] = {"hosts": world} | (network() if world > 1 else {})
    found["update_s"] = {}
    for stage in STAGES:
        engine = start(stage)
        found["update_s"][stage], step_s = updates(engine)
        if world == 1 and stage == 1:
            found |= {"step_s": step_s, "fixed_s": forward_and_backward(engine)}
    if dist.get_rank() == 0:
        print(json.dumps(found), flush=True)
    dist.barrier()
    # gloo's threads may abort a process that takes its group down while another still talks.
    os._exit(0)


def network() -> dict[str, float]:
    world = dist.get_world_size()
    left, right = torch.randn(256, 256), torch.randn(256, 256)
    began = time.process_time()
    for _ in range(300):
        left @ right
    times = round(0.1 * 300 / (time.process_time() - began))

    def compute() -> float:
        began = time.perf_counter()
        for _ in range(times):
            left @ right
        return time.perf_counter() - began

    number, large = torch.ones(1), torch.ones(_BYTES // 4)
    alone, together, reduced = [], [], []
    for _ in range(_ROUNDS):
        dist.all_reduce(number)
        began = time.perf_counter()
        alone.append(compute())
        dist.all_reduce(number)
        together.append(time.perf_counter() - began)
        began = time.perf_counter()
        dist.all_reduce(large)
        reduced.append(time.perf_counter() - began)
        compute()
    own, gathered = torch.ones(64), torch.ones(64 * world)
    began = time.perf_counter()
    for _ in range(_SMALL_CALLS):
        dist.all_gather_into_tensor(gathered, own)
    latency_s = (time.perf_counter() - began) / _SMALL_CALLS / (world - 1)
    sums = torch.tensor([mean(alone), mean(together)], dtype=torch.float64)
    dist.all_reduce(sums)
    link_bits = 8 * _BYTES * 2 * (world - 1) / world
    return {
        "latency_ms": 1e3 * latency_s,
        "gbit_per_s": link_bits / median(reduced) / 1e9,
        "imbalance_ratio": max(0.0, float(sums[1] / sums[0]) - 1),
    }


def start(stage: int):
    """The engine as recipes.train builds it."""
    from lrsched import Schedule, deepspeed_backend
    from recipes.config_file import parse_config
    from recipes.training.ds_config import deepspeed_config
    from recipes.training.engine import start_engine
    from recipes.training.model import build_model, parameter_groups

    config = parse_config(
        {
            "run": {"name": "scaling"},
            "model": {"shape": SHAPE},
            "data": {"source": "pydoc"},
            "schedule": {"peak_lr": 1e-3, "total_steps": 1000},
            "training": {"precision": "fp32"},
            "deepspeed": {"zero_stage": stage},
        }
    )
    schedule = Schedule.from_dict(config.schedule.model_dump(exclude_none=True))
    model = build_model(config.model, VOCAB, config.run.seed)
    groups = parameter_groups(model, config.optimizer, schedule.peak_lr)
    return start_engine(model, groups, deepspeed_config(config, "fp32", deepspeed_backend(schedule)[1]), schedule)


def batch(rows: int, source: int, target: int):
    from recipes.data.batches import PaddedBatch

    inputs, labels = torch.randint(3, 258, (rows, source)), torch.randint(3, 258, (rows, target))
    decoder = torch.cat([torch.zeros(rows, 1, dtype=torch.long), labels[:, :-1]], dim=1)
    return PaddedBatch(inputs, decoder, labels, torch.ones_like(inputs))


def updates(engine) -> tuple[float, float]:
    """Median seconds of an update, and of its step."""
    from recipes.training.update import run_update

    step, seconds, stepping = engine.step, [], []

    def timed_step() -> None:
        began = time.perf_counter()
        step()
        stepping.append(time.perf_counter() - began)

    engine.step = timed_step
    for _ in range(_WARM_UPDATES + _NUM_UPDATES):
        share = batch(EXAMPLES // dist.get_world_size(), SOURCE_TOKENS, TARGET_TOKENS)
        began = time.perf_counter()
        run_update(engine, [share], EXAMPLES * TARGET_TOKENS)
        seconds.append(time.perf_counter() - began)
    return median(seconds[_WARM_UPDATES:]), median(stepping[_WARM_UPDATES:])


def forward_and_backward(engine) -> float:
    from recipes.training.update import summed_loss

    seconds = []
    for _ in range(_WARM_UPDATES + 2 * _NUM_UPDATES):
        tiny = batch(1, 1, 1)
        began = time.perf_counter()
        engine.backward(summed_loss(engine, tiny), scale_wrt_gas=False)
        seconds.append(time.perf_counter() - began)
        engine.zero_grad()
        engine.optimizer.zero_grad()
    return median(seconds[_WARM_UPDATES:])


if __name__ == "__main__":
    main()
