"""Loading a checkpoint whose ZeRO shards were cut for another number of workers.

DeepSpeed's universal checkpoint: one rank merges the shards into one file per parameter and
optimizer state, and every rank takes its new share from those. It knows Adam's moments only. What an optimizer
keeps alike on all ranks instead (`recipes.optimizers.adafactor`) is taken from one of them.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_TAG = "universal"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_ALIKE = "alike.pt"


def merge_shards(shards: Path, place: Path) -> None:
    """Write the universal form of the DeepSpeed checkpoint in ``shards`` below ``place``."""
    from deepspeed.checkpoint import ds_to_universal

    shutil.rmtree(place, ignore_errors=True)
    (place / _TAG).mkdir(parents=True)
    shards = _with_moments(shards, place)
    options = Namespace(
        input_folder=str(shards),
        output_folder=str(place / _TAG),
        # More would fork processes out of one that has threads.
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        # Stages 1 and 2 save no description of the parameters for it; all of T5's are plain.
        inject_missing_state=True,
    )
    # It tells its steps on both streams.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ds_to_universal.main(options)


def _with_moments(shards: Path, place: Path) -> Path:
    """The shards themselves where they hold Adam's moments; else a copy with zeros for those.

    The state that is there instead goes to a file of its own.
    """
    files = sorted(shards.glob("*_optim_states.pt"))
    alike = _states(torch.load(files[0], weights_only=False, mmap=True))[0]
    if all(key in state for state in alike for key in _MOMENTS):
        return shards
    torch.save(alike, place / _ALIKE)
    copy = place / "shards"
    copy.mkdir()
    for path in shards.iterdir():
        if path not in files:
            (copy / path.name).symlink_to(path.absolute())
            continue
        content = torch.load(path, weights_only=False)
        for state, master in zip(*_states(content), strict=True):
            # One zero in the file, however long.
            state |= dict.fromkeys(_MOMENTS, torch.zeros(1).expand(master.numel()))
        torch.save(content, copy / path.name)
    return copy


def _states(content: dict[str, Any]) -> tuple[list[dict[str, Any]], list[torch.Tensor]]:
    """Of every flat tensor in a shard its state and its fp32 weights."""
    shard = content["optimizer_state_dict"]
    at_stage_3 = "fp32_flat_groups" in shard
    states = shard["optimizer_state_dict" if at_stage_3 else "base_optimizer_state"]["state"]
    masters = shard["fp32_flat_groups" if at_stage_3 else "single_partition_of_fp32_groups"]
    return [states[number] for number in sorted(states)], masters


def load_merged(engine: DeepSpeedEngine, place: Path) -> None:
    """Load what `merge_shards` wrote into this rank's share; the learning rates are left to the caller.

    At stage 3 DeepSpeed 0.19 gives every parameter group the settings of the first one and all of
    them one step counter, which Adam then raises once per group. So the settings of the engine as
    it was built are put back, and each gets a counter of its own.
    """
    groups = engine.optimizer.param_groups
    built = [{key: value for key, value in group.items() if key not in ("params", "lr")} for group in groups]
    config = engine._config
    config.load_universal_checkpoint = True
    try:
        path, _ = engine.load_checkpoint(str(place), tag=_TAG)
    finally:
        config.load_universal_checkpoint = False
    if path is None:
        raise RuntimeError(f"DeepSpeed found nothing to load in {place}")
    for group, settings in zip(engine.optimizer.param_groups, built, strict=True):
        group.update(settings)
    for state in engine.basic_optimizer.state.values():
        if isinstance(state.get("step"), torch.Tensor):
            state["step"] = state["step"].clone()
    if (place / _ALIKE).exists():
        _take_alike(engine, torch.load(place / _ALIKE))


def _take_alike(engine: DeepSpeedEngine, alike: list[dict[str, torch.Tensor]]) -> None:
    """Put the state that all ranks share in the place of the moments that nobody asked for."""
    optimizer = engine.basic_optimizer
    step = alike[0]["step"]
    # At stage 3 the number of flat tensors may be another one now; the order of what is in them is not.
    left = {key: torch.cat([state[key] for state in alike]) for key in alike[0] if key != "step"}
    for master in optimizer.layouts:
        state = optimizer.state[master]
        state.clear()
        state |= optimizer.fresh_state(master)
        state["step"].copy_(step)
        for key, saved in left.items():
            taken, left[key] = saved.split([state[key].numel(), saved.numel() - state[key].numel()])
            state[key].copy_(taken)
    for parameter in engine.module.parameters():
        mapping = getattr(parameter, "_hp_mapping", None)
        if mapping is not None:
            mapping.optim_fragment = {}
