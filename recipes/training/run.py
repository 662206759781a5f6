"""A whole run on one rank: build, check, restore, train, export, sum up."""

from __future__ import annotations

import contextlib
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from lrsched.deepspeed_form import TOLERANCE, block_tolerance
from lrsched.guard import check_forms
from recipes.data.cache import open_data
from recipes.data.plan import batch_plan, held_out_plan, task_numbers
from recipes.evaluation.generation import decoding_of, spread_evenly
from recipes.evaluation.metrics import check_own_metrics
from recipes.evaluation.saved_model import EXPORT
from recipes.optimizers.build import build_optimizer
from recipes.reporting.metrics import MetricsWriter
from recipes.reporting.model_card import write_card
from recipes.training.checkpoint import Checkpoints
from recipes.training.clock import PhaseClock
from recipes.training.engine import compile_engine, start_engine
from recipes.training.evaluation import as_records, predictions
from recipes.training.export import export_model, load_export
from recipes.training.job import Job
from recipes.training.loop import Training, restore, seed_rank, train_updates
from recipes.training.model import build_model, parameter_groups
from recipes.training.notices import Notices, never, no_deadline
from recipes.training.utilisation import utilisation_of


def train(
    job: Job,
    *,
    device: torch.device,
    phases: dict[str, float],
    publish: Callable[[dict[str, Any]], None],
    report: Callable[[dict[str, Any]], None],
    stop_requested: Callable[[], bool] = never,
    leaving_at: Callable[[], float | None] = no_deadline,
    after_update: Callable[[Training], None] | None = None,
) -> dict[str, Any]:
    """Train to the last update and export; every rank calls it in an existing process group.

    device: what Ray gave this worker. publish: takes messages for the terminal ({"say": text}, {"metrics": record}, or
    {"started": updates made} when training begins).
    report: Ray Train's report, called by all ranks after each evaluation.
    stop_requested, leaving_at: see notices.py. after_update: see `Training`; it may raise to end the run.
    Returns the run's summary; of a run that was asked to stop only its state and updates.
    """
    clock = PhaseClock()
    clock.seconds |= phases
    rank = dist.get_rank()
    with clock.phase("engine"):
        run = _build(job, clock, publish, report, Notices(stop_requested, leaving_at))
        if run.engine.device != device:
            raise RuntimeError(f"DeepSpeed took {run.engine.device}, Ray gave this worker {device}")
    if after_update is not None:
        run.after_update = after_update
    with clock.phase("restore"):
        if restore(run):
            publish({"say": f"resumed at update {run.step} of {run.schedule.total_steps}{_on_workers()}"})
        else:
            publish({"say": f"training from update 0 of {run.schedule.total_steps}{_on_workers()}"})
    with contextlib.closing(_Metrics(job, run.step, publish)) if rank == 0 else contextlib.nullcontext() as metrics:
        if rank == 0:
            run.write, run.flush, run.forget = metrics.write, metrics.flush, metrics.forget
        publish({"started": run.step})
        with contextlib.closing(run.feed):
            finished = train_updates(run)
    if run.stops_early:
        publish({"say": _why_stopped(run)})
    if not finished:
        publish({"say": f"stopped after update {run.step}, with a checkpoint of it"})
        return {"state": "stopped", "updates": run.step}
    with clock.phase("export"):
        exported = _take_best(run)
        export_model(run.engine, run.data.tokenizer, decoding_of(run.config), job.run_folder, run.config.model)
        if rank == 0:
            samples = _samples(run, job)
            job.run_folder.write_text("samples.json", json.dumps(samples, indent=1, ensure_ascii=False))
    summary = _summary(run, job) | _outcome(run, exported)
    if rank == 0:
        job.run_folder.write_text("summary.json", json.dumps(summary, indent=1))
        write_card(job.run_folder, job.run_folder / EXPORT, exported)
    return summary


def _on_workers() -> str:
    return f" on {dist.get_world_size()} worker{'s' if dist.get_world_size() > 1 else ''}"


class _Metrics:
    """Rank 0's metrics: the run's files and the terminal."""

    def __init__(self, job: Job, step: int, publish: Callable[[dict[str, Any]], None]):
        self._job, self._publish = job, publish
        self._writer = self._new_writer(step)

    def _new_writer(self, step: int) -> MetricsWriter:
        tensorboard = "tensorboard" in self._job.config.report.to
        return MetricsWriter(self._job.run_folder, resume_step=step, tensorboard=tensorboard)

    def write(self, record: dict[str, Any]) -> None:
        self._writer.write(record)
        self._publish({"metrics": record})

    def flush(self) -> None:
        self._writer.flush()

    def forget(self, step: int) -> None:
        """Drop everything after an update: training goes back there."""
        self._writer.close()
        self._writer = self._new_writer(step)

    def close(self) -> None:
        self._writer.close()


def _build(
    job: Job,
    clock: PhaseClock,
    publish: Callable[[dict[str, Any]], None],
    report: Callable[[dict[str, Any]], None],
    notices: Notices,
) -> Training:
    config = job.config
    rank, world_size = dist.get_rank(), dist.get_world_size()
    if not config.scaling.use_gpu:
        torch.set_num_threads(max(1, int(config.scaling.cpus_per_worker)))
    data = open_data(job.data_folder)
    schedule = job.schedule
    check_own_metrics(config.evaluation)
    check_forms(schedule)
    model = build_model(config.model, data.vocab_size, config.run.seed)
    groups = parameter_groups(model, config.optimizer, schedule.peak_lr)
    optimizer = build_optimizer(groups, config.optimizer, schedule.peak_lr)
    engine = start_engine(model, groups, job.ds_config, schedule, optimizer)
    if config.training.compile:
        compile_engine(engine)
    seed_rank(config.run.seed, rank)

    def say(text: str) -> None:
        publish({"say": text})

    checkpoints = Checkpoints(
        job.run_folder,
        keep=config.checkpoint.keep,
        schedule_fingerprint=schedule.fingerprint,
        say=say,
        background=config.checkpoint.background,
    )
    return Training(
        config=config,
        schedule=schedule,
        engine=engine,
        data=data,
        plan=batch_plan(config, data.train, world_size),
        held_out_batches=[ranks[rank] for ranks in held_out_plan(config, data.held_out, world_size)],
        checkpoints=checkpoints,
        notices=notices,
        report=report,
        say=say,
        clock=clock,
        utilisation=utilisation_of(engine.module, engine.device, job.precision, world_size),
        lr_tolerance=block_tolerance(job.ds_config["scheduler"]) if "scheduler" in job.ds_config else TOLERANCE,
    )


def _take_best(run: Training) -> int:
    """Go back to the best evaluation's weights, where they are to be exported; the update the weights are of. Collective."""
    best = run.best.step
    if run.config.evaluation.export != "best" or best in (0, run.step):
        return run.step
    manifest = run.checkpoints.whole(best)
    if manifest is None:
        run.say(f"the best update {best} is lost with its checkpoint: update {run.step} is exported")
        return run.step
    run.checkpoints.load(run.engine, manifest)
    return best


def _samples(run: Training, job: Job) -> list[dict[str, str]]:
    """Predictions of the exported model for held-out examples spread over the whole set."""
    num = min(run.config.training.num_samples, len(run.data.held_out))
    if num == 0:
        return []
    examples = spread_evenly(len(run.data.held_out), num)
    texts = predictions(load_export(job.run_folder), run.data, examples, decoding_of(run.config))
    return as_records(run.data, examples, texts)


def _outcome(run: Training, exported: int) -> dict[str, Any]:
    """What the evaluations came to. evaluation: the last one's numbers."""
    tracked = run.config.evaluation.best
    best = {"metric": tracked.metric, "value": run.best.value, "update": run.best.step} if tracked else None
    return {
        "evaluation": run.evaluated,
        "metric_signatures": run.signatures,
        "best": best,
        "exported_update": exported,
        "stopped_early": _why_stopped(run) if run.stops_early else None,
    }


def _why_stopped(run: Training) -> str:
    best, total = run.best, run.schedule.total_steps
    value = "no value" if best.value is None else f"{best.value:.4g} of update {best.step}"
    words = (
        f"stopped early after update {run.step} of {total}: {best.num_worse} evaluations in a row without a better "
        f"{run.config.evaluation.best.metric} than {value}"
    )
    lr, last = run.schedule.lr(run.step - 1), run.schedule.lr(total - 1)
    if lr > last:
        words += f"; the weights have not annealed: lr {lr:.3g} instead of {last:.3g} at the schedule's end"
    return words


def _summary(run: Training, job: Job) -> dict[str, Any]:
    """Collective: what report.html and docs quote."""
    peaks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(peaks, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    baseline = run.data.meta["baseline"]
    return {
        "state": "finished",
        "updates": run.step,
        "skipped_batches": run.skips.num_batches,
        "total_updates": run.schedule.total_steps,
        "num_workers": dist.get_world_size(),
        "zero_stage": run.engine.zero_optimization_stage(),
        "precision": job.precision,
        "num_parameters": _num_parameters(run),
        "num_trained": _num_parameters(run, trained=True),
        "eval_loss": run.eval_loss,
        "unigram_loss": baseline["held_out_entropy"],
        "unigram_loss_train_fit": baseline["train_unigram"],
        "tokens_per_s": run.update_tokens / run.clock.seconds["updates"] if run.update_tokens else None,
        "padding_ratio": run.plan.statistics().padding_ratio,
        "wall_s": time.time() - job.started_at,
        "phases_s": {name: round(seconds, 3) for name, seconds in run.clock.seconds.items()},
        "peak_memory_bytes": peaks,
        "data": run.data.numbers(),
        "tasks": task_numbers(run.data, run.plan, run.step),
        "schedule_driver": job.schedule_driver,
        "schedule_sentence": run.schedule.describe(),
    }


def _num_parameters(run: Training, trained: bool = False) -> int:
    """All, or those that are not frozen."""
    parameters = run.engine.module.parameters()
    return sum(getattr(p, "ds_numel", p.numel()) for p in parameters if p.requires_grad or not trained)
