"""The schedule as a torch ``LRScheduler``.

It differs from torch's own schedulers where those go wrong (all observed in torch 2.13):

- Closed form: the learning rate is computed from k alone, never from the one before, so
  nothing drifts and a resume cannot go wrong for ever.
- Quick: ``step`` takes its value from a block of upcoming ones that were computed together and
  equal lr(k) to the last bit. What is left is the writing into the groups.
- ``load_state_dict`` writes the learning rate into the optimizer at once; torch's leave the
  first update after a resume with whatever was there.
- ``optimizer.param_groups`` is read anew each time, because loading an optimizer replaces the
  group dicts, and an lr that is a tensor is filled in place, as ``torch.compile`` needs.
- It is a whole schedule by itself, best used alone (phases: ``piecewise``). torch's SequentialLR
  can hold it, but then load the optimizer's state last, as torch's own members need it. In a
  ChainedScheduler it overwrites what the members before it did, and those after it are applied
  to lr(k) once, not up to k times.
- It can be handed to DeepSpeed: no ``__call__`` (DeepSpeed would take it for a factory), no
  ``__len__`` (a falsy scheduler is dropped without a word), and ``step`` takes any arguments
  (a TypeError inside it makes DeepSpeed call ``step(train_batch_size)`` instead).
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrsched.errors import ScheduleError, unknown
from lrsched.numeric import LARGEST_LENGTH
from lrsched.schedule import Schedule

ON_MISMATCH = ("error", "checkpoint", "new")
# Values computed at a time: 50 microseconds, so that no step is slow and the share of each is small.
_BLOCK = 1024


class ScheduleLR(LRScheduler):
    """``schedule`` driving the learning rates of ``optimizer``.

    Call ``step()`` once after every optimizer update. Each parameter group trains at
    ``lr(k) * scale`` with ``scale = base / peak_lr``, exactly lr(k) where the base is peak_lr.
    A group's base is its ``initial_lr`` if it has one (an earlier scheduler's mark), else its
    lr when this scheduler first sees it. So build the optimizer with ``lr=peak_lr`` and give
    other groups their lr relative to it; eta_min scales along. An optimizer without any group
    at peak_lr is refused, because its lr would silently overrule peak_lr; one that was scheduled
    to another peak before has its first group taken for the one at the peak. A group added later
    trains at its own lr until the next ``step()`` (or ``seek(k)``), as with torch's schedulers.

    on_mismatch: what ``load_state_dict`` does when the saved schedule (or the saved relation
    of the groups' learning rates) is another one: "error" refuses, "checkpoint" goes on with
    the saved one, "new" with this one, at the saved k.
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule, *, on_mismatch: str = "error") -> None:
        if on_mismatch not in ON_MISMATCH:
            raise ScheduleError("on_mismatch", *unknown("choice", on_mismatch, ON_MISMATCH))
        scales = group_scales(optimizer, schedule)
        self.schedule = schedule
        self.on_mismatch = on_mismatch
        # lr(k) from k = _block_start on; good only for the very schedule in _block_of.
        self._block: list[float] = []
        self._block_start = 0
        self._block_of: Schedule | None = None
        # An optimizer whose groups carry initial_lr was scheduled before, perhaps to another peak.
        self._was_scheduled = any("initial_lr" in group for group in optimizer.param_groups)
        self._scales = scales
        super().__init__(optimizer)

    @property
    def k(self) -> int:
        """The number of updates made; the next update uses ``lr(k)``."""
        return int(self.last_epoch)

    def step(self, *_ignored: Any, **_also_ignored: Any) -> None:
        """Move on to the next update. Arguments are ignored: only the count of calls matters."""
        if self._step_count <= 1:
            # torch's own step counts the same way and warns once if optimizer.step() was not
            # called first; after that, ours does less.
            super().step()
            return
        self._step_count += 1
        self.seek(self.last_epoch + 1)

    def seek(self, k: int) -> None:
        """Go to update ``k`` (any, also backwards) and write its learning rates into the groups."""
        # The block does not hold where the schedule has been replaced since.
        if type(k) is int and 0 <= k - self._block_start < _BLOCK and self._block_of is self.schedule:
            value = self._block[k - self._block_start]
        else:
            value = self._begin_block(k)
            k = int(k)
        self.last_epoch = k
        groups = self.optimizer.param_groups
        if len(groups) > len(self._scales):
            self._read_scales(self.optimizer)
        last = []
        # strict=False would cost as much as a group.
        for group, scale in zip(groups, self._scales):  # noqa: B905
            lr = group["lr"]
            # Asked in this order because isinstance(..., Tensor) is slow.
            if type(lr) is float or not isinstance(lr, torch.Tensor):
                group["lr"] = lr = value * scale
                last.append(lr)
            else:
                lr.fill_(value * scale)
                last.append(lr.clone())
        self._last_lr = last

    def _begin_block(self, k: int) -> float:
        """lr(k), from which a new block starts if it can."""
        value = self.schedule.lr(k)
        # lr(k) has no largest k, an array has.
        if k < LARGEST_LENGTH:
            # A few shapes refuse some k on, which may lie in the block but never be reached.
            with contextlib.suppress(ScheduleError):
                self._block = self.schedule.lr(np.arange(k, k + _BLOCK)).tolist()
                self._block_start, self._block_of = int(k), self.schedule
        return float(value)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The learning rates of update k, one per group."""
        if len(self.optimizer.param_groups) > len(self._scales):
            self._read_scales(self.optimizer)
        value = self.schedule.lr(self.last_epoch)
        return [value * scale for scale in self._scales]

    def state_dict(self) -> dict[str, Any]:
        """k, the schedule (fingerprint and definition) and the groups' scales: plain data only."""
        return {
            "k": self.k,
            "fingerprint": self.schedule.fingerprint,
            "definition": self.schedule.to_dict(),
            "scales": list(self._scales),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to the saved k and write its learning rates into the optimizer at once.

        The optimizer's own state may be loaded before or after. A state of another schedule is
        treated as ``on_mismatch`` says; with "new", load the optimizer first, because it brings
        the learning rate of the old schedule along (or call ``seek(k)`` afterwards).
        """
        if not isinstance(state_dict, dict):
            raise ScheduleError("state_dict", f"{state_dict!r} is not a state", "pass what state_dict() returned")
        missing = [key for key in ("k", "fingerprint", "definition", "scales") if key not in state_dict]
        if missing:
            raise ScheduleError(
                "state_dict",
                f"not the state of a Schedule: no {missing[0]!r} among {sorted(map(str, state_dict))}",
                "it was saved by another kind of scheduler; resume with that one",
            )
        if type(state_dict["k"]) is not int or state_dict["k"] < -1:
            raise ScheduleError("state_dict", f"k is {state_dict['k']!r}, no number of updates", "the state is damaged")
        if not isinstance(state_dict["scales"], list) or not isinstance(state_dict["definition"], dict):
            raise ScheduleError(
                "state_dict", "its scales or definition are no list and mapping", "the state is damaged"
            )
        if len(state_dict["scales"]) != len(self.optimizer.param_groups):
            raise ScheduleError(
                "state_dict",
                f"saved for {len(state_dict['scales'])} parameter groups, the optimizer has "
                f"{len(self.optimizer.param_groups)}",
                "build the same groups before loading",
            )
        schedule, scales = self._settled(state_dict), self._settled_scales(state_dict["scales"])
        self.schedule, self._scales = schedule, scales
        if state_dict["k"] < 0:
            # Inside a SequentialLR that has not come to this one: the learning rates are another's.
            self.last_epoch = state_dict["k"]
        else:
            self.seek(state_dict["k"])

    def _settled(self, state: dict[str, Any]) -> Schedule:
        if state["fingerprint"] == self.schedule.fingerprint or self.on_mismatch == "new":
            return self.schedule
        saved = Schedule.from_dict({**state["definition"], "backend": self.schedule.backend})
        if self.on_mismatch == "checkpoint":
            return saved
        raise ScheduleError(
            "state_dict",
            f"the checkpoint was trained with another schedule ({_differences(saved, self.schedule)})",
            'use the same one, or on_mismatch="checkpoint" or "new" to say which wins',
        )

    def _settled_scales(self, saved: list[float]) -> list[float]:
        # Scales read from initial_lr were taken against the present peak, which need not be the
        # one that initial_lr belongs to; the saved ones are ratios and stay right.
        if saved == self._scales or self._was_scheduled or self.on_mismatch == "checkpoint":
            return list(saved)
        if self.on_mismatch == "new":
            return self._scales
        raise ScheduleError(
            "state_dict",
            f"the groups' learning rates relate to peak_lr as {saved} in the checkpoint and as {self._scales} here",
            'build the same groups, or on_mismatch="checkpoint" or "new" to say which wins',
        )

    def _read_scales(self, optimizer: Optimizer) -> None:
        """Note the scale of every group not seen before."""
        for group in optimizer.param_groups[len(self._scales) :]:
            self._scales.append(_scale(group, self.schedule.peak_lr))


def group_scales(optimizer: Optimizer, schedule: Schedule) -> list[float]:
    """What each parameter group's learning rate is, as a multiple of the schedule's; see ScheduleLR."""
    if not isinstance(optimizer, Optimizer):
        raise ScheduleError(
            "optimizer", f"{type(optimizer).__name__} is not a torch Optimizer", "give the innermost one"
        )
    groups = optimizer.param_groups
    scales = [_scale(group, schedule.peak_lr) for group in groups]
    if 1.0 in scales:
        return scales
    if "initial_lr" in groups[0]:
        return [_scale(group, float(groups[0]["initial_lr"])) for group in groups]
    raise ScheduleError(
        "optimizer",
        f"no parameter group has lr = peak_lr {schedule.peak_lr!r}; the groups have "
        f"{[float(group['lr']) for group in groups]}",
        "build the optimizer with lr=peak_lr; other groups keep their ratio to it",
    )


def _scale(group: dict[str, Any], peak: float) -> float:
    base = group.get("initial_lr", group["lr"])
    if isinstance(base, torch.Tensor):
        # A float32 lr "equals" the peak when it is the peak rounded to float32.
        peak = torch.tensor(peak, dtype=base.dtype).item()
    return float(base) / peak


def _differences(saved: Schedule, present: Schedule) -> str:
    """The fields in which two schedules differ: "decay.t_max 90 there, 80 here"."""
    there, here = _flat(saved.to_dict()), _flat(present.to_dict())
    return ", ".join(
        f"{key} {there.get(key)!r} there, {here.get(key)!r} here"
        for key in dict.fromkeys([*there, *here])
        if there.get(key) != here.get(key)
    )


def _flat(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
