"""torch's schedulers in torch's own loop, and the native schedules that torch applies.

Native shapes that are a class of torch's are held against that class; the others against a
LambdaLR whose function is the formula as a textbook writes it.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim import lr_scheduler as lrs

from lrsched.dialects.from_torch import from_torch
from lrsched.proof.row import PEAK, Row
from lrsched.schedule import Schedule

Make = Callable[[Optimizer], Any]


def sgd(*rates: Any) -> Optimizer:
    """A fresh optimizer with one group for each learning rate."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates]
    return torch.optim.SGD(groups, lr=rates[0])


def made(kind: str, **kwargs: Any) -> Make:
    """What builds a torch scheduler on an optimizer."""
    if kind in ("CyclicLR", "OneCycleLR"):
        # Plain SGD has no momentum to cycle.
        kwargs["cycle_momentum"] = False
    return functools.partial(getattr(lrs, kind), **kwargs)


def sequence(milestones: list[int], *makes: Make) -> Make:
    """What builds a SequentialLR."""

    def build(optimizer: Optimizer) -> Any:
        with warnings.catch_warnings():
            # torch misses an optimizer.step() before the second of the two first steps that it makes itself.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            return lrs.SequentialLR(optimizer, [make(optimizer) for make in makes], milestones)

    return build


def chain(*makes: Make) -> Make:
    """What builds a ChainedScheduler."""
    return lambda optimizer: lrs.ChainedScheduler([make(optimizer) for make in makes], optimizer)


class StoppedAt:
    """A scheduler that is stepped up to update ``last`` and then left alone."""

    def __init__(self, scheduler: Any, last: int) -> None:
        self.scheduler, self.last = scheduler, last

    def step(self) -> None:
        if self.scheduler.last_epoch < self.last:
            self.scheduler.step()


def stopped(make: Make, last: int) -> Make:
    """What builds a scheduler that stops."""
    return lambda optimizer: StoppedAt(make(optimizer), last)


def formula(function: Callable[[int], float]) -> Make:
    """What builds a LambdaLR of a formula."""
    return lambda optimizer: lrs.LambdaLR(optimizer, function)


def _cosine(t_max: int, eta_min: float = 0.0) -> Make:
    return made("CosineAnnealingLR", T_max=t_max, eta_min=eta_min)


def _restarts(first: int, **kwargs: Any) -> Make:
    return made("CosineAnnealingWarmRestarts", T_0=first, **kwargs)


def _up(steps: int, start: float = 0.1) -> Make:
    return made("LinearLR", start_factor=start, total_iters=steps)


def _cycle(**kwargs: Any) -> Make:
    return made("CyclicLR", base_lr=1e-4, max_lr=1e-3, **kwargs)


def _one_cycle(**kwargs: Any) -> Make:
    return made("OneCycleLR", max_lr=PEAK, **kwargs)


_HALVED = made("ConstantLR", factor=0.5, total_iters=9)
_EXPONENTIAL = made("ExponentialLR", gamma=0.9)
_STEPS = made("StepLR", step_size=7, gamma=0.5)

# Class, name, what builds it; each for a run of 40 updates.
_DIALECT: list[tuple[str, str, Make]] = [
    ("ConstantLR", "half for 9 updates", _HALVED),
    ("ConstantLR", "defaults", made("ConstantLR")),
    ("ConstantLR", "total_iters 1", made("ConstantLR", factor=0.25, total_iters=1)),
    ("ConstantLR", "total_iters 0, which stays for ever", made("ConstantLR", factor=0.25, total_iters=0)),
    ("LinearLR", "up from 0.1", _up(10)),
    ("LinearLR", "up from 1e-8 in 1 update", _up(1, 1e-8)),
    ("LinearLR", "down to 0.1", made("LinearLR", start_factor=1.0, end_factor=0.1, total_iters=30)),
    ("LinearLR", "down to 0", made("LinearLR", start_factor=1.0, end_factor=0.0, total_iters=40)),
    ("LinearLR", "from 0.25 to 0.5", made("LinearLR", start_factor=0.25, end_factor=0.5, total_iters=20)),
    ("LinearLR", "from 0.8 to 0.3", made("LinearLR", start_factor=0.8, end_factor=0.3, total_iters=20)),
    ("LinearLR", "total_iters 0, which stays at its start", made("LinearLR", total_iters=0)),
    ("PolynomialLR", "power 1", made("PolynomialLR", total_iters=30)),
    ("PolynomialLR", "power 2", made("PolynomialLR", total_iters=40, power=2.0)),
    ("PolynomialLR", "power 0.3, in 1 update", made("PolynomialLR", total_iters=1, power=0.3)),
    ("PolynomialLR", "4.5 updates", made("PolynomialLR", total_iters=4.5)),
    ("StepLR", "7 updates, 0.5", _STEPS),
    ("StepLR", "1 update, rising", made("StepLR", step_size=1, gamma=1.02)),
    ("MultiStepLR", "[5, 20]", made("MultiStepLR", milestones=[5, 20])),
    ("MultiStepLR", "[20, 5, 5], out of order and twice", made("MultiStepLR", milestones=[20, 5, 5], gamma=0.5)),
    ("MultiStepLR", "[0, 1], at once", made("MultiStepLR", milestones=[0, 1], gamma=0.5)),
    ("MultiStepLR", "none", made("MultiStepLR", milestones=[])),
    ("ExponentialLR", "0.9", _EXPONENTIAL),
    ("ExponentialLR", "1.03, rising", made("ExponentialLR", gamma=1.03)),
    ("CosineAnnealingLR", "T_max 40", _cosine(40)),
    ("CosineAnnealingLR", "T_max 7, rising and falling", _cosine(7, 1e-5)),
    ("CosineAnnealingLR", "T_max 1", _cosine(1)),
    ("CosineAnnealingLR", "T_max -9, as 9", _cosine(-9, 1e-4)),
    ("CosineAnnealingLR", "eta_min above lr", _cosine(20, 2e-3)),
    ("CosineAnnealingLR", "T_max 7.3", made("CosineAnnealingLR", T_max=7.3, eta_min=1e-4)),
    ("CosineAnnealingWarmRestarts", "T_0 7", _restarts(7, eta_min=1e-5)),
    ("CosineAnnealingWarmRestarts", "T_0 3, T_mult 2", _restarts(3, T_mult=2)),
    ("CosineAnnealingWarmRestarts", "T_0 1, T_mult 3", _restarts(1, T_mult=3, eta_min=2e-3)),
    ("CosineAnnealingWarmRestarts", "T_0 1", _restarts(1)),
    ("CyclicLR", "triangular", _cycle(step_size_up=8)),
    ("CyclicLR", "triangular2, 3 up and 8 down", _cycle(step_size_up=3, step_size_down=8, mode="triangular2")),
    ("CyclicLR", "exp_range", _cycle(step_size_up=5, mode="exp_range", gamma=0.97)),
    ("CyclicLR", "without a way down", _cycle(step_size_up=5, step_size_down=0)),
    ("OneCycleLR", "cosine", _one_cycle(total_steps=40)),
    ("OneCycleLR", "linear, 0.25 up", _one_cycle(total_steps=40, pct_start=0.25, anneal_strategy="linear")),
    ("OneCycleLR", "three phases", _one_cycle(total_steps=40, three_phase=True)),
    ("OneCycleLR", "three phases, linear, 0.33 up", _one_cycle(
        total_steps=40, pct_start=0.33, anneal_strategy="linear", three_phase=True)),
    ("OneCycleLR", "nothing up", _one_cycle(total_steps=40, pct_start=0.0)),
    ("OneCycleLR", "epochs, to 0", _one_cycle(epochs=4, steps_per_epoch=10, final_div_factor=math.inf)),
    ("SequentialLR", "warm-up 10, cosine", sequence([10], _up(10), _cosine(30, 1e-5))),
    ("SequentialLR", "warm-up 0, cosine", sequence([0], _up(0), _cosine(40))),
    ("SequentialLR", "warm-up 1, cosine", sequence([1], _up(1), _cosine(39))),
    ("SequentialLR", "warm-up 2, linear", sequence([2], _up(2), made("LinearLR", start_factor=1.0, end_factor=0.0,
                                                                      total_iters=38))),
    ("SequentialLR", "warm-up cut off", sequence([5], _up(20), _EXPONENTIAL)),
    ("SequentialLR", "warm-up, cosine, constant", sequence([5, 30], _up(5), _cosine(25), made("ConstantLR", factor=0.1,
                                                                                            total_iters=99))),
    ("SequentialLR", "equal milestones", sequence([12, 12], _HALVED, _STEPS, _cosine(28))),
    ("SequentialLR", "milestones [0, 12]", sequence([0, 12], _HALVED, _STEPS, _restarts(9))),
    ("SequentialLR", "milestones [20, 5], out of order", sequence([20, 5], _HALVED, _STEPS, _cosine(20))),
    ("SequentialLR", "one member", sequence([], _STEPS)),
    ("SequentialLR", "a cycle, then a polynomial", sequence([10], _cycle(step_size_up=4), made("PolynomialLR",
                                                                                               total_iters=30))),
    ("SequentialLR", "a chain first, its first step twice", sequence([9], chain(_HALVED, _EXPONENTIAL), _cosine(31))),
    ("SequentialLR", "a sequence first, one update ahead", sequence([20], sequence([5], _up(5), _STEPS), _cosine(20))),
    ("ChainedScheduler", "constant and exponential", chain(_HALVED, _EXPONENTIAL)),
    ("ChainedScheduler", "warm-up and cosine", chain(_up(10), _cosine(50))),
    ("ChainedScheduler", "warm-up and cosine past its zero", chain(_up(30), _cosine(15))),
    ("ChainedScheduler", "cosine with eta_min, no product", chain(_up(10), _cosine(50, 1e-4))),
    ("ChainedScheduler", "steps and restarts", chain(_STEPS, _restarts(9))),
    ("ChainedScheduler", "restarts and steps", chain(_restarts(9, eta_min=1e-5), _STEPS)),
    ("ChainedScheduler", "one member", chain(_STEPS)),
    ("ChainedScheduler", "a sequence and exponential", chain(sequence([5], _up(5), _cosine(35)), _EXPONENTIAL)),
    ("ChainedScheduler", "a chain and milestones", chain(chain(_up(5), _EXPONENTIAL), made("MultiStepLR",
                                                                                           milestones=[0, 9]))),
]  # fmt: skip


def _floored(floor: float, part: float) -> float:
    return floor + (1.0 - floor) * part


def _half_wave(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _down(function: Callable[[float], float], stable: int, steps: int, early: int = 1) -> Callable[[int], float]:
    """1 for ``stable`` updates, then a function of progress over ``steps`` more, then its end."""
    return lambda j: function(min(1.0, max(0.0, (j + early - stable) / steps))) if j + early > stable else 1.0


_COSINE: dict[str, Any] = {"shape": "cosine", "eta_min": 1e-5}
_RESTART: dict[str, Any] = {"shape": "cosine", "t_max": 7, "after": "restart"}
_WSD: dict[str, Any] = {"shape": "wsd", "decay_steps": 12, "eta_min": 1e-4}
_PARTS = [
    {"steps": 10, "warmup": {"steps": 10, "start_ratio": 0.1}},
    {"steps": 10, "decay": {"shape": "step", "step_size": 7, "gamma": 0.5}},
    {"decay": {"shape": "exponential", "gamma": 0.9}},
]

# Name, decay, what torch builds for it alone, for 40 updates of decay.
_NATIVE: list[tuple[str, dict[str, Any], Make]] = [
    ("ConstantLR", {"shape": "constant"}, made("ConstantLR", factor=1.0)),
    ("hold, formula", _COSINE, formula(_down(lambda p: _floored(0.01, _half_wave(p)), 0, 40))),
    ("hold from the peak, formula", {**_COSINE, "t_max": 20, "ends_at_min": False},
     formula(_down(lambda p: _floored(0.01, _half_wave(p)), 0, 20, early=0))),
    ("rise, CosineAnnealingLR", {**_COSINE, "t_max": 15, "after": "rise"}, _cosine(15, 1e-5)),
    ("restart, 0.5(1+cos(pi(step%T)/T))", _RESTART, formula(lambda j: 0.5 * (1 + math.cos(math.pi * (j % 7) / 7)))),
    ("restart with cycle_mult, WarmRestarts", {**_RESTART, "cycle_mult": 2, "eta_min": 1e-5},
     _restarts(7, T_mult=2, eta_min=1e-5)),
    ("restart with cycle_gamma, formula", {**_RESTART, "cycle_gamma": 0.6},
     formula(lambda j: 0.6 ** (j // 7) * _half_wave((j % 7) / 7))),
    ("formula", {"shape": "linear", "eta_min": 1e-4}, formula(_down(lambda p: _floored(0.1, 1.0 - p), 0, 40))),
    ("LinearLR", {"shape": "linear", "decay_steps": 30, "eta_min": 1e-4, "ends_at_min": False},
     made("LinearLR", start_factor=1.0, end_factor=0.1, total_iters=30)),
    ("formula", {"shape": "polynomial", "power": 3, "eta_min": 1e-4},
     formula(_down(lambda p: _floored(0.1, (1.0 - p) ** 3), 0, 40))),
    ("PolynomialLR", {"shape": "polynomial", "power": 0.7, "ends_at_min": False},
     made("PolynomialLR", total_iters=40, power=0.7)),
    ("StepLR", {"shape": "step", "step_size": 7, "gamma": 0.5}, _STEPS),
    ("MultiStepLR", {"shape": "multistep", "milestones": [5, 20, 20], "gamma": 0.3},
     made("MultiStepLR", milestones=[5, 20, 20], gamma=0.3)),
    ("ExponentialLR", {"shape": "exponential", "gamma": 0.9}, _EXPONENTIAL),
    ("linear, formula", {**_WSD, "decay_shape": "linear"}, formula(_down(lambda p: _floored(0.1, 1.0 - p), 28, 12))),
    ("cosine, formula", {**_WSD, "decay_shape": "cosine"},
     formula(_down(lambda p: _floored(0.1, _half_wave(p)), 28, 12))),
    ("1-sqrt from the peak, formula", {**_WSD, "decay_shape": "1-sqrt", "ends_at_min": False},
     formula(_down(lambda p: _floored(0.1, 1.0 - math.sqrt(p)), 28, 12, early=0))),
    ("falling at once, formula", {"shape": "inverse_sqrt", "timescale": 9, "hold": False},
     formula(lambda j: 1.0 / math.sqrt((9 + j) / 9))),
]  # fmt: skip


def _ramped(steps: int, after: Callable[[int], float]) -> Callable[[int], float]:
    """k / steps, then a function of k."""
    return lambda k: k / steps if k < steps else after(k)


# Name, warm-up and decay, learning rate, updates, what torch builds for the whole.
_WHOLE: list[tuple[str, dict[str, Any], float, int, Make]] = [
    ("T5, 1 / sqrt(max(k, 10000))", {"decay": {"shape": "inverse_sqrt"}}, 0.01, 12_000,
     formula(lambda k: 100.0 / math.sqrt(max(k, 10_000)))),
    ("T5 with a ramp of 1000", {"warmup": {"steps": 1000}, "decay": {"shape": "inverse_sqrt"}}, 0.01, 12_000,
     formula(_ramped(1000, lambda k: 100.0 / math.sqrt(max(k, 10_000))))),
    ("timescale 9", {"decay": {"shape": "inverse_sqrt", "timescale": 9}}, PEAK, 40,
     formula(lambda k: 3.0 / math.sqrt(max(k, 9)))),
    ("timescale 9 with a ramp of 5", {"warmup": {"steps": 5}, "decay": {"shape": "inverse_sqrt", "timescale": 9}}, PEAK,
     40, formula(_ramped(5, lambda k: 3.0 / math.sqrt(max(k, 9))))),
    ("SequentialLR", {"decay": {"shape": "piecewise", "pieces": _PARTS}}, PEAK, 40,
     sequence([10, 20], _up(10), _STEPS, _EXPONENTIAL)),
    ("SequentialLR, after LinearLR",
     {"warmup": {"steps": 5, "start_ratio": 0.1}, "decay": {"shape": "piecewise", "pieces": _PARTS}}, PEAK, 45,
     sequence([5, 15, 25], _up(5), _up(10), _STEPS, _EXPONENTIAL)),
    ("linear warm-up, formula", {"warmup": {"steps": 10}, "decay": _COSINE}, PEAK, 50,
     formula(_ramped(10, lambda k: _floored(0.01, _half_wave(min(1.0, (k - 9) / 40)))))),
    ("log warm-up, formula", {"warmup": {"steps": 10, "shape": "log"}, "decay": {"shape": "constant"}}, PEAK, 40,
     formula(lambda k: math.log(max(1, k)) / math.log(10) if k < 10 else 1.0)),
    ("cosine warm-up from 0.2, formula",
     {"warmup": {"steps": 10, "shape": "cosine", "start_ratio": 0.2}, "decay": {"shape": "constant"}}, PEAK, 40,
     formula(lambda k: _floored(0.2, 0.5 * (1.0 - math.cos(math.pi * k / 10))) if k < 10 else 1.0)),
]  # fmt: skip

# Name, decay, what torch builds. After the last update torch would climb a step, and then raise an error.
_ONE_CYCLE: list[tuple[str, dict[str, Any], Make]] = [
    ("OneCycleLR", {"up_steps": 12}, _one_cycle(total_steps=40)),
    ("OneCycleLR, linear", {"up_steps": 10, "anneal": "linear"},
     _one_cycle(total_steps=40, pct_start=0.25, anneal_strategy="linear")),
    ("OneCycleLR, three phases", {"up_steps": 10, "three_phase": True},
     _one_cycle(total_steps=40, pct_start=0.25, three_phase=True)),
]  # fmt: skip


def _described(make: Make) -> Schedule:
    return from_torch(make(sgd(PEAK)), total_steps=40)


def _written(total_steps: int, more: dict[str, Any], peak_lr: float = PEAK) -> Schedule:
    return Schedule.from_dict({"peak_lr": peak_lr, "total_steps": total_steps, **more})


def _dialect_row(kind: str, name: str, make: Make) -> Row:
    # Step 41 of OneCycleLR raises an error and leaves the group as it is.
    scheduler = stopped(make, 40) if kind == "OneCycleLR" else make
    return Row(f"{kind}, {name}", f"torch.{kind}", "torch", functools.partial(_described, make), scheduler)


def _native_rows(name: str, decay: dict[str, Any], make: Make) -> list[Row]:
    """The decay alone, and behind a linear warm-up of torch's."""
    shape, warmup = decay["shape"], {"steps": 5, "start_ratio": 0.1}
    alone = functools.partial(_written, 40, {"decay": decay})
    warmed = functools.partial(_written, 45, {"warmup": warmup, "decay": decay})
    return [
        Row(f"{shape}, {name}", shape, "torch", alone, make),
        Row(f"{shape}, {name}, after LinearLR", shape, "torch", warmed, sequence([5], _up(5), make)),
    ]


def _whole_row(name: str, more: dict[str, Any], peak_lr: float, total_steps: int, make: Make) -> Row:
    shape = more["decay"]["shape"]
    schedule = functools.partial(_written, total_steps, more, peak_lr)
    return Row(f"{shape}, {name}", shape, "torch", schedule, make, peak_lr=peak_lr)


def _one_cycle_row(name: str, fields: dict[str, Any], make: Make) -> Row:
    schedule = functools.partial(_written, 40, {"decay": {"shape": "one_cycle", **fields}})
    return Row(f"one_cycle, {name}", "one_cycle", "torch", schedule, stopped(make, 39))


ROWS: list[Row] = [
    *(_dialect_row(*case) for case in _DIALECT),
    *(row for case in _NATIVE for row in _native_rows(*case)),
    *(_whole_row(*case) for case in _WHOLE),
    *(_one_cycle_row(*case) for case in _ONE_CYCLE),
]
