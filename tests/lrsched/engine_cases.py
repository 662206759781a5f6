"""Train a tiny model with the real DeepSpeed engine and print, as JSON, the learning rates used.

Run as a program by test_deepspeed_engine.py: DeepSpeed's process group and its choice of
accelerator are per process. Reads a list of cases from standard input.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from typing import Any

import deepspeed
import torch

from lrsched import Schedule
from lrsched.proof.deepspeed_engine import join_alone

# Warnings are errors here too, but for those of other people's code:
# DeepSpeed's Muon optimizer, imported by initialize, makes torch import a module that torch itself deprecates.
warnings.filterwarnings("ignore", "`torch.jit.script_method` is deprecated", DeprecationWarning)
# DeepSpeed 0.19.8 calls all_gather_into_tensor and its like, which torch 2.13 has renamed.
warnings.filterwarnings("ignore", "`torch.distributed.*` is deprecated", FutureWarning)


def main() -> None:
    join_alone()
    results = [run_case(case) for case in json.load(sys.stdin)]
    torch.distributed.destroy_process_group()
    print("RESULTS" + json.dumps(results))


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """The lr of each group that the innermost optimizer used, update by update."""
    engine = start(case)
    used: list[list[float]] = []
    updates = Schedule.from_dict(case["schedule"]).total_steps
    for update in range(updates):
        if update == case.get("resume_at"):
            with tempfile.TemporaryDirectory() as folder:
                engine.save_checkpoint(folder, tag="saved")
                engine.destroy()
                engine = start(case)
                engine.load_checkpoint(folder, tag="saved")
        if update == case.get("overflow_at"):
            train_update(engine, case, poison=True)
            # What a skipped update would have used is nobody's learning rate.
            engine.lr_used.clear()
        train_update(engine, case)
        used.append(list(engine.lr_used))
        engine.lr_used.clear()
    scheduler = type(engine.lr_scheduler).__name__
    engine.destroy()
    return {"used": used, "scheduler": scheduler}


def start(case: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    schedule = Schedule.from_dict(case["schedule"])
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    groups = [
        {"params": list(layer.parameters()), "lr": schedule.peak_lr * scale}
        for layer, scale in zip(model, case["scales"], strict=True)
    ]
    optimizer = torch.optim.AdamW(groups, lr=schedule.peak_lr)
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": case["accumulation"],
        "zero_optimization": {"stage": case["stage"]},
        "bf16": {"enabled": case.get("bf16", False)},
        "zero_allow_untested_optimizer": True,
    }
    if case["given"] == "objects":
        # DeepSpeed's config says nothing of the schedule: a scheduler object does.
        engine, *_ = deepspeed.initialize(model=model, config=config, **schedule.initialize_kwargs(optimizer))
    elif case["given"] == "config":
        engine, *_ = deepspeed.initialize(model=model, **schedule.initialize_kwargs(optimizer, config))
    else:
        config["optimizer"] = {"type": "AdamW", "params": {"lr": schedule.peak_lr, "torch_adam": True}}
        engine, *_ = deepspeed.initialize(
            model=model, model_parameters=groups, **schedule.initialize_kwargs(config=config)
        )
    engine.lr_used = []

    def note(innermost: torch.optim.Optimizer, *_: Any) -> None:
        # ZeRO calls step() once per group: with the other groups taken away (stages 1 and 2) or
        # with their parameters taken away (stage 3).
        engine.lr_used += [float(group["lr"]) for group in innermost.param_groups if group["params"]]

    engine.basic_optimizer.register_step_pre_hook(note)
    return engine


def train_update(engine: Any, case: dict[str, Any], poison: bool = False) -> None:
    dtype = torch.bfloat16 if case.get("bf16") else torch.float32
    for _ in range(case["accumulation"]):
        loss = engine(torch.ones(2, 4, dtype=dtype)).float().square().mean()
        engine.backward(loss * float("inf") if poison else loss)
        engine.step()


if __name__ == "__main__":
    main()
