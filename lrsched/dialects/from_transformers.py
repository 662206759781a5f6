"""``from_transformers``: the schedule that a scheduler of transformers really applies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrsched import fields
from lrsched.dialects.base import Dialect, as_schedule
from lrsched.dialects.transformers_base import scheduler_fields
from lrsched.dialects.transformers_shapes import SHAPES
from lrsched.errors import ScheduleError, unknown
from lrsched.lengths import Units
from lrsched.schedule import Schedule

# The types that are no function of the update, with the reason.
REFUSED = dict.fromkeys(("reduce_lr_on_plateau", "greedy"), "reacts to a metric of the evaluations")
# The functions inside transformers' LambdaLRs. Two bear the name of cosine's; the second has min_lr_rate.
_COSINE = "_get_cosine_schedule_with_warmup_lr_lambda"
_FUNCTIONS = {
    "_get_constant_lambda": "constant",
    "_get_constant_schedule_with_warmup_lr_lambda": "constant_with_warmup",
    "_get_linear_schedule_with_warmup_lr_lambda": "linear",
    _COSINE: "cosine",
    "_get_cosine_with_hard_restarts_schedule_with_warmup_lr_lambda": "cosine_with_restarts",
    "_get_polynomial_decay_schedule_with_warmup_lr_lambda": "polynomial",
    "_get_inverse_sqrt_schedule_lr_lambda": "inverse_sqrt",
    "_get_cosine_with_min_lr_schedule_with_warmup_lr_rate_lambda": "cosine_warmup_with_min_lr",
    "_get_wsd_scheduler_lambda": "warmup_stable_decay",
}


def from_transformers(
    name: str,
    *,
    peak_lr: float,
    num_warmup_steps: int | None = 0,
    num_training_steps: int | None = None,
    total_steps: int | None = None,
    **scheduler_specific_kwargs: Any,
) -> Schedule:
    """The schedule that ``transformers.get_scheduler(name, ...)`` applies, and so Trainer.

    Every update is as in transformers, quirks included: cosines that rise again past the end, a
    warm-up longer than the run, a stable part that is negative. Where that is a native schedule,
    one is returned; else one whose decay shape is ``transformers.<name>``.

    name: a string or a ``SchedulerType``. peak_lr: the learning rate the optimizer is built with.
    num_warmup_steps, num_training_steps, scheduler_specific_kwargs: as get_scheduler takes them;
    those that a type ignores may be given. total_steps: updates of the run; default
    num_training_steps, or what the other lengths span.

    ScheduleError: an unknown name or keyword, a length that is missing, reduce_lr_on_plateau and
    greedy (no functions of k), a polynomial with T = W (transformers divides by zero).

    >>> from lrsched import from_transformers
    >>> schedule = from_transformers("cosine", peak_lr=1.0, num_warmup_steps=2, num_training_steps=6)
    >>> [round(schedule.lr(k), 4) for k in range(8)]
    [0.0, 0.5, 1.0, 0.8536, 0.5, 0.1464, 0.0, 0.1464]
    """
    kind = getattr(name, "value", name)
    if kind in REFUSED:
        raise ScheduleError(
            "name",
            f"{kind!r} {REFUSED[kind]}, so it is no function of the update",
            "leave it to transformers, or write down the curve that is wanted",
        )
    if not isinstance(kind, str) or f"transformers.{kind}" not in SHAPES:
        names = [shape.partition(".")[2] for shape in SHAPES]
        raise ScheduleError("name", *unknown("transformers scheduler", kind, names))
    lengths = {"num_warmup_steps": num_warmup_steps, "num_training_steps": num_training_steps}
    try:
        shape = _read(SHAPES[f"transformers.{kind}"], lengths, scheduler_specific_kwargs)
        return as_schedule(shape, peak_lr, _whole(num_training_steps) if total_steps is None else total_steps)
    except ScheduleError as error:
        raise error.renamed("decay", kind) from None


def from_transformers_lambda(
    function_name: str, keywords: Mapping[str, Any], peak_lr: float, total_steps: int | None = None
) -> Schedule:
    """The schedule of a LambdaLR that transformers made, for a group whose initial lr is peak_lr.

    function_name: ``__name__`` of the function in the ``functools.partial`` that the LambdaLR
    holds (or of the function itself); keywords: those of the partial.
    """
    if function_name not in _FUNCTIONS:
        raise ScheduleError("lr_lambda", *unknown("schedule function of transformers", function_name, _FUNCTIONS))
    kind, given = _FUNCTIONS[function_name], dict(keywords)
    if function_name == _COSINE and "min_lr_rate" in given:
        kind = "cosine_with_min_lr"
    if kind == "polynomial" and "lr_init" in given:
        # The function divides by the lr of the optimizer, whatever that of the group is.
        lr_init = given.pop("lr_init")
        given["lr_end"] = given["lr_end"] if lr_init == peak_lr else given["lr_end"] / lr_init * peak_lr
    if kind == "warmup_stable_decay":
        # transformers turned T into the stable part; turned back, the stable part may be negative.
        parts = ("num_warmup_steps", "num_stable_steps", "num_decay_steps")
        end = sum(given.get(name, 0) for name in parts)
        if end >= 1:
            given = {**given, "num_training_steps": end, "num_stable_steps": None}
    return from_transformers(kind, peak_lr=peak_lr, total_steps=total_steps, **given)


def _read(cls: type[Dialect], lengths: dict[str, Any], kwargs: dict[str, Any]) -> Dialect:
    own, known = scheduler_fields(cls), [name for name in scheduler_fields(cls) if name not in lengths]
    if kwargs.pop("last_epoch", -1) != -1:
        raise ScheduleError("decay.last_epoch", "starts the schedule in its middle", "take lr(k) from that k")
    for name in kwargs:
        if name not in known:
            problem, way_out = unknown("keyword", name, known)
            raise ScheduleError(f"decay.{name}", problem, way_out if known else "it takes none")
    if "num_warmup_steps" in own and lengths["num_warmup_steps"] is None:
        raise ScheduleError("decay.num_warmup_steps", "is missing", "give the number, or 0")
    values = {**{name: value for name, value in lengths.items() if name in own}, **kwargs}
    return fields.read_section(
        cls, {name: _whole(value) for name, value in values.items() if value is not None}, Units()
    )


def _whole(value: Any) -> Any:
    """A float that is whole as an int: many programs write ``0.1 * steps`` for a length."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
