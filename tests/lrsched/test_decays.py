"""Decay shapes against hand-made values and against torch's own schedulers in their own loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from schedule_cases import make
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    SequentialLR,
    StepLR,
)

from lrsched.decays import DECAYS, Decay

PEAK = 1e-3


def torch_lrs(updates: int, build: Callable[[torch.optim.Optimizer], LRScheduler]) -> list[float]:
    """The learning rate that torch's scheduler gives each update."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler, used = build(optimizer), []
    for _ in range(updates):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return used


def after_warmup(decay: Callable[[torch.optim.Optimizer], LRScheduler], steps: int, start: float) -> Any:
    return lambda optimizer: SequentialLR(
        optimizer, [LinearLR(optimizer, start_factor=start, total_iters=steps), decay(optimizer)], milestones=[steps]
    )


TORCH = {
    "step": ({"shape": "step", "step_size": 7, "gamma": 0.5}, lambda o: StepLR(o, 7, gamma=0.5)),
    "multistep": (
        {"shape": "multistep", "milestones": [0, 5, 20, 20, 21], "gamma": 0.3},
        lambda o: MultiStepLR(o, [0, 5, 20, 20, 21], gamma=0.3),
    ),
    "exponential": ({"shape": "exponential", "gamma": 0.93}, lambda o: ExponentialLR(o, 0.93)),
    "cosine": (
        {"shape": "cosine", "t_max": 30, "eta_min": 1e-5, "ends_at_min": False, "after": "rise"},
        lambda o: CosineAnnealingLR(o, 30, eta_min=1e-5),
    ),
    "cosine-short": (
        {"shape": "cosine", "t_max": 1, "after": "rise"},
        lambda o: CosineAnnealingLR(o, 1),
    ),
    "linear": (
        {"shape": "linear", "decay_steps": 30, "eta_min": PEAK / 4, "ends_at_min": False},
        lambda o: LinearLR(o, start_factor=1.0, end_factor=0.25, total_iters=30),
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_against_torch_also_past_the_end(name: str) -> None:
    decay, build = TORCH[name]
    ours = make(decay, warmup=0).lr(np.arange(150))
    # torch multiplies its way forward and drifts by roundings; ours does not.
    assert ours.tolist() == pytest.approx(torch_lrs(150, build), rel=1e-12, abs=1e-12 * PEAK)


@pytest.mark.parametrize("name", ["step", "exponential", "cosine"])
def test_against_torch_after_a_warmup(name: str) -> None:
    decay, build = TORCH[name]
    ours = make(decay, warmup={"steps": 10, "start_ratio": 0.1}).lr(np.arange(50))
    theirs = torch_lrs(50, after_warmup(build, 10, 0.1))
    assert ours.tolist() == pytest.approx(theirs, rel=1e-12, abs=1e-12 * PEAK)


def test_hold_that_starts_at_the_peak_is_torch_until_the_end() -> None:
    decay = {"shape": "cosine", "eta_min": 1e-5, "ends_at_min": False}
    ours = make(decay, warmup={"steps": 10, "start_ratio": 0.1})
    theirs = torch_lrs(50, after_warmup(lambda o: CosineAnnealingLR(o, 40, eta_min=1e-5), 10, 0.1))
    assert ours.lr(np.arange(50)).tolist() == pytest.approx(theirs, rel=1e-12, abs=1e-12 * PEAK)
    assert ours.lr(10) == PEAK
    assert ours.lr(50) == ours.lr(51) == ours.lr(10**9) == 1e-5 < ours.lr(49)


@pytest.mark.parametrize(
    ("decay", "wanted"),
    [
        ({"shape": "cosine", "t_max": 4}, [(2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4, 0, 0, 0]),
        (
            {"shape": "cosine", "t_max": 4, "ends_at_min": False},
            [1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4, 0, 0],
        ),
        ({"shape": "cosine", "t_max": 2, "after": "rise"}, [1, 0.5, 0, 0.5, 1, 0.5, 0]),
        ({"shape": "cosine", "t_max": 2, "after": "rise", "ends_at_min": True}, [0.5, 0, 0.5, 1, 0.5, 0, 0.5]),
        ({"shape": "cosine", "t_max": 2, "after": "restart"}, [1, 0.5, 1, 0.5, 1]),
        ({"shape": "cosine", "t_max": 2, "after": "restart", "eta_min": 0.5}, [1, 0.75, 1, 0.75, 1]),
        ({"shape": "cosine", "t_max": 1}, [0, 0]),
        ({"shape": "cosine", "t_max": 1, "after": "restart"}, [1, 1]),
        ({"shape": "linear", "decay_steps": 4}, [0.75, 0.5, 0.25, 0, 0]),
        ({"shape": "linear", "decay_steps": 4, "ends_at_min": False, "eta_min": 0.2}, [1, 0.8, 0.6, 0.4, 0.2, 0.2]),
        ({"shape": "step", "step_size": 2}, [1, 1, 0.1, 0.1, 0.01]),
        ({"shape": "multistep", "milestones": [1, 3, 3], "gamma": 0.5}, [1, 0.5, 0.5, 0.125, 0.125]),
        ({"shape": "multistep", "milestones": []}, [1, 1]),
        ({"shape": "exponential", "gamma": 0.5}, [1, 0.5, 0.25, 0.125]),
        ({"shape": "constant"}, [1, 1, 1]),
    ],
)
@pytest.mark.parametrize("warmup", [0, 3])
def test_values(decay: dict[str, Any], wanted: list[float], warmup: int) -> None:
    schedule = make(decay, peak_lr=1.0, warmup=warmup)
    assert [schedule.lr(warmup + j) for j in range(len(wanted))] == pytest.approx(wanted, rel=4e-16, abs=2e-16)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize(
    ("peak", "floor"), [(1e-3, 1e-5), (3e-4, 0.0), (3e-4, 3e-4 * 0.1), (0.3, 0.03), (7e-3, 2.59e-3), (7e-3, 7e-3)]
)
def test_ends_are_exact(shape: str, peak: float, floor: float) -> None:
    """Peak and eta_min are applied to the last bit; floor + (peak - floor) may miss the peak."""
    ends = make({"shape": shape, "eta_min": floor}, peak_lr=peak)
    starts = make({"shape": shape, "eta_min": floor, "ends_at_min": False}, peak_lr=peak)
    assert ends.lr(ends.total_steps - 1) == ends.lr(np.array([ends.total_steps - 1]))[0] == floor
    assert starts.lr(5) == starts.lr(np.array([5]))[0] == peak
    assert starts.lr(starts.total_steps) == floor


def test_restart_is_the_formula() -> None:
    lr_max, period = 0.3, 17
    schedule = make({"shape": "cosine", "t_max": period, "after": "restart"}, peak_lr=lr_max, warmup=0)
    for step in range(300):
        wanted = 0.5 * lr_max * (1 + math.cos(math.pi * (step % period) / period))
        assert abs(schedule.lr(step) - wanted) <= 1e-15 * lr_max
        assert (schedule.lr(step) == lr_max) == (step % period == 0)


@pytest.mark.parametrize("after", ["rise", "restart"])
def test_cycles_are_exact_at_huge_k(after: str) -> None:
    schedule = make({"shape": "cosine", "t_max": 7, "after": after}, warmup=0)
    period = 14 if after == "rise" else 7
    for far in (period * 10**6, period * 10**15, period * 10**40):
        assert [schedule.lr(far + j) for j in range(14)] == [schedule.lr(j) for j in range(14)]


def test_powers_end_at_zero_and_nowhere_else() -> None:
    schedule = make({"shape": "exponential", "gamma": 0.9999999999999999}, warmup=0)
    assert 0.0 < schedule.lr(2**60) < PEAK
    assert schedule.lr(10**400) == 0.0
    assert make({"shape": "exponential", "gamma": 1.0}).lr(10**400) == PEAK


def test_unfinished_decay_is_cut_off() -> None:
    cut = make({"shape": "cosine", "t_max": 1000, "allow_unfinished": True}, total_steps=50)
    whole = make({"shape": "cosine"}, total_steps=1005)
    assert cut.lr(np.arange(50)).tolist() == whole.lr(np.arange(50)).tolist()
    assert cut.to_dict()["decay"]["allow_unfinished"] is True
    assert "allow_unfinished" not in whole.to_dict()["decay"]


@pytest.mark.parametrize("shape", DECAYS)
def test_a_shape_is_documented(shape: str) -> None:
    cls = DECAYS[shape]
    assert issubclass(cls, Decay)
    assert all(f"{name}:" in (cls.__doc__ or "") for name in cls.__dataclass_fields__), "every field has its line"
