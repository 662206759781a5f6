"""What a sweep's folder was made with, and whether a command may go on with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from recipes.errors import UserError
from recipes.storage import Storage
from recipes.sweeping.ledger import FILE
from recipes.sweeping.sweep_config import SweepConfig

NAME = "sweep.yaml"
# What may change: none of it changes what a trial is, or what its scores mean.
_FREE = (
    "sweep.resume",
    "sweep.storage_path",
    "sweep.num_trials",
    "sweep.max_concurrent",
    "sweep.keep_checkpoints",
    "final.",
    "base.scaling.",
    "base.checkpoint.",
    "base.training.log_every_steps",
    "base.training.eval_every_steps",
    "base.training.num_samples",
)


def to_yaml(config: SweepConfig) -> str:
    """The sweep with every default filled in, and its base written out: a config for `recipes.sweep` by itself."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def write_definition(config: SweepConfig, folder: Storage, environment: str) -> None:
    folder.write_text(NAME, to_yaml(config))
    folder.write_text("environment.json", environment)


def check_folder(config: SweepConfig, folder: Storage) -> None:
    """Whether the command may use the sweep's folder as it is.

    Raises:
        UserError: it holds a sweep and sweep.resume is never; or another sweep, whose differences are named.
    """
    if not folder.exists(NAME):
        if folder.exists(FILE):
            raise UserError(f"{folder} has a {FILE} but no {NAME} that says of what: give another sweep.name")
        return
    if config.sweep.resume == "never":
        raise UserError(
            f"{folder} holds a sweep already: give another sweep.name, or sweep.resume=auto to go on with that one"
        )
    try:
        there = yaml.safe_load(folder.read_text(NAME))
    except yaml.YAMLError:
        raise UserError(f"{folder}/{NAME} is not valid YAML: give another sweep.name") from None
    before, after = dict(_flat(there)), dict(_flat(config.model_dump(mode="json")))
    changed = [
        f"{field} (there {before.get(field)!r}, now {after.get(field)!r})"
        for field in {**before, **after}
        if before.get(field) != after.get(field) and not field.startswith(_FREE)
    ]
    if changed:
        raise UserError(
            f"{folder} holds a sweep with another definition: {', '.join(changed)}; give another sweep.name, or that one"
        )


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for i, inner in enumerate(value):
            yield from _flat(inner, f"{prefix}[{i}]")
    else:
        yield prefix, value
