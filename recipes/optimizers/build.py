"""The optimizer that a config names, where it is not DeepSpeed's own to make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recipes.config import OptimizerBlock
    from recipes.optimizers.segmented import SegmentedOptimizer


def build_optimizer(groups: list[dict[str, Any]], block: OptimizerBlock, peak_lr: float) -> SegmentedOptimizer | None:
    """None for adamw, which DeepSpeed builds from its config.

    groups: as `recipes.training.model.parameter_groups` gives them.
    """
    settings = {"lr": peak_lr, **block.settings}
    if block.name == "adamw_rms":
        from recipes.optimizers.adamw_rms import AdamWRMS

        return AdamWRMS(groups, **settings)
    if block.name == "adafactor":
        from recipes.optimizers.adafactor import Adafactor

        return Adafactor(groups, **settings)
    return None
