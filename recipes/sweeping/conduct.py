"""A sweep from its config to its answer: the search, then the best ones again with other seeds."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TextIO

from recipes.clusters.quick_check import check_nodes
from recipes.config import ScalingBlock
from recipes.data.encoding import PoolOf, in_threads
from recipes.errors import RunFailed, UserError
from recipes.launching.chatter import chatter
from recipes.launching.environment import environment_json
from recipes.launching.preflight import write_description
from recipes.launching.ray_cluster import ray_cluster, start_beside_me
from recipes.launching.signals import Interrupted, signals_raise
from recipes.storage import Storage
from recipes.sweeping.answer import Answer, best_trials, find_answer
from recipes.sweeping.board import Board
from recipes.sweeping.definition import check_folder, write_definition
from recipes.sweeping.ledger import Ledger, RunRecord
from recipes.sweeping.promotion import to_call_back
from recipes.sweeping.rungs import rung_steps
from recipes.sweeping.search import Search, make_search
from recipes.sweeping.space import parse_space
from recipes.sweeping.sweep_config import SweepConfig
from recipes.sweeping.table import Table, expected_updates
from recipes.sweeping.trial import FINALS, TRIALS, TrialMaker, trial_name
from recipes.sweeping.trial_process import Order
from recipes.sweeping.tuning import TuneExperiment, checked_max_concurrent

# What a run needs after the sweep is told to stop, beside its own scaling.stop_grace_s: an update, and its notice.
_LAST_UPDATE_S = 10.0


@dataclass(frozen=True)
class Sweep:
    """A sweep with nothing left to decide. rungs: in updates; the last one is the end of a trial."""

    config: SweepConfig
    maker: TrialMaker
    ledger: Ledger
    search: Search
    rungs: list[int]

    @property
    def folder(self) -> Storage:
        return self.maker.folder

    @property
    def scaling(self) -> ScalingBlock:
        return self.maker.base.scaling

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to run."""
        everything_ended = all(run.ended_for_good for run in self.ledger.runs.values())
        if not everything_ended or len(self.ledger.trials()) < self.search.num_trials or self.missing_finals():
            return False
        return not self.pauses or self.to_call_back() is None

    @property
    def pauses(self) -> bool:
        """Whether a trial that stops at a rung may be called back."""
        return self.config.scheduler.kind == "asha" and self.config.scheduler.rule == "promote"

    def to_call_back(self, busy: Collection[str] = ()) -> RunRecord | None:
        """The paused trial to go on with, before any new one. busy: names of those that still run."""
        trials = self.ledger.trials()
        all_done = all(run.ended_for_good and run.name not in busy for run in trials)
        num_finished = sum(run.state == "finished" for run in trials)
        # The final seeds compare so many.
        too_few = num_finished < max(1, self.config.final.top_k) and all_done and len(trials) == self.search.num_trials
        return to_call_back(trials, self.rungs[:-1], self.config.scheduler.reduction_factor, busy, too_few)

    def missing_finals(self) -> list[tuple[RunRecord, int]]:
        """The best trials so far and the seeds they have no run with yet."""
        final, own = self.config.final, self.maker.base.run.seed
        wanted = itertools.product(best_trials(self.ledger, final.top_k), range(own + 1, own + 1 + final.num_seeds))
        return [(run, seed) for run, seed in wanted if trial_name(run.trial, seed) not in self.ledger.runs]

    def answer(self) -> Answer:
        """From the ledger as it is."""
        return find_answer(self.ledger, self.maker.total_steps, self.search.num_trials)


def prepare_sweep(
    config: SweepConfig,
    say: Callable[[str], None],
    data_storage: Storage | None = None,
    pool_of: PoolOf = in_threads,
) -> Sweep:
    """Everything that can be decided, and refused, before a trial starts.

    data_storage: where the token cache goes, sweep.storage_path if not given. pool_of: where texts are tokenised.

    Raises:
        UserError: an impossible combination in the space, rungs that fit no trial, a folder of another sweep.
    """
    space = parse_space(config.space)
    folder = Storage(config.sweep.storage_path) / config.sweep.name
    check_folder(config, folder)
    maker = TrialMaker.of_sweep(config, space, say, data_storage, pool_of)
    rungs = _rungs(config, maker.total_steps)
    if maker.base.scaling.min_workers is not None:
        raise UserError("base.scaling.min_workers: the trials of a sweep do not grow and shrink; use num_workers")
    maker.check_space()
    ledger = Ledger(folder)
    search = make_search(config.sweep, space, ledger)
    if len(ledger.trials()) > search.num_trials:
        raise UserError(
            f"sweep.num_trials is {search.num_trials}, but {folder} has {len(ledger.trials())} trials already: give at least so many"
        )
    if search.known_beforehand:
        for number in range(search.num_trials):
            maker.job(search.point(number), trial_name(number))
    return Sweep(config, maker, ledger, search, rungs)


def _rungs(config: SweepConfig, total_steps: int) -> list[int]:
    scheduler = config.scheduler
    if scheduler.grace_steps is None:
        return [total_steps]
    try:
        rungs = rung_steps(scheduler.grace_steps, scheduler.reduction_factor, total_steps)
    except UserError as error:
        raise UserError(f"scheduler.{error}") from None
    if scheduler.kind == "asha" and scheduler.brackets > len(rungs) - 1:
        raise UserError(
            f"scheduler.brackets is {scheduler.brackets}, but below the {total_steps} updates of a trial there are only "
            f"{len(rungs) - 1} rungs ({rungs[:-1]}): lower brackets or scheduler.grace_steps"
        )
    return rungs


def conduct(sweep: Sweep, stream: TextIO) -> Answer:
    """Run what is left of the sweep, and show it on ``stream``.

    Raises:
        UserError: the cluster cannot hold a trial, or another job is at work in the sweep's folder.
        RunFailed: Ray or Tune failed.
        Interrupted: after last checkpoints, if they could be written in time.
    """

    def say(text: str) -> None:
        print(text, file=stream, flush=True)

    with chatter() as said, signals_raise(), ray_cluster(sweep.scaling, say):
        max_concurrent = checked_max_concurrent(sweep.config.sweep.max_concurrent, sweep.scaling)
        check_nodes(sweep.scaling, Storage(sweep.config.sweep.storage_path), say)
        board = start_beside_me(Board, sweep.folder)
        said.keep_in(sweep.folder)
        write_definition(sweep.config, sweep.folder, environment_json())
        conductor = _Conductor(sweep, board, max_concurrent, stream)
        say(f"{sweep.search.num_trials} trials, {max_concurrent} at a time, in {sweep.folder}")
        try:
            conductor.run()
        finally:
            conductor.table.close()
    return sweep.answer()


class _Conductor:
    """Hands out the runs of both parts and shows what becomes of them."""

    def __init__(self, sweep: Sweep, board: Any, max_concurrent: int, stream: TextIO):
        self.sweep, self.board, self.max_concurrent = sweep, board, max_concurrent
        self.ledger = sweep.ledger
        self._stopping = False
        self._handed_out: set[str] = set()
        # Those whose processes have not let go of them yet.
        self._at_work: set[str] = set()
        stops = sweep.config.scheduler.kind == "asha"
        self.table = Table(
            self.ledger,
            total_steps=sweep.maker.total_steps,
            num_trials=sweep.search.num_trials,
            expected_updates=expected_updates(sweep.rungs, sweep.config.scheduler.reduction_factor if stops else 1),
            stream=stream,
        )
        self.table.num_finals = sweep.config.final.top_k * sweep.config.final.num_seeds

    def run(self) -> None:
        """All in one experiment of Tune's, so that the processes of the search go on with the final seeds."""
        num_open = sum(not run.ended_for_good for run in self.ledger.runs.values())
        final = self.sweep.config.final
        # A trial that pauses is a new one to Tune each time it goes on.
        times = len(self.sweep.rungs) if self.sweep.pauses else 1
        most = times * (num_open + self.sweep.search.num_trials) + final.top_k * final.num_seeds
        experiment = TuneExperiment(
            name=f"attempt_{time.time_ns() // 1_000_000}",
            folder=self.sweep.folder / "tune",
            board=self.board,
            scheduler=self._scheduler(),
            scaling=self.sweep.scaling,
            max_concurrent=self.max_concurrent,
            num_runs=most,
            next_run=self._next_run,
            ended=self._ended,
        )
        try:
            experiment.wait(math.inf, self._watch)
        except Interrupted:
            import ray

            self._stopping = True
            ray.get(self.board.request_stop.remote())
            experiment.wait(self.sweep.scaling.stop_grace_s + _LAST_UPDATE_S, self._watch)
            raise
        if experiment.error is not None:
            error = experiment.error
            raise RunFailed(f"Ray Tune failed: {type(error).__name__}: {(str(error).strip() or '-').splitlines()[-1]}")
        if self.sweep.pauses:
            for run in self.ledger.trials():
                self._clear(run)

    def _scheduler(self) -> Any:
        from recipes.sweeping.schedulers import AllToTheEnd, Asha, Desk

        config, desk = self.sweep.config, Desk(self.ledger, self.board)
        if config.scheduler.kind == "fifo":
            return AllToTheEnd(desk)
        return Asha(desk, self.sweep.rungs, config.scheduler, config.sweep.seed)

    def _next_run(self) -> str | None:
        """The next run, its order on the board; "" while only the end of others can tell; None at the end."""
        while not self._stopping:
            name = self._next_trial() or self._next_final()
            if not name or self._hand_out(self.ledger.runs[name]):
                return name
        return None

    def _next_trial(self) -> str | None:
        """One that was cut off, one that is called back, or a new one."""
        for run in self.ledger.trials():
            if not run.ended_for_good and run.name not in self._handed_out:
                return run.name
        back = self.sweep.to_call_back(self._at_work) if self.sweep.pauses else None
        if back is not None:
            self.ledger.called_back(back.name)
            return back.name
        number = len(self.ledger.trials())
        if number >= self.sweep.search.num_trials:
            return None
        self.ledger.drawn(trial_name(number), number, self.sweep.search.point(number))
        return trial_name(number)

    def _next_final(self) -> str | None:
        """One of the best trials with another seed, once all trials have ended."""
        if not all(run.ended_for_good and run.name not in self._at_work for run in self.ledger.trials()):
            return ""
        for run, seed in self.sweep.missing_finals():
            self.ledger.drawn(trial_name(run.trial, seed), run.trial, run.point, seed)
        self.table.num_finals = len(self.ledger.finals())
        waiting = (run for run in self.ledger.finals() if not run.ended_for_good)
        return next((run.name for run in waiting if run.name not in self._handed_out), None)

    def _hand_out(self, run: RunRecord) -> bool:
        """Put the run's order on the board; False where its config turns out to be impossible."""
        import ray

        self._handed_out.add(run.name)
        try:
            place = TRIALS if run.seed is None else FINALS
            job = self.sweep.maker.job(run.point, run.name, place, run.seed)
        except UserError as error:
            self.ledger.failed(run.name, 0, str(error))
            return False
        write_description(job, environment_json())
        rungs = [step for step in self.sweep.rungs[:-1] if step not in run.rungs] if run.seed is None else []
        order = Order(run.name, job, self.sweep.config.scoring.scoring, tuple(rungs), self.sweep.pauses)
        ray.get(self.board.order.remote(run.name, order))
        self.ledger.started(run.name)
        self._at_work.add(run.name)
        return True

    def _ended(self, name: str) -> None:
        run = self.ledger.runs[name]
        self._at_work.discard(name)
        if not run.ended_for_good and not self._stopping:
            self.ledger.failed(name, run.step, "ended without saying how")
        if run.state == "finished" or not self.sweep.pauses:
            self._clear(run)

    def _clear(self, run: RunRecord) -> None:
        """Delete the checkpoints of a run that needs none any more."""
        if run.state in ("stopped", "finished") and not self.sweep.config.sweep.keep_checkpoints:
            place = TRIALS if run.seed is None else FINALS
            (self.sweep.folder / place / run.name).delete_folder("checkpoints")

    def _watch(self) -> None:
        import ray

        try:
            messages = ray.get(self.board.take.remote())
        except ray.exceptions.RayError as error:
            raise RunFailed(f"the connection to Ray was lost: {type(error).__name__}") from None
        for message in messages:
            self.table.metrics(message["run"], message["metrics"])
        self.table.tick()
