"""Learning-rate schedules as data: one definition, from which every other form is derived."""

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
]
