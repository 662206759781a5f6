"""DeepSpeed's schedulers in its engine, and the native schedules it can apply."""

from __future__ import annotations

import functools
from typing import Any

from lrsched.dialects.from_deepspeed import from_deepspeed
from lrsched.proof.row import PEAK, Row
from lrsched.schedule import Schedule

Params = dict[str, Any]

_DIALECT: dict[str, list[tuple[str, Params]]] = {
    "WarmupCosineLR": [
        ("log", {"total_num_steps": 40, "warmup_num_steps": 10, "cos_min_ratio": 0.1}),
        ("linear", {"total_num_steps": 40, "warmup_num_steps": 10, "warmup_type": "linear"}),
        ("warm-up 1", {"total_num_steps": 20, "warmup_num_steps": 1, "warmup_type": "linear"}),
        ("warm-up 2, from 0.25", {"total_num_steps": 20, "warmup_num_steps": 2, "warmup_min_ratio": 0.25}),
        ("T = W", {"total_num_steps": 10, "warmup_num_steps": 10, "warmup_type": "linear"}),
        ("T < W", {"total_num_steps": 5, "warmup_num_steps": 10, "warmup_type": "linear"}),
    ],
    "WarmupLR": [
        ("log", {"warmup_num_steps": 10}),
        ("linear, from 1e-4", {"warmup_num_steps": 10, "warmup_min_lr": 1e-4, "warmup_type": "linear"}),
        ("to 2e-3", {"warmup_num_steps": 5, "warmup_max_lr": 2e-3}),
        ("warm-up 1", {"warmup_num_steps": 1, "warmup_max_lr": 1e-3, "warmup_type": "linear"}),
    ],
    "WarmupDecayLR": [
        ("log", {"total_num_steps": 40, "warmup_num_steps": 10}),
        ("linear", {"total_num_steps": 40, "warmup_num_steps": 10, "warmup_type": "linear", "warmup_max_lr": 1e-3}),
        ("from 1e-4 to 5e-4", {"total_num_steps": 20, "warmup_min_lr": 1e-4, "warmup_max_lr": 5e-4, "warmup_num_steps": 3}),
        ("T < W", {"total_num_steps": 5, "warmup_num_steps": 10}),
    ],
    "OneCycle": [
        ("up and down", {"cycle_min_lr": 1e-4, "cycle_max_lr": 1e-3, "cycle_first_step_size": 10}),
        ("uneven, then decaying", {"cycle_min_lr": 1e-4, "cycle_max_lr": 1e-3, "cycle_first_step_size": 10,
                                   "cycle_second_step_size": 20, "decay_step_size": 5, "decay_lr_rate": 0.5}),
        ("in stairs", {"cycle_min_lr": 0.0, "cycle_max_lr": 1e-3, "cycle_first_step_size": 12,
                       "cycle_first_stair_count": 3, "cycle_second_stair_count": 4}),
    ],
    "LRRangeTest": [
        ("continuous", {"lr_range_test_min_lr": 1e-4, "lr_range_test_step_size": 10}),
        ("staircase", {"lr_range_test_min_lr": 1e-4, "lr_range_test_step_size": 7, "lr_range_test_step_rate": 0.3,
                       "lr_range_test_staircase": True}),
    ],
}  # fmt: skip

_COSINE = {"shape": "cosine", "eta_min": 1e-5}
# Native schedules of which DeepSpeed's own scheduler applies every update.
_NATIVE: list[tuple[str, dict[str, Any], Params]] = [
    ("cosine, warm-up 10", {"steps": 10}, _COSINE),
    ("cosine, warm-up 3", {"steps": 3}, _COSINE),
    ("cosine from the peak, log warm-up 10", {"steps": 10, "shape": "log"}, {**_COSINE, "ends_at_min": False}),
    ("cosine from the peak, warm-up 2", {"steps": 2}, {**_COSINE, "ends_at_min": False}),
    ("constant, warm-up 10", {"steps": 10}, {"shape": "constant"}),
    ("constant, no warm-up", {"steps": 0}, {"shape": "constant"}),
    ("linear from the peak, warm-up 10", {"steps": 10}, {"shape": "linear", "ends_at_min": False}),
    ("linear from the peak, warm-up 1", {"steps": 1}, {"shape": "linear", "ends_at_min": False}),
    (
        "wsd, log warm-up 10",
        {"steps": 10, "shape": "log"},
        {"shape": "wsd", "decay_steps": 29, "ends_at_min": False},
    ),
]
# Schedules that DeepSpeed cannot apply itself: the torch form in its engine.
_TORCH_FORM: list[tuple[str, dict[str, Any], Params]] = [
    ("cosine, no warm-up", {"steps": 0}, _COSINE),
    ("cosine restart", {"steps": 5}, {"shape": "cosine", "t_max": 7, "after": "restart", "cycle_mult": 2}),
    ("polynomial", {"steps": 5}, {"shape": "polynomial", "power": 2}),
    ("step", {"steps": 5}, {"shape": "step", "step_size": 7, "gamma": 0.5}),
    ("multistep", {"steps": 5}, {"shape": "multistep", "milestones": [5, 20]}),
    ("exponential", {"steps": 5}, {"shape": "exponential", "gamma": 0.9}),
    ("inverse_sqrt", {"steps": 5}, {"shape": "inverse_sqrt", "timescale": 9}),
    ("one_cycle", {}, {"shape": "one_cycle", "up_steps": 12}),
    ("piecewise", {"steps": 5}, {"shape": "piecewise", "pieces": [{"steps": 9, "decay": _COSINE}, {"peak_ratio": 0.5}]}),
]  # fmt: skip


def _schedule(warmup: dict[str, Any], decay: Params) -> Schedule:
    return Schedule.from_dict({"peak_lr": PEAK, "total_steps": 40, "warmup": warmup, "decay": decay})


def _dialect_row(kind: str, name: str, params: Params) -> Row:
    block = {"type": kind, "params": params}
    schedule = functools.partial(from_deepspeed, block, PEAK)
    updates = max(30, -(-schedule().total_steps * 6 // 5))
    return Row(f"{kind}, {name}", f"deepspeed.{kind}", "deepspeed", schedule, block=block, updates=updates)


def _native_row(name: str, warmup: dict[str, Any], decay: Params) -> Row:
    schedule = functools.partial(_schedule, warmup, decay)
    block = schedule().to_deepspeed()
    return Row(f"{name} -> {block['type']}", decay["shape"], "deepspeed", schedule, block=block)


def _torch_form_row(name: str, warmup: dict[str, Any], decay: Params) -> Row:
    schedule = functools.partial(_schedule, warmup, decay)
    return Row(f"{name} -> torch form in the engine", decay["shape"], "deepspeed", schedule)


ROWS: list[Row] = [
    *(_dialect_row(kind, name, params) for kind, cases in _DIALECT.items() for name, params in cases),
    *(_native_row(*case) for case in _NATIVE),
    *(_torch_form_row(*case) for case in _TORCH_FORM),
]
