"""torch's schedulers, as its own loop (``optimizer.step(); scheduler.step()``) applies them (torch 2.13).

LambdaLR, MultiplicativeLR and ReduceLROnPlateau are not among them: the first two are Python
functions, the last one reacts to a metric.
"""

from __future__ import annotations

from lrsched.dialects.base import Dialect
from lrsched.dialects.torch_composed import ChainedScheduler, SequentialLR
from lrsched.dialects.torch_cycles import CosineAnnealingLR, CosineAnnealingWarmRestarts, CyclicLR, OneCycleLR
from lrsched.dialects.torch_factors import ConstantLR, ExponentialLR, LinearLR, MultiStepLR, PolynomialLR, StepLR

SHAPES: dict[str, type[Dialect]] = {
    cls.shape: cls
    for cls in (
        ConstantLR,
        LinearLR,
        PolynomialLR,
        StepLR,
        MultiStepLR,
        ExponentialLR,
        CosineAnnealingLR,
        CosineAnnealingWarmRestarts,
        CyclicLR,
        OneCycleLR,
        SequentialLR,
        ChainedScheduler,
    )
}
