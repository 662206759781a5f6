"""Pieces of parameters in flat tensors, and what is summed from them."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recipes.optimizers.segments import Layout, Segment, blocks, whole


@given(st.integers(1, 7), st.integers(1, 7), st.data())
def test_blocks_are_the_segment_in_order(num_rows, num_columns, data):
    """Every block is the rectangle of the matrix that it says it is, and together they are the segment, once."""
    matrix = torch.arange(num_rows * num_columns, dtype=torch.float64).view(num_rows, num_columns)
    first = data.draw(st.integers(0, matrix.numel() - 1))
    length = data.draw(st.integers(1, matrix.numel() - first))
    start = data.draw(st.integers(0, 3))
    flat = torch.full((start + length + 2,), -1.0, dtype=torch.float64)
    flat[start : start + length] = matrix.flatten()[first : first + length]
    found = list(blocks(Segment(0, first, start, length), num_columns))
    assert len(found) <= 3
    at = start
    for block in found:
        assert block.start == at
        assert torch.equal(block.of(flat), matrix[block.rows, block.columns])
        at += block.of(flat).numel()
    assert at == start + length


def cut(sizes, world_size):
    """Layouts of ranks that each hold an equal stretch of parameters that lie one after the other."""
    total = sum(sizes)
    stretch = -(-total // world_size)
    starts = [0, *itertools.accumulate(sizes)]
    layouts = []
    for rank in range(world_size):
        begin, segments = rank * stretch, []
        for number, (start, size) in enumerate(zip(starts, sizes, strict=False)):
            first, end = max(start, begin), min(start + size, begin + stretch)
            if first < end:
                segments.append(Segment(number, first - start, first - begin, end - first))
        layouts.append(Layout(tuple((size,) for size in sizes), tuple(segments)))
    return layouts, stretch


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_sums_of_the_ranks_pieces_are_those_of_whole_parameters(world_size):
    sizes = [7, 30, 1, 12]
    parameters = [torch.randn(size, dtype=torch.float64) for size in sizes]
    layouts, stretch = cut(sizes, world_size)
    flat = torch.cat([*parameters, torch.full((world_size * stretch - sum(sizes),), 99.0, dtype=torch.float64)])
    parts = flat.split(stretch)
    sums = sum(layout.sums_of_squares(part) for layout, part in zip(layouts, parts, strict=True))
    expected = torch.stack([p.pow(2).mean().sqrt() for p in parameters])
    assert torch.allclose(layouts[0].rms(sums), expected, rtol=1e-12, atol=0)
    for layout, part in zip(layouts, parts, strict=True):
        layout.scale(part, torch.arange(1.0, 5.0))
    assert torch.equal(flat[: sum(sizes)], torch.cat([p * (i + 1) for i, p in enumerate(parameters)]))
    assert set(flat[sum(sizes) :].tolist()) <= {99.0}, "padding belongs to no parameter"


def test_elements_that_nobody_holds_are_found():
    whole(torch.zeros(3, 4)).check_whole()
    with pytest.raises(RuntimeError, match=r"the ranks hold 11 elements of a parameter of shape \(3, 4\) \(of 12\)"):
        Layout(((3, 4),), (Segment(0, 0, 0, 11),)).check_whole()
