"""Ray Tune doing the runs of a sweep."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from recipes.config import ScalingBlock
from recipes.errors import UserError
from recipes.launching.ray_cluster import IN_RAY, needed_resources
from recipes.storage import Storage
from recipes.sweeping.trial_process import run_trial

_POLL_S = 0.25


def trials_at_a_time(nodes: list[dict[str, float]], scaling: ScalingBlock) -> int:
    """How many trials, each with all its workers, the nodes hold. nodes: each one's resources."""
    each = needed_resources(scaling)
    workers = sum(min(int(node.get(kind, 0.0) / amount) for kind, amount in each.items()) for node in nodes)
    return workers // scaling.num_workers


def checked_max_concurrent(wanted: int | None, scaling: ScalingBlock) -> int:
    """Trials at a time, so that each has its workers and none waits for another's for ever.

    Raises:
        UserError: the connected cluster does not hold so many.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = trials_at_a_time(nodes, scaling)
    each = ", ".join(f"{amount:g} {kind}" for kind, amount in needed_resources(scaling).items())
    needs = f"base.scaling.num_workers is {scaling.num_workers}, each with {each}"
    if fit < 1:
        have = [{kind: node.get(kind, 0.0) for kind in needed_resources(scaling)} for node in nodes]
        raise UserError(f"{needs}: the cluster's nodes ({have}) do not hold one trial; lower one of them")
    if wanted is not None and wanted > fit:
        raise UserError(f"sweep.max_concurrent is {wanted}, but the cluster holds {fit} trials at a time ({needs})")
    return wanted or fit


class TuneExperiment:
    """Runs that Tune does in a thread of its own, so that signals and the terminal are ours.

    next_run: the name of the next run, whose order lies on the board by then; "" where that cannot be said before
    another run has ended; None when there are no more.
    ended: called with the name of a run whose process has let go of it.
    """

    def __init__(
        self,
        *,
        name: str,
        folder: Storage,
        board: Any,
        scheduler: Any,
        scaling: ScalingBlock,
        max_concurrent: int,
        num_runs: int,
        next_run: Callable[[], str | None],
        ended: Callable[[str], None],
    ):
        self._over, self.error = threading.Event(), None
        self._arguments = (name, folder, board, scheduler, scaling, max_concurrent, num_runs)
        self._next_run, self._ended = next_run, ended
        threading.Thread(target=self._run, name=IN_RAY, daemon=True).start()

    def wait(self, limit_s: float, watch: Callable[[], None]) -> bool:
        """Until all runs have ended, or the time is up; ``watch`` is called all along. Whether they have ended."""
        end = time.monotonic() + limit_s
        while not self._over.wait(_POLL_S) and time.monotonic() < end:
            watch()
        watch()
        return self._over.is_set()

    def _run(self) -> None:
        try:
            self._tuner(*self._arguments).fit()
        except BaseException as error:
            self.error = error
        finally:
            self._over.set()

    def _tuner(
        self,
        name: str,
        folder: Storage,
        board: Any,
        scheduler: Any,
        scaling: ScalingBlock,
        max_concurrent: int,
        num_runs: int,
    ) -> Any:
        # Tune's own CSV, JSON and event files of every trial: metrics.jsonl and the ledger have it all.
        os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
        from ray import tune

        each = needed_resources(scaling)
        # Ray Train reserves its workers itself. The trial beside them must take no part of a CPU, or trials could wait
        # for each other for ever; Tune wants it to ask for something, so it asks for a byte.
        own = {"cpu": each["CPU"], "gpu": each.get("GPU", 0.0)} if scaling.num_workers == 1 else {"memory": 1}
        retries = scaling.max_failures if scaling.num_workers == 1 else 0
        return tune.Tuner(
            tune.with_resources(tune.with_parameters(run_trial, board=board), own),
            tune_config=tune.TuneConfig(
                scheduler=scheduler,
                search_alg=_searcher(self._next_run, self._ended),
                num_samples=num_runs,
                max_concurrent_trials=max_concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=str(folder.local or folder),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=retries),
            ),
        )


def _searcher(next_run: Callable[[], str | None], ended: Callable[[str], None]) -> Any:
    from ray.tune.search import Searcher

    class Names(Searcher):
        """Hands Tune the name of one run after the other."""

        def __init__(self) -> None:
            super().__init__(metric="score", mode="min")
            self._names: dict[str, str] = {}

        def set_search_properties(self, *args: Any, **kwargs: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> Any:
            name = next_run()
            if not name:
                return Searcher.FINISHED if name is None else None
            self._names[trial_id] = name
            return {"run": name}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            ended(self._names[trial_id])

        def save_to_dir(self, *args: Any, **kwargs: Any) -> None:
            """The ledger is what a resume starts from."""

        def __reduce__(self) -> tuple[Any, tuple[()]]:
            return Searcher, ()

    return Names()
