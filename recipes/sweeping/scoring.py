"""The score of a trial at a rung, as fair to a schedule that has not annealed yet as to one that has."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from lrsched import OneCycle, Schedule
from recipes.errors import UserError, nearest
from recipes.training.held_state import HeldState, gather_again, local_weights
from recipes.training.loop import Training, held_out_now, set_lrs
from recipes.training.update import run_update

if TYPE_CHECKING:
    import torch
    from deepspeed import DeepSpeedEngine

Method = Literal["raw", "averaged", "annealed", "projected"]
METHODS = ("raw", "averaged", "annealed", "projected")
BranchPath = Literal["rest", "floor"]
BRANCH_PATHS = ("rest", "floor")


@dataclass(frozen=True)
class Scoring:
    """How trials are compared at a rung.

    method: raw, the held-out loss as it is; averaged, that of the mean of the weights over the last
    updates; annealed, that at the end of a short branch; projected, that times what the rest of the schedule
    is expected to gain beyond the branch, see `project`.
    branch_path: what the lr does on the branch: rest, what the schedule has left to do, in fast forward;
    floor, it falls in a straight line to the schedule's floor. docs/sweeps.md has both measured.
    branch_ratio: updates of the branch, as a part of the updates made; with 0, projected makes none.
    averaged_ratio: updates whose weights are averaged, likewise; after a resume, only those made since.
    projection_exponent: of `project`.
    """

    method: Method = "projected"
    branch_ratio: float = 0.2
    branch_path: BranchPath = "rest"
    averaged_ratio: float = 0.1
    projection_exponent: float = 0.076

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"scoring.method: unknown '{self.method}'{nearest(str(self.method), list(METHODS))}")
        if self.branch_path not in BRANCH_PATHS:
            known = nearest(str(self.branch_path), list(BRANCH_PATHS))
            raise UserError(f"scoring.branch_path: unknown '{self.branch_path}'{known}")
        for name in ("branch_ratio", "averaged_ratio"):
            none_needed = name == "branch_ratio" and self.method == "projected" and self.branch_ratio == 0
            if not (0 < getattr(self, name) <= 1 or none_needed):
                raise UserError(
                    f"scoring.{name} is {getattr(self, name)}: give more than 0 and at most 1, a part of the updates made"
                )
        if not 0 < self.projection_exponent <= 1:
            raise UserError(
                f"scoring.projection_exponent is {self.projection_exponent}: give more than 0 and at most 1; "
                "0.05 to 0.1 is usual"
            )


@dataclass(frozen=True)
class RungScore:
    """A trial at a rung.

    step: updates made. score: what trials are compared by, raw: the held-out loss at that step; both in
    nats per target token. extra_updates: what the score cost. seconds: likewise, evaluation included.
    """

    step: int
    score: float
    raw: float
    extra_updates: int
    seconds: float


class RungScorer:
    """Scores a run at its rungs; an `after_update` of `recipes.training.run.train`.

    Every rank makes one and all report the same numbers, each rung once. ``report`` may raise, to end the
    trial. At the last update of the run every method gives the plain held-out loss: there is nothing left
    to anneal. The run goes on as if it had not been scored, bit for bit.
    """

    def __init__(self, scoring: Scoring, rungs: Sequence[int], report: Callable[[RungScore], None]):
        self.scoring, self.rungs, self.report = scoring, sorted(set(rungs)), report
        self._scored: set[int] = set()
        self._mean = WeightMean()

    def __call__(self, run: Training) -> None:
        """Score and report, where the update just made is a rung."""
        if self.scoring.method == "averaged":
            self._average(run)
        if run.step not in self.rungs or run.step in self._scored:
            return
        self._scored.add(run.step)
        began = time.perf_counter()
        with run.clock.phase("rungs"):
            raw = held_out_now(run).loss
            score, extra_updates = (raw, 0) if run.step == run.schedule.total_steps else self._score(run, raw)
        self.report(RungScore(run.step, score, raw, extra_updates, time.perf_counter() - began))

    def _score(self, run: Training, raw: float) -> tuple[float, int]:
        """The score before the end of the run, and the updates of its branch."""
        scoring, lrs = self.scoring, []
        if scoring.method == "averaged":
            return self._mean.loss(run), 0
        if scoring.method in ("annealed", "projected") and scoring.branch_ratio:
            lrs = branch_lrs(run.schedule, run.step, scoring.branch_ratio, scoring.branch_path)
        loss = annealed_loss(run, lrs) if lrs else raw
        if scoring.method == "projected":
            loss = project(loss, lr_sum_share(run.schedule, run.step, lrs), scoring.projection_exponent)
        return loss, len(lrs)

    def _average(self, run: Training) -> None:
        """Add these weights to the mean, where the next rung is near; the mean begins anew for each rung."""
        rung = next((step for step in self.rungs if step >= run.step), 0)
        begin = rung - num_updates(self.scoring.averaged_ratio, rung) + 1
        if run.step <= begin or run.step - 1 in self.rungs:
            self._mean = WeightMean()
        if run.step >= begin:
            self._mean.add(run.engine)


def num_updates(ratio: float, step: int) -> int:
    """A part of the updates made, at least one."""
    return max(1, round(ratio * step))


def floor_lr(schedule: Schedule) -> float:
    """The lowest lr the schedule's decay names: eta_min, one_cycle's end_ratio; 0 where it names none."""
    decay = schedule.decay
    if isinstance(decay, OneCycle):
        return decay.end_ratio * schedule.peak_lr
    return float(getattr(decay, "eta_min", 0.0))


def branch_lrs(schedule: Schedule, step: int, branch_ratio: float, branch_path: BranchPath) -> list[float]:
    """The lr of each update of a branch that begins after ``step`` updates.

    rest: what the schedule has left to do until total_steps, in fewer updates; the left updates are cut
    into equal parts and each update of the branch takes the lr in the middle of one.
    floor: a straight line from lr(step) to the schedule's floor. Each update takes the middle of its part,
    so that none is made at a floor of 0, which would change nothing. A schedule that is below its floor (in
    its warm-up) keeps its lr.
    """
    count, left = num_updates(branch_ratio, step), schedule.total_steps - step
    if branch_path == "rest":
        count = min(count, left)
        return [float(schedule.lr(step + int((i + 0.5) / count * left))) for i in range(count)]
    top = float(schedule.lr(step))
    floor = min(top, floor_lr(schedule))
    return [top + (floor - top) * (i + 0.5) / count for i in range(count)]


def lr_sum_share(schedule: Schedule, step: int, branch: Sequence[float]) -> float:
    """The sum of the lrs of ``step`` updates and of a branch after them, as a part of the whole schedule's sum."""
    lrs = schedule.lr(np.arange(schedule.total_steps))
    return float((lrs[:step].sum() + sum(branch)) / lrs.sum())


def project(loss: float, share: float, exponent: float) -> float:
    """The final loss that a loss at this `lr_sum_share` foretells, in nats per target token: loss * share**exponent.

    Two trials with the same loss at a rung are not equal when one has used up its lr and the other has most
    of it before it. The loss is taken to fall as a power of the sum of the lrs (which is how Tissue et al.,
    arXiv 2408.11029, count updates); the default exponent is of the size of published scaling laws (0.05 to 0.1,
    Kaplan et al., arXiv 2001.08361), and not fitted. A factor on the lr cancels: the peak is judged by the loss alone.
    """
    return loss * share**exponent


def annealed_loss(run: Training, lrs: Sequence[float]) -> float:
    """The held-out loss after updates at these lrs on the plan's next global batches. Collective.

    The run is then as before, bit for bit. A branch writes no metrics; an update of it whose gradient is
    not finite is left out.
    """
    position, before = run.step + run.skips.num_batches, HeldState(run.engine)
    label_smoothing = run.config.training.label_smoothing
    for i, lr in enumerate(lrs):
        set_lrs(run, lr)
        batch = run.feed.take(position + i)
        on_device = batch.on(run.engine.device)
        run_update(run.engine, on_device, batch.target_tokens, label_smoothing=label_smoothing)
    loss = held_out_now(run).loss
    before.put_back()
    return loss


class WeightMean:
    """The mean of a run's weights over some of its updates, in fp32; each rank's own part at ZeRO 3."""

    def __init__(self) -> None:
        self._count = 0
        self._mean: list[torch.Tensor] = []

    def add(self, engine: DeepSpeedEngine) -> None:
        """Take the weights as they are now into the mean."""
        weights = local_weights(engine)
        self._count += 1
        if self._count == 1:
            self._mean = [weight.float().clone() for weight in weights]
            return
        for mean, weight in zip(self._mean, weights, strict=True):
            mean += (weight.float() - mean) / self._count

    def loss(self, run: Training) -> float:
        """The held-out loss with the mean for weights. Collective; the run is then as before, bit for bit."""
        before = HeldState(run.engine)
        for weight, mean in zip(local_weights(run.engine), self._mean, strict=True):
            weight.copy_(mean)
        gather_again(run.engine)
        loss = held_out_now(run).loss
        before.put_back()
        return loss
