"""The training loop: updates, and what is due after each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from lrsched import Schedule
from lrsched.deepspeed_form import TOLERANCE
from recipes.config import RunConfig
from recipes.data.batches import MicroBatch, collate
from recipes.errors import UserError
from recipes.training.checkpoint import Checkpoints
from recipes.training.clock import PhaseClock
from recipes.training.evaluation import held_out_loss
from recipes.training.model import group_lr_ratios
from recipes.training.update import NonFiniteUpdate, UpdateResult, run_update

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

    from recipes.data.cache import TokenData
    from recipes.data.plan import BatchPlan
    from recipes.data.token_files import TokenSplit


class ScheduleMismatch(RuntimeError):
    """The optimizer used another lr than the schedule says."""


@dataclass
class Window:
    """What has been summed up since the last line of metrics, and the tokens since the start."""

    loss_sum: float = 0.0
    target_tokens: int = 0
    window_tokens: int = 0
    seconds: float = 0.0
    total_tokens: int = 0


@dataclass
class Training:
    """All that the loop needs, on one rank.

    step: number of updates made (the schedule's k). held_out_batches: this rank's. write, flush: the metrics file, on rank 0.
    report: Ray Train's, on all ranks. update_tokens: real tokens since this process began. lr_tolerance: what the lr in use
    may be off by, as a part of the peak.
    """

    config: RunConfig
    schedule: Schedule
    engine: DeepSpeedEngine
    data: TokenData
    plan: BatchPlan
    held_out_batches: list[np.ndarray]
    checkpoints: Checkpoints
    report: Callable[[dict[str, Any]], None]
    write: Callable[[dict[str, Any]], None] = lambda record: None
    flush: Callable[[], None] = lambda: None
    clock: PhaseClock = field(default_factory=PhaseClock)
    window: Window = field(default_factory=Window)
    step: int = 0
    eval_loss: float = float("nan")
    update_tokens: int = 0
    lr_tolerance: float = TOLERANCE

    @property
    def rank(self) -> int:
        return dist.get_rank()


def train_updates(run: Training) -> None:
    """Run the updates that are left; after each: log, evaluate, checkpoint, as due."""
    settings, total = run.config.training, run.schedule.total_steps
    while run.step < total:
        update = _one_update(run)
        if _due(run.step, settings.log_every_steps, total):
            _log(run, update)
        if _due(run.step, settings.eval_every_steps, total):
            evaluate(run)
        if _due(run.step, run.config.checkpoint.every_steps, total):
            save(run)


def _due(step: int, every_steps: int, total_steps: int) -> bool:
    return step % every_steps == 0 or step == total_steps


def _one_update(run: Training) -> UpdateResult:
    k, before = run.step, run.clock.seconds.get("updates", 0.0)
    with run.clock.phase("updates"):
        indices = run.plan.micro_batches(k)[run.rank]
        target_tokens = run.plan.target_tokens(k)
        batches = _tensors(run, run.data.train, indices)
        try:
            update = run_update(run.engine, batches, target_tokens)
        except NonFiniteUpdate as error:
            rows = ", ".join(run.data.train.where(i) for i in run.plan.examples(k))
            raise NonFiniteUpdate(
                f"update {k + 1} is not finite ({error}); weights are unchanged; its examples: {rows}"
            ) from None
        window = run.window
        window.loss_sum = window.loss_sum + update.loss_sum
        window.target_tokens += target_tokens
        real_tokens = run.plan.lengths.real_tokens(run.plan.examples(k))
        window.window_tokens += real_tokens
        window.total_tokens += real_tokens
        run.update_tokens += real_tokens
    window.seconds += run.clock.seconds["updates"] - before
    run.step = k + 1
    return update


def _tensors(run: Training, split: TokenSplit, micro_batches: list[np.ndarray]) -> Iterator[MicroBatch]:
    return (collate(split, examples, run.data.pad_id).to(run.engine.device) for examples in micro_batches)


def _log(run: Training, update: UpdateResult) -> None:
    k, window = run.step - 1, run.window
    lr = _checked_lr(run, k, update.lrs)
    loss_sum = torch.as_tensor(window.loss_sum, dtype=torch.float64, device=run.engine.device).clone()
    dist.all_reduce(loss_sum)
    record = {
        "step": run.step,
        "loss": float(loss_sum) / window.target_tokens,
        "lr": lr,
        "grad_norm": update.grad_norm,
        "tokens": window.total_tokens,
        "tokens_per_s": window.window_tokens / window.seconds,
        "epoch": run.step / run.plan.updates_per_epoch,
    }
    run.window = Window(total_tokens=window.total_tokens)
    run.write(record)


def _checked_lr(run: Training, k: int, lrs: list[float]) -> float:
    """The lr of the first group, after comparing every group's with the schedule."""
    expected, peak_lr = run.schedule.lr(k), run.schedule.peak_lr
    ratios = group_lr_ratios(run.config.optimizer)
    for lr, ratio in zip(lrs, ratios, strict=True):
        if abs(lr - expected * ratio) > run.lr_tolerance * peak_lr * ratio:
            raise ScheduleMismatch(f"update {k + 1} used lr {lr!r}, the schedule says {expected * ratio!r}")
    return lrs[0]


def evaluate(run: Training) -> None:
    """Held-out loss now: a line of metrics, and a report to Ray from every rank."""
    before = run.clock.seconds.get("evaluation", 0.0)
    with run.clock.phase("evaluation"):
        batches = _tensors(run, run.data.held_out, run.held_out_batches)
        run.eval_loss, num_tokens = held_out_loss(run.engine, batches)
    seconds = run.clock.seconds["evaluation"] - before
    run.write({"step": run.step, "eval_loss": run.eval_loss, "eval_tokens": num_tokens, "eval_s": seconds})
    run.report({"step": run.step, "eval_loss": run.eval_loss})


def save(run: Training) -> None:
    """Checkpoint now: with this rank's bookkeeping, so that a resumed run logs what this one would."""
    with run.clock.phase("checkpoint"):
        run.flush()
        window = replace(run.window, loss_sum=float(run.window.loss_sum))
        counters = asdict(window) | {"eval_loss": run.eval_loss}
        run.checkpoints.save(run.engine, run.step, counters)


def restore(run: Training) -> bool:
    """Go on from the newest whole checkpoint; False where there is none."""
    manifest = run.checkpoints.newest_whole()
    if manifest is None:
        return False
    if manifest.schedule_fingerprint != run.schedule.fingerprint:
        raise UserError(
            f"the checkpoint at update {manifest.step} was trained with another schedule: give that one, or another run.name"
        )
    counters = run.checkpoints.load(run.engine, manifest)
    run.eval_loss = counters.pop("eval_loss")
    run.window = Window(**counters)
    run.step = manifest.step
    if manifest.world_size != dist.get_world_size():
        _set_lrs(run)
        seed_rank(run.config.run.seed, run.rank, run.step)
    return True


def _set_lrs(run: Training) -> None:
    """Write the learning rates of the next update into the groups; DeepSpeed's merged state has the first group's."""
    lr = run.schedule.lr(run.step)
    for group, ratio in zip(run.engine.optimizer.param_groups, group_lr_ratios(run.config.optimizer), strict=True):
        group["lr"] = lr * ratio


def seed_rank(seed: int, rank: int, step: int = 0) -> None:
    """Different dropout masks on every rank, the same ones in every run that (re)starts at ``step`` this way."""
    mixed = int(np.random.SeedSequence([seed, rank, step] if step else [seed, rank]).generate_state(1)[0])
    torch.manual_seed(mixed)
    np.random.seed(mixed)
    random.seed(mixed)
