"""The DeepSpeed engine, its schedule, and the few things DeepSpeed does not do by itself."""

from __future__ import annotations

import logging
import math
import os
import shutil
from typing import TYPE_CHECKING, Any

from lrsched import Schedule
from recipes.errors import UserError
from recipes.optimizers.layouts import layouts_of
from recipes.training.update import NonFiniteGradient

if TYPE_CHECKING:
    import torch
    from deepspeed import DeepSpeedEngine

    from recipes.optimizers.segmented import SegmentedOptimizer


def start_engine(
    model: torch.nn.Module,
    groups: list[dict[str, Any]],
    ds_config: dict[str, Any],
    schedule: Schedule,
    optimizer: SegmentedOptimizer | None = None,
) -> DeepSpeedEngine:
    """Wrap the model. The process group must exist (Ray Train makes it).

    optimizer: of the groups, where ``ds_config`` names none.
    """
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    # A C++ op for inference collectives on CPUs, compiled for a minute at the first start on every
    # machine, hanging for ever on a stale lock file. Training never calls it.
    __compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    native = "scheduler" in ds_config
    held = _hold_back_decay(groups, ds_config)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        model_parameters=groups,
        config=ds_config,
        lr_scheduler=None if native else schedule.to_torch,
    )
    if optimizer is not None:
        optimizer.bind(layouts_of(engine))
    _give_back_decay(engine, held)
    _record_plain_grad_norm(engine)
    return engine


def compile_engine(engine: DeepSpeedEngine) -> None:
    """Let torch compile the model at its first forward pass, for shapes of any size.

    Raises:
        UserError: there is no compiler here.
    """
    compilers = [os.environ.get("CXX"), "g++", "c++", "clang++"]
    if not any(name and shutil.which(name) for name in compilers):
        raise UserError(
            "training.compile: torch needs a C++ compiler on every node and finds none (g++, c++, clang++, or what CXX names): "
            "install one, or set training.compile=false"
        )
    engine.compile(compile_kwargs={"dynamic": True})


def _hold_back_decay(groups: list[dict[str, Any]], ds_config: dict[str, Any]) -> list[float]:
    """Take the weight decay out of the groups where DeepSpeed makes an update of its own at start.

    At stage 0 in bf16 `initialize` steps the optimizer once with zero gradients at the full lr:
    weight decay would be applied, counters go to 1 and Adafactor's moments to eps1. (ZeRO 1 to 3 and fp32 do not.)
    Returns what `_give_back_decay` needs; empty where there is nothing to do.
    """
    if ds_config["zero_optimization"]["stage"] > 0 or not ds_config["bf16"]["enabled"]:
        return []
    held = [group["weight_decay"] for group in groups]
    for group in groups:
        group["weight_decay"] = 0.0
    return held


def _give_back_decay(engine: DeepSpeedEngine, held: list[float]) -> None:
    if not held:
        return
    inner = engine.basic_optimizer
    for group, weight_decay in zip(inner.param_groups, held, strict=True):
        group["weight_decay"] = weight_decay
    for state in inner.state.values():
        for value in state.values():
            value.zero_()


def _record_plain_grad_norm(engine: DeepSpeedEngine) -> None:
    """At stage 0 in fp32 DeepSpeed neither keeps the gradient norm nor refuses a non-finite one."""
    import torch

    if engine.zero_optimization_stage() > 0 or engine.bfloat16_enabled():
        return
    max_norm = engine.gradient_clipping() or math.inf

    def clip(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        engine._global_grad_norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        if not math.isfinite(engine._global_grad_norm):
            raise NonFiniteGradient(f"gradient norm {float(engine._global_grad_norm)}")

    engine.clip_fp32_gradients = lambda: None
    engine.basic_optimizer.register_step_pre_hook(clip)
