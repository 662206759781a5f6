"""Curves of several runs over each other, as HTML and SVG that a page's style sheet colours and stretches.

The curves are a drawing that takes any width and height; numbers are HTML text beside it, so that they keep their size on
a phone, and both take the reader's light or dark colours. A run has the same colour and dash pattern in every chart, and
its number at the end of its curve: no reader has to tell colours apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from recipes.reporting.page_parts import text
from recipes.reporting.pictures import apart

NUM_COLOURS = 8
_DASHES = ("", "7 4", "2 3")
NUM_LOOKS = NUM_COLOURS * len(_DASHES)
_SIDE = 1000
# Height of a number at a curve's end, as a share of the chart's.
_LABEL = 0.062
_MOST_LABELS = 16


@dataclass(frozen=True)
class Line:
    """Points of one run; number is its place in the page's list, from 1. end: what stands at the curve's end."""

    number: int
    name: str
    x: np.ndarray
    y: np.ndarray
    end: str = ""


def style_of(number: int) -> tuple[str, str]:
    """(class of the colour, dash pattern) of a run: the colours come again with other dashes, then all again."""
    place = number - 1
    return f"c{place % NUM_COLOURS + 1}", _DASHES[place // NUM_COLOURS % len(_DASHES)]


def chart(
    title: str,
    lines: Sequence[Line],
    x_text: Callable[[float], str],
    y_text: Callable[[float], str],
    x_name: str,
    from_zero: bool = False,
) -> str:
    """A figure; nothing where no line has a point. from_zero: the axis has 0 and every value on it."""
    lines = [line for line in lines if len(line.x)]
    if not lines:
        return ""
    low, high, beyond = (*_whole_range(lines), False) if from_zero else _range(lines)
    right = max(float(line.x.max()) for line in lines) or 1.0
    ys, xs = ticks(low, high, 5), [tick for tick in ticks(0.0, right, 5) if tick >= 0]

    def height(value: float) -> float:
        return (value - low) / (high - low)

    inner = [_drawing(title, lines, right, height, ys)]
    inner += [f'<span class="y" style="bottom:{100 * height(tick):.2f}%">{text(y_text(tick))}</span>' for tick in ys]
    inner += [f'<span class="x" style="left:{100 * tick / right:.2f}%">{text(x_text(tick))}</span>' for tick in xs]
    inner += _end_numbers(lines, height)
    note = ' <span class="faint">(parts above or below are cut off)</span>' if beyond else ""
    worded = " worded" if any(line.end for line in lines) else ""
    return (
        f'<figure class="chart{worded}"><figcaption>{text(title)}{note}</figcaption><div class="plot">\n'
        + "\n".join(inner)
        + f'\n</div><div class="xname">{text(x_name)}</div></figure>'
    )


def _whole_range(lines: Sequence[Line]) -> tuple[float, float]:
    every = np.concatenate([line.y for line in lines])
    low, high = min(0.0, float(every.min())), max(0.0, float(every.max()))
    return low, high + (0.04 * (high - low) or 1.0)


def _range(lines: Sequence[Line]) -> tuple[float, float, bool]:
    """The values to show: what comes after the first tenth of each curve, where training starts far off."""
    late = np.concatenate([line.y[line.x >= line.x[0] + 0.1 * (line.x[-1] - line.x[0])] for line in lines])
    every = np.concatenate([line.y for line in lines])
    # One wild value of a run that diverges would press all others together.
    low, high = float(late.min()), float(np.quantile(late, 0.99))
    if every.max() - low <= 1.6 * (high - low):
        high = float(every.max())
    low = float(every.min()) if low - every.min() <= 0.3 * (high - low) else low
    room = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    # An axis of values that are never negative does not go below 0.
    bottom = max(low - room, 0.0) if low >= 0 else low - room
    top = high + room
    return bottom, top, bool(every.max() > top or every.min() < bottom)


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most ``most`` + 1 round numbers (1, 2, 2.5 or 5 times a power of ten apart) from low to high."""
    width = (high - low) / most
    power = 10.0 ** math.floor(math.log10(width))
    step = next(power * times for times in (1, 2, 2.5, 5, 10) if power * times >= width * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    # A quotient instead of a product: 3 * 0.1 is not 0.3.
    inverse = round(1 / step) if step < 1 and abs(1 / step - round(1 / step)) < 1e-6 else None
    places = range(first, math.floor(high / step + 1e-9) + 1)
    return [place / inverse if inverse else place * step for place in places]


def _drawing(
    title: str, lines: Sequence[Line], right: float, height: Callable[[float], float], grid: Sequence[float]
) -> str:
    parts = [
        f'<line class="grid" x1="0" x2="{_SIDE}" y1="{_SIDE * (1 - height(tick)):.1f}" y2="{_SIDE * (1 - height(tick)):.1f}"/>'
        for tick in grid
    ]
    for line in lines:
        colour, dashes = style_of(line.number)
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        points = [
            f"{_SIDE * x / right:.1f},{_SIDE * (1 - _kept(height(y))):.1f}" for x, y in zip(line.x, line.y, strict=True)
        ]
        # A single evaluation is a dot: a line of no length, with round ends.
        points = points * 2 if len(points) == 1 else points
        dot = " dot" if len(line.x) == 1 else ""
        parts.append(
            f'<polyline class="{colour}{dot}" points="{" ".join(points)}"{dashed}><title>{text(line.name)}</title></polyline>'
        )
    return (
        f'<svg role="img" aria-label="{text(title)}" viewBox="0 0 {_SIDE} {_SIDE}" preserveAspectRatio="none">'
        + "".join(parts)
        + "</svg>"
    )


def _kept(height: float) -> float:
    """Far outside the drawing a browser's numbers lose their precision."""
    return min(max(height, -5.0), 5.0)


def _end_numbers(lines: Sequence[Line], height: Callable[[float], float]) -> list[str]:
    """Each run's number beside the right edge, at the height at which its curve ends."""
    if len(lines) > _MOST_LABELS:
        return []
    ordered = sorted(lines, key=lambda line: line.y[-1])
    wanted = [min(max(height(float(line.y[-1])), 0.0), 1.0) for line in ordered]
    return [
        f'<b class="end {style_of(line.number)[0]}" style="bottom:{100 * place:.2f}%">{text(line.end or line.number)}</b>'
        for line, place in zip(ordered, apart(wanted, _LABEL), strict=True)
    ]
