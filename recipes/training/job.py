"""A run with nothing left to decide: what preflight makes and every worker gets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lrsched import Schedule
from recipes.config import RunConfig
from recipes.storage import Storage


@dataclass(frozen=True)
class Job:
    """A resolved run.

    config: with the schedule in optimizer updates. schedule_driver: who steps the lr, "deepspeed" or
    "torch". started_at: `time.time()` when the user's command began.
    """

    config: RunConfig
    run_folder: Storage
    data_folder: Storage
    ds_config: dict[str, Any]
    precision: str
    schedule_driver: str
    started_at: float

    @cached_property
    def schedule(self) -> Schedule:
        return Schedule.from_dict(self.config.schedule.model_dump(exclude_none=True), where="schedule")
