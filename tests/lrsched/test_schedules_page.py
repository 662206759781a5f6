"""docs/schedules.md says what is true: its Python runs, its YAML is accepted, its pictures are the library's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from lrsched import Schedule
from lrsched.cli import _parser
from lrsched.decays import DECAYS
from lrsched.shapes import DIALECTS, dialect_shapes
from lrsched.warmups import SHAPES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "schedules.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"\n##+ ([^\n]+)\n(?:(?!\n##+ ).)*?```python\n(.*?)```", TEXT, re.DOTALL))


def test_the_examples_are_all_found() -> None:
    assert len(EXAMPLES) == TEXT.count("```python")
    assert set(EXAMPLES) == {
        "In your own loop",
        "A plain torch loop",
        "transformers' Trainer",
        "DeepSpeed",
        "Ray Train",
        "What other libraries really apply",
    }


@pytest.mark.parametrize("title", [title for title in EXAMPLES if title != "Ray Train"])
def test_an_example_runs(title: str, tmp_path: Path) -> None:
    """As a program of its own, as a reader would run it. Ray Train's: tests/launching/test_schedules_page.py."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    if title == "DeepSpeed":
        environment |= {"DS_ACCELERATOR": "cpu", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        environment |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        # On a CPU DeepSpeed would compile an operator for a minute that one process never calls.
        first = "import deepspeed\ndeepspeed.ops.__compatible_ops__['deepspeed_shm_comm'] = False\n"
    else:
        first = ""
    script = tmp_path / "example.py"
    script.write_text(first + EXAMPLES[title], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_yaml_is_a_schedule() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert Schedule.from_yaml(block).total_steps == 10_000


def test_every_name_is_on_the_page() -> None:
    for shape in DECAYS:
        assert f"\n### {shape}\n" in TEXT
    for shape in SHAPES:
        assert f"| `{shape}` |" in TEXT
    for library in DIALECTS:
        for shape in dialect_shapes(library):
            assert f"`{shape.partition('.')[2]}`" in TEXT, shape
    commands = _parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    for command in commands:
        assert f"| `lrsched {command} " in TEXT, command


def test_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w\- ]", "", line).strip().replace(" ", "-").lower() for line in re.findall(r"\n#+ (.*)", TEXT)
    }
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in headings, target
        else:
            assert (PAGE.parent / target).is_file(), target


def test_the_pictures_are_drawn_from_the_library(tmp_path: Path) -> None:
    """The same curves as the committed ones; a few pixels may differ with the drawing library's version."""
    subprocess.run([sys.executable, str(ROOT / "docs" / "pictures.py"), str(tmp_path)], check=True, timeout=120)
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == sorted(path.name for path in (PAGE.parent / "schedules").iterdir())
    for name in drawn:
        new, old = (matplotlib.image.imread(folder / name) for folder in (tmp_path, PAGE.parent / "schedules"))
        assert new.shape == old.shape
        assert np.abs(new - old).mean() < 0.01, name
