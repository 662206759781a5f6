"""torch's schedulers of schedulers: one after the other, and all at once."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from lrsched.decays.base import Span
from lrsched.dialects.torch_base import Ending, Leaf, TorchShape, counts, is_whole
from lrsched.dialects.torch_recursion import ChainRun, Group, SequenceRun, recursion
from lrsched.errors import ScheduleError
from lrsched.lengths import Units


def _read_members(value: Any, units: Units, where: str) -> tuple[TorchShape, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise ScheduleError(where, f"{value!r} is not a list of schedulers", "torch wants at least one")
    return tuple(_read_member(one, units, f"{where}[{i}]") for i, one in enumerate(value))


def _read_member(value: Any, units: Units, where: str) -> TorchShape:
    from lrsched.shapes import read_decay

    if isinstance(value, TorchShape):
        return value
    try:
        shape = read_decay(value, units)
    except ScheduleError as error:
        raise error.renamed("decay", where) from None
    if not isinstance(shape, TorchShape):
        raise ScheduleError(f"{where}.shape", f"{shape.shape!r} is not a scheduler of torch's", "write torch.<class>")
    return shape


# Updates followed when a schedule is made, to see whether torch raises an error.
_TRIED = 100_000


class _Composed(TorchShape):
    """A scheduler of schedulers. Its members are built on the group one after the other."""

    schedulers: tuple[TorchShape, ...]

    def build(self, group: Group) -> float:
        for member in self.schedulers:
            member.build(group)
        return group.first_lr

    def ending(self, anew: bool) -> Ending | None:
        """Where torch raises an error, if it does."""
        if anew:
            name = self.shape.partition(".")[2]
            problem = f"torch cannot start a {name} at a milestone (NotImplementedError)"
            return Ending(-1, "", problem, "put it first, or take its members for it")
        return min(self.endings(), key=lambda ending: ending.last, default=None)

    def endings(self) -> list[Ending]:
        """Where members make torch raise an error, in updates of the whole."""
        raise NotImplementedError

    def is_shifted(self) -> bool:
        """Whether some member does not begin at its own update 0, so that only torch's loop tells."""
        return any(isinstance(member, _Composed) and member.is_shifted() for member in self.schedulers)

    def resolved(self, span: Span) -> TorchShape:
        if not self.is_shifted():
            return super().resolved(span)
        last = recursion(self, span.peak).last_before_error(min(span.steps, _TRIED))
        if last is not None:
            name = self.shape.partition(".")[2]
            raise ScheduleError(
                "decay.schedulers",
                f"a {name} of these makes torch raise an error at update {last + 1}",
                "let milestones rise, and put schedulers that have members into no other",
            )
        return self

    def values(self, k: np.ndarray, peak: float) -> np.ndarray:
        if self.is_shifted():
            return recursion(self, peak).at(k)
        return super().values(k, peak)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "schedulers": [member.to_mapping() for member in self.schedulers]}


class Turn(NamedTuple):
    """The updates from ``start`` on, in which a member of a SequentialLR steps."""

    start: int
    index: int


@dataclass(frozen=True)
class SequentialLR(_Composed):
    """The member whose turn it is, from ``lr`` and its own update 0 on, at its milestone and after.

    Member i has its turn from milestones[i - 1] on; with a milestone of 0, and between equal ones,
    a member has none. Only the first to have its turn may have members itself, and then torch does
    not begin at update 0 of all of them: a SequentialLR is one update ahead, and the first step of
    a cosine, power or exponential is made twice. That is followed here update by update, up to
    k = 10,000,000; so are milestones that do not rise or are not whole, which torch takes.
    """

    shape = "torch.SequentialLR"
    schedulers: tuple[TorchShape, ...] = field(metadata={"read": _read_members})
    milestones: tuple[float, ...] = counts()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.milestones) != len(self.schedulers) - 1:
            raise ScheduleError(
                "decay.milestones",
                f"{len(self.milestones)} of them for {len(self.schedulers)} schedulers",
                "torch wants one less than schedulers",
            )

    def turns(self) -> list[Turn]:
        """The turns in order, from update 0 on."""
        starts = [0, *sorted({math.ceil(one) for one in self.milestones if one > 0})]
        turns: list[Turn] = []
        for start in starts:
            index = bisect.bisect_right(self.milestones, start)
            if not turns or index != turns[-1].index:
                turns.append(Turn(start, index))
        return turns

    def is_shifted(self) -> bool:
        rising = list(self.milestones) == sorted(self.milestones) and all(map(is_whole, self.milestones))
        first = self.schedulers[self.turns()[0].index]
        return not rising or isinstance(first, _Composed) or super().is_shifted()

    def _closed(self, peak: float) -> Group | None:
        """The group after the constructors, if each turn is a closed form from its initial lr on."""
        group = Group(peak)
        bases = [member.build(group) for member in self.schedulers]
        for _, index in self.turns():
            member = self.schedulers[index]
            # OneCycleLR changes the initial lr, but not what those built before it go by.
            moved = "max_lr" not in member.rates and bases[index] != group.initial_lr
            if not isinstance(member, Leaf) or not member.is_closed() or moved:
                return None
        return group

    def followed(self, k: np.ndarray, peak: float) -> np.ndarray:
        group = self._closed(peak)
        if group is None:
            return recursion(self, peak).at(k)
        turns, values = self.turns(), np.empty(k.shape)
        whose = np.searchsorted(np.array([turn.start for turn in turns]), k, side="right") - 1
        for i, (start, index) in enumerate(turns):
            here = whose == i
            if here.any():
                member = self.schedulers[index]
                values[here] = member.curve(k[here] - start, group, group.first_lr, anew=i > 0)
        return values

    def start(self, group: Group) -> SequenceRun:
        return SequenceRun(self.schedulers, self.milestones, group)

    def endings(self) -> list[Ending]:
        endings, turns = [], self.turns()
        for i, (start, index) in enumerate(turns):
            ending = self.schedulers[index].ending(anew=i > 0)
            left = turns[i + 1].start - start if i + 1 < len(turns) else math.inf
            if ending is not None and ending.last + 1 < left:
                endings.append(ending.inside(f"schedulers[{index}]", start))
        return endings

    def natural_steps(self) -> int:
        start, index = self.turns()[-1]
        return start + self.schedulers[index].natural_steps()

    def native(self, span: Span) -> dict[str, Any] | None:
        """A warm-up and one shape after it, or pieces."""
        turns = [turn for turn in self.turns() if turn.start < span.steps]
        if self.is_shifted() or self._closed(span.peak) is None:
            return None
        pieces = []
        for i, (start, index) in enumerate(turns):
            is_last = i + 1 == len(turns)
            steps = (span.steps if is_last else turns[i + 1].start) - start
            native = self.schedulers[index].native(Span(span.peak, start, steps))
            if native is None:
                return None
            pieces.append(_piece(native, steps, is_last))
        return _joined(pieces)

    def phrase(self, span: Span) -> str:
        parts = []
        for start, index in self.turns():
            words = self.schedulers[index].phrase(span)
            parts.append(f"from update {start} on {words}" if start else words)
        return f"torch's SequentialLR as it is applied: {', '.join(parts)}"


def _piece(native: dict[str, Any], steps: int, is_last: bool) -> dict[str, Any]:
    """A piece of a native schedule that lasts ``steps`` updates."""
    piece, decay = dict(native), dict(native.get("decay", {}))
    room = steps - native.get("warmup", {}).get("steps", 0)
    if decay.get("t_max", decay.get("decay_steps", 0)) > room:
        decay["allow_unfinished"] = True
    if decay.get("shape") == "multistep" and not is_last:
        # A native shape refuses milestones that are never met.
        decay["milestones"] = [one for one in decay["milestones"] if one < room]
    if decay:
        piece["decay"] = decay
    return piece if is_last else {"steps": steps, **piece}


def _joined(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    first, *rest = pieces
    if not rest:
        return first
    if "decay" in first or first["warmup"]["steps"] != first["steps"]:
        return {"decay": {"shape": "piecewise", "pieces": pieces}}
    if len(rest) == 1 and "warmup" not in rest[0]:
        return {"warmup": first["warmup"], **rest[0]}
    return {"warmup": first["warmup"], "decay": {"shape": "piecewise", "pieces": rest}}


@dataclass(frozen=True)
class ChainedScheduler(_Composed):
    """All members step in turn, each on the learning rate that the one before it has left.

    While every step of every member multiplies, that is ``lr`` times the product of their factors.
    Members that work from learning rates (a cosine with an eta_min or past its zero, restarts,
    CyclicLR and OneCycleLR, which overwrite what the others have done, and a SequentialLR) have no
    such form; they are followed update by update as torch does it, up to k = 10,000,000. The
    members are taken to be built in the order in which they stand here.
    """

    shape = "torch.ChainedScheduler"
    schedulers: tuple[TorchShape, ...] = field(metadata={"read": _read_members})

    def scale(self, j: np.ndarray, anew: bool) -> np.ndarray:
        product = np.ones(j.shape)
        for member in self.schedulers:
            product = product * member.scale(j, anew)
        return product

    def scales_until(self) -> float:
        return min(member.scales_until() for member in self.schedulers)

    def followed(self, k: np.ndarray, peak: float) -> np.ndarray:
        until = self.scales_until()
        early = k <= until
        if early.all() and until >= 0:
            return peak * self.scale(k, anew=False)
        values = np.empty(k.shape)
        values[early] = self.followed(k[early], peak) if early.any() else 0.0
        values[~early] = recursion(self, peak).at(k[~early])
        return values

    def start(self, group: Group) -> ChainRun:
        return ChainRun(self.schedulers, group)

    def endings(self) -> list[Ending]:
        found = [(i, member.ending(anew=False)) for i, member in enumerate(self.schedulers)]
        return [ending.inside(f"schedulers[{i}]") for i, ending in found if ending is not None]

    def natural_steps(self) -> int:
        return max(member.natural_steps() for member in self.schedulers)

    def native(self, span: Span) -> dict[str, Any] | None:
        # More than one may be the same as a native schedule too, but then needs no chain.
        if len(self.schedulers) > 1 or self.scales_until() < math.inf:
            return None
        return self.schedulers[0].native(span)

    def phrase(self, span: Span) -> str:
        members = " and ".join(member.phrase(span) for member in self.schedulers)
        return f"torch's ChainedScheduler as it is applied: {members} together"
