"""What a run's folder holds, read with whatever is missing or broken left out and named."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import yaml

from recipes.errors import StorageError
from recipes.reporting.metrics import Metrics, read_metrics
from recipes.storage import Storage


@dataclass
class RunFiles:
    """What a run's folder holds; a file that is absent or broken leaves its default and a problem."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    ds_config_text: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=Metrics)
    summary: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def setting(self, dotted: str) -> Any:
        """A value of the config, or None."""
        value: Any = self.config
        for key in dotted.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @property
    def last_step(self) -> int:
        """The last update that a line of metrics speaks of."""
        return max((record["step"] for record in self.metrics.train + self.metrics.eval), default=0)

    @property
    def total_updates(self) -> int | None:
        found = self.summary.get("total_updates", self.setting("schedule.total_steps"))
        return found if type(found) is int and found > 0 else None


def read_run(run_folder: Storage, metrics: Metrics | None = None) -> RunFiles:
    """metrics: where they are known already; None: the folder's."""
    run = RunFiles(name=str(run_folder).rstrip("/").rsplit("/", 1)[-1])
    run.config_text = _text_of(run_folder, "config.yaml", run)
    run.ds_config_text = _text_of(run_folder, "ds_config.json", run)
    run.config = _parsed(run.config_text, "config.yaml", yaml.safe_load, dict, run)
    run.environment = _parsed(_text_of(run_folder, "environment.json", run), "environment.json", json.loads, dict, run)
    run.summary = _parsed(_text_of(run_folder, "summary.json", run), "summary.json", json.loads, dict, run)
    samples = _parsed(_text_of(run_folder, "samples.json", run), "samples.json", json.loads, list, run)
    run.samples = [sample for sample in samples if isinstance(sample, dict)]
    try:
        run.metrics = read_metrics(run_folder) if metrics is None else metrics
    except StorageError as error:
        run.problems.append(str(error))
    run.name = str(run.setting("run.name") or run.name)
    return run


def _text_of(run_folder: Storage, name: str, run: RunFiles) -> str:
    if not run_folder.exists(name):
        return ""
    try:
        return run_folder.read_text(name)
    except (OSError, UnicodeDecodeError) as error:
        run.problems.append(f"{name} cannot be read: {error}")
        return ""


def _parsed(content: str, name: str, parse: Any, kind: type, run: RunFiles) -> Any:
    if not content.strip():
        return kind()
    try:
        value = parse(content)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        run.problems.append(f"{name} cannot be read: {str(error).splitlines()[0]}")
        return kind()
    if not isinstance(value, kind):
        run.problems.append(f"{name} does not hold what it should ({kind.__name__})")
        return kind()
    return value
