"""``from_torch``: every scheduler of torch's is what its own loop applies, or refused by name."""

from __future__ import annotations

import copy
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.optim import lr_scheduler as lrs
from torch_cases import NAMES, used

from lrsched import Schedule, ScheduleError, from_torch
from lrsched.dialects.from_torch import REFUSED
from lrsched.dialects.torch_recursion import LONGEST
from lrsched.dialects.torch_shapes import SHAPES
from lrsched.proof.row import PEAK, TOLERANCE, Row
from lrsched.proof.run import updates_of
from lrsched.proof.torch_rows import ROWS, chain, made, sequence, sgd, stopped

Make = Callable[[torch.optim.Optimizer], Any]
UP = made("LinearLR", start_factor=0.1, total_iters=5)
COSINE = made("CosineAnnealingLR", T_max=30, eta_min=1e-5)
STEPS = made("StepLR", step_size=7, gamma=0.5)
ONE_CYCLE = made("OneCycleLR", max_lr=PEAK, total_steps=40)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(row: Row) -> None:
    schedule, updates = row.schedule(), updates_of(row)
    assert row.scheduler is not None
    assert updates >= 1.2 * schedule.total_steps
    off = np.abs(schedule.lr(np.arange(updates)) - used(row.scheduler, updates, row.peak_lr)[:, 0])
    assert off.max() <= TOLERANCE * row.peak_lr
    # Where torch computes no learning rate from the one before, only the last roundings differ.
    if "formula" in row.name or any(kind in row.name for kind in ("WarmRestarts", "CyclicLR", "OneCycleLR")):
        assert off.max() <= 1e-15 * row.peak_lr
    assert Schedule.from_yaml(schedule.to_yaml()) == schedule


def test_every_class_of_the_installed_torch_is_proven_or_refused() -> None:
    found = {name for name, one in vars(lrs).items() if inspect.isclass(one) and issubclass(one, lrs.LRScheduler)}
    bases = {"LRScheduler", "_LRScheduler"}
    refused = {"LambdaLR", "MultiplicativeLR", "ReduceLROnPlateau"}
    assert found == {*NAMES, *refused, *bases}
    assert refused < set(REFUSED)
    assert set(SHAPES) == {row.shape for row in ROWS if "." in row.shape}


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_of_the_installed_torch_is_known(name: str) -> None:
    theirs = set(inspect.signature(getattr(lrs, name)).parameters) - {"optimizer", "last_epoch"}
    # What moves the momentum, what only says total_steps in another way, and Python functions.
    theirs -= {"cycle_momentum", "base_momentum", "max_momentum", "epochs", "steps_per_epoch", "scale_fn", "scale_mode"}
    assert theirs == set(SHAPES[f"torch.{name}"].__dataclass_fields__)  # type: ignore[attr-defined]


NATIVE: list[tuple[Make, int, dict[str, Any]]] = [
    (made("ConstantLR", factor=1.0), 20, {"decay": {"shape": "constant"}}),
    (made("ConstantLR", factor=0.5, total_iters=8), 20, {
        "decay": {"shape": "piecewise", "pieces": [{"steps": 8, "peak_ratio": 0.5}, {}]}}),
    (UP, 20, {"warmup": {"steps": 5, "start_ratio": 0.1}}),
    (made("LinearLR", start_factor=1.0, end_factor=0.1, total_iters=15), 20, {
        "decay": {"shape": "linear", "decay_steps": 15, "eta_min": 1e-4, "ends_at_min": False}}),
    (made("PolynomialLR", total_iters=20, power=2.0), 20, {
        "decay": {"shape": "polynomial", "power": 2.0, "ends_at_min": False}}),
    (STEPS, 20, {"decay": {"shape": "step", "step_size": 7, "gamma": 0.5}}),
    (made("MultiStepLR", milestones=[9, 3, 3]), 20, {"decay": {"shape": "multistep", "milestones": [3, 3, 9]}}),
    (made("ExponentialLR", gamma=0.9), 20, {"decay": {"shape": "exponential", "gamma": 0.9}}),
    (made("CosineAnnealingLR", T_max=12), 20, {
        "decay": {"shape": "cosine", "t_max": 12, "after": "rise", "ends_at_min": False}}),
    (made("CosineAnnealingLR", T_max=90), 20, {
        "decay": {"shape": "cosine", "t_max": 90, "after": "rise", "ends_at_min": False, "allow_unfinished": True}}),
    (made("CosineAnnealingWarmRestarts", T_0=4, T_mult=2, eta_min=1e-5), 20, {
        "decay": {"shape": "cosine", "t_max": 4, "after": "restart", "cycle_mult": 2, "eta_min": 1e-5}}),
    (sequence([5], UP, COSINE), 35, {
        "warmup": {"steps": 5, "start_ratio": 0.1},
        "decay": {"shape": "cosine", "eta_min": 1e-5, "after": "rise", "ends_at_min": False}}),
    (sequence([5, 12], UP, STEPS, COSINE), 42, {
        "warmup": {"steps": 5, "start_ratio": 0.1},
        "decay": {"shape": "piecewise", "pieces": [
            {"steps": 7, "decay": {"shape": "step", "step_size": 7, "gamma": 0.5}},
            {"decay": {"shape": "cosine", "eta_min": 1e-5, "after": "rise", "ends_at_min": False}}]}}),
    (sequence([6, 9], made("MultiStepLR", milestones=[2, 8]), UP, STEPS), 20, {
        "decay": {"shape": "piecewise", "pieces": [
            {"steps": 6, "decay": {"shape": "multistep", "milestones": [2]}},
            {"steps": 3, "warmup": {"steps": 5, "start_ratio": 0.1}},
            {"decay": {"shape": "step", "step_size": 7, "gamma": 0.5}}]}}),
    (chain(STEPS), 20, {"decay": {"shape": "step", "step_size": 7, "gamma": 0.5}}),
]  # fmt: skip


@pytest.mark.parametrize(("make", "total", "mapping"), NATIVE)
def test_native_where_there_is_an_equal_one(make: Make, total: int, mapping: dict[str, Any]) -> None:
    schedule = from_torch(make(sgd(PEAK)), total)
    try:
        native = Schedule.from_dict({"peak_lr": PEAK, "total_steps": total, **mapping})
    except ScheduleError:
        # A warm-up that its piece cuts off has no native form.
        assert schedule.decay.shape == "torch.SequentialLR"
    else:
        assert schedule == native


SPANS = [
    (made("ConstantLR", factor=0.5, total_iters=8), 8),
    (made("MultiStepLR", milestones=[3, 9]), 10),
    (made("ExponentialLR", gamma=0.9), 1),
    (COSINE, 30),
    (made("CosineAnnealingWarmRestarts", T_0=7, T_mult=2), 7),
    (made("CyclicLR", base_lr=1e-4, max_lr=1e-3, step_size_up=8, step_size_down=3), 11),
    (ONE_CYCLE, 40),
    (sequence([5], UP, COSINE), 35),
    (chain(UP, COSINE), 30),
]


@pytest.mark.parametrize(("make", "total"), SPANS)
def test_the_numbers_say_how_long_the_run_is(make: Make, total: int) -> None:
    assert from_torch(make(sgd(PEAK))).total_steps == total


RUNS = {row.name: row for row in ROWS if "." in row.shape}


@pytest.mark.parametrize("name", RUNS)
def test_only_read_also_in_the_middle_of_a_run(name: str) -> None:
    optimizer, row = sgd(PEAK), RUNS[name]
    scheduler = row.scheduler(optimizer)  # type: ignore[misc]
    scheduler = getattr(scheduler, "scheduler", scheduler)
    for _ in range(17):
        optimizer.step()
        scheduler.step()
    state, groups = copy.deepcopy(scheduler.state_dict()), copy.deepcopy(optimizer.param_groups)
    assert from_torch(scheduler, total_steps=40) == row.schedule()
    assert scheduler.state_dict() == state
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in groups]


def test_the_step_after_the_end_of_a_one_cycle() -> None:
    lr = used(stopped(ONE_CYCLE, 40), 41)[:, 0]
    assert lr[40] > lr[39], "it climbs"
    schedule = from_torch(ONE_CYCLE(sgd(PEAK)))
    assert schedule.lr(40) == pytest.approx(lr[40], rel=1e-13)
    assert schedule.lr(10**9) == schedule.lr(40)
    with pytest.raises(ValueError, match="Tried to step 41 times"):
        used(ONE_CYCLE, 41)


def test_peak_is_the_initial_lr_of_the_group() -> None:
    assert from_torch(ONE_CYCLE(sgd(0.5))).peak_lr == PEAK / 25
    assert from_torch(made("CyclicLR", base_lr=1e-4, max_lr=1e-3)(sgd(0.5))).peak_lr == 1e-4
    assert from_torch(STEPS(sgd(0.5))).peak_lr == 0.5


@pytest.mark.parametrize("make", [STEPS, COSINE, sequence([5], UP, STEPS), chain(UP, COSINE), ONE_CYCLE])
def test_learning_rates_may_be_tensors(make: Make) -> None:
    parameter, lr = torch.nn.Parameter(torch.zeros(1)), torch.tensor(PEAK, dtype=torch.float64)
    optimizer = torch.optim.AdamW([parameter], lr=lr, foreach=False)
    assert from_torch(make(optimizer), 40) == from_torch(make(sgd(PEAK)), 40)


def test_float32_learning_rates_are_what_they_are() -> None:
    lr = torch.tensor(PEAK)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=lr, foreach=False)
    scheduler = chain(UP, COSINE)(optimizer)
    for _ in range(9):
        optimizer.step()
        scheduler.step()
    schedule = from_torch(scheduler, 40)
    assert schedule.peak_lr == float(torch.tensor(PEAK))
    assert schedule.lr(9) == pytest.approx(float(lr), rel=1e-5)


@pytest.mark.parametrize("make", [STEPS, made("CosineAnnealingLR", T_max=9), sequence([5], UP, STEPS), ONE_CYCLE])
def test_groups_that_are_multiples_are_described_by_the_first(make: Make) -> None:
    schedule, lr = from_torch(make(sgd(PEAK, PEAK / 8, PEAK)), 40), used(stopped(make, 40), 40, PEAK, PEAK / 8, PEAK)
    assert np.abs(schedule.lr(np.arange(40)) - lr[:, 0]).max() <= TOLERANCE * PEAK


GROUPS: dict[str, Make] = {
    "eta_min": COSINE,
    "eta_min in a sequence": sequence([5], UP, COSINE),
    "a learning rate for each": made("OneCycleLR", max_lr=[PEAK, 3e-4], total_steps=40),
    "bounds for each": made("CyclicLR", base_lr=[1e-4, 1e-4], max_lr=[1e-3, 1e-2]),
}


@pytest.mark.parametrize("name", GROUPS)
def test_one_of_several_groups(name: str) -> None:
    make = GROUPS[name]
    lr = used(make, 40, PEAK, PEAK / 8)
    for group in (0, 1):
        schedule = from_torch(make(sgd(PEAK, PEAK / 8)), 40, group=group)
        assert np.abs(schedule.lr(np.arange(40)) - lr[:, group]).max() <= TOLERANCE * PEAK
    if name != "a learning rate for each":
        with pytest.raises(ScheduleError) as caught:
            from_torch(make(sgd(PEAK, PEAK / 8)), 40)
        assert str(caught.value) == (
            "group: the curves of groups 0 and 1 are not multiples of each other; pass group=0 or group=1 for that of one"
        )


def test_our_own_scheduler_gives_its_schedule() -> None:
    schedule = Schedule.from_dict({"peak_lr": PEAK, "total_steps": 20, "decay": {"shape": "cosine"}})
    assert from_torch(schedule.to_torch(sgd(PEAK))) is schedule


def test_a_scheduler_of_transformers() -> None:
    scheduler = transformers.get_scheduler("cosine", sgd(PEAK, PEAK / 8), 5, 40)
    schedule = from_torch(scheduler, group=1)
    assert (schedule.peak_lr, schedule.warmup.steps, schedule.decay.shape) == (PEAK / 8, 5, "cosine")
    assert from_torch(transformers.get_scheduler("constant", sgd(PEAK)), 9).decay.shape == "constant"
    mixed = lrs.LambdaLR(sgd(PEAK, PEAK), [scheduler.lr_lambdas[0], transformers.optimization._get_constant_lambda])
    with pytest.raises(ScheduleError, match="the parameter groups have different functions; pass group=i"):
        from_torch(mixed, 40)
    assert from_torch(mixed, 40, group=1).decay.shape == "constant"


def test_recursions_have_an_end() -> None:
    schedule = from_torch(chain(UP, COSINE)(sgd(PEAK)), 20)
    with pytest.raises(ScheduleError) as caught:
        schedule.lr(LONGEST + 1)
    assert str(caught.value) == (
        "k: 10000001 is beyond 10000000: these members of torch's have no closed form, so each update is computed from "
        "the one before; ask for less, or write the curve as a native shape"
    )


def test_sentences() -> None:
    schedule = from_torch(sequence([5], UP, made("CosineAnnealingLR", T_max=9, eta_min=2e-3))(sgd(PEAK)), 14)
    assert schedule.describe() == (
        "Torch's SequentialLR as it is applied: torch's LinearLR as it is applied (start_factor 0.1, end_factor 1.0, "
        "total_iters 5), from update 5 on torch's CosineAnnealingLR as it is applied (T_max 9, eta_min 0.002); 14 "
        f"updates in all, the first trains at 0.0001, the last (k=13) at {schedule.lr(13)!r}."
    )


def _yaml(**decay: Any) -> Schedule:
    return Schedule.from_dict({"peak_lr": PEAK, "total_steps": 20, "decay": decay})


def test_far_out_it_is_exact() -> None:
    cosine = _yaml(shape="torch.CosineAnnealingLR", T_max=1000, eta_min=2e-3)
    assert cosine.lr(2000 * 10**15 + 300) == cosine.lr(300)
    cyclic = _yaml(shape="torch.CyclicLR", base_lr=1e-4, max_lr=1e-3, step_size_up=3, step_size_down=4)
    assert cyclic.lr(7 * 10**17 + 2) == cyclic.lr(2)
    assert _yaml(shape="torch.ExponentialLR", gamma=1.5).lr(10**6) == math.inf
    assert functools.reduce(max, cyclic.lr(np.arange(50)).tolist()) == 1e-3
