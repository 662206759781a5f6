"""What other libraries give for the same request: a warm-up of W updates, T in all, this shape.

torch's, transformers' and DeepSpeed's curves are those of the dialects, held against the real
libraries. The others' are formulas, each held against the library's own code (optax 2edbcbe,
t5x cc342d4, timm aa4b585, composer 6405188, torchtitan b5bcd76, Megatron-LM d98e8a6, NeMo 8cfedd7,
nanoT5 1375b38), called in the order of its training loop; tests/lrsched/test_peers.py has values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrsched.decays import Constant, Cosine, Linear
from lrsched.errors import ScheduleError
from lrsched.numeric import half_cosine
from lrsched.schedule import Schedule

Curve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Peer:
    """A library's answer: ``values(k)`` are the learning rates it applies at the updates k."""

    library: str
    call: str
    values: Curve


@dataclass(frozen=True)
class Request:
    """The request every library understands: W, T, the peak, the floor."""

    warm: int
    total: int
    peak: float
    floor: float

    def between(self, part: np.ndarray) -> np.ndarray:
        """``floor + (peak - floor) * part``."""
        return self.floor + (self.peak - self.floor) * part

    def progress(self, k: np.ndarray, first: int | None = None, length: int | None = None) -> np.ndarray:
        """(k - W) / (T - W), from 0, not limited above."""
        first = self.warm if first is None else first
        length = self.total - self.warm if length is None else length
        return np.maximum(k - first, 0) / max(1, length)


def peers(schedule: Schedule) -> list[Peer]:
    """The libraries' curves for the request that ``schedule`` stands for."""
    request = _request(schedule)
    found = [
        Peer(library, call, made.lr)
        for library, call, make in _dialects(schedule, request)
        if (made := _attempted(make)) is not None
    ]
    if isinstance(schedule.decay, Cosine) and schedule.decay.after != "restart":
        found += _formulas(request, _COSINE)
    elif isinstance(schedule.decay, Linear) and schedule.decay.shape == "linear":
        found += _formulas(request, _LINEAR)
    return found


def not_asked(schedule: Schedule) -> str:
    """What the request leaves out, because only W, T, the peak and the floor are common to all libraries."""
    warmup, left = schedule.warmup, schedule.total_steps - schedule.warmup.steps
    length = getattr(schedule.decay, "t_max", None) or getattr(schedule.decay, "decay_steps", None)
    said = []
    if warmup.steps and warmup.shape != "linear":
        said.append(f"warm-up shape {warmup.shape}")
    if warmup.steps and warmup.start_ratio:
        said.append(f"start_ratio {warmup.start_ratio!r}")
    if isinstance(schedule.decay, (Cosine, Linear)) and length not in (None, left):
        said.append(f"a decay of {length} updates")
    return ", ".join(said)


def _request(schedule: Schedule) -> Request:
    floor = getattr(schedule.decay, "eta_min", 0.0)
    return Request(schedule.warmup.steps, schedule.total_steps, schedule.peak_lr, floor)


def _attempted(make: Callable[[], Schedule]) -> Schedule | None:
    try:
        return make()
    except ScheduleError:
        # The library refuses this request (DeepSpeed a warm-up of 0, say).
        return None


def _dialects(schedule: Schedule, request: Request) -> Iterator[tuple[str, str, Callable[[], Schedule]]]:
    for call, decay in torch_calls(schedule):
        warm = {"start_factor": schedule.warmup.start_ratio or 1e-8, "end_factor": 1.0, "total_iters": request.warm}
        members = [{"shape": "torch.LinearLR", **warm}, decay]
        whole = {"shape": "torch.SequentialLR", "schedulers": members, "milestones": [request.warm]}
        text = f"LinearLR + {call}" if request.warm else call
        yield "torch", text, functools.partial(_dialect, request, whole if request.warm else decay)
    for call, decay in _transformers_calls(schedule, request):
        yield "transformers", call, functools.partial(_dialect, request, decay)
    for call, decay in _deepspeed_calls(schedule, request):
        yield "DeepSpeed", call, functools.partial(_dialect, request, decay)


def _dialect(request: Request, decay: dict[str, Any]) -> Schedule:
    return Schedule.from_dict({"peak_lr": request.peak, "total_steps": request.total, "decay": decay})


def torch_calls(schedule: Schedule) -> Iterator[tuple[str, dict[str, Any]]]:
    """torch's scheduler for the decay of ``schedule``: how it is called, and its YAML form."""
    decay, request = schedule.decay.to_dict(), _request(schedule)
    match schedule.decay.shape:
        case "cosine" if decay["after"] == "restart":
            more = {"T_0": decay["t_max"], "T_mult": decay.get("cycle_mult", 1), "eta_min": request.floor}
            yield "CosineAnnealingWarmRestarts", {"shape": "torch.CosineAnnealingWarmRestarts", **more}
        case "cosine":
            more = {"T_max": decay["t_max"], "eta_min": request.floor}
            yield "CosineAnnealingLR", {"shape": "torch.CosineAnnealingLR", **more}
        case "linear":
            more = {
                "start_factor": 1.0,
                "end_factor": request.floor / request.peak,
                "total_iters": decay["decay_steps"],
            }
            yield "LinearLR", {"shape": "torch.LinearLR", **more}
        case "polynomial":
            yield (
                "PolynomialLR",
                {"shape": "torch.PolynomialLR", "total_iters": decay["decay_steps"], "power": decay["power"]},
            )
        case "step":
            yield "StepLR", {"shape": "torch.StepLR", **decay}
        case "multistep":
            yield "MultiStepLR", {"shape": "torch.MultiStepLR", **decay}
        case "exponential":
            yield "ExponentialLR", {"shape": "torch.ExponentialLR", **decay}
        case "constant":
            yield "ConstantLR(factor=1)", {"shape": "torch.ConstantLR", "factor": 1.0, "total_iters": 1}
        case "one_cycle":
            more = {
                "max_lr": request.peak,
                "total_steps": request.total,
                "pct_start": decay["up_steps"] / request.total,
            }
            more |= {"div_factor": 1.0 / (decay["start_ratio"] or 1e-8), "three_phase": decay["three_phase"]}
            more |= {"anneal_strategy": {"cosine": "cos", "linear": "linear"}[decay["anneal"]]}
            more |= {"final_div_factor": (decay["start_ratio"] or 1e-8) / (decay["end_ratio"] or 1e-8)}
            yield "OneCycleLR", {"shape": "torch.OneCycleLR", **more}


def _transformers_calls(schedule: Schedule, request: Request) -> Iterator[tuple[str, dict[str, Any]]]:
    decay = schedule.decay.to_dict()
    both = {"num_warmup_steps": request.warm, "num_training_steps": request.total}
    match schedule.decay.shape:
        case "cosine" if decay["after"] == "restart":
            cycles = max(1, (request.total - request.warm) // decay["t_max"])
            yield f"cosine_with_restarts({cycles})", _hf("cosine_with_restarts", both, num_cycles=cycles)
        case "cosine" if request.floor:
            yield "cosine_with_min_lr", _hf("cosine_with_min_lr", both, min_lr=request.floor)
            yield "cosine_warmup_with_min_lr", _hf("cosine_warmup_with_min_lr", both, min_lr=request.floor)
        case "cosine":
            yield "cosine", _hf("cosine", both)
        case "linear":
            yield "linear", _hf("linear", both)
        case "polynomial":
            yield "polynomial", _hf("polynomial", both, lr_end=request.floor, power=decay["power"])
        case "constant":
            yield "constant_with_warmup", _hf("constant_with_warmup", {"num_warmup_steps": request.warm})
        case "inverse_sqrt":
            more = {"num_warmup_steps": request.warm, "timescale": decay["timescale"]}
            yield "inverse_sqrt", _hf("inverse_sqrt", more)
        case "wsd":
            more = {"num_decay_steps": decay["decay_steps"], "decay_type": decay["decay_shape"]}
            more |= {"min_lr_ratio": request.floor / request.peak}
            yield "warmup_stable_decay", _hf("warmup_stable_decay", both, **more)


def _hf(name: str, lengths: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"shape": f"transformers.{name}", **lengths, **more}


def _deepspeed_calls(schedule: Schedule, request: Request) -> Iterator[tuple[str, dict[str, Any]]]:
    warm, peak = request.warm, request.peak
    lrs = {"warmup_min_lr": 0.0, "warmup_max_lr": peak, "warmup_num_steps": warm}
    for kind in ("linear", "log"):
        if isinstance(schedule.decay, Cosine):
            more = {"total_num_steps": request.total, "warmup_num_steps": warm, "cos_min_ratio": request.floor / peak}
            call = "WarmupCosineLR"
        elif isinstance(schedule.decay, Constant):
            call, more = "WarmupLR", lrs
        elif schedule.decay.shape == "linear":
            call, more = "WarmupDecayLR", {**lrs, "total_num_steps": request.total}
        else:
            return
        yield f"{call}, {kind}", {"shape": f"deepspeed.{call}", **more, "warmup_type": kind}
    if schedule.decay.shape == "linear":
        more = {"cycle_min_lr": request.floor, "cycle_max_lr": peak, "cycle_first_step_size": warm}
        more |= {"cycle_second_step_size": request.total - warm}
        yield "OneCycle", {"shape": "deepspeed.OneCycle", **more}


def _ramp(r: Request, k: np.ndarray, falling: np.ndarray) -> np.ndarray:
    """k / W of the peak, then ``falling``."""
    return np.where(k < r.warm, r.peak * k / max(1, r.warm), falling)


def _waves(progress: np.ndarray) -> np.ndarray:
    """(1 + cos(pi p)) / 2 for any p >= 0: it rises again past p = 1."""
    p = progress % 2.0
    return half_cosine(np.minimum(p, 2.0 - p))


def _optax_cosine(r: Request, k: np.ndarray) -> np.ndarray:
    # Megatron-LM too: it counts samples, which at one batch size makes no difference.
    return _ramp(r, k, r.between(half_cosine(np.minimum(r.progress(k), 1.0))))


def _torchtitan_cosine(r: Request, k: np.ndarray) -> np.ndarray:
    rising = r.peak * (k + 1) / max(1, r.warm)
    return np.where(k < r.warm, rising, r.between(_waves(r.progress(k))))


def _nemo_cosine(r: Request, k: np.ndarray) -> np.ndarray:
    # With a constant tail (constant_steps above 0) its warm-up is k / W instead.
    rising = r.peak * (k + 1) / (r.warm + 1)
    return np.where(k < r.warm, rising, r.between(half_cosine(np.minimum(r.progress(k), 1.0))))


def _composer_cosine(r: Request, k: np.ndarray) -> np.ndarray:
    # Its Trainer asks the schedule before it counts the batch, so batch k uses f(k - 1). It
    # never trains past t_max: the values from T on are what the schedule itself would give.
    return _optax_cosine(r, np.maximum(k - 1, 0))


def _timm_cosine(r: Request, k: np.ndarray) -> np.ndarray:
    # For warmup_lr_init 0 and --sched-on-updates: by default train.py counts epochs, not updates.
    return _ramp(r, k, r.between(half_cosine(np.minimum(k / r.total, 1.0))))


def _timm_prefix_cosine(r: Request, k: np.ndarray) -> np.ndarray:
    return _ramp(r, k, r.between(half_cosine(np.minimum(r.progress(k, length=r.total), 1.0))))


def _t5x_cosine(r: Request, k: np.ndarray) -> np.ndarray:
    # Its progress is taken modulo the cycle. Without a warm-up the factor linear_warmup is left
    # out: it would make update 0 NaN.
    return _t5x_floor(r, _ramp(r, k, r.peak * half_cosine(r.progress(k) % 1.0)))


def _t5x_floor(r: Request, values: np.ndarray) -> np.ndarray:
    # min_learning_rate cuts the curve off, the warm-up too; its default is 1e-8.
    return np.maximum(values, r.floor or 1e-8)


def _nanot5_cosine(r: Request, k: np.ndarray) -> np.ndarray:
    if not r.warm:
        # The torch that it pins (up to 2.0.1) begins at half the peak, one update late, and
        # comes to the full height only in the climb past the end.
        late = np.maximum(k - 1, 0)
        return r.floor + (np.where(late > r.total, 1.0, 0.5) * r.peak - r.floor) * _waves(late / r.total)
    rising = r.peak * (0.5 + 0.5 * k / r.warm)
    return np.where(k < r.warm, rising, r.between(_waves(r.progress(k))))


def _optax_linear(r: Request, k: np.ndarray) -> np.ndarray:
    return _ramp(r, k, r.between(1.0 - np.minimum(r.progress(k), 1.0)))


def _torchtitan_linear(r: Request, k: np.ndarray) -> np.ndarray:
    rising = r.peak * (k + 1) / max(1, r.warm)
    # Not limited: it falls below the floor, and below zero, past the end.
    return np.where(k < r.warm, rising, r.between(1.0 - r.progress(k)))


def _nemo_linear(r: Request, k: np.ndarray) -> np.ndarray:
    rising = r.peak * (k + 1) / (r.warm + 1)
    return np.where(k < r.warm, rising, r.between(1.0 - np.minimum(r.progress(k), 1.0)))


def _composer_linear(r: Request, k: np.ndarray) -> np.ndarray:
    return _optax_linear(r, np.maximum(k - 1, 0))


def _t5x_linear(r: Request, k: np.ndarray) -> np.ndarray:
    # decay_factor is the slope: (1 - floor / peak) / (T - W) here. Without a warm-up update 0 is 0 / 0.
    values = _t5x_floor(r, _optax_linear(r, k))
    return values if r.warm else np.where(k == 0, np.nan, values)


_COSINE: list[tuple[str, str, Callable[[Request, np.ndarray], np.ndarray]]] = [
    ("optax", "warmup_cosine_decay_schedule", _optax_cosine),
    ("Megatron-LM", "cosine", _optax_cosine),
    ("NeMo", "CosineAnnealing", _nemo_cosine),
    ("torchtitan", "decay_type cosine", _torchtitan_cosine),
    ("composer", "CosineAnnealingWithWarmup", _composer_cosine),
    ("timm", "CosineLRScheduler", _timm_cosine),
    ("timm", "CosineLRScheduler, warmup_prefix", _timm_prefix_cosine),
    ("t5x", "linear_warmup * cosine_decay", _t5x_cosine),
    ("nanoT5", "cosine", _nanot5_cosine),
]
_LINEAR: list[tuple[str, str, Callable[[Request, np.ndarray], np.ndarray]]] = [
    ("optax", "join_schedules of two linear", _optax_linear),
    ("Megatron-LM", "linear", _optax_linear),
    ("NeMo", "WarmupAnnealing", _nemo_linear),
    ("torchtitan", "decay_type linear", _torchtitan_linear),
    ("composer", "LinearWithWarmup", _composer_linear),
    ("t5x", "linear_decay", _t5x_linear),
]


def _formulas(request: Request, formulas: list[tuple[str, str, Any]]) -> list[Peer]:
    return [
        Peer(library, call, lambda k, formula=formula: formula(request, np.asarray(k, np.int64)))
        for library, call, formula in formulas
    ]
