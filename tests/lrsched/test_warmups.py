"""Warm-up shapes against values worked out by hand."""

from __future__ import annotations

import math

import pytest
from schedule_cases import make


@pytest.mark.parametrize(
    ("warmup", "wanted"),
    [
        ({"steps": 4}, [0.0, 0.25, 0.5, 0.75, 1.0]),
        ({"steps": 4, "start_ratio": 0.2}, [0.2, 0.4, 0.6, 0.8, 1.0]),
        ({"steps": 2, "start_ratio": 1.0}, [1.0, 1.0, 1.0]),
        ({"steps": 1}, [0.0, 1.0]),
        ({"steps": 0}, [1.0]),
        ({"steps": 4, "shape": "log"}, [0.0, 0.0, 0.5, math.log(3) / math.log(4), 1.0]),
        (
            {"steps": 4, "shape": "log", "start_ratio": 0.5},
            [0.5, 0.5, 0.75, 0.5 + 0.5 * math.log(3) / math.log(4), 1.0],
        ),
        ({"steps": 1, "shape": "log"}, [0.0, 1.0]),
        ({"steps": 2, "shape": "log"}, [0.0, 0.0, 1.0]),
        ({"steps": 4, "shape": "cosine"}, [0.0, (1 - math.sqrt(0.5)) / 2, 0.5, (1 + math.sqrt(0.5)) / 2, 1.0]),
        ({"steps": 2, "shape": "cosine", "start_ratio": 0.2}, [0.2, 0.6, 1.0]),
    ],
)
def test_values(warmup: dict[str, object], wanted: list[float]) -> None:
    schedule = make(peak_lr=1.0, warmup=warmup)
    # The last value is the decay's first: the constant peak.
    assert [schedule.lr(k) for k in range(len(wanted))] == pytest.approx(wanted, rel=3e-16, abs=3e-16)
    assert schedule.lr(len(wanted) - 1) == 1.0


def test_scales_with_the_peak() -> None:
    assert make(peak_lr=3e-4, warmup=3).lr(1) == 3e-4 * (1 / 3)
