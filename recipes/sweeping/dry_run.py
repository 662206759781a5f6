"""What a sweep would do, in words and numbers, without starting Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recipes.launching.ray_cluster import needed_resources
from recipes.sweeping.definition import to_yaml
from recipes.sweeping.table import expected_updates
from recipes.sweeping.trial import shown

if TYPE_CHECKING:
    from recipes.sweeping.conduct import Sweep


def describe_sweep(sweep: Sweep) -> str:
    """The text of ``--dry-run``."""
    parts = [("resolved sweep", to_yaml(sweep.config)), ("trials", _trials(sweep)), ("would run", _would_run(sweep))]
    return "\n\n".join(f"# {title}\n{text.rstrip()}" for title, text in parts)


def _trials(sweep: Sweep) -> str:
    if not sweep.search.known_beforehand:
        return f"{sweep.search.num_trials}, proposed by optuna one after the other"
    lines = []
    for number in range(sweep.search.num_trials):
        point = sweep.search.point(number)
        schedule = sweep.maker.job(point, "check").schedule
        lines.append(f"{number:03d} {shown(point)}: {schedule.describe()}")
    return "\n".join(lines)


def _would_run(sweep: Sweep) -> str:
    config, total = sweep.config, sweep.maker.total_steps
    each = ", ".join(f"{amount:g} {kind}" for kind, amount in needed_resources(sweep.scaling).items())
    stops = config.scheduler.kind == "asha"
    usual = expected_updates(sweep.rungs, config.scheduler.reduction_factor if stops else 1)
    exhaustive = sweep.search.num_trials * total
    ended = sum(run.ended_for_good for run in sweep.ledger.trials())
    final = config.final.top_k * config.final.num_seeds
    return "\n".join(
        [
            f"{sweep.search.num_trials} trials of {total} updates, {ended} of them ended already, in {sweep.folder}",
            f"{sweep.scaling.num_workers} worker(s) per trial, each with {each}",
            f"{config.scheduler.kind}, scored ({config.scoring.method}) after {sweep.rungs[:-1]} updates",
            f"updates: {exhaustive:,} exhaustive, about {sweep.search.num_trials * usual:,.0f} expected",
            f"then the best {config.final.top_k} with {config.final.num_seeds} new seeds: {final * total:,} updates more",
        ]
    )
