"""The optimizer that T5 was trained with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from recipes.optimizers.segmented import SegmentedOptimizer
from recipes.optimizers.segments import Layout, blocks


class Adafactor(SegmentedOptimizer):
    """Adafactor (Shazeer and Stern, arXiv 1804.04235) with T5's settings: no momentum, the lr from outside.

    For a matrix W (R x C) with gradient G, s = G^2 + eps1, update number t from 1, b = 1 - t^-decay_rate:

        r = b r + (1 - b) mean of s over each row (R);  c = b c + (1 - b) mean over each column (C)
        U = G / sqrt(r c^T / mean(r));  U <- U / max(1, RMS(U) / clip_threshold)
        a = lr max(eps2, RMS(W));  W <- W - a weight_decay W - a U

    A parameter with any other number of dimensions has a second moment of every element, v = b v + (1 - b) s, and
    U = G / sqrt(v). Equal to `transformers.Adafactor(relative_step=False, scale_parameter=True)` on whole parameters.

    State: step, second_rows (r of all matrices of a flat tensor and v of its other parameters, one after the other) and
    second_columns (c of all matrices). They are small, and whole and alike on every rank: all ranks sum what they hold of
    s in one call, and of U^2 in a second one.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        decay_rate: float = 0.8,
        clip_threshold: float = 1.0,
        eps1: float = 1e-30,
        eps2: float = 1e-3,
        weight_decay: float = 0.0,
    ):
        own = {"decay_rate": decay_rate, "clip_threshold": clip_threshold, "eps1": eps1, "eps2": eps2}
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, **own})

    def _new_state(self, flat: torch.Tensor, layout: Layout) -> dict[str, torch.Tensor]:
        places = _places_in(layout.shapes)
        return {
            "second_rows": flat.new_zeros(places[-1].rows.stop),
            "second_columns": flat.new_zeros(places[-1].columns.stop),
        }

    def _update(
        self,
        flat: torch.Tensor,
        grad: torch.Tensor,
        state: dict[str, torch.Tensor],
        layout: Layout,
        group: dict[str, Any],
    ) -> None:
        rows, columns = state["second_rows"], state["second_columns"]
        new_rows, new_columns, weights = _sums(flat, grad, layout)
        decay = 1 - state["step"].item() ** -group["decay_rate"]
        places = _places_in(layout.shapes)
        for place in places:
            _average(rows[place.rows], new_rows[place.rows] / place.num_columns, decay, group["eps1"])
            _average(columns[place.columns], new_columns[place.columns] / place.num_rows, decay, group["eps1"])
        update = _scaled_gradient(grad, rows, columns, layout)
        rms = layout.rms(layout.over_ranks(layout.sums_of_squares(update)))
        steps = group["lr"] * layout.rms(weights).clamp_(min=group["eps2"])
        layout.scale(update, steps / (rms / group["clip_threshold"]).clamp_(min=1))
        if group["weight_decay"]:
            layout.scale(flat, 1 - group["weight_decay"] * steps)
        flat.sub_(update)


@dataclass(frozen=True)
class _Place:
    """Where a parameter's moments lie. One that is no matrix is a column, with a moment of each of its rows."""

    num_rows: int
    num_columns: int
    rows: slice
    columns: slice
    is_matrix: bool


@cache
def _places_in(shapes: tuple[tuple[int, ...], ...]) -> list[_Place]:
    places, row, column = [], 0, 0
    for shape in shapes:
        is_matrix = len(shape) == 2
        num_rows, num_columns = shape if is_matrix else (torch.Size(shape).numel(), 1)
        end_row, end_column = row + num_rows, column + (num_columns if is_matrix else 0)
        places.append(_Place(num_rows, num_columns, slice(row, end_row), slice(column, end_column), is_matrix))
        row, column = end_row, end_column
    return places


def _sums(flat: torch.Tensor, grad: torch.Tensor, layout: Layout) -> list[torch.Tensor]:
    """Squared gradients by row and by column, squared weights by parameter, over all ranks. Collective, one call."""
    places = _places_in(layout.shapes)
    sizes = [places[-1].rows.stop, places[-1].columns.stop, len(places)]
    sums = flat.new_zeros(sum(sizes))
    by_row, by_column, weights = sums.split(sizes)
    for segment in layout.segments:
        place = places[segment.parameter]
        for block in blocks(segment, place.num_columns):
            squares = block.of(grad).square()
            by_row[place.rows][block.rows] += squares.sum(dim=1)
            if place.is_matrix:
                by_column[place.columns][block.columns] += squares.sum(dim=0)
    weights += layout.sums_of_squares(flat)
    return list(layout.over_ranks(sums).split(sizes))


def _average(moment: torch.Tensor, new: torch.Tensor, decay: float, eps: float) -> None:
    """Take new means of squares into a moment; both are changed."""
    moment.mul_(decay).add_(new.add_(eps), alpha=1 - decay)


def _scaled_gradient(grad: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The gradient over the root of its second moment; padding stays 0."""
    places = _places_in(layout.shapes)
    update = torch.zeros_like(grad)
    for segment in layout.segments:
        place = places[segment.parameter]
        by_row, by_column = rows[place.rows], columns[place.columns].rsqrt()
        by_row = (by_row / by_row.mean() if place.is_matrix else by_row).rsqrt()
        for block in blocks(segment, place.num_columns):
            part = torch.mul(block.of(grad), by_row[block.rows].unsqueeze(1), out=block.of(update))
            if place.is_matrix:
                part.mul_(by_column[block.columns])
    return update
