"""A real DeepSpeed engine that trains a tiny model; the learning rates its optimizer used, as JSON.

Run as a program, ``python -m lrsched.proof.deepspeed_engine``, with a list of cases on standard
input: ``{"peak_lr", "updates", "block"}`` for one of DeepSpeed's own schedulers or ``{"peak_lr",
"updates", "schedule"}`` for the torch form of a schedule. DeepSpeed's process group and its choice
of accelerator belong to a process, so it has one of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from typing import Any

STAGE = 1


def main() -> None:
    """Run the cases on standard input; print their learning rates on the last line of the output."""
    os.environ.update(DS_ACCELERATOR="cpu", CUDA_VISIBLE_DEVICES="")
    results = []
    # DeepSpeed and its compilers print; only the result belongs on standard output.
    with contextlib.redirect_stdout(sys.stderr):
        import torch

        join_alone()
        results = [learning_rates(case) for case in json.load(sys.stdin)]
        torch.distributed.destroy_process_group()
    print(json.dumps(results))


def join_alone() -> None:
    """Make DeepSpeed's process group of this process alone."""
    import deepspeed

    # This operator would be compiled for a minute; a single process never calls it.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    deepspeed.init_distributed(dist_backend="gloo")


def learning_rates(case: dict[str, Any]) -> list[float]:
    """What the innermost optimizer used at each update."""
    import deepspeed
    import torch

    from lrsched.schedule import Schedule

    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=case["peak_lr"])
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "zero_optimization": {"stage": STAGE},
        "zero_allow_untested_optimizer": True,
    }
    scheduler = None
    if "block" in case:
        config["scheduler"] = case["block"]
    else:
        scheduler = Schedule.from_dict(case["schedule"]).to_torch(optimizer)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, lr_scheduler=scheduler)
    used: list[float] = []
    engine.basic_optimizer.register_step_pre_hook(
        lambda innermost, *_: used.append(float(innermost.param_groups[0]["lr"]))
    )
    for _ in range(case["updates"]):
        engine.backward(engine(torch.ones(1, 2)).square().mean())
        engine.step()
    engine.destroy()
    return used


if __name__ == "__main__":
    main()
