"""Where the cluster files are, and what several tests read from them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipes.config import RunConfig
from recipes.config_file import load_config

REPOSITORY = Path(__file__).parents[2]
CLUSTER = REPOSITORY / "cluster"


def locked(package: str) -> str:
    """The version of a package in requirements.lock."""
    text = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    return re.search(rf"^{re.escape(package)}==(\S+)", text, re.MULTILINE)[1]


def image_tag() -> str:
    """What an image built from this checkout is called: the project's version and Ray's."""
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)[1]
    return f"{version}-ray{locked('ray')}"


def values(node: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Every scalar of a document with the keys that lead to it."""
    if isinstance(node, dict):
        for key, child in node.items():
            yield from values(child, (*path, key))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from values(child, (*path, index))
    else:
        yield path, node


def config_of(command: str) -> RunConfig:
    """The config that a documented `python -m recipes.train` command would train with."""
    config, *overrides = command.split("-m recipes.train ")[1].split()
    return load_config(REPOSITORY / "recipes" / "configs" / Path(config).name, overrides)


def command_in_comments(text: str, start: str) -> str:
    """A command of a file's opening comment, its continued lines joined."""
    lines = [line.lstrip("# ").rstrip() for line in text.splitlines() if line.startswith("#")]
    first = next(i for i, line in enumerate(lines) if start in line)
    command = ""
    for line in lines[first:]:
        command += line.removesuffix("\\")
        if not line.endswith("\\"):
            break
    return command


def changes(text: str) -> list[str]:
    """The numbers of the lines marked for change."""
    return re.findall(r"(?<!\")change (\d)\b(?!\")", text)
