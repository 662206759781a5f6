"""Joining a Ray cluster, or starting one on this machine for the length of one command."""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any

from recipes.config import ScalingBlock
from recipes.errors import RunFailed, UserError
from recipes.launching.leftovers import end_leftovers
from recipes.launching.quick_start import node_asked_for_often
from recipes.storage import Storage

# For the actors of a job that has just been killed to be gone.
_GONE_S = 10.0
_POLL_S = 0.5
# For a `ray.init` to return that is not wanted any more.
_START_S = 30.0
# Name of threads that call Ray and cannot be told to stop.
IN_RAY = "in_ray"
_WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
# Ray's own default, in its job supervisor.
_JOB_STOP_WAIT_S = 3


def joins_cluster() -> bool:
    """Whether the environment names a cluster; `ray job submit` sets it for the job it starts."""
    return bool(os.environ.get("RAY_ADDRESS"))


def _mind_job_stop(scaling: ScalingBlock, say: Callable[[str], None]) -> None:
    """`ray job stop` kills a job's command 3 s after its SIGTERM, unless the job was submitted with more."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        return
    wait_s = int(os.environ.get("RAY_JOB_STOP_WAIT_TIME_S", _JOB_STOP_WAIT_S))
    if wait_s < scaling.stop_grace_s:
        say(
            f"`ray job stop` would kill this command after {wait_s} s, perhaps before its last checkpoint (scaling.stop_grace_s is "
            f"{scaling.stop_grace_s}): submit with --runtime-env cluster/job.yaml"
        )


def waits_in_ray() -> bool:
    """Whether a thread of this process is inside a call of Ray's that does not return."""
    return any(thread.name == IN_RAY and thread.is_alive() for thread in threading.enumerate())


def needed_resources(scaling: ScalingBlock) -> dict[str, float]:
    """What one worker reserves."""
    return {"CPU": float(scaling.cpus_per_worker)} | ({"GPU": 1.0} if scaling.use_gpu else {})


@contextmanager
def ray_cluster(
    scaling: ScalingBlock,
    say: Callable[[str], None],
    check_room: bool = True,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """A connected Ray for the block; what was started is stopped at the end.

    check_room: with enough for the workers. meanwhile: what a thread does while this process waits for Ray, such as imports.
    """
    if not joins_cluster():
        if check_room:
            _check_enough(_this_machine(scaling), scaling, "this machine")
        _keep_local_ray_private()
    # Ray Train hands on one report per poll and worker group; its default of 2 s would slow every evaluation.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", str(scaling.hang_timeout_s))
    beside = threading.Thread(target=meanwhile, name="meanwhile", daemon=True)
    if joins_cluster():
        say(f"joining the Ray cluster at {os.environ['RAY_ADDRESS']}")
        _mind_job_stop(scaling, say)
    else:
        say("starting a local Ray on this machine, stopped at the end")
    with _Connection(beside):
        import ray

        beside.join()
        if check_room:
            _check_cluster(ray.cluster_resources(), scaling, say)
        yield


class _Connection:
    """`ray.init` and `ray.shutdown` around a block. beside: a thread to start when the first begins.

    A thread calls `ray.init`: in the main one it would put handlers of its own on SIGTERM, and what a signal's handler raises
    inside it may be lost.
    """

    def __init__(self, beside: threading.Thread):
        self._beside, self._wanted = beside, True
        self._session, self._over = Future[str](), threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._run, name=IN_RAY, daemon=True).start()
        try:
            self._session.result()
        except BaseException:
            if not self._session.done():  # a signal; what is being started can be stopped when it stands
                self._wanted = False
                wait([self._session], _START_S)
            if self._session.done() and self._session.exception() is None:
                self._shutdown()
            raise
        # Ray's C++ has put a handler on SIGTERM that aborts; Python's own go over it.
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.getsignal(each))

    def _run(self) -> None:
        try:
            import ray

            if self._wanted:
                self._beside.start()
            session = _connected(ray) if self._wanted else ""
        except BaseException as error:
            self._session.set_exception(error)
            return
        threading.current_thread().name = "ray"
        self._session.set_result(session)
        # Ray 2.60 takes 15 s to shut down where the thread that began it is gone.
        self._over.wait()

    def __exit__(self, *_: object) -> None:
        self._shutdown()

    def _shutdown(self) -> None:
        session = self._session.result()
        # A thread that waits inside Ray for what will never come does not survive a shutdown, and takes the process with it.
        # A cluster ends what a command has left when its process ends; only a Ray of its own needs to be told.
        if session and not (joins_cluster() and waits_in_ray()):
            import ray

            ray.shutdown()
        if session and not joins_cluster():
            end_leftovers(session)
        self._over.set()


def _connected(ray: Any) -> str:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if joins_cluster():
        address = os.environ["RAY_ADDRESS"]
        try:
            return ray.init(address=address, **quiet).address_info["session_dir"]
        except ConnectionError as error:
            raise UserError(f"RAY_ADDRESS is {address}: {str(error).splitlines()[0]}") from None
    try:
        with node_asked_for_often():
            return ray.init(address="local", include_dashboard=False, **quiet).address_info["session_dir"]
    except Exception as error:  # Ray raises bare ones
        ray.shutdown()
        raise RunFailed(
            f"Ray did not start on this machine: {str(error).strip().splitlines()[0]} Try again; a machine busy with "
            "other things may be too slow for it"
        ) from None


@contextmanager
def only_node_unwatched() -> Iterator[None]:
    """For the block, on a Ray of the command's own, Ray Train starts no actor that asks every 5 s whether a node will be taken away."""
    if joins_cluster() or _WATCHER in os.environ:
        yield
        return
    os.environ[_WATCHER] = "0"
    try:
        yield
    finally:
        del os.environ[_WATCHER]


def start_beside_me(kind: type, folder: Storage) -> Any:
    """The actor of this class for the command that works in ``folder``, one in the cluster.

    On this command's own node: on another one it would be lost with that.

    Raises:
        UserError: another job works in the folder.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, scheduling_strategy=here)(kind)
    last = time.monotonic() + _GONE_S
    while True:
        try:
            return actor.options(name=f"{kind.__name__} of {folder.local or folder.uri}", namespace="recipes").remote()
        except ValueError as error:
            if "already taken" not in str(error):
                raise
            if time.monotonic() > last:
                raise UserError(
                    f"{folder} is in use by another job of this cluster: wait until that has ended, stop it, or give "
                    "another name"
                ) from None
        time.sleep(_POLL_S)


def _keep_local_ray_private() -> None:
    """A token of this command's own instead of one written to the home folder, and no usage report.

    Ray reads these when it is imported.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _this_machine(scaling: ScalingBlock) -> dict[str, float]:
    resources = {"CPU": float(os.cpu_count() or 1)}
    if scaling.use_gpu:
        import torch

        resources["GPU"] = float(torch.cuda.device_count())
    return resources


def _check_cluster(have: dict[str, float], scaling: ScalingBlock, say: Callable[[str], None]) -> None:
    try:
        _check_enough(have, scaling, "the cluster")
    except UserError as error:
        if not (joins_cluster() and scaling.wait_for_nodes):
            raise UserError(
                f"{error}; or, where the cluster grows by itself, set scaling.wait_for_nodes=true"
            ) from None
        say(f"waiting for nodes (at most {scaling.node_wait_s} s, scaling.node_wait_s): {error}")


def _check_enough(have: dict[str, float], scaling: ScalingBlock, place: str) -> None:
    least, field = scaling.fewest_workers, "scaling.min_workers" if scaling.min_workers else "scaling.num_workers"
    for kind, each in needed_resources(scaling).items():
        if least * each > have.get(kind, 0.0):
            raise UserError(
                f"{field} is {least}, each with {each:g} {kind}: {least * each:g} {kind} needed, but {place} "
                f"has {have.get(kind, 0.0):g}; lower {field}" + (" or scaling.cpus_per_worker" if kind == "CPU" else "")
            )
