"""Loading a checkpoint whose ZeRO shards were cut for another number of workers.

DeepSpeed's universal checkpoint: one rank merges the shards into one file per parameter and
optimizer state, and every rank takes its new share from those.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_TAG = "universal"


def merge_shards(shards: Path, place: Path) -> None:
    """Write the universal form of the DeepSpeed checkpoint in ``shards`` below ``place``."""
    from deepspeed.checkpoint import ds_to_universal

    shutil.rmtree(place, ignore_errors=True)
    (place / _TAG).mkdir(parents=True)
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
