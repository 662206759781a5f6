"""transformers as a form: that it applies what we say it can, and what it cannot."""

from __future__ import annotations

import pickle
import time
from functools import partial
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schedule_cases import DECAYS, make, schedules
from transformers_cases import calls, largest, used

from lrsched import NotExpressible, Schedule
from lrsched.dialects.base import Dialect
from lrsched.dialects.from_transformers import from_transformers
from lrsched.proof.row import PEAK, TOLERANCE
from lrsched.proof.transformers_rows import trainer_scheduler
from lrsched.transformers_form import training_arguments


def back(arguments: dict[str, Any]) -> Schedule:
    """The schedule of TrainingArguments fields."""
    return from_transformers(
        arguments["lr_scheduler_type"],
        peak_lr=arguments["learning_rate"],
        num_warmup_steps=arguments["warmup_steps"],
        num_training_steps=arguments["max_steps"],
        **arguments["lr_scheduler_kwargs"],
    )


def same(schedule: Schedule) -> float:
    """How far the schedule that comes back may be: a few roundings, or what transformers' arithmetic loses."""
    return schedule.decay.rounding() if isinstance(schedule.decay, Dialect) else 1e-15


@st.composite
def likely(draw: st.DrawFn) -> Schedule:
    """A schedule of a kind that transformers may know."""
    total = draw(st.integers(2, 80))
    steps, peak = draw(st.integers(0, total - 1)), draw(st.floats(1e-6, 10.0))
    ratio = draw(st.sampled_from([0.0, 0.0, 0.1, 1.0]) | st.floats(0.0, 1.0))
    floor, left = min(ratio * peak, peak), total - steps
    shape = draw(st.sampled_from(["constant", "cosine", "linear", "polynomial", "wsd", "inverse_sqrt"]))
    decay: dict[str, Any] = {"shape": shape}
    if shape == "inverse_sqrt":
        decay |= {"timescale": draw(st.none() | st.just(steps or 3)), "hold": draw(st.booleans())}
    elif shape != "constant":
        decay |= {"eta_min": floor, "ends_at_min": draw(st.booleans())}
        length = draw(st.just(left) | st.integers(1, left))
        decay["t_max" if shape == "cosine" else "decay_steps"] = length
    if shape == "cosine":
        decay["after"] = draw(st.sampled_from(["hold", "rise", "restart"]))
        if decay["after"] == "restart":
            decay["ends_at_min"] = False
    if shape == "polynomial":
        decay["power"] = draw(st.sampled_from([0.5, 1.0, 2.0, 3.0]))
    if shape == "wsd":
        decay["decay_shape"] = draw(st.sampled_from(["linear", "cosine", "1-sqrt"]))
    start = draw(st.sampled_from([0.0, 0.0, ratio, 0.25]))
    warmup = {"steps": steps, "shape": draw(st.sampled_from(["linear", "linear", "cosine"])), "start_ratio": start}
    return make(decay, peak_lr=peak, total_steps=total, warmup=warmup)


@given(likely() | schedules(longest=60))
def test_whatever_is_called_expressible_is_applied(schedule: Schedule) -> None:
    peak, k = schedule.peak_lr, np.arange(schedule.total_steps)
    wanted = schedule.lr(k)
    try:
        arguments, reason = training_arguments(schedule), None
    except NotExpressible as error:
        arguments, reason = error.block, error
    real = used(partial(trainer_scheduler, arguments), len(k), peak)
    if reason is None:
        assert largest(real, wanted, peak) <= TOLERANCE
        assert largest(back(arguments).lr(k), wanted, peak) <= same(back(arguments))
        return
    assert reason.wanted == wanted[reason.k]
    assert reason.native == pytest.approx(real[reason.k], rel=0.0, abs=TOLERANCE * peak)
    assert abs(reason.native - reason.wanted) > 1e-15 * peak
    assert np.abs(real - wanted)[: reason.k].max(initial=0.0) <= TOLERANCE * peak


@given(calls())
def test_a_call_as_trainer_makes_it_goes_back_exactly(call: tuple[str, int, int, dict[str, Any]]) -> None:
    kind, warmup, training, kwargs = call
    hypothesis.assume(training > 0)
    schedule = from_transformers(
        kind, peak_lr=PEAK, num_warmup_steps=warmup, num_training_steps=training, total_steps=training, **kwargs
    )
    k = np.arange(training)
    arguments = training_arguments(schedule)
    assert (arguments["learning_rate"], arguments["max_steps"]) == (PEAK, training)
    assert largest(back(arguments).lr(k), schedule.lr(k)) <= same(back(arguments))
    assert largest(used(partial(trainer_scheduler, arguments), training), schedule.lr(k)) <= TOLERANCE


def test_the_documented_arguments() -> None:
    schedule = make({"shape": "cosine", "eta_min": 1e-5, "after": "rise"}, total_steps=10000, warmup=500)
    assert training_arguments(schedule) == {
        "learning_rate": 1e-3,
        "max_steps": 10000,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr": 1e-5},
        "warmup_steps": 500,
    }


def test_a_cosine_that_ends_at_its_floor_is_a_stable_part_of_minus_one() -> None:
    arguments = training_arguments(make({"shape": "cosine"}))
    assert arguments["lr_scheduler_type"] == "warmup_stable_decay"
    assert arguments["lr_scheduler_kwargs"] == {"num_decay_steps": 45, "num_stable_steps": -1}
    assert arguments["warmup_steps"] == 5


def test_a_dialect_schedule_goes_back_as_it_came() -> None:
    schedule = from_transformers(
        "cosine_with_restarts", peak_lr=PEAK, num_warmup_steps=7, num_training_steps=40, num_cycles=3
    )
    assert schedule.decay.shape == "transformers.cosine_with_restarts"
    assert training_arguments(schedule) == {
        "learning_rate": PEAK,
        "max_steps": 40,
        "lr_scheduler_type": "cosine_with_restarts",
        "lr_scheduler_kwargs": {"num_cycles": 3},
        "warmup_steps": 7,
    }


# What differs first, and from which scheduler.
NOT_EXPRESSIBLE: dict[str, tuple[Any, Any, int, str]] = {
    "floor": (DECAYS["cosine"], 5, 5, "constant_with_warmup"),
    "log": (None, {"steps": 5, "shape": "log"}, 1, "constant_with_warmup"),
    "step": (DECAYS["step"], 5, 12, "constant_with_warmup"),
    "exponential": (DECAYS["exponential"], 5, 6, "constant_with_warmup"),
    "restart": (DECAYS["cosine-restart"], 5, 12, "cosine_with_min_lr"),
}


@pytest.mark.parametrize("name", NOT_EXPRESSIBLE)
def test_not_expressible_names_the_first_update_and_both_values(name: str) -> None:
    decay, warmup, k, kind = NOT_EXPRESSIBLE[name]
    schedule = make(decay, warmup=warmup)
    with pytest.raises(NotExpressible) as caught:
        training_arguments(schedule)
    error = caught.value
    assert (error.k, error.library, error.block["lr_scheduler_type"]) == (k, "transformers", kind)
    assert str(error) == (
        f"no scheduler of transformers applies this schedule: at update k={k} it asks for {schedule.lr(k)!r}, "
        f"the closest ({kind}) would train with {error.native!r}; "
        "hand the torch form to Trainer(optimizers=(optimizer, schedule.to_torch(optimizer)))"
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_restart_that_transformers_rounds_to_a_floor_is_found() -> None:
    """15/22 * 22 is a rounding below 15 as a float, so the 16th cycle begins with an update at 0."""
    schedule = make({"shape": "cosine", "t_max": 2, "after": "restart"}, total_steps=44, warmup=0)
    with pytest.raises(NotExpressible) as caught:
        training_arguments(schedule)
    assert (caught.value.k, caught.value.wanted) == (30, PEAK)
    assert caught.value.native < 1e-30


@pytest.mark.parametrize("cycles", [2, 5, 12, 21])
def test_restarts_are_expressible_within_the_rounding_of_transformers(cycles: int) -> None:
    schedule = make({"shape": "cosine", "t_max": 33, "after": "restart"}, total_steps=7 + 33 * cycles, warmup=7)
    arguments = training_arguments(schedule)
    assert arguments["lr_scheduler_kwargs"] == {"num_cycles": cycles}
    wanted = schedule.lr(np.arange(schedule.total_steps))
    assert largest(used(partial(trainer_scheduler, arguments), schedule.total_steps), wanted) <= 5e-16 * cycles


def test_a_million_updates_are_checked_quickly() -> None:
    schedule = make({"shape": "cosine", "after": "rise"}, total_steps=10**6, warmup=1000)
    start = time.process_time()
    training_arguments(schedule)
    assert time.process_time() - start < 3.0


def test_a_run_of_one_update() -> None:
    for decay in ({"shape": "cosine"}, {"shape": "linear", "ends_at_min": False}, {"shape": "constant"}):
        schedule = make(decay, total_steps=1, warmup=0)
        assert back(training_arguments(schedule)).lr(0) == schedule.lr(0)
