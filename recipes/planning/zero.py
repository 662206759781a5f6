"""How DeepSpeed is set: the stage, and the sizes that decide its buffers and collectives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recipes.config import DeepSpeedBlock
from recipes.errors import UserError


@dataclass(frozen=True)
class Zero:
    """ZeRO's stage, offload (none, optimizer, all) and DeepSpeed 0.19's settings, in elements, with its defaults.

    max_reuse_distance, max_live, prefetch_bucket, persistence_threshold, sub_group: stage 3 only.
    """

    stage: int
    offload: str = "none"
    reduce_bucket: int = 500_000_000
    prefetch_bucket: int = 50_000_000
    persistence_threshold: int = 100_000
    max_live: int = 1_000_000_000
    max_reuse_distance: int = 1_000_000_000
    sub_group: int = 1_000_000_000


_KEYS = {
    "reduce_bucket_size": "reduce_bucket",
    "prefetch_bucket_size": "prefetch_bucket",
    "param_persistence_threshold": "persistence_threshold",
    "max_live_parameters": "max_live",
    "max_reuse_distance": "max_reuse_distance",
    "sub_group_size": "sub_group",
}


def zero_of(block: DeepSpeedBlock, stage: int) -> Zero:
    """The settings of a config at a stage that may be another than the config's.

    Offload that the stage does not have is left out, as the config would refuse it.
    """
    sizes = {}
    for key, value in _zero_extra(block).items():
        field = _KEYS.get(key.removeprefix("stage3_"))
        if field is None:
            continue
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or value < 0
            or (value == 0 and field == "reduce_bucket")
        ):
            raise UserError(f"deepspeed.extra.zero_optimization.{key} is {value!r}: a number of elements is expected")
        sizes[field] = int(value)
    least = {"none": 0, "optimizer": 1, "all": 3}[block.offload]
    offload = block.offload if stage >= least else "none"
    return Zero(stage, offload, **sizes)


def not_modelled(block: DeepSpeedBlock) -> list[str]:
    """Keys of ``deepspeed.extra`` that the planner does not look at."""
    outside = [f"deepspeed.extra.{key}" for key in block.extra if key != "zero_optimization"]
    inside = [key for key in _zero_extra(block) if key.removeprefix("stage3_") not in _KEYS]
    return outside + [f"deepspeed.extra.zero_optimization.{key}" for key in inside]


def _zero_extra(block: DeepSpeedBlock) -> dict[str, Any]:
    extra = block.extra.get("zero_optimization", {})
    return extra if isinstance(extra, dict) else {}
