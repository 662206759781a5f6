"""A trial: a point of the space as a whole run that `recipes.train` can do by itself."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from lrsched import Schedule, ScheduleError
from lrsched.lengths import Units
from recipes.config import RunConfig
from recipes.config_file import parse_config
from recipes.data.encoding import PoolOf, in_threads
from recipes.errors import UserError
from recipes.launching.preflight import prepare
from recipes.storage import Storage
from recipes.sweeping.space import FAMILY, Point, Space, extreme_points
from recipes.sweeping.sweep_config import SweepConfig, with_value
from recipes.training.job import Job

TRIALS, FINALS = "trials", "final"
_OF_DECAY = re.compile(r"(\d+(?:\.\d+)?)\s*%\s+of\s+decay")


def trial_name(number: int, seed: int | None = None) -> str:
    """Folder of a trial, or of its run with another seed."""
    return f"{number:03d}" if seed is None else f"{number:03d}_seed{seed}"


@dataclass(frozen=True)
class TrialMaker:
    """Makes the runs of a sweep.

    base: the run they vary, with its schedule in updates. updates_per_epoch: of the base. folder: the
    sweep's. data_storage: where token caches are shared with other runs.
    """

    space: Space
    base: RunConfig
    updates_per_epoch: float
    folder: Storage
    data_storage: Storage

    @classmethod
    def of_sweep(
        cls,
        sweep: SweepConfig,
        space: Space,
        say: Callable[[str], None],
        data_storage: Storage | None = None,
        pool_of: PoolOf = in_threads,
    ) -> TrialMaker:
        """Tokenises the data, or finds it."""
        data_storage = data_storage or Storage(sweep.sweep.storage_path)
        try:
            job, _, plan = prepare(sweep.base, say, started_at=time.time(), data_storage=data_storage, pool_of=pool_of)
        except UserError as error:
            raise UserError(f"base: {error}") from None
        folder = Storage(sweep.sweep.storage_path) / sweep.sweep.name
        return cls(space, job.config, plan.updates_per_epoch, folder, data_storage)

    @property
    def total_steps(self) -> int:
        return self.base.schedule.total_steps

    def config(self, point: Point, name: str = "check", place: str = TRIALS, seed: int | None = None) -> RunConfig:
        """The resolved config.

        Raises:
            UserError: an impossible combination, told with its values.
        """
        run = {"name": name, "storage_path": f"{self.folder}/{place}", "resume": "auto"}
        content = self.base.model_dump(mode="json")
        content["run"] |= run if seed is None else run | {"seed": seed}
        try:
            for dotted, value in self.space.overrides(point).items():
                content = with_value(content, dotted, value)
            content["schedule"] = self._schedule(content["schedule"]).to_dict()
            return parse_config(content)
        except (ScheduleError, UserError) as error:
            raise UserError(f"space: {shown(point)}: {str(error).removeprefix('config: ')}") from None

    def _schedule(self, block: dict[str, Any]) -> Schedule:
        units = Units(self.total_steps, self.updates_per_epoch)
        warmup = (block.get("warmup") or {}).get("steps", 0)
        decay_steps = self.total_steps - units.resolve(warmup, "warmup.steps")
        block = block | {"decay": _in_updates(block.get("decay"), decay_steps)}
        return Schedule.from_dict(block, steps_per_epoch=self.updates_per_epoch, where="schedule")

    def schedule(self, point: Point) -> Schedule | None:
        """Of a trial; None for one that turned out to be impossible."""
        try:
            return Schedule.from_dict(self.config(point).schedule.model_dump(exclude_none=True))
        except UserError:
            return None

    def job(self, point: Point, name: str, place: str = TRIALS, seed: int | None = None) -> Job:
        """The run with nothing left to decide.

        Raises:
            UserError: whatever `recipes.train` would refuse.
        """
        config = self.config(point, name, place, seed)
        try:
            return prepare(config, _nothing, started_at=time.time(), data_storage=self.data_storage)[0]
        except UserError as error:
            raise UserError(f"space: {shown(point)}: {error}") from None

    def check_space(self) -> None:
        """Refuse a space of which some combination makes no possible run.

        What the ends of the ranges can do together, all values between can.
        """
        for family in self.space.families or (None,):
            for point in extreme_points(self.space, family):
                self.config(point)


def _in_updates(value: Any, decay_steps: int) -> Any:
    """Lengths in percent of the decay as updates, rounded as lrsched rounds: a half upwards."""
    if isinstance(value, dict):
        return {key: _in_updates(inner, decay_steps) for key, inner in value.items()}
    if isinstance(value, list):
        return [_in_updates(inner, decay_steps) for inner in value]
    match = _OF_DECAY.fullmatch(value.strip()) if isinstance(value, str) else None
    return value if match is None else math.floor(Fraction(match[1]) * decay_steps / 100 + Fraction(1, 2))


def shown(point: Point) -> str:
    """``cosine with t_max 62.5%, schedule.peak_lr 0.003``."""
    family = point.get(FAMILY)
    values = [
        f"{name.removeprefix(f'{family}.')} {value if not isinstance(value, float) else f'{value:g}'}"
        for name, value in point.items()
        if name != FAMILY
    ]
    return " with ".join(part for part in (family, ", ".join(values)) if part)


def _nothing(text: str) -> None:
    pass
