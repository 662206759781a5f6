"""Which pieces of which parameters a flat tensor holds, and sums over whole parameters from the pieces of all ranks.

ZeRO gives an optimizer flat tensors: stages 1 and 2 a stretch of all parameters one after the other, stage 3 a part of
each. A mean over a parameter, or over a row of it, that is taken from such a tensor alone is that of something else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Segment:
    """Consecutive elements of one parameter, in row-major order.

    parameter: its number in the layout. first: number of its element that comes first. start: where that lies in the
    flat tensor. length: number of elements.
    """

    parameter: int
    first: int
    start: int
    length: int

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        """These elements: (length,)."""
        return flat[self.start : self.start + self.length]


@dataclass(frozen=True)
class Block:
    """A rectangle of a matrix that lies in one stretch of a flat tensor, in row-major order."""

    start: int
    rows: slice
    columns: slice

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        """These elements: (rows, columns)."""
        shape = self.rows.stop - self.rows.start, self.columns.stop - self.columns.start
        return flat[self.start : self.start + shape[0] * shape[1]].view(shape)


def blocks(segment: Segment, num_columns: int) -> Iterator[Block]:
    """A segment of a matrix cut where its rows end: the rest of a row, whole rows, the beginning of a row."""
    at, end = segment.first, segment.first + segment.length
    while at < end:
        row, column = divmod(at, num_columns)
        if column or end - at < num_columns:
            length = min(num_columns - column, end - at)
            rows, columns = slice(row, row + 1), slice(column, column + length)
        else:
            num_rows = (end - at) // num_columns
            length = num_rows * num_columns
            rows, columns = slice(row, row + num_rows), slice(0, num_columns)
        yield Block(segment.start + at - segment.first, rows, columns)
        at += length


@dataclass(frozen=True)
class Layout:
    """What lies where in a flat tensor; elements of no segment are padding.

    shapes: of the whole parameters, alike on every rank. segments: what this rank holds. group: the ranks that hold the
    rest; none where every rank holds everything.
    """

    shapes: tuple[tuple[int, ...], ...]
    segments: tuple[Segment, ...]
    group: Any = None

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Elements of each whole parameter."""
        return tuple(math.prod(shape) for shape in self.shapes)

    def sums_of_squares(self, flat: torch.Tensor) -> torch.Tensor:
        """This rank's part of every parameter's sum of squares: (parameters,), to be summed over the ranks."""
        sums = flat.new_zeros(len(self.shapes))
        for segment in self.segments:
            sums[segment.parameter] += segment.of(flat).square().sum()
        return sums

    def over_ranks(self, sums: torch.Tensor) -> torch.Tensor:
        """Sum over the ranks, in place. Collective, one call."""
        if self.group is not None:
            dist.all_reduce(sums, group=self.group)
        return sums

    def rms(self, sums_of_squares: torch.Tensor) -> torch.Tensor:
        """Root mean square of every parameter: (parameters,)."""
        return (sums_of_squares / sums_of_squares.new_tensor(self.sizes)).sqrt_()

    def scale(self, flat: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """Multiply every parameter's elements by its factor, in place."""
        for segment in self.segments:
            segment.of(flat).mul_(factors[segment.parameter])
        return flat

    def check_whole(self) -> None:
        """Collective. Raises RuntimeError where the ranks together do not hold every element once."""
        held = torch.zeros(len(self.shapes), dtype=torch.float64)
        for segment in self.segments:
            held[segment.parameter] += segment.length
        held = self.over_ranks(held.to(_device_of(self.group)))
        for shape, size, count in zip(self.shapes, self.sizes, held.tolist(), strict=True):
            if count != size:
                raise RuntimeError(f"the ranks hold {count:g} elements of a parameter of shape {shape} (of {size})")


def whole(parameter: torch.Tensor) -> Layout:
    """The layout of a parameter that is not split."""
    return Layout((tuple(parameter.shape),), (Segment(0, 0, 0, parameter.numel()),))


def _device_of(group: Any) -> str:
    if group is None or dist.get_backend(group) != "nccl":
        return "cpu"
    return f"cuda:{torch.cuda.current_device()}"
