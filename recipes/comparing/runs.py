"""Which runs a command line names, and what their folders hold."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from recipes.comparing.series import Progress
from recipes.config_file import flatten, parse_config
from recipes.errors import UserError, nearest
from recipes.reporting.run_files import RunFiles, read_run
from recipes.storage import Storage

_CONFIG, _METRICS, _LEDGER = "config.yaml", "metrics.jsonl", "ledger.jsonl"
_GLOB = "*?["
# More names than these are no help.
_MOST_NAMES = 12


@dataclass(frozen=True)
class ComparedRun:
    """label: the shortest end of the folder's path that no other run has. config: flat, with today's defaults."""

    label: str
    folder: Storage
    files: RunFiles
    progress: Progress
    config: dict[str, Any]

    @property
    def state(self) -> str:
        """finished, or how far it came."""
        if self.files.summary.get("state") == "finished":
            return "finished"
        total = self.files.total_updates
        return f"update {self.files.last_step:,}" + (f" of {total:,}" if total else "")


def find_runs(places: list[str]) -> tuple[list[ComparedRun], list[str]]:
    """The runs at ``places`` (folders, URIs, patterns such as ``runs/*``), and a line on each that was left out.

    Raises:
        UserError: a place that does not exist or is a sweep, a pattern that nothing matches, fewer than two runs.
    """
    folders: dict[str, Storage] = {}
    left_out = []
    for place in places:
        for folder in _folders(place):
            if folder.exists(_CONFIG) or folder.exists(_METRICS):
                folders.setdefault(folder.uri if folder.local is None else folder.path(), folder)
            elif folder.exists(_LEDGER) and not _has_glob(place):
                raise UserError(f"{folder} is a sweep: give the runs in it, such as '{folder}/trials/*'")
            else:
                left_out.append(f"left out: {folder} (not a run: no {_CONFIG} there)")
    if len(folders) < 2:
        found = ", ".join(map(str, folders.values())) or "none"
        reasons = "; " + "; ".join(left_out) if left_out else ""
        raise UserError(f"a comparison needs two runs or more, found: {found}{reasons}")
    labels = _labels(list(folders))
    return [_read(folder, label) for folder, label in zip(folders.values(), labels, strict=True)], left_out


def _has_glob(place: str) -> bool:
    return any(sign in place for sign in _GLOB)


def _folders(place: str) -> list[Storage]:
    if not _has_glob(place):
        folder = Storage(place.rstrip("/") or place)
        if not folder.exists():
            raise UserError(f"{place}: no such run{_others(folder)}")
        return [folder]
    scheme, _, rest = place.rpartition("://")
    parts = rest.rstrip("/").split("/")
    first = next(i for i, part in enumerate(parts) if _has_glob(part))
    base = "/".join(parts[:first])
    start = f"{scheme}://{base}" if scheme else base or ("/" if rest.startswith("/") else ".")
    found = [Storage(start)]
    for part in parts[first:]:
        found = [folder / name for folder in found for name in _names(folder) if fnmatchcase(name, part)]
        found = [folder for folder in found if not folder.path().rsplit("/", 1)[-1].startswith(".")]
    if not found:
        raise UserError(f"{place}: nothing there matches")
    return found


def _names(folder: Storage) -> list[str]:
    """What is in a folder; nothing is in a file."""
    try:
        return folder.names()
    except NotADirectoryError:
        return []


def _others(folder: Storage) -> str:
    """The nearest name beside one that does not exist."""
    parent, _, name = folder.uri.rpartition("/")
    if not name or parent.endswith(("/", ":")):
        return ""
    known = Storage(parent or ".").names()
    words = nearest(name, known) if known else ""
    return words if len(known) <= _MOST_NAMES or words.startswith(",") else ""


def _labels(paths: list[str]) -> list[str]:
    for depth in range(1, max(path.count("/") for path in paths) + 2):
        labels = [posixpath.join(*path.split("/")[-depth:]) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    return paths


def _read(folder: Storage, label: str) -> ComparedRun:
    files = read_run(folder)
    if not files.config:
        files.problems.append("no config.yaml that could be read: its settings are not compared")
        return ComparedRun(label, folder, files, Progress.of(files.metrics), {})
    try:
        config = flatten(parse_config(files.config).model_dump(mode="json"))
    except UserError as error:
        # Of another version of this project: its keys as they stand.
        config = flatten(files.config)
        files.problems.append(f"config.yaml is not one of this version: {str(error).splitlines()[0]}")
    return ComparedRun(label, folder, files, Progress.of(files.metrics), config)
