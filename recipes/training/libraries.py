"""The libraries that a training process needs, loaded in one go and without what they would load for others."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


def load_libraries() -> None:
    """Import DeepSpeed and transformers' T5, which takes seconds.

    DeepSpeed's autotuner would import MLflow where that is installed (0.8 s), and its Muon optimizer gives functions to
    torch.compile when it is imported, which loads torch's code generator (0.7 s). Nothing here uses either.
    """
    with _absent("mlflow"):
        import_module("deepspeed")
    with _nothing_compiled():
        import_module("deepspeed.runtime.zero.muon.muon_optimizer")
    import_module("transformers.models.t5.modeling_t5")


@contextmanager
def _absent(module: str) -> Iterator[None]:
    """For the block, importing the module fails, unless it has been already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None
    try:
        yield
    finally:
        del sys.modules[module]


@contextmanager
def _nothing_compiled() -> Iterator[None]:
    """For the block, torch.compile gives functions back as they are."""
    before = os.environ.get("TORCHDYNAMO_DISABLE")
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TORCHDYNAMO_DISABLE"]
        else:
            os.environ["TORCHDYNAMO_DISABLE"] = before
