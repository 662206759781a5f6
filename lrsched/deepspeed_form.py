"""The schedule as the ``scheduler`` block of a DeepSpeed config, where that is exact.

What DeepSpeed's schedulers apply is said in dialects/deepspeed_shapes.py. Those with a linear
warm-up lag one update behind k/W and never quite reach the peak; that is why a cosine with
``ends_at_min: true`` and a linear warm-up from 0 over W >= 3 updates is expressible (as
WarmupCosineLR with W' = W-1, m = 1/W, T' = W-1+t_max) and one with ``ends_at_min: false`` is not.
OneCycle does not lag: a linear warm-up and a linear decay with ``ends_at_min: false`` down to
where the warm-up began is exactly its cycle. WarmupDecayLR stays at the peak for one update
before it falls, so it is a logarithmic warm-up and a wsd with a stable part of one update.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lrsched.decays import Constant, Cosine, Linear, Piecewise, Wsd
from lrsched.errors import NotExpressible, ScheduleError
from lrsched.exact import TooLong, first_exact

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from lrsched.schedule import Schedule

# Largest difference, as a part of the peak, that counts as the same learning rate: a few
# roundings of a double.
TOLERANCE = 1e-15
# DeepSpeed types that write the same learning rate into every group.
FLATTENING = ("WarmupLR", "WarmupDecayLR", "OneCycle", "LRRangeTest")

Block = dict[str, Any]


def native_block(schedule: Schedule) -> Block:
    """The DeepSpeed block that applies lr(k) for every k of the run.

    Each candidate is compared with lr(k) at every k in range(total_steps), at most 1e-15 of the
    peak apart (OneCycle: what its own arithmetic loses, at most 1e-12). The optimizer must be
    built with lr = peak_lr. A WarmupCosineLR block keeps the ratio of groups with different
    learning rates, the others do not; see ``deepspeed_backend``.

    Raises NotExpressible with the first update that differs, for the candidate that gets
    furthest.
    """
    from lrsched.dialects.from_deepspeed import read_block

    return first_exact(schedule, ((read_block(block), block) for block in _candidates(schedule)), "DeepSpeed")


def deepspeed_backend(schedule: Schedule, group_lrs: Sequence[float] | None = None) -> tuple[str, Block | None]:
    """Which form a DeepSpeed run uses: ("deepspeed", scheduler block) or ("torch", None).

    Follows ``schedule.backend``. auto takes DeepSpeed's own scheduler where it applies exactly
    lr(k). deepspeed raises NotExpressible where there is none. For ("torch", None) pass
    ``lr_scheduler=schedule.to_torch`` to deepspeed.initialize.

    group_lrs: the learning rates of the optimizer's parameter groups, if known. A block that
    writes one value into all groups is only used when they all are peak_lr: auto takes torch
    otherwise, also when they are not given; deepspeed raises a ScheduleError if they differ.
    """
    if schedule.backend == "torch":
        return "torch", None
    try:
        block = native_block(schedule)
    except (NotExpressible, TooLong):
        if schedule.backend == "deepspeed":
            raise
        return "torch", None
    flattens = block["type"] in FLATTENING
    if flattens and group_lrs is None and schedule.backend == "auto":
        return "torch", None
    if flattens and any(lr != schedule.peak_lr for lr in group_lrs or ()):
        if schedule.backend == "auto":
            return "torch", None
        raise ScheduleError(
            "backend",
            f"DeepSpeed's {block['type']} writes one learning rate into all parameter groups, but "
            f"these have {list(group_lrs or ())}",
            "use backend: torch (or auto), which keeps their ratio",
        )
    return "deepspeed", block


def block_tolerance(block: Block) -> float:
    """How far DeepSpeed's arithmetic may take it from lr(k), as a part of the peak: 1e-15 but for OneCycle."""
    from lrsched.dialects.from_deepspeed import read_block

    return read_block(block).rounding()


def _candidates(schedule: Schedule) -> Iterator[Block]:
    """The native forms worth comparing, never none; comparing decides."""
    if schedule.decay.shape.startswith("deepspeed."):
        params = {key: value for key, value in schedule.decay.to_dict().items() if value is not None}
        momentum = {"cycle_momentum": False} if schedule.decay.shape == "deepspeed.OneCycle" else {}
        yield {"type": schedule.decay.shape.partition(".")[2], "params": {**params, **momentum}}
        return
    yield from _cosines(schedule)
    if isinstance(schedule.decay, Constant):
        yield from _constants(schedule)
    down = _linear_steps(schedule)
    if down is not None:
        yield from _lines(schedule, down)


def _cosines(schedule: Schedule) -> Iterator[Block]:
    steps, decay, peak = schedule.warmup.steps, schedule.decay, schedule.peak_lr
    start = schedule.warmup.start_ratio
    if isinstance(decay, Cosine):
        length, floor = decay.t_max or 1, decay.eta_min / peak
    elif isinstance(decay, Constant):
        length, floor = max(1, schedule.total_steps - steps), 1.0
    else:
        length, floor = max(1, schedule.total_steps - steps), schedule.lr(schedule.total_steps) / peak
    if steps >= 3:
        yield _cosine(steps - 1, length, 1.0 / steps, floor, "linear")
    if steps == 2:
        # Over two updates DeepSpeed's log ramp is the straight line.
        yield _cosine(2, length, 0.5, floor, "log")
    yield _cosine(max(2, steps), length, start, floor, "log")


def _constants(schedule: Schedule) -> Iterator[Block]:
    length = max(1, schedule.total_steps - schedule.warmup.steps)
    # One update at 0 (always DeepSpeed's first), then the peak.
    yield _cosine(2, length, 1.0, 1.0, "linear")
    for kind in ("log", "linear"):
        yield {"type": "WarmupLR", "params": _warmup(schedule, kind)}


def _warmup(schedule: Schedule, kind: str) -> dict[str, Any]:
    return {
        "warmup_min_lr": schedule.lr(0),
        "warmup_max_lr": schedule.peak_lr,
        "warmup_num_steps": max(2, schedule.warmup.steps),
        "warmup_type": kind,
    }


def _linear_steps(schedule: Schedule) -> int | None:
    """The updates of the straight way down that the schedule ends with, if it does."""
    decay = schedule.decay
    if isinstance(decay, Piecewise):
        decay = decay.pieces[-1].decay
    if isinstance(decay, Linear) or (isinstance(decay, Wsd) and decay.decay_shape == "linear"):
        return decay.decay_steps
    return None


def _lines(schedule: Schedule, down: int) -> Iterator[Block]:
    steps = schedule.warmup.steps
    for kind in ("log", "linear"):
        params = _warmup(schedule, kind)
        yield {"type": "WarmupDecayLR", "params": {"total_num_steps": params["warmup_num_steps"] + down, **params}}
    if steps:
        params = {
            "cycle_min_lr": schedule.lr(0),
            "cycle_max_lr": schedule.peak_lr,
            "cycle_first_step_size": steps,
            "cycle_second_step_size": down,
            "cycle_momentum": False,
        }
        yield {"type": "OneCycle", "params": params}


def _cosine(steps: int, length: int, start: float, floor: float, kind: str) -> Block:
    params = {
        "total_num_steps": steps + length,
        "warmup_min_ratio": start,
        "warmup_num_steps": steps,
        "cos_min_ratio": floor,
        "warmup_type": kind,
    }
    return {"type": "WarmupCosineLR", "params": params}


def initialize_kwargs(
    schedule: Schedule, optimizer: Optimizer | None = None, config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What to pass to ``deepspeed.initialize`` so that it trains at lr(k); see ``Schedule.initialize_kwargs``."""
    if config is not None and not isinstance(config, Mapping):
        raise ScheduleError(
            "config", f"{config!r} is not a mapping", "read the file first, or pass it to deepspeed.initialize yourself"
        )
    if config is not None and "scheduler" in config:
        raise ScheduleError(
            "config.scheduler", "stands beside this schedule, and one would win unseen", "take it out of the config"
        )
    group_lrs = None
    if optimizer is not None:
        group_lrs = _group_lrs(schedule, optimizer)
    elif config is not None:
        _check_own_optimizer(schedule, config)
    kind, block = deepspeed_backend(schedule, group_lrs)
    given: dict[str, Any] = {} if optimizer is None else {"optimizer": optimizer}
    if config is not None:
        given["config"] = {**config, "scheduler": block} if block else dict(config)
    if kind == "torch":
        given["lr_scheduler"] = schedule.to_torch if optimizer is None else schedule.to_torch(optimizer)
    elif config is None:
        given["lr_scheduler"] = _native(block) if optimizer is None else _native(block)(optimizer)
    return given


def _group_lrs(schedule: Schedule, optimizer: Optimizer) -> list[float]:
    """The groups' learning rates as multiples of the peak times the peak; refused as the torch form refuses them."""
    from lrsched.torch_form import group_scales

    return [scale * schedule.peak_lr for scale in group_scales(optimizer, schedule)]


def _check_own_optimizer(schedule: Schedule, config: Mapping[str, Any]) -> None:
    params = (config.get("optimizer") or {}).get("params") or {}
    lr = params.get("lr", schedule.peak_lr)
    if lr != schedule.peak_lr:
        raise ScheduleError(
            "config.optimizer.params.lr", f"{lr!r} is not peak_lr {schedule.peak_lr!r}", "write the same number in both"
        )


def _native(block: Block | None) -> Any:
    """A function that binds DeepSpeed's own scheduler of a block to an optimizer."""
    assert block is not None

    def bind(optimizer: Optimizer) -> Any:
        from lrsched.guard import native_scheduler

        return native_scheduler(block, optimizer)

    return bind
