"""The schedule as fields of transformers' ``TrainingArguments``, where that is exact.

What transformers' schedulers apply is said in dialects/transformers_shapes.py. Trainer gives them
T = max_steps. Their warm-up is k / W, that of ``start_ratio: 0``; only warmup_stable_decay has
others (down to the floor that the decay ends at), and cosine_warmup_with_min_lr (any start).

Their decays begin at the peak (``ends_at_min: false``). One that is an update ahead
(``ends_at_min: true``) is a warmup_stable_decay whose stable part is an update shorter, at the
least -1; transformers accepts that, and warns that it uses num_stable_steps. A cosine whose length
is not the rest of the run is one with another number of cycles.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lrsched import decays
from lrsched.errors import ScheduleError
from lrsched.exact import first_exact

if TYPE_CHECKING:
    from lrsched.dialects.base import Dialect
    from lrsched.dialects.transformers_shapes import WarmupStableDecay
    from lrsched.schedule import Schedule


def training_arguments(schedule: Schedule) -> dict[str, Any]:
    """The ``TrainingArguments`` fields under which transformers' Trainer applies exactly lr(k).

    learning_rate, max_steps, lr_scheduler_type, lr_scheduler_kwargs and warmup_steps (an int; as
    transformers 5 has it). Each candidate is compared with lr(k) at every k in
    range(total_steps), at most 1e-15 of the peak apart (cosines of several cycles and roots: what
    transformers' own arithmetic loses, at most 1e-12). Groups with learning rates of their own keep
    their ratio.

    Raises NotExpressible with the first update that differs, for the candidate that gets
    furthest.
    """
    return first_exact(
        schedule, ((shape, _arguments(schedule, shape)) for shape in _candidates(schedule)), "transformers"
    )


def _arguments(schedule: Schedule, shape: Dialect) -> dict[str, Any]:
    from lrsched.dialects.transformers_base import scheduler_kwargs

    return {
        "learning_rate": schedule.peak_lr,
        "max_steps": schedule.total_steps,
        "lr_scheduler_type": shape.shape.partition(".")[2],
        "lr_scheduler_kwargs": scheduler_kwargs(shape),
        "warmup_steps": getattr(shape, "num_warmup_steps", 0),
    }


def _candidates(schedule: Schedule) -> Iterator[Dialect]:
    """The forms worth comparing that transformers accepts, never none; comparing decides."""
    from lrsched.decays import Span

    span = Span(schedule.peak_lr, 0, schedule.total_steps)
    for shape in _shapes(schedule):
        try:
            shape.resolved(span)
        except ScheduleError:
            continue
        yield shape


def _shapes(schedule: Schedule) -> Iterator[Dialect]:
    from lrsched.dialects import transformers_shapes as hf

    decay, warm, total = schedule.decay, schedule.warmup.steps, schedule.total_steps
    if decay.shape in hf.SHAPES:
        yield from _own(schedule)
    elif isinstance(decay, decays.Cosine):
        yield from _cosines(schedule, decay)
    elif isinstance(decay, decays.Linear):
        yield from _lines(schedule, decay)
    elif isinstance(decay, decays.InverseSqrt):
        default = (warm or hf.DEFAULT_TIMESCALE) == decay.timescale
        yield hf.InverseSqrt(num_warmup_steps=warm, timescale=None if default else decay.timescale)
    elif isinstance(decay, decays.Wsd):
        stable = total - warm - decay.decay_steps - int(decay.ends_at_min)
        yield _stable(schedule, decay.decay_steps, decay.decay_shape, decay.eta_min / schedule.peak_lr, stable)
    # What any schedule may come to, and what a refusal can speak of.
    yield hf.ConstantWithWarmup(num_warmup_steps=warm) if warm else hf.Constant()
    if warm:
        yield _stable(schedule, 0, "linear", schedule.warmup.start_ratio, total - warm)


def _cosines(schedule: Schedule, decay: decays.Cosine) -> Iterator[Dialect]:
    from lrsched.dialects import transformers_shapes as hf

    warm, total, half, floor = schedule.warmup.steps, schedule.total_steps, decay.t_max or 1, decay.eta_min
    run = {"num_warmup_steps": warm, "num_training_steps": total}
    down = max(1, total - warm)
    if decay.after == "restart":
        yield hf.CosineWithRestarts(**run, num_cycles=down / half)
    if not decay.ends_at_min:
        cycles = 0.5 * down / half
        yield (
            hf.CosineWithMinLR(**run, num_cycles=cycles, min_lr=floor) if floor else hf.Cosine(**run, num_cycles=cycles)
        )
    yield _stable(schedule, half, "cosine", floor / schedule.peak_lr, -int(bool(decay.ends_at_min)))
    # It begins to fall an update before its warm-up is over.
    early = warm if decay.ends_at_min else warm + 1
    yield hf.CosineWarmupWithMinLR(
        num_warmup_steps=early,
        num_training_steps=total,
        num_cycles=0.5 * max(1, total - early) / half,
        min_lr=floor,
        warmup_lr_rate=schedule.warmup.start_ratio if warm else None,
    )


def _lines(schedule: Schedule, decay: decays.Linear) -> Iterator[Dialect]:
    from lrsched.dialects import transformers_shapes as hf

    run = {"num_warmup_steps": schedule.warmup.steps, "num_training_steps": schedule.total_steps}
    power = decay.power if isinstance(decay, decays.Polynomial) else 1.0
    # A line that the end of the run cuts off ends where it is by then.
    end = schedule.lr(schedule.total_steps)
    if power == 1.0 and end == 0.0:
        yield hf.Linear(**run)
    yield hf.Polynomial(**run, lr_end=end, power=power)
    if power == 1.0:
        yield _stable(
            schedule, decay.decay_steps or 1, "linear", decay.eta_min / schedule.peak_lr, -int(decay.ends_at_min)
        )


def _stable(schedule: Schedule, down: int, kind: str, floor_ratio: float, stable: int) -> WarmupStableDecay:
    """A warmup_stable_decay of ``stable`` updates at the peak and ``down`` from there to the floor."""
    from lrsched.dialects.transformers_shapes import KINDS, WarmupStableDecay

    warmup, total = schedule.warmup, schedule.total_steps
    return WarmupStableDecay(
        num_warmup_steps=warmup.steps,
        num_training_steps=total,
        num_decay_steps=down,
        # What transformers works out by itself is left to it, because it warns of what is given.
        num_stable_steps=None if warmup.steps + stable + down == total else stable,
        warmup_type=warmup.shape if warmup.shape in KINDS else "linear",
        decay_type=kind,
        min_lr_ratio=floor_ratio,
    )


def _own(schedule: Schedule) -> Iterator[Dialect]:
    """A scheduler of transformers itself, with Trainer's T where that is not the one it had."""
    from lrsched.dialects import transformers_shapes as hf
    from lrsched.dialects.transformers_base import Trained, Transformers

    shape, total = schedule.decay, schedule.total_steps
    assert isinstance(shape, Transformers), "only called for these"
    if isinstance(shape, hf.WarmupStableDecay):
        stable = None if shape.end == total else shape.stable
        yield dataclasses.replace(shape, num_training_steps=total, num_stable_steps=stable)
    elif not isinstance(shape, Trained):
        yield shape
    else:
        adapted = dataclasses.replace(shape, num_training_steps=total)
        if isinstance(shape, (hf.Cosine, hf.CosineWithRestarts)):
            yield dataclasses.replace(adapted, num_cycles=shape.num_cycles * (adapted.down / shape.down))
        yield adapted
