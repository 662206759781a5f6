"""What the tests of the transformers dialect and form share: a real loop, and any call of get_scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import schedule_cases  # noqa: F401 (it loads hypothesis' profile)
import torch
from hypothesis import strategies as st

from lrsched.dialects.transformers_shapes import SHAPES
from lrsched.proof.row import PEAK

KINDS = [shape.partition(".")[2] for shape in SHAPES]


def used(scheduler: Callable[[torch.optim.Optimizer], Any], updates: int, peak: float = PEAK) -> np.ndarray:
    """What a real scheduler gives each update of a real torch loop."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    bound, lrs = scheduler(optimizer), []
    for _ in range(updates):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        bound.step()
    return np.array(lrs)


def largest(one: np.ndarray, other: np.ndarray, peak: float = PEAK) -> float:
    return float(np.abs(one - other).max() / peak)


CYCLES = {"num_cycles": st.floats(-3.0, 30.0) | st.sampled_from([0.5, 1, 2, 7, 22, 0, 0.25])}
FLOORS = st.sampled_from(["min_lr", "min_lr_rate"]).flatmap(
    lambda name: st.fixed_dictionaries({name: st.floats(-1e-4, 2e-3) if name == "min_lr" else st.floats(-0.1, 1.5)})
)
SHAPED = st.sampled_from(["linear", "cosine", "1-sqrt"])
KEYWORDS: dict[str, Any] = {
    "linear": st.just({}),
    "constant": st.just({}),
    "constant_with_warmup": st.just({}),
    "cosine": st.fixed_dictionaries({}, optional=CYCLES),
    "cosine_with_restarts": st.fixed_dictionaries({}, optional=CYCLES),
    "inverse_sqrt": st.fixed_dictionaries({}, optional={"timescale": st.integers(1, 200)}),
    "polynomial": st.fixed_dictionaries(
        {},
        optional={
            "lr_end": st.floats(-1e-3, 9.99e-4),
            "power": st.floats(0.0, 6.0) | st.sampled_from([0.5, 1, 1.5, 2, 3]),
        },
    ),
    "cosine_with_min_lr": st.builds(dict, FLOORS, **CYCLES),
    "cosine_warmup_with_min_lr": st.builds(
        lambda *parts: {key: value for part in parts for key, value in part.items()},
        FLOORS,
        st.fixed_dictionaries({}, optional={**CYCLES, "warmup_lr_rate": st.floats(0.0, 2.0)}),
    ),
    "warmup_stable_decay": st.fixed_dictionaries(
        {"num_decay_steps": st.integers(0, 80)},
        optional={
            **CYCLES,
            "num_stable_steps": st.integers(-20, 40),
            "warmup_type": SHAPED,
            "decay_type": SHAPED,
            "min_lr_ratio": st.floats(-0.1, 1.5),
        },
    ),
}


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, int, int, dict[str, Any]]:
    """Any call of get_scheduler that transformers survives."""
    kind = draw(st.sampled_from(KINDS))
    warmup, training = draw(st.integers(0, 60)), draw(st.integers(0, 60))
    if kind == "polynomial" and training == warmup:
        training += 1
    return kind, warmup, training, draw(KEYWORDS[kind])
