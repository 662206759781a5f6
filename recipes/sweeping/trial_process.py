"""What runs in the process of a trial.

A trial of one worker trains in Tune's own process, which goes on to the next trial: no second start-up. More
workers are Ray Train's; the process of the trial only waits for them. Either way a trial that the scheduler
ends is told so at its rung and returns by itself: nothing is killed, so nothing of it is left.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from recipes.errors import UserError
from recipes.launching.ray_cluster import needed_resources
from recipes.launching.ray_metrics import RayMetrics
from recipes.launching.worker import describe_error, set_up_logging
from recipes.sweeping.scoring import RungScore, RungScorer, Scoring
from recipes.training.job import Job

if TYPE_CHECKING:
    import torch

    from recipes.training.loop import Training

_POLL_S = 0.05


@dataclass(frozen=True)
class Order:
    """A run to do. rungs: updates after which it is scored, without those it was scored at before a resume.

    pauses: a run that may not go on after a rung leaves a checkpoint, because it may be called back.
    """

    name: str
    job: Job
    scoring: Scoring
    rungs: tuple[int, ...]
    pauses: bool = False


class Ended(Exception):
    """The scheduler let the trial go no further."""


class Diverged(RuntimeError):
    """A score that is not finite."""


def run_trial(config: dict[str, Any], board: Any) -> None:
    """Tune's trainable: does the run named in ``config`` and reports its rungs, then how it ended.

    Every report has: run, state (rung, finished, stopped, failed or interrupted), step, score (nan if there is none).
    """
    import ray
    from ray import tune

    order: Order = ray.get(board.take_order.remote(config["run"]))

    def tell(state: str, outcome: dict[str, Any]) -> None:
        tune.report({"run": order.name, "state": state, "score": math.nan, **outcome})

    scaling = order.job.config.scaling
    do = _in_this_process if scaling.num_workers == 1 and scaling.min_workers is None else _under_ray_train
    outcome = do(order, board, lambda score: tell("rung", score))
    tell(outcome.pop("state"), outcome)


def _in_this_process(order: Order, board: Any, tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    use_gpu = order.job.config.scaling.use_gpu
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if use_gpu else "cpu")
    import torch

    _group_of_one(use_gpu)
    return _train(order, board, rank=0, device=torch.device("cuda", 0) if use_gpu else torch.device("cpu"), tell=tell)


def _group_of_one(use_gpu: bool) -> None:
    """DeepSpeed needs a process group; this process keeps one for all its trials."""
    import torch.distributed as dist

    if not dist.is_initialized():
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        dist.init_process_group("nccl" if use_gpu else "gloo", store=dist.HashStore(), rank=0, world_size=1)


def _train(
    order: Order, board: Any, *, rank: int, device: torch.device, tell: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """The run on one rank; how it ended. An unforeseen error is told to the board and raised."""
    import ray

    from recipes.training.loop import save
    from recipes.training.run import train
    from recipes.training.spikes import TooManySkipped

    began, log = time.time(), set_up_logging(order.job, rank)
    held: list[Training] = []
    if rank == 0:
        ray.get(board.begins.remote(order.name))

    def decide(score: RungScore) -> None:
        if not math.isfinite(score.score):
            raise Diverged(f"diverged: held-out loss {score.score} at the rung of update {score.step}")
        if rank == 0:
            tell(asdict(score))
        if not _decision(board, order.name, score.step):
            if order.pauses:
                save(held[0])
            raise Ended

    scorer = RungScorer(order.scoring, order.rungs, decide)

    def after_update(run: Training) -> None:
        held[:] = [run]
        scorer(run)

    watched = RayMetrics(name_of_sweep(order.job), order.name) if rank == 0 else None

    def publish(message: dict[str, Any]) -> None:
        if watched is not None:
            watched.hear(message)
        if rank == 0 and "loss" in message.get("metrics", {}):
            board.put.remote({"run": order.name, "metrics": message["metrics"]})

    def step() -> int:
        return held[0].step if held else 0

    try:
        summary = train(
            order.job,
            device=device,
            phases={"start": began - order.job.started_at},
            publish=publish,
            report=lambda metrics: None,
            stop_requested=lambda: ray.get(board.stop_requested.remote()),
            after_update=after_update,
        )
        return _ended(summary)
    except Ended:
        return {"state": "stopped", "step": step()}
    except (Diverged, TooManySkipped, UserError) as error:
        # Foreseen: the process is as good as before.
        logging.getLogger("recipes").error("%s", error)
        return {"state": "failed", "step": step(), "message": str(error)}
    except Exception as error:
        logging.getLogger("recipes").error("worker %d failed", rank, exc_info=True)
        ray.get(board.put_failure.remote(order.name, step(), _in_one_line(error, rank, log)))
        raise
    finally:
        if watched is not None:
            watched.end()
        _release(held)


def name_of_sweep(job: Job) -> str:
    """Its trials lie in SWEEP/trials, its final seeds in SWEEP/final."""
    return job.config.run.storage_path.rstrip("/").split("/")[-2]


def _decision(board: Any, name: str, step: int) -> bool:
    """The scheduler's, when it has come to it: whether the run goes on after a rung."""
    import ray

    while (goes_on := ray.get(board.decision.remote(name, step))) is None:
        time.sleep(_POLL_S)
    return goes_on


def _in_one_line(error: Exception, rank: int, log: str) -> str:
    found = describe_error(error, rank, log)
    return f"{found['kind']} at {found['where']}: {found['message'].splitlines()[0]} (log: {log})"


def _ended(summary: dict[str, Any]) -> dict[str, Any]:
    if summary["state"] != "finished":
        return {"state": "interrupted", "step": summary["updates"]}
    step, loss = summary["updates"], summary["eval_loss"]
    if not math.isfinite(loss):
        return {"state": "failed", "step": step, "message": f"diverged: held-out loss {loss} at the end"}
    return {"state": "finished", "step": step, "score": loss}


def _release(held: list[Training]) -> None:
    """Wait for the checkpoint being written, and let go of the engine: DeepSpeed's hooks keep it alive otherwise."""
    while held:
        run = held.pop()
        try:
            run.checkpoints.wait()
        finally:
            run.engine.destroy()
        del run
    gc.collect()


def _under_ray_train(order: Order, board: Any, tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    import ray

    outcome: dict[str, Any] = {}
    fit = threading.Thread(target=_fit, args=(order, board, outcome), daemon=True)
    fit.start()
    while fit.is_alive():
        fit.join(_POLL_S)
        for score in ray.get(board.take_rungs.remote(order.name)):
            tell(score)
    if "error" in outcome:
        raise outcome["error"]
    return outcome


def _fit(order: Order, board: Any, outcome: dict[str, Any]) -> None:
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from recipes.launching.process_group import group_config

    scaling, folder = order.job.config.scaling, order.job.run_folder
    trainer = DataParallelTrainer(
        trial_worker,
        train_loop_config={"order": order, "board": board},
        backend_config=group_config(scaling),
        scaling_config=ScalingConfig(
            num_workers=scaling.num_workers, use_gpu=scaling.use_gpu, resources_per_worker=needed_resources(scaling)
        ),
        run_config=RunConfig(
            name=f"attempt_{int(time.time())}",
            storage_path=str((folder / "ray").local or folder / "ray"),
            failure_config=FailureConfig(max_failures=scaling.max_failures),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        outcome |= trainer.fit().return_value
    except BaseException as error:
        outcome["error"] = error


def trial_worker(payload: dict[str, Any]) -> dict[str, Any]:
    """What each of Ray Train's workers does. payload: {"order": Order, "board": the Board}."""
    import ray.train

    order, board = payload["order"], payload["board"]
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if order.job.config.scaling.use_gpu else "cpu")
    from ray.train.torch import get_device

    def tell(score: dict[str, Any]) -> None:
        ray.get(board.put_rung.remote(order.name, score))

    rank = ray.train.get_context().get_world_rank()
    return _train(order, board, rank=rank, device=get_device(), tell=tell)
