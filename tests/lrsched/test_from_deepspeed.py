"""``from_deepspeed`` against the real classes, and back and forth."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from deepspeed.runtime import lr_schedules
from hypothesis import given
from hypothesis import strategies as st
from schedule_cases import make, schedules

from lrsched import NotExpressible, Schedule, ScheduleError, from_deepspeed
from lrsched.dialects.deepspeed_shapes import SHAPES
from lrsched.guard import native_scheduler

PEAK = 1e-3
MOMENTUM = {"cycle_momentum", "cycle_min_mom", "cycle_max_mom", "decay_mom_rate"}


def used_by_the_class(block: dict[str, Any], updates: int, lr: float = PEAK) -> np.ndarray:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler, used = native_scheduler(block, optimizer), []
    for _ in range(updates):
        used.append(optimizer.param_groups[0]["lr"])
        scheduler.step()
    return np.array(used)


_lr, _ratio = st.floats(0.0, 3e-3), st.floats(0.0, 1.0)
_steps, _kind = st.integers(1, 30), st.sampled_from(["log", "linear"])
_size = _steps | st.floats(0.5, 30.0)
BLOCKS = {
    "WarmupLR": {"warmup_min_lr": _lr, "warmup_max_lr": _lr, "warmup_num_steps": _steps, "warmup_type": _kind},
    "WarmupDecayLR": {
        "total_num_steps": _steps,
        "warmup_min_lr": _lr,
        "warmup_max_lr": _lr,
        "warmup_num_steps": _steps,
        "warmup_type": _kind,
    },
    "WarmupCosineLR": {
        "total_num_steps": _steps,
        "warmup_min_ratio": _ratio,
        "warmup_num_steps": _steps,
        "cos_min_ratio": _ratio,
        "warmup_type": _kind,
    },
    "OneCycle": {
        "cycle_min_lr": _lr,
        "cycle_max_lr": _lr,
        "decay_lr_rate": _ratio,
        "cycle_first_step_size": _size,
        "cycle_second_step_size": _size | st.none(),
        "cycle_first_stair_count": st.integers(0, 5),
        "cycle_second_stair_count": st.integers(0, 5) | st.none(),
        "decay_step_size": st.just(0) | _size,
    },
    "LRRangeTest": {
        "lr_range_test_min_lr": _lr,
        "lr_range_test_step_size": _steps,
        "lr_range_test_step_rate": _ratio,
        "lr_range_test_staircase": st.booleans(),
    },
}


def test_every_scheduler_and_parameter_of_the_installed_deepspeed_is_known() -> None:
    assert {name.partition(".")[2] for name in SHAPES} == set(lr_schedules.VALID_LR_SCHEDULES) == set(BLOCKS)
    for name, parameters in BLOCKS.items():
        theirs = set(inspect.signature(getattr(lr_schedules, name)).parameters)
        ours = set(SHAPES[f"deepspeed.{name}"].__dataclass_fields__)
        assert ours == theirs - {"optimizer", "last_batch_iteration"} - MOMENTUM == set(parameters)


def test_defaults_are_deepspeeds() -> None:
    for name, cls in SHAPES.items():
        signature = inspect.signature(getattr(lr_schedules, name.partition(".")[2])).parameters
        for field in cls.__dataclass_fields__.values():
            theirs = signature[field.name].default
            if theirs is not inspect.Parameter.empty and field.name != "warmup_max_lr":
                assert field.default == theirs, f"{name}.{field.name}"


@pytest.mark.parametrize("kind", BLOCKS)
@given(data=st.data())
def test_any_block_is_what_the_class_applies(kind: str, data: st.DataObject) -> None:
    optional = {"warmup_max_lr"} if kind != "WarmupCosineLR" else set()
    params = data.draw(st.fixed_dictionaries(BLOCKS[kind]))
    for name in optional & set(params):
        if data.draw(st.booleans()):
            del params[name]
    if params.get("cycle_second_stair_count") == 0 and params.get("decay_step_size"):
        params["decay_lr_rate"] = data.draw(_ratio)
    block = {"type": kind, "params": params}
    schedule = from_deepspeed(block, PEAK)
    updates = max(30, schedule.total_steps * 6 // 5 + 2)
    off = np.abs(used_by_the_class(block, updates) - schedule.lr(np.arange(updates)))
    # The stairs of OneCycle are cut from a quotient; at a stair's edge the two may fall on
    # different sides only if they differ before rounding, which they do not.
    assert off.max() <= 1e-12 * PEAK
    assert Schedule.from_yaml(schedule.to_yaml()) == schedule


@given(schedules(longest=60))
def test_to_deepspeed_then_from_deepspeed_is_the_identity(schedule: Schedule) -> None:
    try:
        block = schedule.to_deepspeed()
    except NotExpressible:
        return
    back = from_deepspeed(block, schedule.peak_lr, schedule.total_steps)
    k = np.arange(schedule.total_steps)
    assert np.abs(back.lr(k) - schedule.lr(k)).max() <= 2e-15 * schedule.peak_lr
    assert (back.peak_lr, back.total_steps) == (schedule.peak_lr, schedule.total_steps)


@pytest.mark.parametrize(
    ("decay", "warmup"),
    [
        ("cosine", 5),
        ("cosine", 3),
        ("cosine-early", 17),
        ("cosine-from-peak", {"steps": 5, "shape": "log"}),
        ("cosine-from-peak", 2),
        ("linear-from-peak", 10),
        ({"shape": "linear", "ends_at_min": False, "eta_min": 1e-4}, {"steps": 10, "start_ratio": 0.1}),
        ("constant", {"steps": 5, "shape": "log"}),
        ("constant", {"steps": 5, "shape": "log", "start_ratio": 0.2}),
        ("constant", 0),
    ],
)
def test_the_very_definition_comes_back(decay: Any, warmup: Any) -> None:
    schedule = make(decay, warmup=warmup)
    assert from_deepspeed(schedule.to_deepspeed(), 1e-3, 50) == schedule


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_dialect_goes_back_to_its_block(kind: str) -> None:
    params = {
        "WarmupLR": {"warmup_max_lr": 2e-3, "warmup_num_steps": 5},
        "WarmupDecayLR": {"total_num_steps": 30, "warmup_max_lr": 2e-3, "warmup_num_steps": 5},
        "WarmupCosineLR": {"total_num_steps": 30, "warmup_num_steps": 5, "warmup_type": "linear"},
        "OneCycle": {"cycle_min_lr": 1e-4, "cycle_max_lr": 2e-3, "cycle_first_step_size": 7, "cycle_momentum": False},
        "LRRangeTest": {"lr_range_test_step_size": 5},
    }[kind]
    schedule = from_deepspeed({"type": kind, "params": params}, PEAK)
    assert schedule.decay.shape == f"deepspeed.{kind}"
    block = schedule.to_deepspeed()
    assert block["type"] == kind
    assert params.items() <= block["params"].items()
    assert from_deepspeed(block, PEAK) == schedule


def test_quirks() -> None:
    linear = {"total_num_steps": 20, "warmup_num_steps": 5, "warmup_type": "linear", "cos_min_ratio": 0.1}
    schedule = from_deepspeed({"type": "WarmupCosineLR", "params": linear}, 1.0)
    assert [round(schedule.lr(k), 4) for k in range(8)] == [0.0, 0.0, 0.2, 0.4, 0.6, 0.8, 0.9902, 0.9611]
    one = from_deepspeed({"type": "WarmupLR", "params": {"warmup_num_steps": 1, "warmup_type": "linear"}}, 1.0)
    assert [one.lr(k) for k in range(4)] == [0.0, 0.0, 0.5, 1.0], "a warm-up of 1 is taken as 2"
    fallen = from_deepspeed({"type": "WarmupDecayLR", "params": {"total_num_steps": 20, "warmup_num_steps": 5}})
    assert fallen.peak_lr == 0.001, "the default, whatever the optimizer says"
    assert fallen.lr(5) == fallen.lr(6) == 0.001 > fallen.lr(7), "the peak twice"


def test_total_steps() -> None:
    block = {"type": "WarmupCosineLR", "params": {"total_num_steps": 99, "warmup_num_steps": 9}}
    assert from_deepspeed(block, PEAK).total_steps == 99
    assert from_deepspeed(block, PEAK, 50).total_steps == 50
    assert from_deepspeed({"type": "WarmupLR", "params": {"warmup_num_steps": 9}}, PEAK).total_steps == 10


REFUSED: list[tuple[Any, Any, str]] = [
    ({"type": "WarmupCosine"}, PEAK, "scheduler.type: unknown DeepSpeed scheduler 'WarmupCosine'; did you mean 'WarmupCosineLR'? known: WarmupLR, WarmupDecayLR, WarmupCosineLR, OneCycle, LRRangeTest"),
    ({}, PEAK, "scheduler.type: unknown DeepSpeed scheduler None; known: WarmupLR, WarmupDecayLR, WarmupCosineLR, OneCycle, LRRangeTest"),
    ([], PEAK, "scheduler: [] is not a mapping; write key: value pairs"),
    ({"type": "WarmupLR", "parms": {}}, PEAK, "scheduler.parms: unknown key 'parms'; did you mean 'params'? known: type, params"),
    ({"type": "WarmupLR", "params": {"warmup_steps": 3}}, PEAK, "scheduler.params.warmup_steps: unknown key 'warmup_steps'; did you mean 'warmup_num_steps'? known: warmup_min_lr, warmup_max_lr, warmup_num_steps, warmup_type"),
    ({"type": "WarmupLR", "params": {"warmup_num_steps": "auto"}}, PEAK, "scheduler.params.warmup_num_steps: 'auto' is filled in by transformers' Trainer at its start; write the number"),
    ({"type": "WarmupLR", "params": {"warmup_max_lr": [1e-3, 1e-4]}}, PEAK, "scheduler.params.warmup_max_lr: [0.001, 0.0001] has one value per group; describe one group at a time"),
    ({"type": "WarmupLR", "params": {"last_batch_iteration": 5}}, PEAK, "scheduler.params.last_batch_iteration: 5 starts the schedule in its middle; leave it out, and start at the k you want instead: lr(k) is the same for every start"),
    ({"type": "WarmupLR", "params": {"warmup_num_steps": 0}}, PEAK, "scheduler.params.warmup_num_steps: 0 is too short; it must be at least 1"),
    ({"type": "WarmupLR", "params": {"warmup_num_steps": 2.5}}, PEAK, "scheduler.params.warmup_num_steps: 2.5 is not a length; write a whole number of updates such as 500, or '3%', or '2 epochs'"),
    ({"type": "WarmupCosineLR", "params": {}}, PEAK, "scheduler.params.total_num_steps: is missing; it has no default"),
    ({"type": "WarmupDecayLR", "params": {}}, PEAK, "scheduler.params.total_num_steps: is missing; it has no default"),
    ({"type": "WarmupCosineLR", "params": {"total_num_steps": 9}}, None, "peak_lr: is missing: WarmupCosineLR multiplies the optimizer's learning rate; pass it"),
    ({"type": "OneCycle", "params": {"cycle_min_lr": 0, "cycle_max_lr": 1, "cycle_first_step_size": 0}}, PEAK, "scheduler.params.cycle_first_step_size: 0.0 is not above 0; DeepSpeed refuses it"),
]  # fmt: skip


@pytest.mark.parametrize(("block", "peak", "says"), REFUSED)
def test_refusals(block: Any, peak: Any, says: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        from_deepspeed(block, peak)
    assert str(caught.value) == says


def test_initialize_kwargs_refuses_a_second_schedule() -> None:
    with pytest.raises(ScheduleError) as caught:
        make("cosine").initialize_kwargs(config={"scheduler": {"type": "WarmupLR"}})
    assert str(caught.value) == (
        "config.scheduler: stands beside this schedule, and one would win unseen; take it out of the config"
    )


def test_initialize_kwargs_leaves_the_config_alone() -> None:
    config = {"train_batch_size": 8}
    given_back = make("cosine").initialize_kwargs(config=config)["config"]
    assert config == {"train_batch_size": 8}
    assert given_back == {"train_batch_size": 8, "scheduler": make("cosine").to_deepspeed()}
