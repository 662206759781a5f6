"""Distributions of a search space: what one value is drawn from, and how they stand in YAML."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipes.errors import UserError

KINDS = ("uniform", "loguniform", "randint", "choice", "grid")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*(%(?:\s+of\s+decay)?)")


@dataclass(frozen=True)
class Distribution:
    """What a value is drawn from.

    kind: uniform, loguniform: between two numbers or two lengths in percent; randint: a whole number from
    the first up to below the second (as Tune's); choice: one of the options, alike; grid: each of the
    options in turn. values: the two bounds, or the options. unit: "", "%" or "% of decay", of the bounds.
    """

    kind: str
    values: tuple[Any, ...]
    unit: str = ""

    @property
    def is_range(self) -> bool:
        return self.kind in ("uniform", "loguniform", "randint")

    def draw(self, rng: np.random.Generator) -> Any:
        """A value; of a grid, an option drawn alike."""
        if not self.is_range:
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "randint":
            return int(rng.integers(low, high))
        if self.kind == "uniform":
            return self.written(rng.uniform(low, high))
        return self.written(math.exp(rng.uniform(math.log(low), math.log(high))))

    def written(self, number: float) -> Any:
        """A drawn number as it stands in a config: six digits are enough to say and to read."""
        number = min(max(float(f"{number:.6g}"), self.values[0]), self.values[1])
        return f"{_plain(number)}{self.unit}" if self.unit else number

    def extremes(self) -> tuple[Any, ...]:
        """The values that decide whether all are possible: both ends, or every option."""
        if self.kind == "randint":
            return tuple(dict.fromkeys((self.values[0], self.values[1] - 1)))
        return tuple(dict.fromkeys(map(self.written, self.values))) if self.is_range else self.values


def _plain(number: float) -> str:
    return np.format_float_positional(number, trim="-")


def leaves(tree: Any, name: str) -> Iterator[tuple[str, Distribution]]:
    """The distributions in a value of the space, each under a name of its own.

    Raises:
        UserError: a distribution that makes no sense.
    """
    kind = _kind_of(tree)
    if kind is not None:
        yield name, _read(kind, tree[kind], name)
    elif isinstance(tree, dict):
        for key, inner in tree.items():
            yield from leaves(inner, f"{name}.{key}")
    elif isinstance(tree, list):
        for i, inner in enumerate(tree):
            yield from leaves(inner, f"{name}[{i}]")


def filled(tree: Any, name: str, value_of: Callable[[str], Any]) -> Any:
    """The value of the space with every distribution replaced by ``value_of(its name)``."""
    if _kind_of(tree) is not None:
        return value_of(name)
    if isinstance(tree, dict):
        return {key: filled(inner, f"{name}.{key}", value_of) for key, inner in tree.items()}
    if isinstance(tree, list):
        return [filled(inner, f"{name}[{i}]", value_of) for i, inner in enumerate(tree)]
    return tree


def _kind_of(tree: Any) -> str | None:
    if isinstance(tree, dict) and len(tree) == 1:
        (only,) = tree
        return only if only in KINDS else None
    return None


def _read(kind: str, given: Any, name: str) -> Distribution:
    where = f"{name}: {kind} {given!r}"
    if not isinstance(given, list) or not given:
        wanted = "[low, high]" if kind not in ("choice", "grid") else "[a, b, ...]"
        raise UserError(f"{where}: write {{{kind}: {wanted}}}")
    if kind in ("choice", "grid"):
        if len({repr(option) for option in given}) < len(given):
            raise UserError(f"{where}: an option is given twice")
        if any(True for option in given for _ in leaves(option, name)):
            raise UserError(f"{where}: its options are values, not distributions")
        return Distribution(kind, tuple(given))
    if len(given) != 2:
        raise UserError(f"{where}: write {{{kind}: [low, high]}}")
    (low, unit), (high, other) = (_bound(bound, where) for bound in given)
    if unit != other:
        raise UserError(f"{where}: both bounds in the same unit, please")
    if kind == "randint" and (unit or low != int(low) or high != int(high)):
        raise UserError(f"{where}: both bounds are whole numbers; use uniform for percentages")
    if not low < high:
        raise UserError(f"{where}: the first bound must be below the second")
    if kind == "loguniform" and low <= 0:
        raise UserError(f"{where}: both bounds above 0, whose logarithms are drawn from; use uniform, or raise {low:g}")
    return Distribution(kind, (int(low), int(high)) if kind == "randint" else (low, high), unit)


def _bound(value: Any, where: str) -> tuple[float, str]:
    match = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match:
        return float(match[1]), " ".join(match[2].split())
    try:
        # YAML reads 1e-3 as text.
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: {value!r} is not a number, nor a length such as '40%' or '40% of decay'")
    return number, ""
