"""One process of several that measure collectives between hosts that compute: the program of host_scaling.py.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=... MASTER_PORT=... python benchmarks/busy_hosts.py START_FILE

Waits for START_FILE, then measures; rank 0 prints one line of JSON:
latency_ms: of a small all-gather, one after the other, per step of its ring. gbit_per_s: what each link of the ring carries
in an all-reduce of 16 MiB between stretches of computing, median. imbalance_ratio: how much longer than alone such a stretch
of 100 ms of processor time takes until all have ended it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from statistics import mean, median

import torch
import torch.distributed as dist

_ROUNDS, _SMALL_CALLS = 15, 150
_BYTES = 16 * 2**20


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    while not Path(sys.argv[1]).exists():
        time.sleep(0.1)
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
    found = {
        "hosts": world,
        "latency_ms": 1e3 * latency_s,
        "gbit_per_s": link_bits / median(reduced) / 1e9,
        "imbalance_ratio": max(0.0, float(sums[1] / sums[0]) - 1),
    }
    if dist.get_rank() == 0:
        print(json.dumps(found), flush=True)
    dist.barrier()
    # gloo's threads may abort a process that takes its group down while another still talks.
    os._exit(0)


if __name__ == "__main__":
    main()
