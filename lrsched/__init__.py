"""Learning-rate schedules as data: one definition, from which every other form is derived."""

from typing import TYPE_CHECKING, Any

from lrsched.decays import (
    Constant,
    Cosine,
    Decay,
    Exponential,
    InverseSqrt,
    Linear,
    MultiStep,
    OneCycle,
    Piece,
    Piecewise,
    Polynomial,
    Step,
    Wsd,
)
from lrsched.deepspeed_form import deepspeed_backend
from lrsched.errors import NotExpressible, ScheduleError
from lrsched.schedule import Schedule
from lrsched.warmups import Warmup

if TYPE_CHECKING:
    from lrsched.dialects.from_deepspeed import from_deepspeed
    from lrsched.dialects.from_torch import from_torch
    from lrsched.dialects.from_transformers import from_transformers

__all__ = [
    "Constant",
    "Cosine",
    "Decay",
    "Exponential",
    "InverseSqrt",
    "Linear",
    "MultiStep",
    "NotExpressible",
    "OneCycle",
    "Piece",
    "Piecewise",
    "Polynomial",
    "Schedule",
    "ScheduleError",
    "Step",
    "Warmup",
    "Wsd",
    "deepspeed_backend",
    "from_deepspeed",
    "from_torch",
    "from_transformers",
]


def __getattr__(name: str) -> Any:
    """The readers of other libraries' schedulers, imported when they are asked for: they need NumPy."""
    if name in ("from_deepspeed", "from_torch", "from_transformers"):
        import importlib

        return getattr(importlib.import_module(f"lrsched.dialects.{name}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
