"""Any scheduler of torch's, alone and in others, against torch's own loop."""

from __future__ import annotations

import contextlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from torch_cases import ANY, ANY_LEAF, LEAVES, LENGTHS, NAMES, PLAIN_LEAF, chains, followed, leaf, real, sequences

from lrsched import Schedule, ScheduleError
from lrsched.dialects.from_torch import from_torch
from lrsched.dialects.torch_base import TorchShape
from lrsched.dialects.torch_recursion import recursion
from lrsched.dialects.torch_shapes import ChainedScheduler, CosineAnnealingLR, SequentialLR
from lrsched.numeric import LARGEST_K
from lrsched.proof.row import PEAK, TOLERANCE
from lrsched.proof.torch_rows import sgd

UPDATES = 60


def assert_applied(schedule: Schedule, used: list[float]) -> None:
    """``used`` is what the schedule says, within the tolerance (of the lr itself where that is above the peak)."""
    off = np.abs(schedule.lr(np.arange(len(used))) - used)
    allowed = TOLERANCE * np.maximum(PEAK, np.abs(used))
    assert (off <= allowed).all(), f"k={int((off / allowed).argmax())}: {off.max()}"


def check(shape: TorchShape) -> None:
    """The shape is what torch applies, or refused because torch raises an error within the run."""
    used, error = followed(shape, UPDATES)
    # OneCycleLR's own end is no fault of the schedule.
    if error is not None and "Tried to step" not in str(error):
        with pytest.raises(ScheduleError):
            Schedule(PEAK, UPDATES, decay=shape)
        return
    schedule = Schedule(PEAK, UPDATES, decay=shape)
    assert_applied(schedule, used)
    assert Schedule.from_yaml(schedule.to_yaml()) == schedule
    assert "\n" not in schedule.describe()
    # The recursion in plain Python is torch's, to the last bit.
    again = recursion(shape, PEAK).at(np.arange(len(used)))
    assert np.abs(again - used).max() <= 1e-16
    # A OneCycleLR or CyclicLR may set the initial lr to 0, or change it after others have read it.
    with contextlib.suppress(InitialLrIsGone):
        assert_applied(read(shape), used)


class InitialLrIsGone(Exception):
    """from_torch refuses a group whose initial lr says nothing."""


def read(shape: TorchShape) -> Schedule:
    try:
        return from_torch(real(shape, sgd(PEAK)), UPDATES)
    except ScheduleError as error:
        if error.field == "peak_lr" or "initial lr" in error.problem:
            raise InitialLrIsGone from error
        raise


@pytest.mark.parametrize("name", LEAVES)
@given(data=st.data())
def test_any_scheduler(name: str, data: st.DataObject) -> None:
    check(data.draw(leaf(name)))


@given(sequences(PLAIN_LEAF))
def test_any_sequence(shape: TorchShape) -> None:
    check(shape)


@given(sequences(ANY_LEAF))
def test_any_sequence_with_odd_lengths(shape: TorchShape) -> None:
    check(shape)


@given(chains(PLAIN_LEAF))
def test_any_chain(shape: TorchShape) -> None:
    check(shape)


@given(chains(ANY_LEAF))
def test_any_chain_with_odd_lengths(shape: TorchShape) -> None:
    check(shape)


@given(ANY)
def test_anything_in_anything(shape: TorchShape) -> None:
    check(shape)


def runs(shape: TorchShape) -> bool:
    """Whether torch raises no error, however long the run."""
    ending = shape.ending(anew=False)
    return ending is None or not ending.problem


FACTORS = ["ConstantLR", "LinearLR", "StepLR", "MultiStepLR", "ExponentialLR"]


@given(chains(st.sampled_from(FACTORS).flatmap(lambda name: leaf(name, LENGTHS))), st.integers(0, 2**62))
def test_products_need_no_recursion(shape: TorchShape, k: int) -> None:
    assert isinstance(shape, ChainedScheduler)
    assume(runs(shape))
    schedule = Schedule(PEAK, 1, decay=shape)
    product = PEAK * math.prod(float(one.scale(np.array([k]), anew=False)[0]) for one in shape.schedulers)
    # 0 times infinity is what nobody asks for.
    assume(math.isfinite(product))
    assert schedule.lr(k) == pytest.approx(product, rel=1e-14)


@given(st.integers(-20, 20).filter(bool), st.integers(-12, 12).filter(bool))
def test_products_of_cosines_end_at_their_first_zero(one: int, other: int) -> None:
    check(ChainedScheduler([CosineAnnealingLR(one), CosineAnnealingLR(other)]))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data(), steps=st.integers(1, UPDATES))
def test_the_middle_of_a_run_tells_the_same(name: str, data: st.DataObject, steps: int) -> None:
    members = {"SequentialLR": sequences(PLAIN_LEAF), "ChainedScheduler": chains(PLAIN_LEAF)}
    shape = data.draw(members[name] if name in members else leaf(name, LENGTHS))
    used, _ = followed(shape, steps)
    optimizer = sgd(PEAK)
    try:
        scheduler = real(shape, optimizer)
        fresh = from_torch(scheduler, UPDATES)
    except (ScheduleError, ZeroDivisionError):
        return
    # As many steps as torch makes without an error.
    for _ in range(len(used) - 1):
        optimizer.step()
        scheduler.step()
    assert from_torch(scheduler, UPDATES) == fresh


@pytest.mark.parametrize("name", LEAVES)
@given(data=st.data())
def test_numbers_and_arrays_agree_however_far(name: str, data: st.DataObject) -> None:
    shape = data.draw(leaf(name, LENGTHS))
    assume(runs(shape))
    schedule = Schedule(PEAK, 1, decay=shape)
    ks = data.draw(st.lists(st.integers(0, 100) | st.integers(0, LARGEST_K), min_size=1, max_size=5))
    np.testing.assert_array_equal(schedule.lr(np.array(ks)), [schedule.lr(k) for k in ks])
    assert schedule.lr(10**30) == schedule.lr(LARGEST_K)


@pytest.mark.parametrize("milestones", [list(one) for one in itertools.product((0, 1, 5, 9), repeat=2)])
def test_every_order_of_milestones(milestones: list[int]) -> None:
    check(SequentialLR([CosineAnnealingLR(7, 1e-5), CosineAnnealingLR(4), CosineAnnealingLR(9, 1e-4)], milestones))
