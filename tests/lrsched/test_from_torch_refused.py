"""``from_torch`` and the torch dialect in YAML: what is refused, and in which words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.optim import lr_scheduler as lrs
from torch_cases import used

from lrsched import Schedule, ScheduleError, from_torch
from lrsched.proof.row import PEAK, TOLERANCE
from lrsched.proof.torch_rows import chain, made, sequence, sgd

Make = Callable[[torch.optim.Optimizer], Any]
UP = made("LinearLR", start_factor=0.1, total_iters=5)
COSINE = made("CosineAnnealingLR", T_max=30, eta_min=1e-5)
STEPS = made("StepLR", step_size=7, gamma=0.5)
ONE_CYCLE = made("OneCycleLR", max_lr=PEAK, total_steps=40)


class Own(lrs.StepLR):
    """Somebody's own scheduler."""


def _twice(optimizer: torch.optim.Optimizer) -> Any:
    steps = STEPS(optimizer)
    return lrs.SequentialLR(optimizer, [steps, UP(optimizer), steps], [5, 9])


def _changed_later(optimizer: torch.optim.Optimizer) -> Any:
    scheduler = COSINE(optimizer)
    ONE_CYCLE(optimizer)
    return scheduler


def _on_a_used_optimizer(optimizer: torch.optim.Optimizer) -> Any:
    STEPS(optimizer)
    return made("CyclicLR", base_lr=1e-4, max_lr=1e-2)(optimizer)


def _built_in_another_order(optimizer: torch.optim.Optimizer) -> Any:
    up = UP(optimizer)
    return lrs.ChainedScheduler([sequence([5], STEPS, COSINE)(optimizer), up])


def _plateau(optimizer: torch.optim.Optimizer) -> Any:
    return lrs.ReduceLROnPlateau(optimizer)


NATIVELY = "write the curve that is wanted as a native shape"
CALLED: dict[str, tuple[Make, str]] = {
    "lambda": (lambda o: lrs.LambdaLR(o, lambda k: 1.0),
               f"scheduler: LambdaLR holds a Python function, which cannot be read; {NATIVELY}"),
    "multiplicative": (lambda o: lrs.MultiplicativeLR(o, lambda k: 1.0),
                       f"scheduler: MultiplicativeLR holds a Python function, which cannot be read; {NATIVELY}"),
    "lambda inside": (sequence([5], UP, lambda o: lrs.LambdaLR(o, lambda k: 1.0)),
                      f"scheduler.schedulers[1]: LambdaLR holds a Python function, which cannot be read; {NATIVELY}"),
    "plateau": (_plateau, "scheduler: ReduceLROnPlateau reacts to a metric, so it is no function of the update; "
                + NATIVELY),
    "greedy": (lambda o: transformers.get_scheduler("greedy", o),
               f"scheduler: GreedyLR reacts to a metric, so it is no function of the update; {NATIVELY}"),
    "swa": (lambda o: torch.optim.swa_utils.SWALR(o, 1e-4), "scheduler: SWALR starts from whatever learning rate it "
            f"finds when it is first stepped; {NATIVELY}"),
    "scale_fn": (lambda o: lrs.CyclicLR(o, 1e-4, 1e-3, scale_fn=lambda x: 1.0, cycle_momentum=False),
                 f"scheduler: scale_fn of CyclicLR is a Python function, which cannot be read; {NATIVELY}"),
    "own class": (lambda o: Own(o, 5), f"scheduler: Own is not one of torch's own schedulers; {NATIVELY}"),
    "number": (lambda o: 42, "scheduler: int is not a torch scheduler; pass one of torch.optim.lr_scheduler"),
    "twice": (_twice, "scheduler.schedulers[2]: the same StepLR object stands here twice; build two"),
    "changed later": (_changed_later, "scheduler: CosineAnnealingLR goes by the initial lr 0.001, but that of its group "
                      "was changed to 4e-05 later; build OneCycleLR and whatever else changes it first"),
    "used optimizer": (_on_a_used_optimizer, "scheduler: the initial lr of its group is 0.001, which is not 0.0001 as "
                       "CyclicLR makes it: another scheduler was built on the optimizer; build it on a fresh optimizer"),
    "another order": (_built_in_another_order,
                      "scheduler: ChainedScheduler applied 0.001 at update 0, but its members, built and stepped in "
                      "their order, give 0.0001; build them in the order in which they are chained"),
    "T_max": (made("CosineAnnealingLR", T_max=0), "scheduler.T_max: 0 makes torch divide by zero; give at least 1"),
    "T_max inside": (sequence([9], UP, made("CosineAnnealingLR", T_max=0)),
                     "scheduler.schedulers[1].T_max: 0 makes torch divide by zero; give at least 1"),
    "nearly whole": (made("CosineAnnealingLR", T_max=3.0000000000000004), "scheduler.T_max: 3.0000000000000004 makes "
                     "torch divide by zero at update 4; write a whole number"),
    "step_size": (made("StepLR", step_size=0), "scheduler.step_size: 0 makes torch divide by zero; give at least 1"),
    "factor": (made("ConstantLR", factor=0.0, total_iters=9), "scheduler.factor: 0.0 makes torch divide by zero at "
               "update 9; write a small one such as 1.0e-8"),
    "power": (made("PolynomialLR", total_iters=9, power=-1.0),
              "scheduler.power: -1.0 makes torch divide by zero at update 9; give one above 0"),
    "pct_start": (made("OneCycleLR", max_lr=PEAK, total_steps=20, pct_start=1.0),
                  "scheduler.pct_start: 1.0 makes torch divide by zero at update 20; lower it"),
    "total_iters": (sequence([9], STEPS, made("LinearLR", total_iters=0)),
                    "scheduler.schedulers[1].total_iters: 0 makes torch divide by zero where a SequentialLR starts it "
                    "at a milestone; give at least 1, or leave this scheduler out"),
    "chain at a milestone": (sequence([9], UP, chain(STEPS)),
                             "scheduler.schedulers[1]: torch cannot start a ChainedScheduler at a milestone "
                             "(NotImplementedError); put it first, or take its members for it"),
    "sequence at a milestone": (chain(sequence([9], UP, sequence([3], UP, STEPS)), STEPS),
                                "scheduler.schedulers[0].schedulers[1]: torch cannot start a SequentialLR at a milestone "
                                "(NotImplementedError); put it first, or take its members for it"),
    "nested": (sequence([], sequence([9], UP, chain(STEPS))),
               "scheduler.schedulers: a SequentialLR of these makes torch raise an error at update 8; "
               "let milestones rise, and put schedulers that have members into no other"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLED)
def test_refused_by_name(name: str) -> None:
    make, message = CALLED[name]
    with pytest.raises(ScheduleError) as caught:
        from_torch(make(sgd(PEAK)), 20)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["T_max inside", "total_iters", "factor", "power", "chain at a milestone", "nested"])
def test_what_breaks_after_the_run_is_not_refused(name: str) -> None:
    """torch makes the run all the same; past the error the learning rate stays what it was."""
    make = CALLED[name][0]
    broken_at = 8 if name == "nested" else 9
    schedule = from_torch(make(sgd(PEAK)), broken_at - 1)
    assert np.abs(schedule.lr(np.arange(broken_at - 1)) - used(make, broken_at - 1)[:, 0]).max() <= TOLERANCE * PEAK
    assert schedule.lr(broken_at) == schedule.lr(broken_at - 1)
    with pytest.raises((ZeroDivisionError, NotImplementedError)):
        used(make, broken_at)


@pytest.mark.parametrize("group", [2, -1, "first"])
def test_a_group_that_does_not_exist(group: Any) -> None:
    with pytest.raises(ScheduleError) as caught:
        from_torch(STEPS(sgd(PEAK, PEAK)), 20, group=group)
    assert str(caught.value) == f"group: {group!r} is not one of the 2 groups; they count from 0"


def test_other_libraries_objects() -> None:
    class Wrapped:
        def __init__(self, scheduler: Any) -> None:
            self.scheduler = scheduler

    with pytest.raises(ScheduleError) as caught:
        from_torch(Wrapped(STEPS(sgd(PEAK))))
    assert str(caught.value) == "scheduler: Wrapped is not a torch scheduler; pass the one inside it (.scheduler)"
    native = pytest.importorskip("deepspeed.runtime.lr_schedules").WarmupLR(sgd(PEAK))
    with pytest.raises(ScheduleError) as caught:
        from_torch(native)
    assert str(caught.value) == (
        "scheduler: WarmupLR is DeepSpeed's, not torch's; give the scheduler block of its config to from_deepspeed"
    )


def _yaml(**decay: Any) -> Schedule:
    return Schedule.from_dict({"peak_lr": PEAK, "total_steps": 20, "decay": decay})


WRITTEN: dict[str, tuple[dict[str, Any], str]] = {
    "factor": ({"shape": "torch.ConstantLR", "factor": 1.5}, "decay.factor: 1.5 is not from 0 to 1; torch refuses it"),
    "start_factor": ({"shape": "torch.LinearLR", "start_factor": 0},
                     "decay.start_factor: 0.0 is not above 0 and at most 1; torch refuses it"),
    "pct_start": ({"shape": "torch.OneCycleLR", "max_lr": 1e-3, "total_steps": 9, "pct_start": 2},
                  "decay.pct_start: 2.0 is not from 0 to 1; torch refuses it"),
    "one update up": ({"shape": "torch.OneCycleLR", "max_lr": 1e-3, "total_steps": 10, "pct_start": 0.1},
                      "decay.pct_start: 0.1 of 10 updates is 1, where torch divides by zero; raise or lower it a little"),
    "cycle": ({"shape": "torch.CyclicLR", "base_lr": 1e-4, "max_lr": 1e-3, "step_size_up": 0},
              "decay.step_size_up: 0 makes torch divide by zero; give at least 1"),
    "milestones": ({"shape": "torch.SequentialLR", "milestones": [3], "schedulers": [{"shape": "torch.StepLR",
                                                                                      "step_size": 3}]},
                   "decay.milestones: 1 of them for 1 schedulers; torch wants one less than schedulers"),
    "no members": ({"shape": "torch.ChainedScheduler", "schedulers": []},
                   "decay.schedulers: [] is not a list of schedulers; torch wants at least one"),
    "native member": ({"shape": "torch.ChainedScheduler", "schedulers": [{"shape": "cosine"}]},
                      "decay.schedulers[0].shape: 'cosine' is not a scheduler of torch's; write torch.<class>"),
    "member": ({"shape": "torch.ChainedScheduler", "schedulers": [
        {"shape": "torch.SequentialLR", "schedulers": [{"shape": "torch.StepLR", "gamma": 2}], "milestones": []}]},
               "decay.schedulers[0].schedulers[0].step_size: is missing; it has no default"),
    "length": ({"shape": "torch.CosineAnnealingLR", "T_max": True}, "decay.T_max: True is not a number; "
               "write one such as 1.0e-3"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_mistakes_in_yaml(name: str) -> None:
    decay, message = WRITTEN[name]
    with pytest.raises(ScheduleError) as caught:
        _yaml(**decay)
    assert str(caught.value) == message


def test_lengths_in_yaml_have_units() -> None:
    schedule = _yaml(shape="torch.CosineAnnealingLR", T_max="50%", eta_min=2e-3)
    assert schedule.decay.to_mapping() == {"shape": "torch.CosineAnnealingLR", "T_max": 10, "eta_min": 2e-3}
