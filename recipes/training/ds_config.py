"""The DeepSpeed config of a run, as a pure function of the run's config."""

from __future__ import annotations

from typing import Any

from recipes.config import RunConfig
from recipes.errors import UserError


def deepspeed_config(config: RunConfig, precision: str, scheduler: dict[str, Any] | None) -> dict[str, Any]:
    """What `deepspeed.initialize` gets, and what the run's folder keeps as ds_config.json.

    ``scheduler`` is the native block that applies the run's schedule exactly, or None when the torch
    form drives: a block beside a client scheduler would be ignored without a word.

    Raises:
        UserError: ``deepspeed.extra`` sets a key that this recipe sets, to something else.
    """
    optimizer, stage = config.optimizer, config.deepspeed.zero_stage
    ours: dict[str, Any] = {
        # An update's micro-batches come from the batch plan; these two only keep DeepSpeed's
        # own arithmetic (train_batch_size) consistent.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": config.training.clip_norm,
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": False},
        "zero_optimization": {"stage": stage, "overlap_comm": False, **_offload(config.deepspeed.offload)},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31 - 1,
    }
    if optimizer.name == "adamw":
        ours["optimizer"] = {
            "type": "AdamW",
            "params": {
                "lr": float(config.schedule.peak_lr),
                "betas": list(optimizer.betas),
                "eps": optimizer.eps,
                "weight_decay": optimizer.weight_decay,
                "torch_adam": True,
                "fused": True,
            },
        }
    elif config.deepspeed.extra.get("optimizer") is not None:
        raise UserError("deepspeed.extra.optimizer: the optimizer comes from the optimizer block; remove this key")
    if scheduler is not None:
        ours["scheduler"] = scheduler
    if config.deepspeed.extra.get("scheduler") is not None and scheduler is None:
        raise UserError("deepspeed.extra.scheduler: the learning rate comes from the schedule block; remove this key")
    return _merge(ours, config.deepspeed.extra, "deepspeed.extra")


def _offload(offload: str) -> dict[str, Any]:
    to_cpu = {"device": "cpu", "pin_memory": True}
    blocks = {} if offload == "none" else {"offload_optimizer": to_cpu}
    return blocks | ({"offload_param": to_cpu} if offload == "all" else {})


def _merge(ours: dict[str, Any], extra: dict[str, Any], where: str) -> dict[str, Any]:
    merged = dict(ours)
    for key, value in extra.items():
        field = f"{where}.{key}"
        if key not in ours:
            merged[key] = value
        elif isinstance(ours[key], dict) and isinstance(value, dict):
            merged[key] = _merge(ours[key], value, field)
        elif ours[key] != value:
            raise UserError(f"{field} is {value!r} but the recipe sets it to {ours[key]!r}: {_way_out(field)}")
    return merged


def _way_out(field: str) -> str:
    places = {
        "gradient_clipping": "change training.clip_norm instead",
        "bf16": "change training.precision instead",
        "stage": "change deepspeed.zero_stage instead",
        "offload": "change deepspeed.offload instead",
        "optimizer": "change the optimizer block instead",
        "scheduler": "change the schedule block instead",
        "fp16": "T5 overflows in fp16; use training.precision bf16 or fp32",
        "batch": "change training.examples_per_update and training.micro_batch_tokens instead",
        "accumulation": "change training.examples_per_update and training.micro_batch_tokens instead",
    }
    return next((text for part, text in places.items() if part in field), "remove this key")
