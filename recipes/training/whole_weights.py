"""The weights of a checkpoint put together in one process, without a GPU and without an engine."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from recipes.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def checkpoint_weights(shards: Path, zero_stage: int, *, trained_in: str, wanted: str) -> dict[str, Tensor]:
    """Every parameter by name, once, in the precision ``wanted`` (bf16 or fp32).

    shards: what DeepSpeed wrote. trained_in: the precision of the run. In that precision they equal the engine's bit
    for bit; a run in bf16 has fp32 weights too, which its optimizer steps and rounds to bf16.
    Files are memory-mapped and parameters taken one by one: needs memory for one copy in ``wanted``, and for stages 1
    and 2 with fp32 from a run in bf16 two.

    Raises:
        UserError: fp32 weights of a run in bf16 at stage 0, whose checkpoints have no names for them.
    """
    rounded = trained_in == "bf16" and wanted == "fp32"
    if rounded and zero_stage == 0:
        raise UserError("--precision fp32: at ZeRO stage 0 a run in bf16 keeps no whole fp32 weights; export bf16")
    # DeepSpeed tells its steps on both streams.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        weights = _once((_of_optimizer if rounded or zero_stage == 3 else _of_engine)(shards))
    return {name: weight.contiguous().to(_DTYPES[wanted], copy=True) for name, weight in weights.items()}


def _of_engine(shards: Path) -> dict[str, Tensor]:
    """The weights that the engine computes with, whole below stage 3."""
    states = torch.load(shards / "mp_rank_00_model_states.pt", map_location="cpu", mmap=True, weights_only=False)
    return states["module"]


def _of_optimizer(shards: Path) -> dict[str, Tensor]:
    """The fp32 weights that the optimizer steps, in shares by rank; only a look at them until `contiguous` is called."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    return get_fp32_state_dict_from_zero_checkpoint(str(shards.parent), tag=shards.name, lazy_mode=True)


def _once(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the other names of a tensor that has several: the first one, which is named_parameters' too, stays."""
    found: dict[str, Tensor] = {}
    seen = set()
    for name in sorted(state, key=lambda name: name != "shared.weight"):
        tensor = state[name]
        # DeepSpeed's look at a sharded tensor has no memory of its own.
        key = (tensor.data_ptr(), tensor.shape) if isinstance(tensor, torch.Tensor) else id(tensor)
        if key not in seen:
            seen.add(key)
            found[name] = tensor
    return found
