"""What several test folders share: a small corpus and a small run."""

import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything imports torch or DeepSpeed: a laptop with a GPU must test the same things.
os.environ.setdefault("DS_ACCELERATOR", "cpu")

# The same examples in every run, and no time limit for one: a slow machine fails no test by itself.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

WORDS = [
    "red",
    "green",
    "blue",
    "black",
    "white",
    "small",
    "large",
    "round",
    "old",
    "new",
    "cat",
    "dog",
    "bird",
    "fish",
    "horse",
    "tree",
    "stone",
    "river",
    "sea",
    "sky",
]


def write_pairs(path: Path, num_rows: int = 300) -> Path:
    """JSON lines whose target is the source's words in reverse order."""
    lines = []
    for i in range(num_rows):
        words = [WORDS[(i * (j + 3) + j * j) % len(WORDS)] for j in range(2 + i % 5)] + [str(i)]
        lines.append(json.dumps({"source": " ".join(words), "target": " ".join(reversed(words))}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path / "pairs.jsonl")


def small_run(data: Path, storage: Path, *overrides: str) -> list[str]:
    """Arguments of a `recipes.train` command that takes seconds: 8 updates of a tiny byte-level T5."""
    config = storage / "small.yaml"
    storage.mkdir(parents=True, exist_ok=True)
    config.write_text(
        f"""
run: {{name: small, storage_path: {storage}, seed: 3}}
model: {{shape: {{d_model: 32, d_kv: 8, d_ff: 64, num_layers: 1, num_heads: 4, dropout_rate: 0.1}}}}
data: {{source: {data}, tokenizer: {{kind: bytes}}, max_source_tokens: 64, max_target_tokens: 64, held_out_ratio: 0.1}}
schedule: {{peak_lr: 1.0e-2, total_steps: 8, warmup: {{steps: 3}}, decay: {{shape: cosine, eta_min: 1.0e-4}}}}
training: {{examples_per_update: 16, micro_batch_tokens: 400, eval_every_steps: 4, log_every_steps: 1, num_samples: 2, precision: fp32}}
checkpoint: {{every_steps: 4}}
scaling: {{num_workers: 2}}
""",
        encoding="utf-8",
    )
    return [str(config), *overrides]


@pytest.fixture
def python() -> str:
    return sys.executable
