"""The DeepSpeed block: our model of its schedulers, what is expressible, and what is not."""

from __future__ import annotations

import dataclasses
import pickle
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from schedule_cases import DECAYS, make, schedules

from lrsched import NotExpressible, Schedule, ScheduleError, deepspeed_backend
from lrsched.dialects.from_deepspeed import read_block
from lrsched.guard import native_scheduler


def native_lrs(block: dict[str, Any], updates: int, *lrs: float) -> list[list[float]]:
    """What the real DeepSpeed class gives the groups at each update."""
    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs], lr=lrs[0])
    scheduler, used = native_scheduler(block, optimizer), []
    for _ in range(updates):
        used.append([group["lr"] for group in optimizer.param_groups])
        scheduler.step()
    return used


MODELLED = [
    {
        "type": "WarmupCosineLR",
        "params": {
            "total_num_steps": total,
            "warmup_num_steps": steps,
            "warmup_min_ratio": start,
            "cos_min_ratio": floor,
            "warmup_type": kind,
        },
    }
    for total, steps in ((20, 5), (20, 1), (20, 2), (20, 20), (3, 7), (400, 90))
    for start, floor in ((0.0, 0.1), (0.25, 0.0), (1.0, 1.0))
    for kind in ("linear", "log")
] + [
    {
        "type": "WarmupLR",
        "params": {
            "warmup_min_lr": low,
            "warmup_max_lr": 1e-3,
            "warmup_num_steps": steps,
            "warmup_type": kind,
        },
    }
    for steps in (1, 2, 9)
    for low in (0.0, 3e-4, 1e-3)
    for kind in ("linear", "log")
]


@pytest.mark.parametrize("block", MODELLED, ids=lambda block: "-".join(map(str, block["params"].values())))
def test_model_is_deepspeed(block: dict[str, Any]) -> None:
    real = native_lrs(block, 500, 1e-3)
    modelled = read_block(block).values(np.arange(500), 1e-3).tolist()
    assert modelled == pytest.approx([one for (one,) in real], rel=0.0, abs=3e-19)


def test_the_documented_block() -> None:
    schedule = make({"shape": "cosine", "eta_min": 1e-5}, total_steps=10000, warmup=500)
    assert schedule.to_deepspeed() == {
        "type": "WarmupCosineLR",
        "params": {
            "total_num_steps": 9999,
            "warmup_min_ratio": 1 / 500,
            "warmup_num_steps": 499,
            "cos_min_ratio": 1e-5 / 1e-3,
            "warmup_type": "linear",
        },
    }


LOG = {"steps": 5, "shape": "log"}
FROM_PEAK = DECAYS["cosine-from-peak"]
EXPRESSIBLE: dict[str, tuple[Any, Any, str]] = {
    "design": (DECAYS["cosine"], 5, "WarmupCosineLR"),
    "three-warmup-updates": (DECAYS["cosine"], 3, "WarmupCosineLR"),
    "early": (DECAYS["cosine-early"], 5, "WarmupCosineLR"),
    "unfinished": ({"shape": "cosine", "t_max": 99, "allow_unfinished": True}, 5, "WarmupCosineLR"),
    "one-update": ({"shape": "cosine", "t_max": 1}, 5, "WarmupCosineLR"),
    "rise-that-is-not-reached": ({"shape": "cosine", "after": "rise", "ends_at_min": True}, 5, "WarmupCosineLR"),
    "two-warmup-updates": (FROM_PEAK, 2, "WarmupCosineLR"),
    "log": (FROM_PEAK, LOG, "WarmupCosineLR"),
    "constant": (None, 5, "WarmupCosineLR"),
    "constant-1": (None, 1, "WarmupCosineLR"),
    "constant-2": (None, 2, "WarmupCosineLR"),
    "constant-log": (None, LOG, "WarmupCosineLR"),
    "constant-0": (None, 0, "WarmupLR"),
    "constant-log-start": (None, {**LOG, "start_ratio": 0.2}, "WarmupLR"),
    "constant-all": (None, {"steps": 5, "start_ratio": 1.0}, "WarmupLR"),
    "only-warmup": (None, 50, "WarmupCosineLR"),
}


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_expressible_means_that_deepspeed_applies_it(name: str) -> None:
    decay, warmup, kind = EXPRESSIBLE[name]
    schedule = make(decay, warmup=warmup)
    block = schedule.to_deepspeed()
    assert block["type"] == kind
    used = [lr for (lr,) in native_lrs(block, 50, 1e-3)]
    assert used == pytest.approx(schedule.lr(np.arange(50)).tolist(), rel=0.0, abs=1e-15 * 1e-3)


@given(schedules(longest=60))
def test_whatever_is_called_expressible_is_applied(schedule: Schedule) -> None:
    peak = schedule.peak_lr
    reason = None
    try:
        block = schedule.to_deepspeed()
    except NotExpressible as error:
        reason, block = error, error.block
    used = np.array(native_lrs(block, schedule.total_steps, peak))[:, 0]
    wrong = np.flatnonzero(np.abs(used - schedule.lr(np.arange(schedule.total_steps))) > 1e-15 * peak)
    if reason is None:
        assert wrong.size == 0
    else:
        assert reason.k == wrong[0]
        assert reason.native == pytest.approx(used[reason.k], rel=1e-14)
        assert reason.wanted == schedule.lr(reason.k)


NOT_EXPRESSIBLE: dict[str, tuple[Any, Any, int]] = {
    "no-warmup": (DECAYS["cosine"], 0, 0),
    "one-warmup-update": (DECAYS["cosine"], 1, 1),
    "two-warmup-updates": (DECAYS["cosine"], 2, 2),
    "from-peak": (FROM_PEAK, 5, 5),
    "start-ratio": (DECAYS["cosine"], {"steps": 5, "start_ratio": 0.1}, 0),
    "log-to-min": (DECAYS["cosine"], LOG, 5),
    "cosine-warmup": (DECAYS["cosine"], {"steps": 5, "shape": "cosine"}, 1),
    "rise": (DECAYS["cosine-rise"], 5, 5),
    "restart": (DECAYS["cosine-restart"], 5, 5),
    "rise-after-the-end": ({"shape": "cosine", "t_max": 20, "after": "rise", "ends_at_min": True}, 5, 25),
    "linear": (DECAYS["linear"], 5, 5),
    "step": (DECAYS["step"], 5, 5),
    "multistep": (DECAYS["multistep"], 5, 5),
    "exponential": (DECAYS["exponential"], 5, 5),
}


@pytest.mark.parametrize("name", NOT_EXPRESSIBLE)
def test_not_expressible_names_the_first_update_and_both_values(name: str) -> None:
    decay, warmup, k = NOT_EXPRESSIBLE[name]
    schedule = make(decay, warmup=warmup)
    with pytest.raises(NotExpressible) as caught:
        schedule.to_deepspeed()
    error = caught.value
    assert error.k == k
    assert error.wanted == schedule.lr(k)
    assert [error.native] == pytest.approx(native_lrs(error.block, k + 1, 1e-3)[k], rel=1e-15)
    assert str(error) == (
        f"no native DeepSpeed scheduler applies this schedule: at update k={k} it asks for {error.wanted!r}, the "
        f"closest native form ({error.block['type']}) would train with {error.native!r}; "
        "use backend: torch (or auto), which applies the schedule exactly"
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_difference_in_the_last_update_is_found() -> None:
    """Two million equal updates, then one that rises."""
    schedule = make(
        {"shape": "cosine", "t_max": 2**21, "after": "rise", "ends_at_min": True}, total_steps=2**21 + 4, warmup=3
    )
    with pytest.raises(NotExpressible) as caught:
        schedule.to_deepspeed()
    assert caught.value.k == 2**21 + 3
    assert dataclasses.replace(schedule, total_steps=2**21 + 3).to_deepspeed()["type"] == "WarmupCosineLR"


def test_a_million_updates_are_checked_quickly() -> None:
    schedule = make({"shape": "cosine"}, total_steps=10**6, warmup=1000)
    start = time.process_time()
    schedule.to_deepspeed()
    assert time.process_time() - start < 3.0


def test_groups_keep_their_ratio_in_a_cosine_block() -> None:
    schedule = make("cosine")
    for k, used in enumerate(native_lrs(schedule.to_deepspeed(), 50, 1e-3, 1e-4)):
        assert used == pytest.approx([schedule.lr(k), schedule.lr(k) * 0.1], rel=0.0, abs=1e-18)


def test_backend_choice() -> None:
    cosine, from_peak = make("cosine"), make("cosine-from-peak")
    block = cosine.to_deepspeed()
    assert deepspeed_backend(cosine) == ("deepspeed", block)
    assert deepspeed_backend(dataclasses.replace(cosine, backend="deepspeed")) == ("deepspeed", block)
    assert deepspeed_backend(dataclasses.replace(cosine, backend="torch")) == ("torch", None)
    assert deepspeed_backend(cosine, [1e-3, 1e-4]) == ("deepspeed", block)
    assert deepspeed_backend(from_peak) == ("torch", None)
    with pytest.raises(NotExpressible, match=r"at update k=5 it asks for 0\.001"):
        deepspeed_backend(dataclasses.replace(from_peak, backend="deepspeed"))


def test_a_block_that_flattens_groups_is_not_taken_unasked() -> None:
    flat = make(warmup=0)
    block = flat.to_deepspeed()
    assert block["type"] == "WarmupLR"
    assert native_lrs(block, 3, 1e-3, 1e-4)[2] == [1e-3, 1e-3], "this is why"
    assert deepspeed_backend(flat) == ("torch", None)
    assert deepspeed_backend(flat, [1e-3, 1e-4]) == ("torch", None)
    assert deepspeed_backend(flat, [1e-3, 1e-3]) == ("deepspeed", block)
    asked = dataclasses.replace(flat, backend="deepspeed")
    assert deepspeed_backend(asked) == ("deepspeed", block)
    with pytest.raises(ScheduleError) as caught:
        deepspeed_backend(asked, [1e-3, 1e-4])
    assert str(caught.value) == (
        "backend: DeepSpeed's WarmupLR writes one learning rate into all parameter groups, but these have "
        "[0.001, 0.0001]; use backend: torch (or auto), which keeps their ratio"
    )
