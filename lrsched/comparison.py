"""The table of ``lrsched compare``: one schedule beside the other libraries' for the same request."""

from __future__ import annotations

import numpy as np

from lrsched.peers import Peer, not_asked, peers
from lrsched.schedule import Schedule

# Learning rates further apart than this part of the peak are different.
_SAME = 1e-12
# Updates compared at most.
_MOST = 10**6
_LABEL, _CELL = 43, 9


def comparison(schedule: Schedule) -> str:
    """One row per library: the learning rates at the telling updates, as parts of the peak.

    A ``*`` marks what differs from the schedule by more than 1e-12 of the peak. The last two
    columns say how many updates of the run (and 20 % past its end) differ, and by how much.
    """
    shown = _telling(schedule)
    k = _compared(schedule.total_steps, shown)
    own = schedule.lr(k)
    head = "learning rate / peak_lr, update k =".ljust(_LABEL) + "".join(f"{one:>{_CELL}} " for one in shown)
    lines = [schedule.describe(), "", f"{head} differ  by at most"]
    lines.append(_line("this schedule", own, own, k, shown, schedule.peak_lr))
    for peer in peers(schedule):
        lines.append(_line(_label(peer), peer.values(k), own, k, shown, schedule.peak_lr))
    lines += ["", f"* differs; {shown[-2]} is the first update past the end of the run. Differences: {_extent(k)}."]
    unsaid = not_asked(schedule)
    if unsaid:
        lines.append(f"The other libraries are not asked for {unsaid}, which their schedulers have no word for.")
    if len(lines) == 6:
        lines.append("No other library has a scheduler of this shape.")
    return "\n".join(lines)


def _telling(schedule: Schedule) -> list[int]:
    """The updates where libraries disagree: the start, the hand-over, the end and what comes after."""
    warm, total = schedule.warmup.steps, schedule.total_steps
    inside = {0, 1, warm - 1, warm, (warm + total) // 2, total - 1}
    return [*sorted(k for k in inside if 0 <= k < total), total, total + max(1, total // 10)]


def _compared(total: int, shown: list[int]) -> np.ndarray:
    """All updates of the run and 20 % more; some of them where they are too many."""
    stop = total + total // 5 + 2
    if stop <= _MOST:
        return np.arange(stop)
    return np.unique(np.concatenate([np.linspace(0, stop - 1, _MOST).astype(np.int64), np.array(shown)]))


def _extent(k: np.ndarray) -> str:
    some = "" if k.size == k[-1] + 1 else f"{k.size} updates of "
    return f"{some}k=0 to {k[-1]}"


def _label(peer: Peer) -> str:
    return f"{peer.library} {peer.call}"


def _line(label: str, values: np.ndarray, own: np.ndarray, k: np.ndarray, shown: list[int], peak: float) -> str:
    off = np.abs(values - own) / peak
    # "not <=", because what is not a number is different too.
    differs = ~(off <= _SAME)
    at = np.searchsorted(k, shown)
    cells = "".join(f"{values[i] / peak:>{_CELL}.4g}{'*' if differs[i] else ' '}" for i in at)
    differing = int(differs.sum())
    # The largest of NaN and a number is NaN, at its k.
    verdict = f"{differing:>7}  {off.max():.2g} (k={int(k[off.argmax()])})" if differing else f"{'-':>7}  equal"
    return f"{label:<{_LABEL}.{_LABEL - 1}}{cells}{verdict}"
