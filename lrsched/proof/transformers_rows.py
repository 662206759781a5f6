"""transformers' schedulers as ``get_scheduler`` makes them, and the native schedules they can apply."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any

from lrsched.dialects.from_transformers import from_transformers
from lrsched.proof.row import PEAK, Row
from lrsched.schedule import Schedule
from lrsched.transformers_form import training_arguments

if TYPE_CHECKING:
    from torch.optim import Optimizer

Kwargs = dict[str, Any]

# name, W, T, scheduler_specific_kwargs
_Case = tuple[str, int, "int | None", Kwargs]
_PLAIN: list[_Case] = [
    ("warm-up 10 of 40", 10, 40, {}),
    ("no warm-up", 0, 40, {}),
    ("warm-up 1", 1, 40, {}),
    ("warm-up 2", 2, 40, {}),
    ("one update after the warm-up", 10, 11, {}),
]
_FULL: list[_Case] = [("T = W", 10, 10, {}), ("T < W", 20, 10, {}), ("T = W = 0", 0, 0, {})]
_CYCLES: list[_Case] = [
    (f"{cycles} cycles, warm-up {warmup}", warmup, 40, {"num_cycles": cycles})
    for warmup, cycles in ((10, 1), (10, 2.5), (7, 3), (0, 0.3), (5, 0), (5, -0.5), (5, 22))
]


def _with(cases: list[_Case], **kwargs: Any) -> list[_Case]:
    given = ", ".join(f"{key} {value}" for key, value in kwargs.items())
    return [(f"{name}, {given}", warmup, training, {**kwargs, **more}) for name, warmup, training, more in cases]


_DIALECT: dict[str, list[_Case]] = {
    "linear": [*_PLAIN, *_FULL],
    "cosine": [*_PLAIN, *_FULL, *_CYCLES],
    "cosine_with_restarts": [*_PLAIN, *_FULL, *_CYCLES, ("late restart", 0, 44, {"num_cycles": 22})],
    "polynomial": [
        *_PLAIN,
        ("T < W", 20, 10, {}),
        ("power 2, to 1e-5", 10, 40, {"power": 2.0, "lr_end": 1e-5}),
        ("power 0.5, to 0", 5, 40, {"power": 0.5, "lr_end": 0.0}),
        ("power 2.7, to below 0", 5, 40, {"power": 2.7, "lr_end": -1e-4}),
        ("power 0", 5, 40, {"power": 0}),
    ],
    "constant": [("no lengths", 0, None, {}), ("warm-up is ignored", 10, 40, {})],
    "constant_with_warmup": [("T is ignored", 10, 5, {}), ("no warm-up", 0, 40, {}), ("warm-up 1", 1, None, {})],
    "inverse_sqrt": [
        ("warm-up 10", 10, 40, {}),
        ("no warm-up", 0, 40, {}),
        ("warm-up 1", 1, 40, {}),
        ("timescale 3", 10, 40, {"timescale": 3}),
        ("timescale 100, no T", 10, None, {"timescale": 100}),
    ],
    "cosine_with_min_lr": [
        *_with([*_PLAIN, *_FULL], min_lr=1e-5),
        *_with(_CYCLES, min_lr_rate=0.1),
        ("min_lr_rate 1", 10, 40, {"min_lr_rate": 1.0}),
        ("min_lr above the peak", 10, 40, {"min_lr": 2e-3}),
        ("min_lr_rate below 0", 10, 40, {"min_lr_rate": -0.2}),
    ],
    "cosine_warmup_with_min_lr": [
        *_with([*_PLAIN, *_FULL], min_lr=1e-5),
        *_with([*_PLAIN, *_FULL], min_lr_rate=0.1, warmup_lr_rate=0.25),
        *_with(_CYCLES, min_lr_rate=0.0),
        ("warm-up from the peak", 10, 40, {"min_lr": 0.0, "warmup_lr_rate": 1.0}),
        ("one cycle, warm-up from 0", 10, 40, {"min_lr": 0.0, "warmup_lr_rate": 0, "num_cycles": 1}),
    ],
    "warmup_stable_decay": [
        *(
            (f"{rise}, then {fall} to {ratio}, warm-up {warmup}", warmup, 40,
             {"num_decay_steps": 15, "warmup_type": rise, "decay_type": fall, "min_lr_ratio": ratio})
            for rise in ("linear", "cosine", "1-sqrt")
            for fall in ("linear", "cosine", "1-sqrt")
            for warmup, ratio in ((10, 0.1), (1, 0.0))
        ),
        ("defaults, no warm-up", 0, 40, {"num_decay_steps": 15}),
        ("no decay", 10, 40, {"num_decay_steps": 0, "min_lr_ratio": 0.2}),
        ("no stable part", 10, 40, {"num_decay_steps": 30}),
        ("negative stable part", 6, 10, {"num_decay_steps": 8}),
        ("T < W", 20, 10, {"num_decay_steps": 5}),
        ("1.5 cycles", 10, 40, {"num_decay_steps": 20, "num_cycles": 1.5, "min_lr_ratio": 0.1}),
        ("stable part given", 10, None, {"num_decay_steps": 15, "num_stable_steps": 12}),
        ("stable part of -1 beside T", 10, 40, {"num_decay_steps": 30, "num_stable_steps": -1}),
        ("end before T", 10, 40, {"num_decay_steps": 10, "num_stable_steps": 5, "min_lr_ratio": 0.1}),
        ("min_lr_ratio below 0", 10, 40, {"num_decay_steps": 20, "min_lr_ratio": -0.2}),
    ],
}  # fmt: skip

_LINE, _WAVE = {"shape": "linear"}, {"shape": "cosine"}
_FROM_PEAK = {"ends_at_min": False}
# Native schedules of which a scheduler of transformers applies every update of the run.
_NATIVE: list[tuple[str, Kwargs, Kwargs]] = [
    ("constant", {}, {"shape": "constant"}),
    ("constant, warm-up 10", {"steps": 10}, {"shape": "constant"}),
    ("constant, cosine warm-up from 0.1", {"steps": 10, "shape": "cosine", "start_ratio": 0.1}, {"shape": "constant"}),
    ("cosine, warm-up 10", {"steps": 10}, _WAVE),
    ("cosine, no warm-up, to 1e-5", {}, {**_WAVE, "eta_min": 1e-5}),
    ("cosine, warm-up 1, to 1e-5", {"steps": 1}, {**_WAVE, "eta_min": 1e-5}),
    ("cosine, warm-up from the floor", {"steps": 10, "start_ratio": 0.1}, {**_WAVE, "eta_min": 1e-4}),
    ("cosine over 20 of 30 updates", {"steps": 10}, {**_WAVE, "t_max": 20}),
    ("cosine from the peak, warm-up 10", {"steps": 10}, {**_WAVE, **_FROM_PEAK}),
    ("cosine from the peak, to 1e-5", {"steps": 10}, {**_WAVE, **_FROM_PEAK, "eta_min": 1e-5}),
    ("cosine, warm-up from 0.25, to 1e-5", {"steps": 10, "start_ratio": 0.25}, {**_WAVE, **_FROM_PEAK, "eta_min": 1e-5}),
    ("cosine that the end cuts off", {"steps": 10}, {**_WAVE, "t_max": 70, **_FROM_PEAK, "allow_unfinished": True}),
    ("cosine rise", {"steps": 10}, {**_WAVE, "t_max": 11, "after": "rise"}),
    ("cosine restart", {"steps": 10}, {**_WAVE, "t_max": 10, "after": "restart"}),
    ("linear, warm-up 10", {"steps": 10}, _LINE),
    ("linear from the peak, warm-up 10", {"steps": 10}, {**_LINE, **_FROM_PEAK}),
    ("linear from the peak, to 1e-5", {"steps": 10}, {**_LINE, **_FROM_PEAK, "eta_min": 1e-5}),
    ("linear over 20 of 30 updates", {"steps": 10}, {**_LINE, "decay_steps": 20}),
    ("polynomial", {"steps": 10}, {"shape": "polynomial", "power": 2, "eta_min": 1e-5, **_FROM_PEAK}),
    ("inverse_sqrt", {"steps": 10}, {"shape": "inverse_sqrt", "hold": False}),
    ("inverse_sqrt, held until the warm-up ends", {"steps": 10}, {"shape": "inverse_sqrt", "timescale": 10}),
    ("wsd", {"steps": 10}, {"shape": "wsd", "decay_steps": 12}),
    ("wsd from the peak", {"steps": 10}, {"shape": "wsd", "decay_steps": 12, **_FROM_PEAK}),
    (
        "wsd, cosine warm-up, 1-sqrt to 1e-4",
        {"steps": 10, "shape": "cosine", "start_ratio": 0.1},
        {"shape": "wsd", "decay_steps": 12, "decay_shape": "1-sqrt", "eta_min": 1e-4},
    ),
]  # fmt: skip

# Those of them that go another way than transformers past the end of the run, which Trainer never passes.
_WITHIN_THE_RUN = (
    "constant, cosine warm-up from 0.1",
    "cosine, warm-up 1, to 1e-5",
    "cosine from the peak, warm-up 10",
    "cosine from the peak, to 1e-5",
    "cosine, warm-up from 0.25, to 1e-5",
    "cosine restart",
)


def real_scheduler(kind: str, warmup: int, training: int | None, kwargs: Kwargs, optimizer: Optimizer) -> Any:
    """What ``transformers.get_scheduler`` binds to ``optimizer``."""
    import transformers

    with warnings.catch_warnings():
        # It says that num_stable_steps is used when both are given. That is what is meant.
        warnings.filterwarnings("ignore", "Both num_training_steps and num_stable_steps are specified", UserWarning)
        return transformers.get_scheduler(kind, optimizer, warmup, training, dict(kwargs))


def trainer_scheduler(arguments: dict[str, Any], optimizer: Optimizer) -> Any:
    """The scheduler that Trainer makes under these fields of TrainingArguments."""
    kind, kwargs = arguments["lr_scheduler_type"], arguments["lr_scheduler_kwargs"]
    return real_scheduler(kind, arguments["warmup_steps"], arguments["max_steps"], kwargs, optimizer)


def _dialect_row(kind: str, case: _Case) -> Row:
    name, warmup, training, kwargs = case
    schedule = functools.partial(
        from_transformers, kind, peak_lr=PEAK, num_warmup_steps=warmup, num_training_steps=training or None, **kwargs
    )
    if not training:
        schedule = functools.partial(schedule, num_training_steps=training, total_steps=30)
    scheduler = functools.partial(real_scheduler, kind, warmup, training, kwargs)
    # Also past a warm-up that is longer than the run.
    updates = max(warmup + 10, -(-(training or 30) * 6 // 5))
    return Row(f"{kind}, {name}", f"transformers.{kind}", "transformers", schedule, scheduler, updates=updates)


def _native_row(name: str, warmup: Kwargs, decay: Kwargs) -> Row:
    mapping = {"peak_lr": PEAK, "total_steps": 40, "warmup": {"steps": 0, **warmup}, "decay": decay}
    schedule = Schedule.from_dict(mapping)
    arguments = training_arguments(schedule)
    within = name in _WITHIN_THE_RUN
    return Row(
        f"{name} -> {arguments['lr_scheduler_type']}{' (within the run)' if within else ''}",
        decay["shape"],
        "transformers",
        lambda: schedule,
        functools.partial(trainer_scheduler, arguments),
        updates=schedule.total_steps if within else None,
    )


ROWS: list[Row] = [
    *(_dialect_row(kind, case) for kind, cases in _DIALECT.items() for case in cases),
    *(_native_row(*case) for case in _NATIVE),
]
