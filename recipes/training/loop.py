"""The training loop: updates, and what is due after each."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from lrsched import Schedule
from lrsched.deepspeed_form import TOLERANCE
from recipes.config import RunConfig
from recipes.data.batches import MicroBatch, to_tensors
from recipes.errors import UserError
from recipes.evaluation.forced import ForcedScores
from recipes.training.best import Best
from recipes.training.checkpoint import Checkpoints
from recipes.training.clock import PhaseClock
from recipes.training.evaluation import generated_scores, held_out_scores
from recipes.training.feed import Feed, GlobalBatch
from recipes.training.model import group_lr_ratios
from recipes.training.notices import Notices, Order
from recipes.training.spikes import Skips, TooManySkipped
from recipes.training.update import UpdateResult, run_update
from recipes.training.utilisation import Utilisation

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

    from recipes.data.cache import TokenData
    from recipes.data.plan import BatchPlan


class ScheduleMismatch(RuntimeError):
    """The optimizer used another lr than the schedule says."""


@dataclass
class Window:
    """What has been summed up since the last line of metrics, and the tokens since the start.

    flops: of the updates, where the run has a `Utilisation`. stall_s: of updates that waited for a checkpoint.
    """

    loss_sum: float = 0.0
    target_tokens: int = 0
    window_tokens: int = 0
    seconds: float = 0.0
    flops: float = 0.0
    stall_s: float = 0.0
    total_tokens: int = 0


@dataclass
class Training:
    """All that the loop needs, on one rank.

    step: number of updates made (the schedule's k). skips: batches left out; the data position is step + skips.num_batches.
    after_update: called on all ranks after every update, once its evaluation is done and before its checkpoint.
    forget: drops the metrics after an update, on rank 0. say: to the terminal. held_out_batches: this rank's, by task. write, flush: the metrics file, on rank 0.
    report: Ray Train's, on all ranks. update_tokens: real tokens since this process began. lr_tolerance: what the lr in use
    may be off by, as a part of the peak. utilisation: where the devices' peak is known. evaluated: the last evaluation's numbers; signatures: of sacreBLEU, in the
    last one with generated text.
    """

    config: RunConfig
    schedule: Schedule
    engine: DeepSpeedEngine
    data: TokenData
    plan: BatchPlan
    held_out_batches: list[list[np.ndarray]]
    checkpoints: Checkpoints
    notices: Notices
    report: Callable[[dict[str, Any]], None]
    write: Callable[[dict[str, Any]], None] = lambda record: None
    flush: Callable[[], None] = lambda: None
    forget: Callable[[int], None] = lambda step: None
    say: Callable[[str], None] = lambda text: None
    after_update: Callable[[Training], None] = lambda run: None
    clock: PhaseClock = field(default_factory=PhaseClock)
    window: Window = field(default_factory=Window)
    skips: Skips = field(default_factory=Skips)
    step: int = 0
    evaluated: dict[str, Any] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)
    best: Best = field(default_factory=Best)
    update_tokens: int = 0
    last_update_s: float = 0.0
    lr_tolerance: float = TOLERANCE
    utilisation: Utilisation | None = None

    @cached_property
    def feed(self) -> Feed:
        """Of the plan's global batches."""
        return Feed(
            self.data.train,
            self.plan,
            seed=self.config.run.seed,
            rank=self.rank,
            pad_id=self.data.pad_id,
            device=self.engine.device,
        )

    @property
    def rank(self) -> int:
        return dist.get_rank()

    @property
    def eval_loss(self) -> float:
        """Of the last evaluation, in nats per target token."""
        return self.evaluated.get("eval_loss", float("nan"))

    @property
    def stops_early(self) -> bool:
        """Whether the last evaluation ended the run."""
        return self.best.ends_run(self.config.evaluation)


def train_updates(run: Training) -> bool:
    """Run the updates that are left; after each: log, evaluate, checkpoint, as due.

    False where the run was asked to stop: then its last checkpoint is of the last update made. A run that stops
    early by its evaluations is done, and a resume of it makes no more updates.
    """
    settings, total, stop = run.config.training, run.schedule.total_steps, run.stops_early
    while run.step < total and not stop:
        update = _one_update(run)
        if update is None:
            continue
        if _due(run.step, settings.log_every_steps, total):
            _log(run, update)
        if _due(run.step, settings.eval_every_steps, total):
            evaluate(run)
        run.after_update(run)
        order = run.notices.poll(run.checkpoints.writing, run.last_update_s, run.checkpoints.last_s)
        stop = run.stops_early
        to_keep = run.best.step == run.step or stop
        if order != Order.GO_ON or to_keep or _due(run.step, run.config.checkpoint.every_steps, total):
            save(run)
        stop = stop or order == Order.STOP or (order == Order.HOLD and _hold(run))
    with run.clock.phase("checkpoint"):
        run.checkpoints.wait()
    return run.step == total or run.stops_early


def _hold(run: Training) -> bool:
    """A node is about to go, and Ray will start the workers again without it; whether to stop instead."""
    with run.clock.phase("checkpoint"):
        run.checkpoints.wait()
    run.say(f"a node is about to leave: update {run.step} is in a checkpoint, waiting to be started again without it")
    with run.clock.phase("waiting"):
        return run.notices.wait_for_the_end()


def _due(step: int, every_steps: int, total_steps: int) -> bool:
    return step % every_steps == 0 or step == total_steps


def _one_update(run: Training) -> UpdateResult | None:
    """The next global batch: an update, or None where it was skipped or led to a rewind."""
    position, before = run.step + run.skips.num_batches, run.clock.seconds.get("updates", 0.0)
    settings, spike, loss = run.config.training, False, None

    def accept(loss_sum: torch.Tensor) -> bool:
        nonlocal spike, loss
        if settings.on_spike != "ignore":
            loss = _over_ranks(run, loss_sum) / batch.target_tokens
            spike = run.skips.is_spike(loss, settings)
        return not spike

    with run.clock.phase("updates"):
        batch = run.feed.take(position)
        on_device = batch.on(run.engine.device)
        update = run_update(run.engine, on_device, batch.target_tokens, accept, settings.label_smoothing)
        if update.applied:
            run.skips.applied(loss, settings)
            _count(run, batch, update)
    run.last_update_s = run.clock.seconds["updates"] - before
    run.window.seconds += run.last_update_s
    if update.applied:
        run.step += 1
        return update
    what = f"loss {loss:.4g} is a spike" if spike else f"gradient norm is {update.grad_norm}"
    if spike and settings.on_spike == "rewind":
        _rewind(run, batch, what)
    else:
        _skip(run, batch, what)
    return None


def _count(run: Training, batch: GlobalBatch, update: UpdateResult) -> None:
    window = run.window
    window.loss_sum = window.loss_sum + update.loss_sum
    window.target_tokens += batch.target_tokens
    window.window_tokens += batch.real_tokens
    window.total_tokens += batch.real_tokens
    run.update_tokens += batch.real_tokens
    if run.utilisation is not None:
        lengths = run.plan.lengths
        window.flops += run.utilisation.flops(lengths.source[batch.examples], lengths.target[batch.examples])


def _skip(run: Training, batch: GlobalBatch, what: str) -> None:
    run.skips.num_batches += 1
    run.skips.in_a_row += 1
    run.write({"step": run.step, "skipped_batch": batch.position, "reason": what})
    run.say(f"update {run.step + 1} skipped with batch {batch.position} left out: {what}")
    if run.skips.in_a_row > run.config.training.max_skipped_updates:
        rows = ", ".join(run.data.train.where(i) for i in batch.examples)
        raise TooManySkipped(
            f"update {run.step + 1}: {run.skips.in_a_row} batches in a row were skipped, more than "
            f"training.max_skipped_updates {run.config.training.max_skipped_updates}; the last one because its {what}; "
            f"weights are unchanged; its examples: {rows}"
        )


def _rewind(run: Training, batch: GlobalBatch, what: str) -> None:
    """Back to the last checkpoint, past all batches since; without a checkpoint the batch is skipped."""
    rewinds, step, position = run.skips.in_a_row + 1, run.step, batch.position
    if not restore(run):
        _skip(run, batch, f"{what} and there is no checkpoint yet")
        return
    run.skips.num_batches = position + 1 - run.step
    run.skips.in_a_row = rewinds
    run.forget(run.step)
    run.write({"step": run.step, "rewound_from": step, "next_batch": position + 1, "reason": what})
    run.say(f"rewound from update {step} to {run.step}, batches up to {position} left out: {what}")
    if rewinds > run.config.training.max_skipped_updates:
        raise TooManySkipped(f"update {step + 1}: the run was rewound {rewinds} times without an update in between")


def _over_ranks(run: Training, value: Any) -> float:
    """The sum over all ranks."""
    total = torch.as_tensor(value, dtype=torch.float64, device=run.engine.device).clone()
    dist.all_reduce(total)
    return float(total)


def _log(run: Training, update: UpdateResult) -> None:
    k, window = run.step - 1, run.window
    lr = _checked_lr(run, k, update.lrs)
    record = {
        "step": run.step,
        "loss": _over_ranks(run, window.loss_sum) / window.target_tokens,
        "lr": lr,
        "grad_norm": update.grad_norm,
        "tokens": window.total_tokens,
        "tokens_per_s": window.window_tokens / window.seconds,
        "epoch": (run.step + run.skips.num_batches) / run.plan.updates_per_epoch,
        "skipped": run.skips.num_batches,
        "checkpoint_stall_s": window.stall_s,
    }
    if run.utilisation is not None:
        record["mfu"] = run.utilisation.mfu(window.flops, window.seconds)
    run.window = Window(total_tokens=window.total_tokens)
    run.write(record)


def _checked_lr(run: Training, k: int, lrs: list[float]) -> float:
    """The lr of the first group, after comparing every group's with the schedule."""
    expected, peak_lr = run.schedule.lr(k), run.schedule.peak_lr
    ratios = group_lr_ratios(run.config.optimizer, run.config.model)
    for lr, ratio in zip(lrs, ratios, strict=True):
        if abs(lr - expected * ratio) > run.lr_tolerance * peak_lr * ratio:
            raise ScheduleMismatch(f"update {k + 1} used lr {lr!r}, the schedule says {expected * ratio!r}")
    return lrs[0]


def evaluate(run: Training) -> None:
    """Held-out scores now: a line of metrics, and a report to Ray from every rank. Collective; changes no weight."""
    settings = run.config.evaluation
    every = settings.generate_every_steps or run.config.training.eval_every_steps
    generated = bool(settings.text_metrics) and _due(run.step, every, run.schedule.total_steps)
    began, timed = time.perf_counter(), {}
    with run.clock.phase("evaluation"):
        numbers = held_out_now(run).fields(settings)
        timed["eval_s"] = time.perf_counter() - began
    if generated:
        with run.clock.phase("generation"):
            scores, numbers["eval_generated"] = generated_scores(run)
        numbers |= scores.values
        run.signatures = scores.signatures
        timed["eval_generate_s"] = time.perf_counter() - began - timed["eval_s"]
    run.evaluated = {"step": run.step} | numbers
    run.write(run.evaluated | timed)
    run.report(dict(run.evaluated))
    run.best.note(run.evaluated, settings, generated)


def held_out_now(run: Training) -> ForcedScores:
    """Teacher-forced held-out scores. Collective; changes nothing."""
    named = zip(run.data.task_names, run.held_out_batches, strict=True)

    def tensors(batches: list[np.ndarray]) -> Iterator[MicroBatch]:
        made = (to_tensors(run.data.held_out, batch, run.data.pad_id, run.plan.packed) for batch in batches)
        return (batch.to(run.engine.device) for batch in made)

    return held_out_scores(run.engine, {name: tensors(batches) for name, batches in named})


def save(run: Training) -> None:
    """Checkpoint now: with this rank's bookkeeping, so that a resumed run logs what this one would."""
    before = run.clock.seconds.get("checkpoint", 0.0)
    with run.clock.phase("checkpoint"):
        run.flush()
        window = replace(run.window, loss_sum=float(run.window.loss_sum))
        counters = asdict(window) | {"skips": run.skips.state(), "best": run.best.state()}
        counters |= {"evaluated": run.evaluated, "signatures": run.signatures}
        run.checkpoints.save(run.engine, run.step, counters, best_step=run.best.step)
    run.window.stall_s += run.clock.seconds["checkpoint"] - before


def restore(run: Training) -> bool:
    """Go on from the newest whole checkpoint; False where there is none."""
    run.checkpoints.wait()
    manifest = run.checkpoints.newest_whole()
    if manifest is None:
        return False
    if manifest.schedule_fingerprint != run.schedule.fingerprint:
        raise UserError(
            f"the checkpoint at update {manifest.step} was trained with another schedule: give that one, or another run.name"
        )
    counters = run.checkpoints.load(run.engine, manifest)
    run.evaluated, run.signatures = counters.pop("evaluated"), counters.pop("signatures")
    run.best = Best(**counters.pop("best"))
    run.skips = Skips.of_state(counters.pop("skips"))
    run.window = Window(**counters)
    run.step = manifest.step
    if manifest.world_size != dist.get_world_size():
        # DeepSpeed's merged state has the first group's lr in all groups.
        set_lrs(run, run.schedule.lr(run.step))
        seed_rank(run.config.run.seed, run.rank, run.step)
    return True


def set_lrs(run: Training, lr: float) -> None:
    """Write the lr of the next update into the groups, each at its own ratio."""
    for group, ratio in zip(
        run.engine.optimizer.param_groups, group_lr_ratios(run.config.optimizer, run.config.model), strict=True
    ):
        group["lr"] = lr * ratio


def seed_rank(seed: int, rank: int, step: int = 0) -> None:
    """Different dropout masks on every rank, the same ones in every run that (re)starts at ``step`` this way."""
    mixed = int(np.random.SeedSequence([seed, rank, step] if step else [seed, rank]).generate_state(1)[0])
    torch.manual_seed(mixed)
    np.random.seed(mixed)
    random.seed(mixed)
