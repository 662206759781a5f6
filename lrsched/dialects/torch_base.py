"""What the shapes of torch's schedulers share."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any, ClassVar, NamedTuple

import numpy as np

from lrsched import fields
from lrsched.decays.base import Span
from lrsched.dialects.base import Dialect
from lrsched.dialects.torch_recursion import Group, LeafRun, Run, recursion
from lrsched.errors import ScheduleError, dotted
from lrsched.lengths import Units
from lrsched.numeric import LARGEST_LENGTH, between, half_cosine, power


class Ending(NamedTuple):
    """Where torch raises an error: ``last`` is the last update before it (-1: none at all).

    field, problem, way_out: the ScheduleError for a run that gets there; without a problem the
    curve just stays as it is.
    """

    last: int
    field: str = ""
    problem: str = ""
    way_out: str = ""

    def inside(self, where: str, start: int = 0) -> Ending:
        """The same for the whole of which this is the member ``where``, from update ``start`` on."""
        return self._replace(last=self.last + start, field=dotted(where, self.field))


class TorchShape(Dialect):
    """A scheduler of torch. Update k is what is in the group after k calls of ``step()``.

    The group belongs to a fresh optimizer of learning rate ``peak``, on which the scheduler (with
    its members, in their order) is the only one built.
    """

    library = "torch"
    # Fields that hold learning rates themselves rather than factors of the group's.
    rates: ClassVar[tuple[str, ...]] = ()

    def build(self, group: Group) -> float:
        """What the constructor notes in the group; returns the base lr it goes by."""
        raise NotImplementedError

    def start(self, group: Group) -> Run:
        """The scheduler built on the group, to be stepped."""
        raise NotImplementedError

    def scale(self, j: np.ndarray, anew: bool) -> np.ndarray:
        """What the group's initial lr is multiplied by, up to update ``scales_until``."""
        raise NotImplementedError

    def scales_until(self) -> float:
        """The last update to which each step is a multiplication and no more; -1 for none."""
        return -1

    def ending(self, anew: bool) -> Ending | None:
        """Where torch raises an error, if it does."""
        return None

    def values(self, k: np.ndarray, peak: float) -> np.ndarray:
        ending = self.ending(anew=False)
        if ending is not None:
            k = np.minimum(k, max(0, ending.last))
        # A gamma above 1 grows past all numbers, in torch as well.
        with np.errstate(over="ignore", invalid="ignore"):
            return self.followed(k, peak)

    def followed(self, k: np.ndarray, peak: float) -> np.ndarray:
        """The learning rates: in closed form where there is one, else by torch's own recursion."""
        raise NotImplementedError

    def resolved(self, span: Span) -> TorchShape:
        ending = self.ending(anew=False)
        # A loop calls step() after the last update, too.
        if ending is not None and ending.problem and ending.last < span.steps:
            raise ScheduleError(f"decay.{ending.field}", ending.problem, ending.way_out)
        self.values(np.zeros(1, np.int64), span.peak)
        return self


class Leaf(TorchShape):
    """A scheduler without members."""

    # CosineAnnealingWarmRestarts sets its count to 0 in its first step, whatever it was.
    starts_at_zero: ClassVar[bool] = False

    def build(self, group: Group) -> float:
        if group.initial_lr is None:
            group.initial_lr = group.lr
        return group.initial_lr

    def start(self, group: Group) -> LeafRun:
        return LeafRun(self, group)

    def is_closed(self) -> bool:
        """Whether ``curve`` is all that torch computes; else it only tells where it starts."""
        return True

    def curve(self, j: np.ndarray, group: Group, base_lr: float, anew: bool) -> np.ndarray:
        """The closed form at this scheduler's own updates j; anew: started by a SequentialLR's milestone."""
        raise NotImplementedError

    def followed(self, k: np.ndarray, peak: float) -> np.ndarray:
        if not self.is_closed():
            return recursion(self, peak).at(k)
        group = Group(peak)
        base_lr = self.build(group)
        return self.curve(k, group, base_lr, anew=False)

    def get_lr(self, n: int, group: Group, base_lr: float, initial: bool) -> float:
        """torch's own ``get_lr`` at ``last_epoch`` n; initial: in the constructor."""
        raise NotImplementedError


class Factor(Leaf):
    """A scheduler whose every step multiplies the learning rate."""

    def curve(self, j: np.ndarray, group: Group, base_lr: float, anew: bool) -> np.ndarray:
        return base_lr * self.scale(j, anew)

    def scales_until(self) -> float:
        return math.inf


def count(default: Any = dataclasses.MISSING) -> Any:
    """A field that torch takes as any number, though it counts updates."""
    return dataclasses.field(default=default, metadata={"read": read_count})


def counts() -> Any:
    """A field that is a list of such numbers; kept as a tuple."""
    return dataclasses.field(metadata={"read": read_counts})


def read_count(value: Any, units: Units, where: str) -> float:
    """A length, or a number as torch takes it: negative, or with a part of an update."""
    if isinstance(value, str):
        return units.resolve(value, where)
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    number = int(value) if is_whole else fields.finite_number(value, where)
    if abs(number) > LARGEST_LENGTH:
        raise ScheduleError(where, f"{value!r} is too long", "at most 2**53")
    return int(number) if number == int(number) else number


def read_counts(value: Any, units: Units, where: str) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)):
        raise ScheduleError(where, f"{value!r} is not a list", "write one such as [3000, 6000]")
    return tuple(read_count(one, units, f"{where}[{i}]") for i, one in enumerate(value))


def is_whole(number: float) -> bool:
    """Whether a count is a whole number of updates."""
    return isinstance(number, int)


def any_power(base: float, exponent: np.ndarray) -> np.ndarray:
    """``base ** exponent`` for any base and whole exponents >= 0; 0 ** 0 is 1, too large is inf."""
    if 0.0 < base <= 1.0:
        return power(base, exponent)
    if base < 0.0:
        return np.where(exponent % 2 == 0, 1.0, -1.0) * any_power(-base, exponent)
    if base == 0.0:
        return np.where(exponent == 0, 1.0, 0.0)
    different, where = np.unique(exponent, return_inverse=True)
    return np.array([grown(base, int(n)) for n in different], np.float64)[where].reshape(exponent.shape)


def grown(base: float, exponent: int) -> float:
    """``base ** exponent``, too large is inf."""
    try:
        return base**exponent
    except OverflowError:
        return math.inf


def wave(j: np.ndarray, half: float) -> np.ndarray:
    """(1 + cos(pi j / half)) / 2 for updates j and half waves of any length but 0."""
    half = abs(half)
    # Reduced before the division: exactly, for whole numbers and for others.
    i = j % (2 * half) if is_whole(half) else np.fmod(j.astype(np.float64), 2.0 * half)
    return half_cosine(np.minimum(i, 2 * half - i) / half)


def cosine_at(progress: np.ndarray) -> np.ndarray:
    """(1 + cos(pi progress)) / 2 for any progress."""
    rest = np.fmod(np.abs(progress), 2.0)
    return half_cosine(np.minimum(rest, 2.0 - rest))


def mixed(low: float, high: float, part: np.ndarray) -> np.ndarray:
    """``low + (high - low) * part``, whichever is higher."""
    if low <= high:
        values = between(low, high, part)
        assert isinstance(values, np.ndarray)
        return values
    return np.where(part >= 1.0, high, low + (high - low) * part)
