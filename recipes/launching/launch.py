"""One run under Ray Train: start, watch, and end clearly whatever happens."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from recipes.clusters.quick_check import check_nodes
from recipes.config import ScalingBlock
from recipes.errors import RunFailed, first_line
from recipes.launching.channel import Channel
from recipes.launching.chatter import chatter
from recipes.launching.ray_cluster import IN_RAY, needed_resources, only_node_unwatched, ray_cluster, start_beside_me
from recipes.launching.signals import Interrupted, signals_raise
from recipes.launching.terminal import Terminal
from recipes.launching.worker import worker_main
from recipes.storage import Storage
from recipes.training.job import Job

_POLL_S = 0.2
_SILENCE_S = 20.0


def launch(
    job: Job,
    terminal: Terminal,
    before_training: Callable[[], None],
    hear: Callable[[dict[str, Any]], None] = lambda message: None,
) -> None:
    """Train under Ray; returns when the model is exported.

    before_training: called once Ray stands and holds the workers, before anything else is written.
    hear: told every message of the workers, in their order, on the main thread: it must return at once.

    Raises:
        UserError: the cluster cannot hold the workers, its nodes do not fit together, or another job is at work in the
            run's folder.
        RunFailed: with the one error that matters and the log's place.
        Interrupted: after a last checkpoint, if one could be written in time, and after everything that
            was started has been stopped.
    """
    prepared_at = time.time()
    with (
        chatter() as said,
        only_node_unwatched(),
        signals_raise(),
        ray_cluster(job.config.scaling, terminal.say, meanwhile=_import_trainer),
    ):
        import ray

        check_nodes(job.config.scaling, Storage(job.config.run.storage_path), terminal.say)
        channel = start_beside_me(Channel, job.run_folder)
        said.keep_in(job.run_folder)
        before_training()
        phases = {"prepare": prepared_at - job.started_at, "ray": time.time() - prepared_at}
        trainer = _trainer(job, channel, phases)
        outcome = _Outcome()
        threading.Thread(target=outcome.run, args=(trainer,), name=IN_RAY, daemon=True).start()
        watch = _Watch(outcome.known, channel, terminal, job.config.scaling, hear)
        try:
            watch.until_over()
        except Interrupted:
            if watch.training and not watch.silent:
                ray.get(channel.request_stop.remote())
                watch.until_over(job.config.scaling.stop_grace_s)
            raise
        if outcome.error is not None:
            raise _explain(outcome.error, watch.errors, f"{job.run_folder}/logs")


class _Watch:
    """Shows what the workers say while `fit` runs in its thread, and does not wait for ever for workers."""

    def __init__(
        self,
        over: threading.Event,
        channel: Any,
        terminal: Terminal,
        scaling: ScalingBlock,
        hear: Callable[[dict[str, Any]], None],
    ):
        self._over, self._channel, self._terminal, self._scaling = over, channel, terminal, scaling
        self._hear = hear
        self.errors: list[dict[str, Any]] = []
        self.training = False
        self.silent = False

    def until_over(self, limit_s: float = math.inf) -> None:
        """Until `fit` has returned, or the time is up."""
        end = time.monotonic() + limit_s
        while not self._over.wait(_POLL_S) and time.monotonic() < end:
            self._relay()
        self._relay()
        self._terminal.close()

    def _relay(self) -> None:
        messages, silent_s = _messages(self._channel)
        self._mind_silence(silent_s)
        for message in messages:
            self._hear(message)
            if "metrics" in message:
                self._terminal.show(message["metrics"])
            elif "say" in message:
                self._terminal.say(message["say"])
            elif "started" in message:
                self.training = True
            else:
                self.errors.append(message["error"])

    def _mind_silence(self, silent_s: float) -> None:
        wait_s = self._scaling.node_wait_s
        if silent_s > wait_s:
            import ray

            needed = ", ".join(f"{each:g} {kind}" for kind, each in needed_resources(self._scaling).items())
            free = ray.available_resources()
            have = ", ".join(f"{free.get(kind, 0.0):g} {kind}" for kind in needed_resources(self._scaling))
            raise RunFailed(
                f"no worker has run for {wait_s} s (scaling.node_wait_s): {self._scaling.fewest_workers} needed, each with "
                f"{needed}; free in the cluster: {have}"
            )
        if silent_s > _SILENCE_S and not self.silent:
            self._terminal.say(
                f"no worker runs: waiting for Ray to start them (at most {wait_s} s, scaling.node_wait_s)"
            )
        self.silent = silent_s > _SILENCE_S


class _Outcome:
    """Runs `fit` off the main thread, where Ray Train would take Ctrl-C for itself and exit with 0."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        # Not the thread itself: a join that a signal interrupts calls a living thread dead (bpo-45274).
        self.known = threading.Event()

    def run(self, trainer: Any) -> None:
        try:
            trainer.fit()
        except BaseException as error:
            self.error = error
        finally:
            self.known.set()


def _import_trainer() -> None:
    import recipes.launching.process_group
    import recipes.launching.trainer  # noqa: F401


def _trainer(job: Job, channel: Any, phases: dict[str, float]) -> Any:
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig

    from recipes.launching.process_group import group_config
    from recipes.launching.trainer import Trainer

    scaling = job.config.scaling
    workers = (scaling.min_workers, scaling.max_workers) if scaling.min_workers else scaling.num_workers
    return Trainer(
        worker_main,
        train_loop_config={"job": job, "channel": channel, "phases": phases},
        backend_config=group_config(scaling),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=scaling.use_gpu,
            resources_per_worker=needed_resources(scaling),
            elastic_resize_monitor_interval_s=scaling.resize_interval_s,
        ),
        run_config=RunConfig(
            # Ray's own files stay apart: checkpoints are ours, found by their manifests.
            name=f"attempt_{int(job.started_at)}",
            storage_path=str((job.run_folder / "ray").local or job.run_folder / "ray"),
            failure_config=FailureConfig(max_failures=scaling.max_failures),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def _messages(channel: Any) -> tuple[list[dict[str, Any]], float]:
    import ray

    try:
        return ray.get(channel.take.remote())
    except ray.exceptions.RayError as error:
        raise RunFailed(f"the connection to Ray was lost: {type(error).__name__}") from None


def _explain(error: BaseException, errors: list[dict[str, Any]], logs: str) -> RunFailed:
    """The one error that matters: the first a worker told of, unless a worker died without a word."""
    silent = [
        rank
        for rank, failure in getattr(error, "worker_failures", {}).items()
        if "WorkerHealthCheckFailed" in repr(failure) or "ActorDied" in repr(failure)
    ]
    if silent and not any(found["user"] for found in errors):
        ranks = ", ".join(map(str, sorted(silent)))
        cause = "its node is gone" if "node has died" in repr(error) else "killed, or out of memory"
        return RunFailed(f"worker {ranks} died without an error of its own: {cause} (logs: {logs})")
    if errors:
        found = errors[0]
        if found["user"]:
            return RunFailed(found["message"], user=True)
        return RunFailed(
            f"worker {found['rank']} failed at {found['where']}: {found['kind']}: {found['message']} (log: {found['log']})"
        )
    return RunFailed(f"{type(error).__name__}: {first_line(error)}")
