"""The sweep on the terminal: a table that is drawn over itself, or lines where there is no terminal."""

from __future__ import annotations

import shutil
import textwrap
import time
from typing import Any, TextIO

from recipes.launching.terminal import duration
from recipes.sweeping.ledger import Ledger, RunRecord
from recipes.sweeping.space import FAMILY

_HEAD = f"{'run':<10} {'family':<13} {'update':>12} {'lr now':>9} {'rung':>6} {'score':>8}  state"
_MOST_ROWS = 30


class Table:
    """num_runs: planned, final seeds included. updates_planned: what they would take if none is stopped.

    expected_updates: what one more trial is expected to take.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        total_steps: int,
        num_trials: int,
        expected_updates: float,
        stream: TextIO,
        every_s: float = 1.0,
        plain_every_s: float = 30.0,
    ):
        self.ledger, self.total_steps, self.num_trials = ledger, total_steps, num_trials
        self.expected_updates, self.stream = expected_updates, stream
        self._live = stream.isatty()
        self._every_s = every_s if self._live else plain_every_s
        self._now: dict[str, dict[str, Any]] = {}
        self._told: dict[str, tuple[str, int]] = {run.name: _mark(run) for run in ledger.runs.values()}
        self._drawn_lines = 0
        self._drawn_at = time.monotonic()
        self._began, self._done_before = time.monotonic(), self._done()
        self.num_finals = 0

    def metrics(self, name: str, record: dict[str, Any]) -> None:
        """A line of a run's metrics.jsonl."""
        self._now[name] = record

    def say(self, text: str) -> None:
        """A line that stays."""
        self._erase()
        print(text, file=self.stream, flush=True)

    def tick(self) -> None:
        """Draw what has changed, if it is time."""
        for run in list(self.ledger.runs.values()):
            if self._told.get(run.name) != _mark(run):
                self._told[run.name] = _mark(run)
                self._tell(run)
        if time.monotonic() - self._drawn_at >= self._every_s:
            self._drawn_at = time.monotonic()
            self._draw()

    def close(self) -> None:
        """Leave the table as it is at the end."""
        self.tick()
        self._erase()
        if self._live:
            print("\n".join(self.lines()), file=self.stream, flush=True)
            self._drawn_lines = 0

    def _tell(self, run: RunRecord) -> None:
        """What happened to a run, as a line of its own where there is no live table."""
        if self._live and run.state != "failed":
            return
        if run.state == "failed":
            self.say(f"{run.name} failed after update {run.step}: {run.message}")
        elif run.state == "finished":
            self.say(f"{run.name} {_family(run)} finished: held-out loss {run.score:.4f}")
        elif run.rungs:
            step, rung = max(run.rungs.items())
            fate = "goes on" if rung["goes_on"] else "stopped"
            self.say(f"{run.name} {_family(run)} at update {step}: score {rung['score']:.4f}, {fate}")

    def _draw(self) -> None:
        if not self._live:
            print(self.footer(), file=self.stream, flush=True)
            return
        self._erase()
        lines = self.lines()
        width = shutil.get_terminal_size().columns
        print("\n".join(line[: width - 1] for line in lines), file=self.stream, flush=True)
        self._drawn_lines = len(lines)

    def _erase(self) -> None:
        if self._drawn_lines:
            self.stream.write(f"\x1b[{self._drawn_lines}F\x1b[J")
            self._drawn_lines = 0

    def lines(self) -> list[str]:
        """The table: what runs, then the best, as many as there is room for; then the sums."""
        room = max(5, min(_MOST_ROWS, shutil.get_terminal_size().lines - 6))
        order = {"running": 0, "finished": 1, "stopped": 2, "failed": 3, "waiting": 4}
        runs = sorted(self.ledger.runs.values(), key=lambda run: (order[run.state], _latest_score(run), run.name))
        rows = [self._row(run) for run in runs[:room]]
        left_out = [f"({len(runs) - room} more)"] if len(runs) > room else []
        return [_HEAD, *rows, *left_out, *textwrap.wrap(self.footer(), shutil.get_terminal_size().columns - 1)]

    def _row(self, run: RunRecord) -> str:
        now = self._now.get(run.name, {})
        step = max(run.step, now.get("step", 0))
        lr = f"{now['lr']:.2e}" if run.state == "running" and "lr" in now else ""
        rung = max(run.rungs) if run.rungs else None
        score = _latest_score(run)
        shown = f"{score:.4f}" if score < float("inf") else ""
        progress = f"{step}/{self.total_steps}"
        return f"{run.name:<10} {_family(run):<13} {progress:>12} {lr:>9} {rung or '':>6} {shown:>8}  {run.state}"

    def footer(self) -> str:
        trials = self.ledger.trials()
        counts = {state: sum(run.state == state for run in trials) for state in ("finished", "stopped", "failed")}
        running = sum(run.state == "running" for run in list(self.ledger.runs.values()))
        best = min((run for run in trials if run.state == "finished"), key=lambda run: run.score, default=None)
        parts = [
            f"{self.num_trials} trials: {running} running, "
            + ", ".join(f"{number} {state}" for state, number in counts.items())
        ]
        if best is not None:
            parts.append(f"best {best.name} {_family(best)} {best.score:.4f}")
        spent = sum(self._updates(run) for run in trials)
        parts.append(f"{spent:,} updates of {self.num_trials * self.total_steps:,} exhaustive")
        finals = self.ledger.finals()
        if finals:
            parts.append(f"final seeds: {sum(run.state == 'finished' for run in finals)} of {self.num_finals}")
        left = self._seconds_left()
        return " | ".join([*parts, f"{duration(left)} left" if left is not None else "? left"])

    def _updates(self, run: RunRecord) -> int:
        live = self._now.get(run.name, {}).get("step", 0) if run.state == "running" else 0
        return max(run.updates, live)

    def _done(self) -> float:
        return sum(self._updates(run) for run in list(self.ledger.runs.values()))

    def _seconds_left(self) -> float | None:
        """At the pace of this command, with trials to come stopped as often as ASHA stops by its reduction factor."""
        done, seconds = self._done() - self._done_before, time.monotonic() - self._began
        if done <= 0:
            return None
        open_trials = self.num_trials - sum(run.ended_for_good for run in self.ledger.trials())
        open_finals = self.num_finals - sum(run.ended_for_good for run in self.ledger.finals())
        expected = open_trials * self.expected_updates + open_finals * self.total_steps
        expected -= sum(self._updates(run) for run in list(self.ledger.runs.values()) if run.state == "running")
        return max(0.0, expected) * seconds / done


def expected_updates(rungs: list[int], reduction_factor: int) -> float:
    """What a trial takes on average when one in ``reduction_factor`` goes on at every rung."""
    starts = [0, *rungs[:-1]]
    return sum((end - start) / reduction_factor**i for i, (start, end) in enumerate(zip(starts, rungs, strict=True)))


def _family(run: RunRecord) -> str:
    return str(run.point.get(FAMILY, "-"))


def _mark(run: RunRecord) -> tuple[str, int]:
    return run.state, len(run.rungs)


def _latest_score(run: RunRecord) -> float:
    if run.score is not None:
        return run.score
    return run.rungs[max(run.rungs)]["score"] if run.rungs else float("inf")
