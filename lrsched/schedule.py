"""The schedule: a frozen value, a closed form of k, from which every other form is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lrsched import fields
from lrsched.decays import Constant, Decay, Span
from lrsched.decays.base import check_rise
from lrsched.errors import ScheduleError, joined, need, unknown
from lrsched.lengths import Units
from lrsched.numeric import Steps, Values, as_steps
from lrsched.numeric import joined as joined_at
from lrsched.shapes import read_decay
from lrsched.warmups import Warmup
from lrsched.yaml_text import unique_key_loader

if TYPE_CHECKING:
    import os

    from torch.optim import Optimizer

    from lrsched.torch_form import ScheduleLR

BACKENDS = ("auto", "deepspeed", "torch")
# Array elements evaluated at a time, so that what is worked on stays in the processor's cache.
_CHUNK = 2**14
_KEYS = ["peak_lr", "total_steps", "warmup", "decay", "backend"]


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule.

    k is the number of optimizer updates already made; update k (from 0) uses ``lr(k)``.

    peak_lr: the learning rate at full height, above 0. total_steps: optimizer updates in the
    run. warmup: the updates k < warmup.steps. decay: the updates from there on. backend: which
    form a DeepSpeed run uses (``deepspeed_backend``); it does not change the curve.

    Two schedules are equal when they say the same, defaults filled in.

    >>> from lrsched import Cosine, Schedule, Warmup
    >>> s = Schedule(peak_lr=1e-3, total_steps=10, warmup=Warmup(steps=4), decay=Cosine())
    >>> [s.lr(k) for k in (0, 2, 9)]
    [0.0, 0.0005, 0.0]
    """

    peak_lr: float
    total_steps: int
    warmup: Warmup = field(default_factory=Warmup)
    decay: Decay = field(default_factory=Constant)
    backend: str = "auto"

    def __post_init__(self) -> None:
        peak = _peak(self.peak_lr)
        total = Units().resolve(self.total_steps, "total_steps", 1)
        if not isinstance(self.warmup, Warmup):
            raise ScheduleError("warmup", f"{self.warmup!r} is not a Warmup", "use Warmup(...) or from_dict")
        if not isinstance(self.decay, Decay):
            raise ScheduleError("decay", f"{self.decay!r} is not a decay shape", "use Cosine(...) or from_dict")
        _backend(self.backend)
        if self.warmup.steps > total:
            raise ScheduleError(
                "warmup.steps",
                f"{self.warmup.steps} is more than total_steps {total}",
                "shorten the warm-up or lengthen the run",
            )
        check_rise(self.decay, self.warmup.steps)
        span = Span(peak, self.warmup.steps, total - self.warmup.steps)
        decay = self.decay.resolved(span)
        for name, value in (("peak_lr", peak), ("total_steps", total), ("decay", decay), ("_span", span)):
            object.__setattr__(self, name, value)

    def lr(self, k: Any) -> Any:
        """The learning rate of update k.

        k: an int, or an integer NumPy array for an array of the same shape; the two agree to
        the last bit. A k of total_steps or more gives what the decay shape says comes after its
        end. A negative k, or one that is not whole, is a ScheduleError.
        """
        k = as_steps(k)
        if isinstance(k, int):
            return self._lr(k)
        import numpy as np

        values = np.empty(k.shape, np.float64)
        flat, into = k.reshape(-1), values.reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            into[start : start + _CHUNK] = self._lr(flat[start : start + _CHUNK])
        return values

    def _lr(self, k: Steps) -> Values:
        span: Span = self._span  # type: ignore[attr-defined]
        if not span.start:
            return self.decay.lr(k, span)
        return joined_at(k, span.start, lambda i: self.warmup.lr(i, span.peak), lambda j: self.decay.lr(j, span))

    @classmethod
    def from_dict(
        cls,
        mapping: Mapping[str, Any],
        steps_per_epoch: float | None = None,
        where: str = "",
    ) -> Schedule:
        """A schedule from its YAML form.

        steps_per_epoch: optimizer updates per epoch, needed when a length is in epochs; may be
        fractional. where: what to put in front of the fields in error messages, such as
        "schedule". Every mistake is reported, one line each, in one ScheduleError.
        """
        try:
            return cls(**_read(fields.as_mapping(mapping, ""), steps_per_epoch))
        except ScheduleError as error:
            raise error.under(where) from None

    @classmethod
    def from_yaml(cls, text: str, steps_per_epoch: float | None = None) -> Schedule:
        """A schedule from YAML or JSON text: the schedule itself, or a config with a ``schedule:``."""
        import yaml

        try:
            found = yaml.load(text, Loader=unique_key_loader())
            mapping = fields.as_mapping(found, "")
            if "schedule" in mapping:
                return cls.from_dict(fields.as_mapping(mapping["schedule"], "schedule"), steps_per_epoch, "schedule")
            return cls.from_dict(mapping, steps_per_epoch)
        except ScheduleError:
            raise
        except (yaml.YAMLError, ValueError) as error:
            raise ScheduleError("", f"not YAML: {' '.join(str(error).split())}") from None
        except RecursionError:
            raise ScheduleError("", "nested too deeply", "join the pieces in one list") from None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], steps_per_epoch: float | None = None) -> Schedule:
        """``from_yaml`` of a file; ScheduleError names the file when it cannot be read."""
        from pathlib import Path

        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise ScheduleError("", f"cannot read {path}: {reason}") from None
        return cls.from_yaml(text, steps_per_epoch)

    def to_dict(self) -> dict[str, Any]:
        """The YAML form, with defaults filled in and lengths in updates; ``from_dict`` reads it back."""
        return {
            "peak_lr": self.peak_lr,
            "total_steps": self.total_steps,
            "warmup": self.warmup.to_dict(),
            "decay": self.decay.to_mapping(),
            "backend": self.backend,
        }

    def to_yaml(self) -> str:
        """``to_dict`` as YAML text."""
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    @property
    def fingerprint(self) -> str:
        """16 hex digits of SHA-256 over the definition without ``backend``.

        Equal on every machine and Python; changes when any number of the definition does.
        """
        import hashlib
        import json

        definition = {key: value for key, value in self.to_dict().items() if key != "backend"}
        text = json.dumps(definition, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def describe(self) -> str:
        """One sentence that a person can check against what was meant."""
        last, steps = self.total_steps - 1, self.warmup.steps
        rise = f"{self.warmup.phrase(self.peak_lr)} (k=0 to {steps - 1})" if steps else ""
        # A warm-up as long as the run leaves nothing to say of the decay.
        fall = self.decay.phrase(Span(self.peak_lr, steps, self.total_steps - steps)) if steps <= last else ""
        text = (
            f"{', then '.join(filter(None, (rise, fall)))}; {self.total_steps} updates in all, "
            f"the first trains at {self.lr(0)!r}, the last (k={last}) at {self.lr(last)!r}."
        )
        return text[0].upper() + text[1:]

    def to_torch(self, optimizer: Optimizer, on_mismatch: str = "error") -> ScheduleLR:
        """This schedule as a torch ``LRScheduler`` bound to ``optimizer`` (see torch_form.py).

        ``schedule.to_torch`` itself can be given to ``deepspeed.initialize(lr_scheduler=...)``.
        """
        need("torch", "to_torch")
        from lrsched.torch_form import ScheduleLR

        return ScheduleLR(optimizer, self, on_mismatch=on_mismatch)

    def to_deepspeed(self) -> dict[str, Any]:
        """The ``scheduler`` block of a DeepSpeed config that applies exactly this schedule.

        NotExpressible when DeepSpeed's own schedulers cannot (see deepspeed_form.py).
        """
        from lrsched.deepspeed_form import native_block

        return native_block(self)

    def initialize_kwargs(
        self, optimizer: Optimizer | None = None, config: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """What ``deepspeed.initialize(model=model, **kwargs)`` needs to train at lr(k), in either case.

        Follows ``backend`` (see ``deepspeed_backend``): DeepSpeed's own scheduler where it applies
        exactly this schedule, else the torch form. Pass all else (``config`` too, if it is not
        given here) to ``initialize`` yourself.

        optimizer: the torch optimizer, built with lr = peak_lr; None when DeepSpeed makes it from
        the config. config: a DeepSpeed config without a scheduler; then a copy of it is among the
        results, with the block in it where that is the form taken.
        """
        from lrsched.deepspeed_form import initialize_kwargs

        return initialize_kwargs(self, optimizer, config)

    def to_transformers(self) -> dict[str, Any]:
        """The fields of transformers' ``TrainingArguments`` under which Trainer applies exactly lr(k).

        NotExpressible when none of its schedulers does (see transformers_form.py); then hand the
        torch form over: ``Trainer(optimizers=(optimizer, schedule.to_torch(optimizer)))``.
        """
        from lrsched.transformers_form import training_arguments

        return training_arguments(self)


def _read(mapping: Mapping[str, Any], steps_per_epoch: float | None) -> dict[str, Any]:
    """The constructor arguments in a mapping; errors of all sections are raised together."""
    errors = fields.unknown_keys(mapping, _KEYS, "")
    values: dict[str, Any] = {}

    def attempt(name: str, read: Any) -> None:
        try:
            values[name] = read()
        except ScheduleError as error:
            errors.append(error)

    for name in ("peak_lr", "total_steps"):
        if mapping.get(name) is None:
            errors.append(ScheduleError(name, "is missing", "it has no default"))
    per_epoch = Units(steps_per_epoch=steps_per_epoch)
    if mapping.get("peak_lr") is not None:
        attempt("peak_lr", lambda: _peak(mapping["peak_lr"]))
    if mapping.get("total_steps") is not None:
        attempt("total_steps", lambda: per_epoch.resolve(mapping["total_steps"], "total_steps", 1))
    if "backend" in mapping:
        attempt("backend", lambda: _backend(mapping["backend"]))
    # A percentage means nothing while total_steps is in error.
    units = dataclasses.replace(per_epoch, total_steps=values.get("total_steps", 1))
    if "total_steps" in values:
        if mapping.get("warmup") is not None:
            attempt("warmup", lambda: _read_warmup(mapping["warmup"], units))
        if mapping.get("decay") is not None:
            attempt("decay", lambda: read_decay(mapping["decay"], units))
    if errors:
        raise joined(errors)
    return values


def _read_warmup(value: Any, units: Units) -> Warmup:
    return fields.read_section(Warmup, fields.as_mapping(value, "warmup"), units)


def _peak(value: Any) -> float:
    peak = fields.finite_number(value, "peak_lr")
    if peak <= 0.0:
        raise ScheduleError("peak_lr", f"{value!r} is not above 0", "write one such as 1.0e-3")
    return peak


def _backend(value: Any) -> str:
    if not isinstance(value, str) or value not in BACKENDS:
        raise ScheduleError("backend", *unknown("backend", value, BACKENDS))
    return value
