"""What runs in each of Ray Train's workers."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from recipes.errors import UserError
from recipes.launching.channel import BEAT_S
from recipes.launching.ray_metrics import RayMetrics
from recipes.training.job import Job


def worker_main(payload: dict[str, Any]) -> dict[str, Any]:
    """Train, with this worker's environment, log file and error report set up.

    payload: {"job": Job, "channel": handle of the Channel actor, "phases": seconds of the launcher's phases, from the
    command's start until it called Ray Train}.
    """
    import ray.train

    job, channel = payload["job"], payload["channel"]
    context = ray.train.get_context()
    rank = context.get_world_rank()
    log = set_up_logging(job, rank)
    if rank == 0:
        threading.Thread(target=_beat, args=(channel,), name="beat", daemon=True).start()
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if job.config.scaling.use_gpu else "cpu")
    watched = RayMetrics(job.config.run.name) if rank == 0 else None

    def publish(message: dict[str, Any]) -> None:
        if watched is not None:
            channel.put.remote(message)
            watched.hear(message)

    try:
        imports_from = time.time()
        before = imports_from - job.started_at
        phases = payload["phases"] | {"workers": before - sum(payload["phases"].values())}
        from ray.train.torch import get_device

        from recipes.training.libraries import load_libraries

        load_libraries()
        from recipes.training.run import train

        return train(
            job,
            device=get_device(),
            phases=phases | {"imports": time.time() - imports_from},
            publish=publish,
            report=ray.train.report,
            stop_requested=lambda: ray.get(channel.stop_requested.remote()),
            leaving_at=_leaving_at,
        )
    except Exception as error:
        logging.getLogger("recipes").error("worker %d failed", rank, exc_info=True)
        channel.put.remote({"error": describe_error(error, rank, log)})
        raise
    finally:
        if watched is not None:
            watched.end()


def _beat(channel: Any) -> None:
    """Tell the launcher that this process lives, until it does not."""
    while True:
        channel.beat.remote()
        time.sleep(BEAT_S)


def _leaving_at() -> float | None:
    """When the first node of this run is to be taken away, by Ray's notice."""
    import ray.train

    info = ray.train.get_preemption_info()
    if info is None:
        return None
    return math.inf if info.deadline_ms is None else info.deadline_ms / 1000


def describe_error(error: Exception, rank: int, log: str) -> dict[str, Any]:
    """A worker's error in parts: what, where in our code, which log."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}recipes{os.sep}" in frame.filename] or list(frames)
    return {
        "rank": rank,
        "user": isinstance(error, UserError),
        "kind": type(error).__name__,
        "message": str(error).strip() or type(error).__name__,
        "where": f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "",
        "log": log,
    }


def set_up_logging(job: Job, rank: int) -> str:
    """Send this worker's log records to logs/rank_N.log (to Ray's worker log on an object store)."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    name = f"logs/rank_{rank}.log"
    if job.run_folder.local is not None:
        path = job.run_folder.local / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handler, name = logging.FileHandler(path), str(path)
    else:
        name = f"the Ray log of worker {rank}"
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    return name
