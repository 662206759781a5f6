"""``from_torch``: the schedule that a torch scheduler object really applies."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

from lrsched.dialects.base import as_schedule
from lrsched.dialects.torch_base import TorchShape
from lrsched.dialects.torch_composed import ChainedScheduler
from lrsched.dialects.torch_recursion import LONGEST, Group
from lrsched.dialects.torch_shapes import SHAPES
from lrsched.errors import ScheduleError, need
from lrsched.schedule import Schedule

_WRITE = "write the curve that is wanted as a native shape"
_FUNCTION = "holds a Python function, which cannot be read"
_METRIC = "reacts to a metric, so it is no function of the update"
# Schedulers that are none, with the reason and the way out.
REFUSED = {
    "LambdaLR": (_FUNCTION, _WRITE),
    "MultiplicativeLR": (_FUNCTION, _WRITE),
    "ReduceLROnPlateau": (_METRIC, _WRITE),
    "GreedyLR": (_METRIC, _WRITE),
    "SWALR": ("starts from whatever learning rate it finds when it is first stepped", _WRITE),
}
# How far two learning rates may lie apart and still be called the same.
_CLOSE = 1e-9


def from_torch(scheduler: Any, total_steps: int | None = None, group: int | None = None) -> Schedule:
    """The schedule that a torch scheduler applies, update by update, from k = 0 on.

    Every update is as in torch's loop (``optimizer.step(); scheduler.step()``), quirks included.
    Where that is a native schedule, one is returned; else one whose decay shape is
    ``torch.<class>``. The object is only read, never stepped, so it may be in the middle of its
    run: its ``last_epoch`` is k. peak_lr of the result is the group's ``initial_lr``.

    total_steps: updates of the run; default: what the scheduler's own numbers span. group: the
    parameter group to describe; needed only where the groups' curves are not multiples of each
    other (an eta_min with different learning rates, one learning rate for each group).

    A scheduler made by ``Schedule.to_torch`` gives its schedule back; one of transformers (a
    LambdaLR with one of its functions) is read by ``from_transformers``.

    ScheduleError: what is no function of the update or cannot be read (another LambdaLR,
    MultiplicativeLR, ReduceLROnPlateau, SWALR, a scale_fn of CyclicLR, classes that are not
    torch's own), and what makes torch raise an error within the run.

    >>> import torch
    >>> from lrsched import from_torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> schedule = from_torch(torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5), total_steps=6)
    >>> [schedule.lr(k) for k in range(6)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    need("torch", "from_torch")
    from torch.optim.lr_scheduler import LRScheduler

    from lrsched.torch_form import ScheduleLR

    if isinstance(scheduler, ScheduleLR):
        return scheduler.schedule
    name = type(scheduler).__name__
    if not isinstance(scheduler, LRScheduler):
        raise _no_torch_scheduler(scheduler)
    groups = scheduler.optimizer.param_groups
    if group is not None and group not in range(len(groups)):
        raise ScheduleError("group", f"{group!r} is not one of the {len(groups)} groups", "they count from 0")
    if name == "LambdaLR" and _is_torchs(scheduler):
        return _from_lambda(scheduler, total_steps, group)
    chosen = group or 0
    shape = _described(scheduler, chosen)
    if group is None:
        _check_groups(scheduler, shape)
    try:
        schedule = as_schedule(shape, _initial_lr(scheduler, chosen), total_steps)
    except ScheduleError as error:
        raise error.renamed("decay", "scheduler") from None
    _check_order(scheduler, shape, schedule, chosen)
    return schedule


def _is_torchs(scheduler: Any) -> bool:
    """Whether it is of a class of torch's own, not of one derived from it."""
    return type(scheduler).__module__ == "torch.optim.lr_scheduler"


def _no_torch_scheduler(scheduler: Any) -> ScheduleError:
    name, module = type(scheduler).__name__, type(scheduler).__module__
    if name in REFUSED and module.startswith("transformers"):
        return ScheduleError("scheduler", f"{name} {REFUSED[name][0]}", REFUSED[name][1])
    if module.startswith("deepspeed"):
        way_out = "give the scheduler block of its config to from_deepspeed"
        return ScheduleError("scheduler", f"{name} is DeepSpeed's, not torch's", way_out)
    if hasattr(scheduler, "scheduler"):
        return ScheduleError("scheduler", f"{name} is not a torch scheduler", "pass the one inside it (.scheduler)")
    return ScheduleError("scheduler", f"{name} is not a torch scheduler", "pass one of torch.optim.lr_scheduler")


def _initial_lr(scheduler: Any, group: int) -> float:
    """What the optimizer's group remembers, else what the scheduler does."""
    found = scheduler.optimizer.param_groups[group].get("initial_lr")
    bases = getattr(scheduler, "base_lrs", [])
    if found is None and group < len(bases):
        found = bases[group]
    if found is None:
        raise ScheduleError("scheduler", f"group {group} of its optimizer has no initial_lr", "build it anew")
    return float(found)


def _described(scheduler: Any, group: int) -> TorchShape:
    """The shape of a scheduler, for one of the groups."""
    seen: set[int] = set()
    for where, member in _members(scheduler, "scheduler"):
        if id(member) in seen:
            raise ScheduleError(where, f"the same {type(member).__name__} object stands here twice", "build two")
        seen.add(id(member))
    shape, peak = _read(scheduler, group, "scheduler"), _initial_lr(scheduler, group)
    rebuilt = Group(peak)
    shape.build(rebuilt)
    if not _close(rebuilt.first_lr, peak):
        raise ScheduleError(
            "scheduler",
            f"the initial lr of its group is {peak!r}, which is not {rebuilt.first_lr!r} as {type(scheduler).__name__} "
            "makes it: another scheduler was built on the optimizer",
            "build it on a fresh optimizer",
        )
    return shape


def _members(scheduler: Any, where: str) -> Iterator[tuple[str, Any]]:
    """A scheduler and all that it holds, with their places."""
    yield where, scheduler
    if _is_torchs(scheduler):
        for i, member in enumerate(getattr(scheduler, "_schedulers", [])):
            yield from _members(member, f"{where}.schedulers[{i}]")


def _read(scheduler: Any, group: int, where: str) -> TorchShape:
    name = type(scheduler).__name__
    if name in REFUSED:
        raise ScheduleError(where, f"{name} {REFUSED[name][0]}", REFUSED[name][1])
    if not _is_torchs(scheduler) or f"torch.{name}" not in SHAPES:
        raise ScheduleError(where, f"{name} is not one of torch's own schedulers", _WRITE)
    if name in ("SequentialLR", "ChainedScheduler"):
        members = [_read(one, group, f"{where}.schedulers[{i}]") for i, one in enumerate(scheduler._schedulers)]
        values = {"schedulers": members}
        if name == "SequentialLR":
            values["milestones"] = [_plain(one) for one in scheduler._milestones]
    else:
        _check_base(scheduler, group, where)
        values = _READERS.get(name, _by_name)(scheduler, group, where)
    try:
        shape = SHAPES[f"torch.{name}"](**values)
    except ScheduleError as error:
        raise error.renamed("decay", where) from None
    assert isinstance(shape, TorchShape)
    return shape


def _plain(value: Any) -> Any:
    """A number that may be a tensor, as a Python number."""
    return value.item() if hasattr(value, "item") else value


def _check_base(scheduler: Any, group: int, where: str) -> None:
    """Refuse a scheduler that goes by another initial lr than its group remembers."""
    name, bases = type(scheduler).__name__, scheduler.base_lrs
    if name in ("CyclicLR", "OneCycleLR") or group >= len(bases):
        return
    base, peak = float(bases[group]), _initial_lr(scheduler, group)
    if not _close(base, peak):
        raise ScheduleError(
            where,
            f"{name} goes by the initial lr {base!r}, but that of its group was changed to {peak!r} later",
            "build OneCycleLR and whatever else changes it first",
        )


def _by_name(scheduler: Any, group: int, where: str) -> dict[str, Any]:
    """The attributes of the names that the constructor's parameters have."""
    fields = dataclasses.fields(SHAPES[f"torch.{type(scheduler).__name__}"])  # type: ignore[arg-type]
    return {field.name: _plain(getattr(scheduler, field.name)) for field in fields}


def _multi_step(scheduler: Any, group: int, where: str) -> dict[str, Any]:
    milestones = [_plain(one) for one in scheduler.milestones.elements()]
    return {"milestones": milestones, "gamma": _plain(scheduler.gamma)}


def _cyclic(scheduler: Any, group: int, where: str) -> dict[str, Any]:
    if scheduler._scale_fn_custom is not None:
        raise ScheduleError(where, "scale_fn of CyclicLR is a Python function, which cannot be read", _WRITE)
    # torch keeps only their sum and the part that goes up.
    up = _whole(scheduler.step_ratio * scheduler.total_size)
    return {
        "base_lr": _plain(scheduler.base_lrs[group]),
        "max_lr": _plain(scheduler.max_lrs[group]),
        "step_size_up": up,
        "step_size_down": _whole(scheduler.total_size - up),
        "mode": scheduler.mode,
        "gamma": _plain(scheduler.gamma),
    }


def _whole(steps: float) -> float:
    return round(steps) if abs(steps - round(steps)) < _CLOSE else steps


def _one_cycle(scheduler: Any, group: int, where: str) -> dict[str, Any]:
    in_group = scheduler.optimizer.param_groups[group]
    if not {"initial_lr", "max_lr", "min_lr"} <= set(in_group):
        raise ScheduleError(where, f"group {group} of its optimizer has lost its max_lr", "build the OneCycleLR anew")
    low, top, least = (float(in_group[name]) for name in ("initial_lr", "max_lr", "min_lr"))
    total, phases = scheduler.total_steps, scheduler._schedule_phases
    up = float(phases[0]["end_step"])
    return {
        "max_lr": top,
        "total_steps": total,
        "pct_start": _shortest((up + 1.0) / total, lambda part: part * total - 1 == up),
        "anneal_strategy": scheduler._anneal_func_type,
        "div_factor": _quotient(top, low),
        "final_div_factor": _quotient(low, least),
        "three_phase": len(phases) == 3,
    }


def _quotient(high: float, low: float) -> float:
    """The number that ``high`` was divided by."""
    if not low:
        # Divided by inf, which a schedule cannot hold; this gives less than 1e-300 as well.
        return sys.float_info.max
    return _shortest(high / low, lambda factor: high / factor == low)


def _shortest(near: float, fits: Callable[[float], bool]) -> float:
    """The number next to ``near`` with the fewest digits that fits, or ``near`` itself."""
    return next((short for short in (float(f"{near:.{digits}g}") for digits in range(1, 18)) if fits(short)), near)


_READERS: dict[str, Callable[[Any, int, str], dict[str, Any]]] = {
    "MultiStepLR": _multi_step,
    "CyclicLR": _cyclic,
    "OneCycleLR": _one_cycle,
}


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_CLOSE)


def _check_groups(scheduler: Any, shape: TorchShape) -> None:
    """Refuse groups whose curves are not multiples of that of group 0."""
    peak = _initial_lr(scheduler, 0)
    for i in range(1, len(scheduler.optimizer.param_groups)):
        if not _multiples(shape, peak, _described(scheduler, i), _initial_lr(scheduler, i)):
            raise ScheduleError(
                "group",
                f"the curves of groups 0 and {i} are not multiples of each other",
                f"pass group=0 or group={i} for that of one",
            )


def _multiples(one: Any, peak: float, other: Any, other_peak: float) -> bool:
    """Whether two shapes of one build are the same once their learning rates are parts of their peaks."""
    for name, value in vars(one).items():
        there = vars(other)[name]
        if name == "schedulers":
            pairs = zip(value, there, strict=True)
            same = all(_multiples(mine, peak, theirs, other_peak) for mine, theirs in pairs)
        elif name in one.rates:
            same = _close(value * other_peak, there * peak)
        else:
            same = _close(value, there) if isinstance(value, float) else value == there
        if not same:
            return False
    return True


def _check_order(scheduler: Any, shape: TorchShape, schedule: Schedule, group: int) -> None:
    """Refuse a chain whose members were not built in its order, where that changes its curve."""
    if not isinstance(shape, ChainedScheduler) or shape.scales_until() >= 0:
        return
    k = next(member.last_epoch for _, member in _members(scheduler, "") if hasattr(member, "last_epoch"))
    applied = float(scheduler._last_lr[group])
    # The learning rate may be a float32 tensor, and have gathered its roundings.
    if 0 <= k <= LONGEST and not math.isclose(schedule.lr(k), applied, rel_tol=1e-3, abs_tol=1e-6 * schedule.peak_lr):
        raise ScheduleError(
            "scheduler",
            f"ChainedScheduler applied {applied!r} at update {k}, but its members, built and stepped in their order, "
            f"give {schedule.lr(k)!r}",
            "build them in the order in which they are chained",
        )


def _from_lambda(scheduler: Any, total_steps: int | None, group: int | None) -> Schedule:
    functions = [_function(one) for one in scheduler.lr_lambdas]
    chosen = functions[group or 0]
    problem, way_out = REFUSED["LambdaLR"]
    if chosen is None:
        raise ScheduleError("scheduler", f"LambdaLR {problem}", way_out)
    if group is None and any(one != chosen for one in functions):
        raise ScheduleError("group", "the parameter groups have different functions", "pass group=i for that of one")
    try:
        from lrsched.dialects.from_transformers import from_transformers_lambda
    except ImportError:
        raise ScheduleError("scheduler", f"LambdaLR {problem}", way_out) from None
    return from_transformers_lambda(chosen[0], chosen[1], _initial_lr(scheduler, group or 0), total_steps)


def _function(function: Any) -> tuple[str, dict[str, Any]] | None:
    """The name and the keywords of a function of transformers' schedules."""
    keywords: dict[str, Any] = {}
    if isinstance(function, functools.partial) and not function.args:
        function, keywords = function.func, dict(function.keywords)
    if getattr(function, "__module__", None) != "transformers.optimization":
        return None
    return function.__name__, keywords
