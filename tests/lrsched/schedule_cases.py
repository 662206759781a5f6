"""Schedules for all tests of lrsched: one of every kind, and a hypothesis strategy for all."""

from __future__ import annotations

from typing import Any

import hypothesis
from hypothesis import strategies as st

from lrsched import Schedule

# The machine may be busy: how long one example takes says nothing.
hypothesis.settings.register_profile("lrsched", deadline=None, max_examples=100, database=None)
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
    "cosine-cycles": {"shape": "cosine", "t_max": 5, "after": "restart", "cycle_mult": 2, "cycle_gamma": 0.7},
    "polynomial": {"shape": "polynomial", "power": 2, "eta_min": 1e-5},
    "polynomial-root": {"shape": "polynomial", "power": 0.3, "ends_at_min": False},
    "inverse-sqrt": {"shape": "inverse_sqrt", "timescale": 12},
    "inverse-sqrt-at-once": {"shape": "inverse_sqrt", "hold": False},
    "wsd": {"shape": "wsd", "decay_steps": 12, "eta_min": 1e-5},
    "wsd-sqrt": {"shape": "wsd", "decay_steps": 45, "decay_shape": "1-sqrt", "ends_at_min": False},
    "wsd-cosine": {"shape": "wsd", "decay_steps": 9, "decay_shape": "cosine"},
    "one-cycle": {"shape": "one_cycle", "up_steps": 15},
    "one-cycle-three": {"shape": "one_cycle", "up_steps": 15, "anneal": "linear", "three_phase": True},
    "piecewise": {
        "shape": "piecewise",
        "pieces": [
            {"steps": 20, "decay": {"shape": "cosine", "eta_min": 1e-5}},
            {"steps": 10, "peak_ratio": 0.5, "warmup": {"steps": 4}, "decay": {"shape": "linear"}},
            {"peak_ratio": 0.01},
        ],
    },
}
# Shapes that never rise (cosine: with after: hold).
FALLING = ("constant", "cosine", "linear", "polynomial", "step", "multistep", "exponential", "inverse_sqrt", "wsd")


def make(decay: Any = None, *, peak_lr: Any = 1e-3, total_steps: Any = 50, warmup: Any = 5, **more: Any) -> Schedule:
    """A schedule of 50 updates, 5 of them warm-up, unless said otherwise or the shape brings its own rise."""
    mapping = {"peak_lr": peak_lr, "total_steps": total_steps, **more}
    if isinstance(decay, str) and decay.startswith("one-cycle"):
        warmup = 0
    mapping["warmup"] = warmup if isinstance(warmup, dict) else {"steps": warmup}
    if decay is not None:
        mapping["decay"] = DECAYS[decay] if isinstance(decay, str) else decay
    return Schedule.from_dict(mapping)


@st.composite
def decays(draw: st.DrawFn, left: int, longest: int, peak: float, inside: bool = False) -> dict[str, Any]:
    """A decay that can stand in ``left`` updates; ``inside`` a piece: not a piecewise one again."""
    floor = min(peak * draw(st.floats(0.0, 1.0)), peak)
    gamma = draw(st.floats(0.01, 1.0))
    shapes = ["constant", "step", "exponential", "multistep", "inverse_sqrt"]
    shapes += ["cosine", "linear", "polynomial", "wsd"] if left else []
    shapes += ["piecewise"] if left and not inside else []
    shape = draw(st.sampled_from(shapes))
    decay: dict[str, Any] = {"shape": shape}
    if shape == "cosine":
        after = draw(st.sampled_from(["hold", "rise", "restart"]))
        decay |= {"t_max": draw(st.integers(1, left)), "eta_min": floor, "after": after}
        if after != "restart":
            decay["ends_at_min"] = draw(st.booleans())
        else:
            decay |= {"cycle_mult": draw(st.integers(1, 3)), "cycle_gamma": draw(st.floats(0.01, 1.0))}
    elif shape in ("linear", "polynomial"):
        decay |= {"decay_steps": draw(st.integers(1, left)), "eta_min": floor, "ends_at_min": draw(st.booleans())}
        if shape == "polynomial":
            decay["power"] = draw(st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]) | st.floats(0.1, 5.0))
    elif shape == "wsd":
        decay |= {"decay_steps": draw(st.integers(1, left)), "eta_min": floor, "ends_at_min": draw(st.booleans())}
        decay["decay_shape"] = draw(st.sampled_from(["linear", "cosine", "1-sqrt"]))
    elif shape == "inverse_sqrt":
        decay |= {"timescale": draw(st.none() | st.integers(1, 2 * longest)), "hold": draw(st.booleans())}
    elif shape == "step":
        decay |= {"step_size": draw(st.integers(1, longest)), "gamma": gamma}
    elif shape == "multistep":
        milestones = draw(st.lists(st.integers(0, left - 1), max_size=4)) if left else []
        decay |= {"milestones": sorted(milestones), "gamma": gamma}
    elif shape == "exponential":
        decay |= {"gamma": gamma}
    elif shape == "piecewise":
        decay |= {"pieces": draw(pieces(left, longest, peak))}
    return decay


@st.composite
def pieces(draw: st.DrawFn, left: int, longest: int, peak: float) -> list[dict[str, Any]]:
    """One to three pieces that fill ``left`` updates."""
    cuts = sorted(draw(st.sets(st.integers(1, left - 1), max_size=2))) if left > 1 else []
    made = []
    for start, stop in zip([0, *cuts], [*cuts, left], strict=True):
        steps, ratio = stop - start, draw(st.floats(0.0, 1.0))
        warm = draw(st.integers(0, steps))
        decay = draw(decays(steps - warm, longest, peak * ratio, inside=True))
        made.append({"steps": steps, "peak_ratio": ratio, "warmup": draw(warmups(warm)), "decay": decay})
    return made


@st.composite
def warmups(draw: st.DrawFn, steps: int) -> dict[str, Any]:
    kind = draw(st.sampled_from(["linear", "log", "cosine"]))
    return {"steps": steps, "shape": kind, "start_ratio": draw(st.floats(0.0, 1.0))}


@st.composite
def schedules(draw: st.DrawFn, longest: int = 200) -> Schedule:
    """Any schedule that can be written in native shapes."""
    total = draw(st.integers(1, longest))
    peak = draw(st.floats(1e-8, 10.0))
    if total >= 4 and draw(st.integers(0, 9)) == 0:
        ratios = sorted([draw(st.floats(0.0, 1.0)), draw(st.floats(0.0, 1.0))])
        three = draw(st.booleans())
        decay = {"shape": "one_cycle", "start_ratio": ratios[1], "end_ratio": ratios[0], "three_phase": three}
        decay |= {"up_steps": draw(st.integers(2, total // 2)), "anneal": draw(st.sampled_from(["cosine", "linear"]))}
        return make(decay, peak_lr=peak, total_steps=total, warmup=0)
    steps = draw(st.integers(0, total))
    decay = draw(decays(total - steps, longest, peak))
    return make(decay, peak_lr=peak, total_steps=total, warmup=draw(warmups(steps)))
