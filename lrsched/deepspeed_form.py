"""The schedule as the ``scheduler`` block of a DeepSpeed config, where that is exact.

DeepSpeed's schedulers start at iteration -1: they put 0 (WarmupCosineLR) or warmup_min_lr
(WarmupLR) into the groups when they are built, and update k uses iteration i = k - 1. With
W' = max(2, warmup_num_steps) and T' = total_num_steps (deepspeed/runtime/lr_schedules.py,
0.19.8; the tests hold this model against the real classes):

- WarmupCosineLR, times each group's own lr: 0 for k = 0; m + (1-m) g(i) for i < W', with
  m = warmup_min_ratio and g = i/W' (linear) or ln(i+1)/ln(W') (log); then q + (1-q) (1+cos(pi
  p))/2 with q = cos_min_ratio and p = min(1, (i-W'+1) / max(1, T'-W')).
- WarmupLR: min for k = 0; min + (max-min) g(i) for i < W'; then max. It writes one value into
  all groups, so groups with learning rates of their own become alike.

The native forms with a linear warm-up lag one update behind k/W and never quite reach the
peak; that is why a schedule with ``ends_at_min: true`` and a linear warm-up from 0 over W >= 3
updates is expressible (W' = W-1, m = 1/W, T' = W-1+t_max) and one with ``ends_at_min: false``
is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lrsched.decays import Constant, Cosine
from lrsched.errors import NotExpressible, ScheduleError

if TYPE_CHECKING:
    import numpy as np

    from lrsched.schedule import Schedule

# Largest difference, as a part of the peak, that counts as the same learning rate: a few
# roundings of a double.
TOLERANCE = 1e-15
# Updates compared at a time, to bound memory; the first chunk is small so that most schedules
# that are not expressible are found out at once.
_FIRST_CHUNK, _CHUNK = 4096, 2**20
# DeepSpeed types that write the same learning rate into every group.
FLATTENING = ("WarmupLR",)

Block = dict[str, Any]


def native_block(schedule: Schedule) -> Block:
    """The DeepSpeed block that applies lr(k) for every k of the run.

    Each candidate is compared with lr(k) at every k in range(total_steps), at most 1e-15 of the
    peak apart (0.4 s for a million updates). The optimizer must be built with lr = peak_lr.
    A WarmupCosineLR block keeps the ratio of groups with different learning rates, a WarmupLR
    block (constant schedules only) does not; see ``deepspeed_backend``.

    Raises NotExpressible with the first update that differs, for the candidate that gets
    furthest.
    """
    furthest: NotExpressible | None = None
    for block in _candidates(schedule):
        differs = first_difference(schedule, block)
        if differs is None:
            return block
        if furthest is None or differs.k > furthest.k:
            furthest = differs
    assert furthest is not None, "there is always a candidate"
    raise furthest


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
    except NotExpressible:
        if schedule.backend == "deepspeed":
            raise
        return "torch", None
    if block["type"] in FLATTENING and group_lrs is None and schedule.backend == "auto":
        return "torch", None
    if block["type"] in FLATTENING and any(lr != schedule.peak_lr for lr in group_lrs or ()):
        if schedule.backend == "auto":
            return "torch", None
        raise ScheduleError(
            "backend",
            f"DeepSpeed's {block['type']} writes one learning rate into all parameter groups, but "
            f"these have {list(group_lrs or ())}",
            "use backend: torch (or auto), which keeps their ratio",
        )
    return "deepspeed", block


def native_lr(block: Block, k: np.ndarray, base_lr: float) -> np.ndarray:
    """What DeepSpeed's scheduler puts into a group of ``base_lr`` for the updates ``k``."""
    import numpy as np

    from lrsched.numeric import half_cosine

    params, i = block["params"], k - 1
    steps = max(2, params["warmup_num_steps"])
    warming, decaying = i < steps, i >= steps
    values = np.empty(k.shape, np.float64)
    growth = _growth(params["warmup_type"], i[warming], steps)
    if block["type"] == "WarmupLR":
        low, high = params["warmup_min_lr"], params["warmup_max_lr"]
        values[warming] = low + (high - low) * growth
        values[decaying] = low + (high - low) * 1.0
        values[i < 0] = low
        return values
    start, floor = params["warmup_min_ratio"], params["cos_min_ratio"]
    values[warming] = start + growth * (1.0 - start)
    progress = (i[decaying] - steps + 1) / max(1, params["total_num_steps"] - steps)
    falling = half_cosine(np.minimum(1.0, progress))
    values[decaying] = np.maximum(0.0, floor + (1.0 - floor) * falling)
    values[i < 0] = 0.0
    return base_lr * values


def _growth(warmup_type: str, i: np.ndarray, steps: int) -> np.ndarray:
    import numpy as np

    from lrsched.numeric import log

    if warmup_type == "linear":
        return i / steps
    return (1.0 / math.log(steps)) * log(np.maximum(i, 0) + 1)


def first_difference(schedule: Schedule, block: Block) -> NotExpressible | None:
    """The first update of the run where ``block`` does not apply lr(k); None if there is none."""
    import numpy as np

    start, stop = 0, min(_FIRST_CHUNK, schedule.total_steps)
    while start < schedule.total_steps:
        k = np.arange(start, stop)
        wanted, native = schedule.lr(k), native_lr(block, k, schedule.peak_lr)
        wrong = np.flatnonzero(np.abs(wanted - native) > TOLERANCE * schedule.peak_lr)
        if wrong.size:
            at = int(wrong[0])
            return NotExpressible(start + at, float(wanted[at]), float(native[at]), block)
        start, stop = stop, min(stop + _CHUNK, schedule.total_steps)
    return None


def _candidates(schedule: Schedule) -> Iterator[Block]:
    """The native forms worth comparing, never none; comparing decides."""
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
    if isinstance(decay, Constant):
        # One update at 0 (always DeepSpeed's first), then the peak.
        yield _cosine(2, length, 1.0, floor, "linear")
        for kind in ("log", "linear"):
            params = {
                "warmup_min_lr": schedule.lr(0),
                "warmup_max_lr": peak,
                "warmup_num_steps": max(2, steps),
                "warmup_type": kind,
            }
            yield {"type": "WarmupLR", "params": params}


def _cosine(steps: int, length: int, start: float, floor: float, kind: str) -> Block:
    params = {
        "total_num_steps": steps + length,
        "warmup_min_ratio": start,
        "warmup_num_steps": steps,
        "cos_min_ratio": floor,
        "warmup_type": kind,
    }
    return {"type": "WarmupCosineLR", "params": params}
