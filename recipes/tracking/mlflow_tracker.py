"""A run in MLflow."""

from __future__ import annotations

import logging
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from recipes.config_file import flatten
from recipes.tracking.tracker import Memory, Point, public

# MLflow's limits of one request.
_MOST_METRICS, _MOST_PARAMS, _MOST_TAGS = 1000, 100, 100
_MOST_CHARACTERS = 6000
# Read by MLflow in this process alone; what the user has set stays.
_ENVIRONMENT = {
    # MLflow's own are 120 s, and seven times again.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    # It would report its use to its makers.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_STATES = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class MlflowTracker:
    """uri: server or database. artifacts: where files go, if the experiment is made now; None: as the server says."""

    def __init__(
        self,
        memory: Memory,
        *,
        uri: str,
        artifacts: str | None,
        experiment: str,
        name: str,
        config: dict[str, Any],
        environment: dict[str, Any],
    ):
        for variable, value in _ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        if uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            # Of SQLAlchemy to MLflow, about the loading of related rows.
            warnings.simplefilter("ignore", DeprecationWarning)
            from mlflow.tracking import MlflowClient

            logging.getLogger("mlflow").setLevel(logging.ERROR)
            logging.getLogger("alembic").setLevel(logging.ERROR)
            self._client = MlflowClient(tracking_uri=uri)
            if memory.run_id:
                self._client.update_run(memory.run_id, status="RUNNING")
            else:
                memory.run_id = self._new_run(experiment, artifacts, name, config, environment)
                memory.write()
        self._run_id = memory.run_id

    def _new_run(
        self, experiment: str, artifacts: str | None, name: str, config: dict[str, Any], environment: dict[str, Any]
    ) -> str:
        client = self._client
        found = client.get_experiment_by_name(experiment)
        experiment_id = found.experiment_id if found else _made(client, experiment, artifacts)
        tags = {key: str(value) for key, value in flatten(public(environment)).items() if value is not None}
        if environment.get("git_commit"):
            tags["mlflow.source.git.commit"] = environment["git_commit"]
        run_id = client.create_run(experiment_id, run_name=name, tags=dict(list(tags.items())[:_MOST_TAGS])).info.run_id
        from mlflow.entities import Param

        params = [
            Param(key, str(value)[:_MOST_CHARACTERS])
            for key, value in flatten(public(config)).items()
            if value is not None
        ]
        for start in range(0, len(params), _MOST_PARAMS):
            client.log_batch(run_id, params=params[start : start + _MOST_PARAMS])
        return run_id

    def log(self, points: list[Point]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(point.tag, point.value, int(1000 * point.at), point.step) for point in points]
        for start in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + _MOST_METRICS])

    def finish(self, state: str, files: dict[str, bytes]) -> None:
        with tempfile.TemporaryDirectory(prefix="mlflow_") as temporary:
            for name, content in files.items():
                path = Path(temporary) / name
                path.write_bytes(content)
                self._client.log_artifact(self._run_id, str(path))
        self._client.set_terminated(self._run_id, _STATES[state], int(1000 * time.time()))


def _made(client: Any, experiment: str, artifacts: str | None) -> str:
    from mlflow.exceptions import MlflowException

    try:
        return client.create_experiment(experiment, artifact_location=artifacts)
    except MlflowException:
        # Another run may have made it in between.
        found = client.get_experiment_by_name(experiment)
        if found is None:
            raise
        return found.experiment_id
