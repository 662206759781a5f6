"""Where a DeepSpeed engine put the parameters: the layout of every flat tensor that its optimizer steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from recipes.optimizers.segments import Layout, Segment

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


def layouts_of(engine: DeepSpeedEngine) -> dict[torch.Tensor, Layout]:
    """The layout of every master tensor; empty at stage 0, where parameters are whole.

    Collective. Raises RuntimeError where the ranks together do not hold every element once.
    """
    stage = engine.zero_optimization_stage()
    if stage == 0:
        return {}
    found = dict(_of_stage_3(engine.optimizer) if stage == 3 else _of_stages_1_and_2(engine.optimizer))
    for layout in found.values():
        layout.check_whole()
    return found


def _of_stages_1_and_2(zero: Any) -> Iterator[tuple[torch.Tensor, Layout]]:
    """The parameters of a group lie one after the other in a flat tensor; every rank masters an equal stretch of it.

    With gradients accumulated in fp32 DeepSpeed takes another class for stage 1, with other names for the same.
    """
    of_bf16 = hasattr(zero, "bf16_groups")
    flats = zero.bf16_groups_flat if of_bf16 else zero.bit16_groups_flat
    groups = zero.bf16_groups if of_bf16 else zero.bit16_groups
    masters = zero.fp32_groups_flat_partition if of_bf16 else zero.single_partition_of_fp32_groups
    group = zero.dp_process_group
    world_size, rank = dist.get_world_size(group), dist.get_rank(group)
    for flat, parameters, master in zip(flats, groups, masters, strict=True):
        size = flat.numel() // world_size
        begin = rank * size
        segments = []
        for number, parameter in enumerate(parameters):
            place = parameter.storage_offset() - flat.storage_offset()
            first, end = max(place, begin), min(place + parameter.numel(), begin + size)
            if first < end:
                segments.append(Segment(number, first - place, first - begin, end - first))
        yield master, Layout(tuple(tuple(p.shape) for p in parameters), tuple(segments), group)


def _of_stage_3(zero: Any) -> Iterator[tuple[torch.Tensor, Layout]]:
    """Every parameter is cut into equal parts, one for each rank; a master holds a rank's parts of a group."""
    group = zero.dp_process_group
    rank = dist.get_rank(group)
    for parameters, master in zip(zero.fp16_groups, zero.fp32_partitioned_groups_flat, strict=True):
        segments, start = [], 0
        for number, parameter in enumerate(parameters):
            part = parameter.partition_numel()
            length = min(part, parameter.ds_numel - rank * part)
            if length > 0:
                segments.append(Segment(number, rank * part, start, length))
            start += part
        yield master, Layout(tuple(tuple(p.ds_shape) for p in parameters), tuple(segments), group)
