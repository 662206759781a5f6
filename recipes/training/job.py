"""What the launcher hands to every worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recipes.config import RunConfig
from recipes.storage import Storage


@dataclass(frozen=True)
class Job:
    """A resolved run. started_at: `time.time()` when the user's command began.

    resume: take the newest whole checkpoint if there is one. After a failure the workers do so anyway
    (attempt is then not the first), so that a restart never repeats what a checkpoint holds.
    """

    config: RunConfig
    run_folder: Storage
    data_folder: Storage
    ds_config: dict[str, Any]
    precision: str
    schedule_driver: str
    started_at: float
