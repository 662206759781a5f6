"""Schedules for all tests of lrsched: one of every kind, and a hypothesis strategy for all."""

from __future__ import annotations

from typing import Any

import hypothesis
from hypothesis import strategies as st

from lrsched import Schedule

# The machine may be busy: how long one example takes says nothing.
hypothesis.settings.register_profile("lrsched", deadline=None, max_examples=60, database=None)
hypothesis.settings.load_profile("lrsched")

DECAYS: dict[str, dict[str, Any]] = {
    "constant": {"shape": "constant"},
    "cosine": {"shape": "cosine", "eta_min": 1e-5},
    "cosine-early": {"shape": "cosine", "t_max": 20, "eta_min": 1e-5},
    "cosine-from-peak": {"shape": "cosine", "ends_at_min": False},
    "cosine-rise": {"shape": "cosine", "t_max": 7, "eta_min": 1e-5, "after": "rise"},
    "cosine-restart": {"shape": "cosine", "t_max": 7, "eta_min": 1e-5, "after": "restart"},
    "linear": {"shape": "linear", "eta_min": 1e-5},
    "linear-from-peak": {"shape": "linear", "decay_steps": 30, "ends_at_min": False},
    "step": {"shape": "step", "step_size": 7, "gamma": 0.5},
    "multistep": {"shape": "multistep", "milestones": [5, 20, 21], "gamma": 0.3},
    "exponential": {"shape": "exponential", "gamma": 0.9},
}


def make(decay: Any = None, *, peak_lr: Any = 1e-3, total_steps: Any = 50, warmup: Any = 5, **more: Any) -> Schedule:
    """A schedule of 50 updates, 5 of them warm-up, unless said otherwise."""
    mapping = {"peak_lr": peak_lr, "total_steps": total_steps, **more}
    mapping["warmup"] = warmup if isinstance(warmup, dict) else {"steps": warmup}
    if decay is not None:
        mapping["decay"] = DECAYS[decay] if isinstance(decay, str) else decay
    return Schedule.from_dict(mapping)


@st.composite
def schedules(draw: st.DrawFn, longest: int = 200) -> Schedule:
    """Any schedule that can be written."""
    total = draw(st.integers(1, longest))
    steps = draw(st.integers(0, total))
    left = total - steps
    peak = draw(st.floats(1e-8, 10.0))
    floor = peak * draw(st.floats(0.0, 1.0))
    gamma = draw(st.floats(0.01, 1.0))
    shapes = ["constant", "step", "exponential", "multistep", "cosine", "linear"]
    shape = draw(st.sampled_from(shapes[: 6 if left else 4]))
    decay: dict[str, Any] = {"shape": shape}
    if shape == "cosine":
        after = draw(st.sampled_from(["hold", "rise", "restart"]))
        decay |= {"t_max": draw(st.integers(1, left)), "eta_min": min(floor, peak), "after": after}
        if after != "restart":
            decay["ends_at_min"] = draw(st.booleans())
    elif shape == "linear":
        decay |= {"decay_steps": draw(st.integers(1, left)), "eta_min": min(floor, peak)}
        decay["ends_at_min"] = draw(st.booleans())
    elif shape == "step":
        decay |= {"step_size": draw(st.integers(1, longest)), "gamma": gamma}
    elif shape == "multistep":
        milestones = draw(st.lists(st.integers(0, left - 1), max_size=4)) if left else []
        decay |= {"milestones": sorted(milestones), "gamma": gamma}
    elif shape == "exponential":
        decay |= {"gamma": gamma}
    kind = draw(st.sampled_from(["linear", "log", "cosine"]))
    warmup = {"steps": steps, "shape": kind, "start_ratio": draw(st.floats(0.0, 1.0))}
    return make(decay, peak_lr=peak, total_steps=total, warmup=warmup)
