"""A run in Weights & Biases."""

from __future__ import annotations

import itertools
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

from recipes.tracking.tracker import Memory, Point, public

# For what is still on its way to the server at the end.
_FINISH_S = 20.0
_START_S = 30.0
_EXIT_CODES = {"finished": 0, "failed": 1, "killed": 255}


class WandbTracker:
    """Writes to ``wandb/`` in the run's folder; from an object store it gets there at the end."""

    def __init__(
        self,
        memory: Memory,
        *,
        project: str,
        entity: str | None,
        mode: str,
        name: str,
        config: dict[str, Any],
        environment: dict[str, Any],
    ):
        # It would report faults of its own to its makers.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._folder, self._scratch = memory.folder, None
        if memory.folder.local is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="wandb_")
        root = Path(self._scratch.name) if self._scratch else memory.folder.local
        goes_on = bool(memory.run_id)
        if not goes_on:
            memory.run_id = secrets.token_hex(8)
            memory.write()
        self._wandb = wandb
        self._run = wandb.init(
            project=project,
            entity=entity,
            name=name,
            id=memory.run_id,
            # Offline there is no server to ask: the files of both parts carry the same id.
            resume="allow" if goes_on and mode == "online" else None,
            config=public(config | {"environment": environment}),
            tags=_tags(environment),
            dir=str(root),
            settings=_settings(wandb, mode),
        )

    def log(self, points: list[Point]) -> None:
        for step, of_step in itertools.groupby(points, key=lambda point: point.step):
            self._run.log({point.tag: point.value for point in of_step}, step=step)

    def finish(self, state: str, files: dict[str, bytes]) -> None:
        kept = Path(self._run.dir)
        for name, content in files.items():
            (kept / name).write_bytes(content)
            self._run.save(str(kept / name), base_path=str(kept), policy="now")
        self._run.summary["state"] = state
        try:
            self._run.finish(exit_code=_EXIT_CODES[state])
        finally:
            # Its helper process ends here, and not some time after this command.
            self._wandb.teardown(exit_code=_EXIT_CODES[state])
            if self._scratch is not None:
                self._folder.upload_folder(Path(self._scratch.name) / "wandb", "wandb")
                self._scratch.cleanup()


def _settings(wandb: Any, mode: str) -> Any:
    """Nothing is gathered but what the run says: no command line, source, packages, or use of the machine."""
    return wandb.Settings(
        mode=mode,
        console="off",
        silent=True,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        init_timeout=_START_S,
        finish_timeout=_FINISH_S,
        finish_timeout_raises=False,
        login_timeout=_START_S,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


def _tags(environment: dict[str, Any]) -> list[str]:
    """W&B takes no more than 64 characters."""
    commit, packages = environment.get("git_commit"), environment.get("packages") or {}
    tags = [f"commit {commit[:12]}"] if commit else []
    return tags + [f"{name} {packages[name]}"[:64] for name in ("torch", "deepspeed", "ray") if packages.get(name)]
