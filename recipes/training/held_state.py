"""A rank's whole training state kept in host memory, to go back to after an excursion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from recipes.training.checkpoint import random_state, set_random_state

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_COUNTERS = ("global_steps", "global_samples", "micro_steps", "skipped_steps")


class HeldState:
    """Weights, optimizer, lr, DeepSpeed's counters and random state as they are now.

    Every rank holds its own part; nothing is written anywhere. Not for weights or optimizer state that
    DeepSpeed keeps on NVMe.
    """

    def __init__(self, engine: DeepSpeedEngine):
        self._engine = engine
        # By storage and shape: masters may be the weights, and tied weights are one.
        own = {(t.data_ptr(), t.dtype, tuple(t.shape), t.stride()): t for t in _tensors(engine) if t.numel()}
        self._tensors = [(tensor, tensor.to("cpu", copy=True)) for tensor in own.values()]
        self._groups = [_settings(group) for group in engine.basic_optimizer.param_groups]
        # Both kinds of schedule replace what they hold and change nothing in place; the other one counts
        # updates at stage 0 in bf16.
        counting = (engine.lr_scheduler, getattr(engine.optimizer, "loss_scale_config", None))
        self._attributes = [(each, dict(vars(each))) for each in counting if each is not None]
        self._counters = {name: getattr(engine, name) for name in _COUNTERS}
        self._random = random_state()

    def put_back(self) -> None:
        """Make the engine as it was, bit for bit. Collective; may be called again."""
        with torch.no_grad():
            for tensor, kept in self._tensors:
                tensor.copy_(kept)
        for group, kept in zip(self._engine.basic_optimizer.param_groups, self._groups, strict=True):
            group.update(kept)
        for each, kept in self._attributes:
            vars(each).update(kept)
        for name, value in self._counters.items():
            setattr(self._engine, name, value)
        gather_again(self._engine)
        set_random_state(self._random)


def local_weights(engine: DeepSpeedEngine) -> list[torch.Tensor]:
    """This rank's weights in the format of the forward pass: whole, or this rank's part of each at ZeRO 3."""
    return [getattr(p, "ds_tensor", p).detach() for p in engine.module.parameters()]


def gather_again(engine: DeepSpeedEngine) -> None:
    """After a change of `local_weights`: ZeRO 3 keeps small weights whole as well, and those are stale now."""
    if engine.zero_optimization_stage() < 3:
        return
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    whole = [p for p in engine.module.parameters() if p.ds_status is ZeroParamStatus.AVAILABLE]
    if whole:
        whole[0].partition(whole)
        whole[0].all_gather(whole)


def _tensors(engine: DeepSpeedEngine) -> Iterator[torch.Tensor]:
    optimizer = engine.basic_optimizer
    yield from local_weights(engine)
    yield from engine.module.buffers()
    for group in optimizer.param_groups:
        yield from (master.detach() for master in group["params"])
    # ZeRO 3 keeps its masters out of the groups between updates, but the state knows them.
    for master, state in optimizer.state.items():
        yield master.detach()
        yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    """lr, betas and whatever else is not the parameters."""
    return {key: value for key, value in group.items() if key != "params"}
