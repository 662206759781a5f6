"""What the tests of the torch dialect share: torch's own loop, and any scheduler as a shape."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import schedule_cases  # noqa: F401 (it loads hypothesis' profile)
import torch
from hypothesis import strategies as st
from torch.optim import lr_scheduler as lrs

from lrsched.dialects import torch_shapes
from lrsched.dialects.torch_base import TorchShape
from lrsched.proof.row import PEAK
from lrsched.proof.torch_rows import sgd

NAMES = [shape.partition(".")[2] for shape in torch_shapes.SHAPES]
LEAVES = [name for name in NAMES if name not in ("SequentialLR", "ChainedScheduler")]


def real(shape: TorchShape, optimizer: torch.optim.Optimizer) -> Any:
    """The torch scheduler that a shape describes, its members built in their order."""
    name = type(shape).__name__
    kwargs = dict(vars(shape))
    if name in ("SequentialLR", "ChainedScheduler"):
        kwargs["schedulers"] = [real(member, optimizer) for member in kwargs["schedulers"]]
    if name in ("CyclicLR", "OneCycleLR"):
        kwargs["cycle_momentum"] = False
    if name == "ChainedScheduler":
        return lrs.ChainedScheduler(**kwargs, optimizer=optimizer)
    with warnings.catch_warnings():
        # torch misses an optimizer.step() before the second of two first steps that it makes itself.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        return getattr(lrs, name)(optimizer, **kwargs)


def used(make: Callable[[torch.optim.Optimizer], Any], updates: int, *rates: Any) -> np.ndarray:
    """What a real loop applies: a row for each update, a column for each group."""
    optimizer, lrs_ = sgd(*(rates or (PEAK,))), []
    scheduler = make(optimizer)
    for _ in range(updates):
        lrs_.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return np.array(lrs_)


def followed(shape: TorchShape, updates: int, peak: float = PEAK) -> tuple[list[float], Exception | None]:
    """What torch's loop applies at each update, and the error that ends it, if one does."""
    used: list[float] = []
    optimizer = sgd(peak)
    try:
        scheduler = real(shape, optimizer)
        for _ in range(updates):
            used.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    except (ArithmeticError, NotImplementedError, ValueError) as error:
        return used, error
    return used, None


LENGTHS = st.integers(1, 25)
# What torch takes without a word.
ODD_LENGTHS = LENGTHS | st.integers(-6, 0) | st.floats(0.5, 9.0).map(lambda x: round(x, 2))
GAMMAS = st.floats(0.5, 1.05) | st.sampled_from([0.1, 0.5, 0.9, 1.0]) | st.floats(-1.0, 1.0)
FLOORS = st.sampled_from([0.0, 0.0, 1e-5, 1e-4, 2e-3, -1e-4])
RATES = st.floats(0.0, 3e-3)


def fields_of(name: str, lengths: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    """Strategies for the fields of a scheduler without members."""
    parts = st.floats(0.0, 1.0)
    return {
        # From a factor whose product with the lr is rounded to nothing torch cannot go back.
        "ConstantLR": {"factor": st.just(0.0) | st.floats(1e-6, 1.0), "total_iters": lengths},
        "LinearLR": {"start_factor": st.floats(0.01, 1.0) | st.just(1.0), "end_factor": parts, "total_iters": lengths},
        "PolynomialLR": {"total_iters": lengths, "power": st.floats(0.1, 3.0) | st.sampled_from([1.0, 2.0, 0.0, -1.0])},
        "StepLR": {"step_size": lengths, "gamma": GAMMAS},
        "MultiStepLR": {"milestones": st.lists(st.integers(0, 12) | lengths, max_size=5), "gamma": GAMMAS},
        "ExponentialLR": {"gamma": GAMMAS},
        "CosineAnnealingLR": {"T_max": lengths, "eta_min": FLOORS},
        "CosineAnnealingWarmRestarts": {"T_0": st.integers(1, 12), "T_mult": st.integers(1, 3), "eta_min": FLOORS},
        "CyclicLR": {
            "base_lr": RATES,
            "max_lr": RATES,
            "step_size_up": lengths,
            "step_size_down": st.none() | st.just(0) | lengths,
            "mode": st.sampled_from(["triangular", "triangular2", "exp_range"]),
            "gamma": st.floats(0.8, 1.02),
        },
        "OneCycleLR": {
            "max_lr": st.floats(1e-4, 3e-3),
            "total_steps": st.integers(2, 40),
            # 0.01 of at most 40 updates is not 1, where torch divides by zero.
            "pct_start": st.floats(0.11, 0.99).map(lambda x: round(x, 2) + 0.001) | st.sampled_from([0.0, 0.01]),
            "anneal_strategy": st.sampled_from(["cos", "linear"]),
            "div_factor": st.sampled_from([25.0, 1.0, 10.0]),
            "final_div_factor": st.sampled_from([1e4, 1.0]),
            "three_phase": st.booleans(),
        },
    }[name]


def leaf(name: str, lengths: st.SearchStrategy[Any] = ODD_LENGTHS) -> st.SearchStrategy[TorchShape]:
    """Any scheduler of a class without members."""
    cls: Any = torch_shapes.SHAPES[f"torch.{name}"]
    return st.builds(cls, **fields_of(name, lengths))


@st.composite
def sequences(draw: st.DrawFn, members: st.SearchStrategy[TorchShape]) -> TorchShape:
    """A SequentialLR; equal milestones, zeros and disorder included."""
    schedulers = draw(st.lists(members, min_size=1, max_size=4))
    milestones = draw(st.lists(st.integers(0, 30), min_size=len(schedulers) - 1, max_size=len(schedulers) - 1))
    if draw(st.integers(0, 7)):
        milestones.sort()
    return torch_shapes.SequentialLR(schedulers, milestones)


def chains(members: st.SearchStrategy[TorchShape]) -> st.SearchStrategy[TorchShape]:
    """A ChainedScheduler."""
    return st.lists(members, min_size=1, max_size=3).map(torch_shapes.ChainedScheduler)


ANY_LEAF = st.sampled_from(LEAVES).flatmap(leaf)
PLAIN_LEAF = st.sampled_from(LEAVES).flatmap(lambda name: leaf(name, LENGTHS))
# Members that have members of their own, to a depth of three.
ANY = st.recursive(ANY_LEAF, lambda members: sequences(members) | chains(members), max_leaves=6)
