"""Run folders with known numbers."""

import json

from recipes.config_file import apply_overrides, parse_config, to_yaml
from recipes.reporting.metrics import MetricsWriter
from recipes.storage import Storage

CONFIG = {
    "run": {"name": "x"},
    "model": {"shape": {"d_model": 32}},
    "data": {"source": "pydoc"},
    "schedule": {"peak_lr": 1e-3, "total_steps": 100, "warmup": {"steps": 10}},
}
ENVIRONMENT = {"command": ["python"], "started": "2026-01-01", "git_commit": "abc", "packages": {"torch": "2.13.0"}}


def make_run(folder, *overrides, loss=3.0, updates=100, finished=True, rate=1000.0, environment=None, evals=None):
    """A line each 10 updates of 10,000 tokens; an evaluation of 2 s each 20 with loss + 1 / update and what ``evals`` has."""
    folder.mkdir(parents=True, exist_ok=True)
    config = parse_config(apply_overrides(CONFIG, [f"run.name='{folder.name}'", *overrides]))
    (folder / "config.yaml").write_text(to_yaml(config))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT | (environment or {})))
    with MetricsWriter(Storage(folder), 0) as writer:
        for step in range(10, updates + 1, 10):
            line = {"step": step, "loss": loss + 1 / step, "lr": 1e-3, "tokens": 1000 * step, "tokens_per_s": rate}
            writer.write(line)
            if step % 20 == 0:
                measured = {"eval_loss": loss + 1 / step, "eval_tokens": 900, "eval_s": 2.0}
                writer.write({"step": step, **measured, **(evals or {})})
    if finished:
        summary = {"state": "finished", "updates": updates, "total_updates": updates, "tokens_per_s": rate}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder
