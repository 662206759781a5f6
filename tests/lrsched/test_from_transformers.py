"""transformers' schedulers: that we apply what they do."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers_cases import KINDS, calls, largest, used

from lrsched import Schedule, ScheduleError
from lrsched.dialects.from_transformers import REFUSED, from_transformers, from_transformers_lambda
from lrsched.dialects.transformers_base import scheduler_fields, wave
from lrsched.dialects.transformers_shapes import SHAPES
from lrsched.proof.row import PEAK, TOLERANCE, Row
from lrsched.proof.run import updates_of
from lrsched.proof.transformers_rows import ROWS, real_scheduler

DIALECT_ROWS = [row for row in ROWS if row.shape in SHAPES]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(row: Row) -> None:
    updates = updates_of(row)
    schedule = row.schedule()
    assert updates >= schedule.total_steps
    assert largest(schedule.lr(np.arange(updates)), used(row.scheduler, updates)) <= TOLERANCE


def test_rows_have_names_of_their_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_every_type_of_the_installed_transformers_is_proved_or_refused() -> None:
    assert {kind.value for kind in transformers.SchedulerType} == {*KINDS, *REFUSED}
    assert {row.shape for row in DIALECT_ROWS} == set(SHAPES)


@pytest.mark.parametrize("kind", KINDS)
def test_every_keyword_of_the_installed_transformers_is_known(kind: str) -> None:
    import inspect

    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

    function = TYPE_TO_SCHEDULER_FUNCTION[transformers.SchedulerType(kind)]
    theirs = set(inspect.signature(function).parameters) - {"optimizer", "last_epoch"}
    assert theirs == set(scheduler_fields(SHAPES[f"transformers.{kind}"]))


@given(calls(), st.integers(1, 90))
def test_any_call_is_what_transformers_applies(call: tuple[str, int, int, dict[str, Any]], total: int) -> None:
    kind, warmup, training, kwargs = call
    schedule = from_transformers(
        kind, peak_lr=PEAK, num_warmup_steps=warmup, num_training_steps=training, total_steps=total, **kwargs
    )
    k = np.arange(total + total // 5 + 8)
    lrs = schedule.lr(k)
    assert largest(lrs, used(partial(real_scheduler, kind, warmup, training, kwargs), len(k))) <= TOLERANCE
    assert [schedule.lr(int(i)) for i in k] == lrs.tolist()
    assert Schedule.from_yaml(schedule.to_yaml()) == schedule
    assert math.isfinite(schedule.lr(10**30))


@given(calls())
def test_a_lambda_says_the_same_as_the_call_that_made_it(call: tuple[str, int, int, dict[str, Any]]) -> None:
    kind, warmup, training, kwargs = call
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    (function,) = real_scheduler(kind, warmup, training, kwargs, optimizer).lr_lambdas
    name = getattr(function, "func", function).__name__
    found = from_transformers_lambda(name, getattr(function, "keywords", {}), PEAK, 70)
    wanted = from_transformers(
        kind, peak_lr=PEAK, num_warmup_steps=warmup, num_training_steps=training, total_steps=70, **kwargs
    )
    assert largest(found.lr(np.arange(80)), wanted.lr(np.arange(80))) <= 1e-15


def test_the_lambda_of_a_group_with_an_lr_of_its_own() -> None:
    """lr_end and min_lr are parts of the optimizer's lr, so the group's floor is scaled along."""
    for kind, kwargs in (("polynomial", {"lr_end": 1e-4}), ("cosine_with_min_lr", {"min_lr": 1e-4})):
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (PEAK, PEAK / 4)]
        optimizer = torch.optim.SGD(groups, lr=PEAK)
        scheduler = real_scheduler(kind, 5, 40, kwargs, optimizer)
        function = scheduler.lr_lambdas[1]
        found = from_transformers_lambda(function.func.__name__, function.keywords, PEAK / 4, None)
        assert found.total_steps == 40
        for k in range(45):
            assert abs(optimizer.param_groups[1]["lr"] - found.lr(k)) <= TOLERANCE * PEAK
            optimizer.step()
            scheduler.step()


def test_two_functions_of_one_name_are_told_apart() -> None:
    name, run = "_get_cosine_schedule_with_warmup_lr_lambda", {"num_warmup_steps": 5, "num_training_steps": 40}
    plain = from_transformers_lambda(name, {**run, "num_cycles": 0.5}, PEAK)
    floored = from_transformers_lambda(name, {**run, "num_cycles": 0.5, "min_lr_rate": 0.1}, PEAK)
    assert (plain.lr(40), floored.lr(40)) == (0.0, 1e-4)


def test_many_turns_are_taken_off_as_transformers_cosine_does() -> None:
    rng = np.random.default_rng(0)
    progress = np.concatenate([rng.uniform(0.0, 10.0**power, 500) for power in range(8)])
    for cycles in (0.5, 1.0, 0.3, -7.77):
        wanted = [0.5 * (1.0 + math.cos(math.pi * cycles * 2.0 * p)) for p in progress.tolist()]
        assert np.abs(wave(cycles, progress) - wanted).max() <= 4e-16


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (
            partial(from_transformers, "cosine", num_training_steps=40),
            {"shape": "cosine", "t_max": 30, "after": "rise"},
        ),
        (partial(from_transformers, "linear", num_training_steps=40), {"shape": "linear", "decay_steps": 30}),
        (partial(from_transformers, "constant_with_warmup", num_training_steps=40), {"shape": "constant"}),
        (partial(from_transformers, "inverse_sqrt", num_training_steps=40), {"shape": "inverse_sqrt", "timescale": 10}),
        (
            partial(from_transformers, "warmup_stable_decay", num_training_steps=40, num_decay_steps=12),
            {"shape": "wsd", "decay_steps": 12, "decay_shape": "cosine", "ends_at_min": False},
        ),
        (
            partial(from_transformers, "cosine_with_min_lr", num_training_steps=40, min_lr_rate=0.1),
            {"shape": "cosine", "eta_min": 1e-4, "after": "rise"},
        ),
        (
            partial(from_transformers, "polynomial", num_training_steps=40, power=2),
            {"shape": "polynomial", "eta_min": 1e-7, "power": 2.0, "ends_at_min": False},
        ),
    ],
    ids=lambda value: value.args[0] if isinstance(value, partial) else "",
)
def test_a_native_schedule_is_given_where_there_is_one(call: Any, wanted: dict[str, Any]) -> None:
    schedule = call(peak_lr=PEAK, num_warmup_steps=10)
    decay = schedule.decay.to_mapping()
    assert schedule.warmup.to_dict() == {"steps": 10, "shape": "linear", "start_ratio": 0.0}
    assert {key: decay[key] for key in wanted} == wanted


def test_a_member_and_whole_floats_are_taken() -> None:
    member = from_transformers(
        transformers.SchedulerType.LINEAR, peak_lr=PEAK, num_warmup_steps=4.0, num_training_steps=40.0
    )
    assert member == from_transformers("linear", peak_lr=PEAK, num_warmup_steps=4, num_training_steps=40)


def test_the_length_of_the_run() -> None:
    lengths = {
        "given": from_transformers("linear", peak_lr=PEAK, num_training_steps=40, total_steps=20),
        "trained": from_transformers("constant", peak_lr=PEAK, num_training_steps=40),
        "natural": from_transformers(
            "warmup_stable_decay", peak_lr=PEAK, num_warmup_steps=5, num_decay_steps=7, num_stable_steps=11
        ),
        "unknown": from_transformers("constant", peak_lr=PEAK),
    }
    assert {name: schedule.total_steps for name, schedule in lengths.items()} == {
        "given": 20,
        "trained": 40,
        "natural": 23,
        "unknown": 1,
    }


REFUSALS: list[tuple[str, dict[str, Any], str]] = [
    (
        "reduce_lr_on_plateau",
        {},
        "name: 'reduce_lr_on_plateau' reacts to a metric of the evaluations, so it is no function of the update; "
        "leave it to transformers, or write down the curve that is wanted",
    ),
    (
        "greedy",
        {},
        "name: 'greedy' reacts to a metric of the evaluations, so it is no function of the update; "
        "leave it to transformers, or write down the curve that is wanted",
    ),
    (
        "cosin",
        {},
        f"name: unknown transformers scheduler 'cosin'; did you mean 'cosine'? known: {', '.join(KINDS)}",
    ),
    ("linear", {}, "linear.num_training_steps: is missing; it has no default"),
    ("linear", {"num_warmup_steps": None}, "linear.num_warmup_steps: is missing; give the number, or 0"),
    (
        "linear",
        {"num_warmup_steps": 2.5, "num_training_steps": 9},
        "linear.num_warmup_steps: 2.5 is not a length; "
        "write a whole number of updates such as 500, or '3%', or '2 epochs'",
    ),
    (
        "cosine",
        {"num_training_steps": 9, "num_cycle": 2},
        "cosine.num_cycle: unknown keyword 'num_cycle'; did you mean 'num_cycles'? known: num_cycles",
    ),
    ("linear", {"num_training_steps": 9, "power": 2}, "linear.power: unknown keyword 'power'; it takes none"),
    (
        "linear",
        {"num_training_steps": 9, "last_epoch": 4},
        "linear.last_epoch: starts the schedule in its middle; take lr(k) from that k",
    ),
    (
        "polynomial",
        {"num_warmup_steps": 9, "num_training_steps": 9},
        "polynomial.num_warmup_steps: 9 is num_training_steps, where transformers divides by zero at that update; "
        "shorten the warm-up",
    ),
    (
        "polynomial",
        {"num_training_steps": 9, "lr_end": 1e-3},
        "polynomial.lr_end: 0.001 is not below the learning rate 0.001; lower it",
    ),
    (
        "polynomial",
        {"num_training_steps": 9, "power": -1},
        "polynomial.power: -1.0 is negative; transformers divides by zero at the end",
    ),
    (
        "cosine_with_min_lr",
        {"num_training_steps": 9},
        "cosine_with_min_lr.min_lr: is missing; give one of min_lr and min_lr_rate",
    ),
    (
        "cosine_warmup_with_min_lr",
        {"num_training_steps": 9, "min_lr": 0.0, "min_lr_rate": 0.1},
        "cosine_warmup_with_min_lr.min_lr: stands beside min_lr_rate; give one of min_lr and min_lr_rate",
    ),
    (
        "inverse_sqrt",
        {"timescale": 0},
        "inverse_sqrt.timescale: 0 is too short; it must be at least 1",
    ),
    (
        "warmup_stable_decay",
        {"num_training_steps": 9},
        "warmup_stable_decay.num_decay_steps: is missing; it has no default",
    ),
    (
        "warmup_stable_decay",
        {"num_decay_steps": 9},
        "warmup_stable_decay.num_training_steps: is missing; give it or num_stable_steps",
    ),
    (
        "warmup_stable_decay",
        {"num_training_steps": 9, "num_decay_steps": 3, "decay_type": "sqrt"},
        "warmup_stable_decay.decay_type: unknown choice 'sqrt'; did you mean '1-sqrt'? known: linear, cosine, 1-sqrt",
    ),
]


@pytest.mark.parametrize(("kind", "given", "text"), REFUSALS, ids=[text.partition(";")[0] for _, _, text in REFUSALS])
def test_refusals(kind: str, given: dict[str, Any], text: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        from_transformers(kind, peak_lr=PEAK, **given)
    assert str(caught.value) == text


def test_what_is_refused_fails_in_transformers_too() -> None:
    for kind, warmup, training, kwargs in (
        ("polynomial", 9, 9, {}),
        ("polynomial", 0, 9, {"power": -1}),
        ("inverse_sqrt", 0, 9, {"timescale": 0}),
    ):
        with pytest.raises(ZeroDivisionError):
            used(partial(real_scheduler, kind, warmup, training, kwargs), 12)


def test_an_unknown_function_is_refused() -> None:
    with pytest.raises(
        ScheduleError, match="lr_lambda: unknown schedule function of transformers 'mine'; known: _get_"
    ):
        from_transformers_lambda("mine", {}, PEAK, 10)
