"""Train a tiny model with a number of processes, from a checkpoint of another number; prints losses and settings as JSON.

    python world_size_cases.py WORLD STAGE PRECISION FOLDER FIRST LAST [resume] [freeze=PART,PART] [optimizer=NAME] [sub_group=SIZE]

Updates FIRST to LAST-1 of a run whose global batches do not depend on the number of processes; a
checkpoint is written to FOLDER after the last one. PART: a frozen one.
"""

import json
import sys

import torch
import torch.distributed as dist

from recipes.config_file import parse_config
from recipes.storage import Storage
from recipes.training import loop
from recipes.training.checkpoint import Checkpoints
from recipes.training.notices import Notices
from recipes.training.update import run_update
from tests.training import ranks, test_engine


def main(world, stage, precision, folder, first, last, resume, frozen, name, sub_group):
    ranks.start(_rank, world, world, stage, precision, folder, first, last, resume, frozen, name, sub_group)


def _rank(rank, world, stage, precision, folder, first, last, resume, frozen, name, sub_group):
    config = test_engine.make_config(
        stage=stage, precision=precision, embedding_lr_ratio=3.0, freeze=frozen, optimizer={"name": name}
    )
    if sub_group:
        changed = {"zero_stage": stage, "extra": {"zero_optimization": {"sub_group_size": int(sub_group)}}}
        config = parse_config(config.model_dump(mode="json") | {"deepspeed": changed})
    engine, schedule = test_engine.make_engine(config)
    said = []
    checkpoints = Checkpoints(Storage(folder), keep=9, schedule_fingerprint=schedule.fingerprint, say=said.append)
    run = loop.Training(config, schedule, engine, None, None, [], checkpoints, Notices(), lambda metrics: None)
    if resume:
        assert loop.restore(run)
    assert run.step == first
    losses, lrs = [], []
    for k in range(first, last):
        batches, target_tokens = test_engine.micro_batches(k, ((2, 7, 5), (2, 6, 4), (2, 7, 5), (2, 5, 6)))
        update = run_update(engine, batches[rank::world], target_tokens)
        total = torch.as_tensor(float(update.loss_sum), dtype=torch.float64)
        dist.all_reduce(total)
        losses.append(float(total) / target_tokens)
        lrs.append(update.lrs)
        run.step = k + 1
    loop.save(run)
    if rank == 0:
        decays = [group["weight_decay"] for group in engine.optimizer.param_groups]
        print("RESULT" + json.dumps({"losses": losses, "lrs": lrs, "decays": decays, "said": said}), flush=True)


def _given(arguments, key):
    return next((each.removeprefix(f"{key}=") for each in arguments if each.startswith(f"{key}=")), "")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(
        int(arguments[0]),
        int(arguments[1]),
        arguments[2],
        arguments[3],
        *map(int, arguments[4:6]),
        "resume" in arguments,
        [part for part in _given(arguments, "freeze").split(",") if part],
        _given(arguments, "optimizer") or "adamw",
        _given(arguments, "sub_group"),
    )
