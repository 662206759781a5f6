"""The README says what is true: its files exist, its Python runs, its YAML is accepted."""

import re
from pathlib import Path

import torch
import yaml

from recipes.config_file import parse_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_links_and_make_targets_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).is_file(), target
    makefile = (ROOT / "Makefile").read_text()
    for goal in re.findall(r"make ([a-z-]+)", README):
        assert re.search(rf"^{goal}:", makefile, re.MULTILINE), goal


def test_the_python_example_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    (example,) = blocks("python")
    parameter = torch.nn.Parameter(torch.zeros(1))
    names = {"optimizer": torch.optim.AdamW([parameter], lr=3e-3)}
    exec(example, names)
    schedule = names["schedule"]
    assert names["optimizer"].param_groups[0]["lr"] == schedule.lr(0)
    assert names["block"]["type"] == "WarmupCosineLR"


def test_the_yaml_examples_are_configs():
    rest = {
        "run": {"name": "x"},
        "model": {"shape": {}},
        "data": {"source": "pydoc"},
        "schedule": {"peak_lr": 1e-3, "total_steps": 10},
    }
    examples = [yaml.safe_load(block) for block in blocks("yaml")]
    assert len(examples) == 2
    for example in examples:
        parse_config(rest | example)
