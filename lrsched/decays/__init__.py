"""Decay shapes: what the updates from k = W on use. One small frozen dataclass each."""

from lrsched.decays.base import Decay, Span
from lrsched.decays.cosine import Cosine
from lrsched.decays.inverse_sqrt import InverseSqrt
from lrsched.decays.one_cycle import OneCycle
from lrsched.decays.piecewise import Piece, Piecewise
from lrsched.decays.sloped import Linear, Polynomial
from lrsched.decays.stepped import Constant, Exponential, MultiStep, Step
from lrsched.decays.wsd import Wsd

DECAYS: dict[str, type[Decay]] = {
    cls.shape: cls
    for cls in (
        Constant,
        Cosine,
        Linear,
        Polynomial,
        Step,
        MultiStep,
        Exponential,
        InverseSqrt,
        Wsd,
        OneCycle,
        Piecewise,
    )
}

__all__ = [
    "DECAYS",
    "Constant",
    "Cosine",
    "Decay",
    "Exponential",
    "InverseSqrt",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Piece",
    "Piecewise",
    "Polynomial",
    "Span",
    "Step",
    "Wsd",
]
