"""The tasks, each small enough for some hundred runs on one core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Optimizer updates of a run. pydoc_long is pydoc four times as long: nothing of the method was chosen on it.
TOTAL_STEPS = {"pydoc": 240, "multi30k": 240, "pydoc_long": 960}
# At half of it and at twice it a wsd schedule ends worse, on both.
_PEAK = 1.0e-2


class Missing(Exception):
    """The data of a task is not on this machine."""


def task(name: str, work: Path, multi30k: Path) -> tuple[dict[str, Any], float]:
    """The run config of a task without its schedule, and the peak lr that suits it.

    work: folder for token caches and for the part of Multi30k that is used. multi30k: its folder.
    """
    if name != "multi30k":
        data = {"source": "pydoc", "held_out_ratio": 0.04, "tokenizer": _vocabulary(1000)}
        return _config(data, work, TOTAL_STEPS[name]), _PEAK
    if not (multi30k / "train.parquet").is_file():
        raise Missing(f"{multi30k}/train.parquet is not there: task {name} is left out (--multi30k gives the folder)")
    data = {
        "source": str(_part(multi30k / "train.parquet", work / "train_part.parquet", 8000)),
        "eval_source": str(_part(multi30k / "validation.parquet", work / "validation_part.parquet", 256)),
        "source_column": "en",
        "target_column": "de",
        "tokenizer": _vocabulary(1500),
    }
    return _config(data, work, TOTAL_STEPS[name]), _PEAK


def _vocabulary(size: int) -> dict[str, Any]:
    return {"kind": "unigram", "vocab_size": size}


def _config(data: dict[str, Any], work: Path, total_steps: int) -> dict[str, Any]:
    limits = {"max_source_tokens": 24, "max_target_tokens": 24, "on_too_long": "truncate"}
    return {
        "run": {"name": "run", "storage_path": str(work)},
        "model": {
            "shape": {"d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 1, "num_heads": 4}
            | {"tie_word_embeddings": True}
        },
        "data": data | limits,
        "optimizer": {"betas": [0.9, 0.98], "embedding_lr_ratio": 6},
        "training": {
            "examples_per_update": 16,
            "micro_batch_tokens": 2000,
            "eval_every_steps": total_steps,
            "log_every_steps": 5,
            "num_samples": 0,
            "precision": "fp32",
        },
        "deepspeed": {"zero_stage": 0},
        "checkpoint": {"every_steps": total_steps, "keep": 1, "background": False},
    }


def _part(source: Path, target: Path, num_rows: int) -> Path:
    """The first rows of a file, as a file; named in the token cache's key, so written once."""
    import pyarrow.parquet as pq

    if not target.is_file():
        pq.write_table(pq.read_table(source).slice(0, num_rows), target)
    return target
