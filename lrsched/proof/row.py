"""One line of the proof: a schedule, and what in a real library must apply the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from lrsched.schedule import Schedule

# The learning rate all optimizers of the proof are built with.
PEAK = 1e-3
# The largest deviation allowed at any update, as a part of the peak.
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Row:
    """A contract: ``schedule()`` equals what ``library`` applies, at every update and 20 % past the end.

    name: what the table shows. shape: the decay shape that the row proves (a native one such as
    "cosine", or a dialect's such as "torch.StepLR"). schedule: makes our side; it may ask the
    installed library (``from_torch`` of a real scheduler). Their side is either ``scheduler``,
    which binds a real scheduler to a real torch optimizer of lr peak_lr, or ``block``, a DeepSpeed
    scheduler block that a real DeepSpeed engine runs with an optimizer of lr peak_lr, or
    neither: then it runs the torch form of the schedule.
    updates: how many are compared; default 1.2 total_steps, rounded up. peak_lr: the learning rate
    the optimizer is built with, and what deviations are a part of.
    """

    name: str
    shape: str
    library: str
    schedule: Callable[[], Schedule]
    scheduler: Callable[[Optimizer], Any] | None = None
    block: dict[str, Any] | None = None
    updates: int | None = None
    peak_lr: float = PEAK
