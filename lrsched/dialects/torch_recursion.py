"""torch's loop of ``step()`` calls for one parameter group, in plain Python and torch's own order.

Most of torch's schedulers compute a learning rate from the one before. Alone, or one after the
other, that has a closed form; several that step in turn on the same learning rate may have none.
These are the parts of ``LRScheduler``, ``SequentialLR`` and ``ChainedScheduler`` (torch 2.13) that
decide what is computed when, without the optimizer around them.
"""

from __future__ import annotations

import bisect
import functools
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lrsched.errors import ScheduleError

if TYPE_CHECKING:
    from lrsched.dialects.torch_base import Leaf, TorchShape

# The largest k to which a recursion is followed: some 20 s and 80 MB.
LONGEST = 10_000_000


@dataclass
class Group:
    """What the schedulers write into and read from a parameter group; fresh ones have only an lr."""

    lr: float
    initial_lr: float | None = None
    max_lr: float = 0.0
    min_lr: float = 0.0

    @property
    def first_lr(self) -> float:
        """initial_lr, in a group that has been given to a scheduler."""
        assert self.initial_lr is not None, "a scheduler was built on the group"
        return self.initial_lr


class Finished(ArithmeticError):
    """torch raises an error here."""


class PastTheEnd(Finished):
    """OneCycleLR has made all its steps."""


class Run(Protocol):
    """A scheduler that has been built on a group, at its update 0."""

    def step(self) -> None:
        """``step()``."""

    def initial_step(self) -> None:
        """``_initial_step()``: the first step, in the constructor."""

    def restart(self) -> None:
        """``_update_lr(0)``: the start at a milestone."""

    def undo(self) -> None:
        """``recursive_undo``: SequentialLR takes the members' first steps back."""


class LeafRun:
    """A scheduler without members."""

    def __init__(self, shape: Leaf, group: Group) -> None:
        self.shape, self.group = shape, group
        self.base_lr = shape.build(group)
        self.last_epoch = -1
        self.initial_step()
        # CyclicLR keeps its own from here on.
        self.base_lr = getattr(shape, "base_lr", self.base_lr)

    def initial_step(self) -> None:
        self._step(initial=True)

    def step(self) -> None:
        self._step(initial=False)

    def _step(self, initial: bool) -> None:
        self.last_epoch = max(0, self.last_epoch + 1) if self.shape.starts_at_zero else self.last_epoch + 1
        self.group.lr = self.shape.get_lr(self.last_epoch, self.group, self.base_lr, initial)

    def restart(self) -> None:
        ending = self.shape.ending(anew=True)
        if ending is not None and ending.last < 0:
            raise Finished("ZeroDivisionError")
        self.last_epoch = 0
        self.group.lr = float(self.shape.curve(np.zeros(1, np.int64), self.group, self.base_lr, anew=True)[0])

    def undo(self) -> None:
        self.last_epoch -= 1


class _MembersRun:
    """What ChainedScheduler and SequentialLR share: they are undone with their members, and never start anew."""

    members: list[Run]

    def restart(self) -> None:
        raise Finished("NotImplementedError")

    def undo(self) -> None:
        for member in self.members:
            member.undo()


class ChainRun(_MembersRun):
    """ChainedScheduler: every step is a step of each member, in order."""

    def __init__(self, members: Sequence[TorchShape], group: Group) -> None:
        self.members = [member.start(group) for member in members]

    def step(self) -> None:
        for member in self.members:
            member.step()

    initial_step = step


class SequenceRun(_MembersRun):
    """SequentialLR: the member whose turn it is steps, and starts anew at its milestone."""

    def __init__(self, members: Sequence[TorchShape], milestones: Sequence[float], group: Group) -> None:
        self.members = [member.start(group) for member in members]
        self.milestones = milestones
        group.lr = group.first_lr
        self.undo()
        self.last_epoch = 0
        self.members[bisect.bisect_right(milestones, 0)].initial_step()

    def step(self) -> None:
        self.last_epoch += 1
        turn = bisect.bisect_right(self.milestones, self.last_epoch)
        if turn > 0 and self.milestones[turn - 1] == self.last_epoch:
            self.members[turn].restart()
        else:
            self.members[turn].step()

    # Inside another SequentialLR the first step is one more, so the whole is one update ahead.
    initial_step = step


class Recursion:
    """The learning rates of one scheduler, computed as far as they have been asked for."""

    def __init__(self, shape: TorchShape, peak: float) -> None:
        self._group = Group(peak)
        try:
            self._run = shape.start(self._group)
        except ArithmeticError as error:
            raise ScheduleError(
                "decay", f"torch raises {_named(error)} when it builds this", "take the members apart"
            ) from None
        self._lrs = array("d", [self._group.lr])
        self._ended = False
        # OneCycleLR's own error past its end is no fault of the schedule.
        self._failed = False

    def at(self, k: np.ndarray) -> np.ndarray:
        """The learning rates of the updates ``k``; past an error of torch, the last one before it."""
        if k.size:
            self._go_to(int(k.max()))
        return np.frombuffer(self._lrs)[np.minimum(k, len(self._lrs) - 1)]

    def last_before_error(self, steps: int) -> int | None:
        """The last update before torch raises an error within so many steps, if it does."""
        self._go_to(steps)
        return len(self._lrs) - 1 if self._failed and len(self._lrs) <= steps else None

    def _go_to(self, last: int) -> None:
        if last > LONGEST:
            raise ScheduleError(
                "k",
                f"{last} is beyond {LONGEST}: these members of torch's have no closed form, so each update is "
                "computed from the one before",
                "ask for less, or write the curve as a native shape",
            )
        while len(self._lrs) <= last and not self._ended:
            try:
                self._run.step()
            except ArithmeticError as error:
                self._ended, self._failed = True, not isinstance(error, PastTheEnd)
            else:
                self._lrs.append(self._group.lr)


def _named(error: ArithmeticError) -> str:
    return str(error) if isinstance(error, Finished) else type(error).__name__


@functools.lru_cache(maxsize=8)
def recursion(shape: TorchShape, peak: float) -> Recursion:
    """The recursion of a shape, kept so that the next update goes on where the last one ended."""
    return Recursion(shape, peak)
