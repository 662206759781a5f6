"""The trackers that ``report.to`` asks for: what is refused before the run starts, and how each is made."""

from __future__ import annotations

import json
import netrc
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from recipes.config import RunConfig
from recipes.errors import UserError
from recipes.storage import Storage
from recipes.tracking.pump import Pump
from recipes.tracking.tracker import Memory, Tracker, public
from recipes.training.job import Job
from recipes.training.manifest import newest_manifest

_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "databricks-uc")


def check_trackers(config: RunConfig) -> None:
    """Raises UserError where a tracker could not begin: its package, its store or its key is missing."""
    for name in ("mlflow", "wandb"):
        if name in config.report.to and find_spec(name) is None:
            raise UserError(
                f"report.to has {name}, which is not installed: pip install -c requirements.lock '.[{name}]'"
            )
    if "mlflow" in config.report.to:
        mlflow_place(config)
    if "wandb" in config.report.to and config.report.wandb.mode == "online":
        _check_wandb_key()


def pumps(job: Job, say: Callable[[str], None]) -> list[Pump]:
    """One for each tracker of the run; none has begun."""
    rewinds = job.config.training.on_spike == "rewind"
    made = []
    for name, plan in (("mlflow", _mlflow), ("wandb", _wandb)):
        if name in job.config.report.to:
            memory, make = plan(job)
            made.append(Pump(memory, make, say, (lambda: _safe_step(job.run_folder)) if rewinds else None))
    return made


def _safe_step(run_folder: Storage) -> int:
    """No rewind goes back behind the newest checkpoint."""
    manifest = newest_manifest(run_folder)
    return 0 if manifest is None else manifest.step


def _mlflow(job: Job) -> tuple[Memory, Callable[[], Tracker]]:
    uri, artifacts = mlflow_place(job.config)
    experiment = job.config.report.mlflow.experiment
    memory = Memory.read(job.run_folder, "mlflow", f"{public(uri)} {experiment}")

    def make() -> Tracker:
        from recipes.tracking.mlflow_tracker import MlflowTracker

        return MlflowTracker(memory, uri=uri, artifacts=artifacts, experiment=experiment, **_description(job))

    return memory, make


def _wandb(job: Job) -> tuple[Memory, Callable[[], Tracker]]:
    options = job.config.report.wandb
    memory = Memory.read(job.run_folder, "wandb", f"{options.mode} {options.entity or ''}/{options.project}")

    def make() -> Tracker:
        from recipes.tracking.wandb_tracker import WandbTracker

        return WandbTracker(memory, **options.model_dump(), **_description(job))

    return memory, make


def _description(job: Job) -> dict[str, Any]:
    environment = json.loads(job.run_folder.read_text("environment.json"))
    return {
        "name": job.config.run.name,
        "config": job.config.model_dump(mode="json"),
        "environment": environment,
    }


def mlflow_place(config: RunConfig) -> tuple[str, str | None]:
    """(store, place of its files): the config's, the environment's, or sqlite beside the runs. None: as the store says."""
    given = config.report.mlflow.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        scheme = given.split(":", 1)[0].split("+", 1)[0]
        if scheme not in _SCHEMES:
            where = "report.mlflow.tracking_uri" if config.report.mlflow.tracking_uri else "MLFLOW_TRACKING_URI"
            raise UserError(
                f"{where} is {public(given)}: MLflow 3 takes a server (http://, https://) or a database, such as "
                "sqlite:////shared/mlflow.db; a folder of files no more"
            )
        return given, _beside(given)
    folder = (Storage(config.run.storage_path) / "mlflow").local
    if folder is None:
        raise UserError(
            f"report.mlflow.tracking_uri is missing: run.storage_path {public(config.run.storage_path)} is no disk, and "
            "MLflow's own store needs one; give a server's address"
        )
    uri = f"sqlite:///{folder}/mlflow.db"
    return uri, _beside(uri)


def _beside(uri: str) -> str | None:
    """Files stand beside a database that is a file; MLflow's own choice is a folder of wherever the command was started."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).absolute().parent / "artifacts").as_uri()


def _check_wandb_key() -> None:
    """W&B would ask for it on the terminal, after the run has started."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    files = [Path(os.environ["NETRC"])] if "NETRC" in os.environ else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in files:
        try:
            if file.is_file() and netrc.netrc(file).authenticators(host) is not None:
                return
        except (netrc.NetrcParseError, OSError):
            continue
    raise UserError(
        f"report.wandb.mode is online, but there is no key for {host}: set WANDB_API_KEY, run `wandb login`, or set "
        "report.wandb.mode=offline"
    )
