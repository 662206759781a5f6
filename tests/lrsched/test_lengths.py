"""Lengths with units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lrsched import Schedule, ScheduleError
from lrsched.lengths import Units


@pytest.mark.parametrize(
    ("text", "updates"),
    [
        (500, 500),
        (np.int32(7), 7),
        ("500", 500),
        (" 500 steps ", 500),
        ("1 step", 1),
        ("0", 0),
        ("3%", 30),
        ("3 %", 30),
        ("100%", 1000),
        ("150%", 1500),
        ("0%", 0),
        ("0.1%", 1),
        ("0.05%", 1),  # half an update: upwards
        ("0.14%", 1),
        ("0.25%", 3),  # two and a half: upwards
        ("33.3%", 333),
        ("1 epoch", 8),  # 7.5 updates: upwards
        ("2 epochs", 15),
        ("0.5 epochs", 4),  # 3.75
        ("0.1 epochs", 1),  # 0.75
    ],
)
def test_values(text: Any, updates: int) -> None:
    assert Units(total_steps=1000, steps_per_epoch=7.5).resolve(text, "x") == updates


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0.01%", "x: '0.01%' is 0.1 updates, which rounds to 0; write 0 or 1 instead"),
        ("0.01 epochs", "x: '0.01 epochs' is 0.075 updates, which rounds to 0; write 0 or 1 instead"),
        (
            "2.5 steps",
            "x: '2.5 steps' is not a whole number of updates; write a whole number of updates such as 500, or '3%', or '2 epochs'",
        ),
        ("5 days", "x: '5 days' is not a length; write a whole number of updates such as 500, or '3%', or '2 epochs'"),
        ("-3%", "x: '-3%' is not a length; write a whole number of updates such as 500, or '3%', or '2 epochs'"),
        ("1e4", "x: '1e4' is not a length; write a whole number of updates such as 500, or '3%', or '2 epochs'"),
        ("", "x: '' is not a length; write a whole number of updates such as 500, or '3%', or '2 epochs'"),
        ("٣", "x: '٣' is not a length; write a whole number of updates such as 500, or '3%', or '2 epochs'"),
        (float("nan"), "x: nan is not a length; write a whole number of updates such as 500, or '3%', or '2 epochs'"),
        (
            np.float32(0.25),
            f"x: {np.float32(0.25)!r} is not a length; write '25%' for that part of total_steps, or a whole number of updates",
        ),
        ([5], "x: [5] is not a length; write a whole number of updates such as 500, or '3%', or '2 epochs'"),
    ],
)
def test_refusals(text: Any, says: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        Units(total_steps=1000, steps_per_epoch=7.5).resolve(text, "x")
    assert str(caught.value) == says


@pytest.mark.parametrize("per_epoch", [0, -1, float("nan"), float("inf"), True, "12"])
def test_bad_steps_per_epoch(per_epoch: Any) -> None:
    with pytest.raises(ScheduleError) as caught:
        Schedule.from_dict({"peak_lr": 1, "total_steps": 5}, steps_per_epoch=per_epoch)
    assert str(caught.value) == (
        f"steps_per_epoch: {per_epoch!r} is not a number of optimizer updates; give a positive number"
    )


def test_a_whole_schedule_in_units() -> None:
    schedule = Schedule.from_dict(
        {
            "peak_lr": 1e-3,
            "total_steps": "3 epochs",
            "warmup": {"steps": "10%"},
            "decay": {"shape": "multistep", "milestones": ["1 epoch", "50%"]},
        },
        steps_per_epoch=33.5,
    )
    # 3 x 33.5 = 100.5, 10% of 101 = 10.1, half of 101 = 50.5
    assert (schedule.total_steps, schedule.warmup.steps) == (101, 10)
    assert schedule.to_dict()["decay"]["milestones"] == [34, 51]
