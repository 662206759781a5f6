"""A schedule as Python code of torch's own scheduler classes, where those apply it exactly."""

from __future__ import annotations

import re
from typing import Any

from lrsched.decays.base import Decay
from lrsched.dialects.base import SAME, largest_difference
from lrsched.errors import ScheduleError
from lrsched.schedule import Schedule

# torch multiplies its way forward; this many roundings of a double a run may gather.
_DRIFT = 1000 * SAME


def own_classes(schedule: Schedule) -> str | None:
    """Code that builds torch's own schedulers for ``schedule``; None where they apply another curve.

    Compared in closed form at every update of the run and 20 % past its end, 1e-12 of the peak.
    """
    candidate = _candidate(schedule)
    if candidate is None:
        return None
    try:
        built = Schedule.from_dict(
            {"peak_lr": schedule.peak_lr, "total_steps": schedule.total_steps, "decay": candidate}
        )
    except ScheduleError:
        return None
    if largest_difference(schedule, built) > _DRIFT * schedule.peak_lr:
        return None
    code = _code(built.decay)
    names = sorted(set(re.findall(r"\b\w+LR\b|CosineAnnealingWarmRestarts", code)))
    return f"from torch.optim.lr_scheduler import {', '.join(names)}\n\nscheduler = {code}"


def _candidate(schedule: Schedule) -> dict[str, Any] | None:
    """The YAML form of the torch dialect that may apply the schedule."""
    from lrsched.peers import torch_calls

    if schedule.decay.shape.startswith("torch."):
        return schedule.decay.to_mapping()
    warmup = schedule.warmup
    decay = next((mapping for _, mapping in torch_calls(schedule)), None)
    if decay is None or not warmup.steps:
        return decay
    if warmup.shape != "linear" or warmup.start_ratio == 0.0:
        # LinearLR refuses to start at 0.
        return None
    ramp = {"start_factor": warmup.start_ratio, "end_factor": 1.0, "total_iters": warmup.steps}
    members = [{"shape": "torch.LinearLR", **ramp}, decay]
    return {"shape": "torch.SequentialLR", "schedulers": members, "milestones": [warmup.steps]}


def _code(shape: Decay) -> str:
    arguments = []
    for name, value in vars(shape).items():
        if isinstance(value, tuple) and value and isinstance(value[0], Decay):
            inner = ",\n".join(_code(one) for one in value)
            arguments.append(f"[\n{inner},\n]")
        else:
            arguments.append(f"{name}={list(value) if isinstance(value, tuple) else value!r}")
    return f"{shape.shape.partition('.')[2]}(optimizer, {', '.join(arguments)})"
