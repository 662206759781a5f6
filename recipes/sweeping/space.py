"""The search space: families of schedules and any other field, and the points drawn from it.

A point gives every distribution of one family a value, under the distribution's name:
``{"family": "cosine", "cosine.t_max": "62.5%", "schedule.peak_lr": 0.003}``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrsched.decays import DECAYS
from recipes.config import RunConfig
from recipes.config_file import all_keys
from recipes.errors import UserError, nearest
from recipes.sweeping.distributions import Distribution, filled, leaves

Point = dict[str, Any]

FAMILY = "family"
# Beside the parameters of its decay, a family may bring its own of these.
_OWN = ("peak_lr", "warmup")
# Why a field cannot vary between trials that are compared with each other.
_FIXED = {
    "run.name": "every trial has its own",
    "run.storage_path": "every trial lies in the sweep's folder",
    "run.resume": "sweep.resume decides",
    "run.seed": "luck is no setting; final.num_seeds trains the best again with other seeds",
    "schedule.total_steps": "rungs are numbers of updates, the same for all trials",
    "schedule.decay": "give a list of families under schedule",
    "data": "losses over other texts or tokens cannot be compared",
    "scaling": "all trials get the same workers",
}


@dataclass(frozen=True)
class Family:
    """Schedules of one shape. name: the shape's, numbered where it is given twice. tree: as in YAML."""

    name: str
    shape: str
    tree: dict[str, Any]


@dataclass(frozen=True)
class Space:
    """families: none where the schedule's shape does not vary. others: dotted field -> value with distributions."""

    families: tuple[Family, ...]
    others: dict[str, Any]

    def parameters(self, family: Family | None) -> dict[str, Distribution]:
        """The distributions that a trial of this family needs values of, by name."""
        found = dict(leaves(family.tree, family.name)) if family else {}
        for field, tree in self._common(family).items():
            found |= dict(leaves(tree, field))
        return found

    def _common(self, family: Family | None) -> dict[str, Any]:
        """The fields common to all, without those that the family has of its own."""
        own = [f"schedule.{name}" for name in _OWN if family and name in family.tree]
        return {field: tree for field, tree in self.others.items() if not any(_within(field, each) for each in own)}

    def family(self, point: Point) -> Family | None:
        return next((each for each in self.families if each.name == point.get(FAMILY)), None)

    def overrides(self, point: Point) -> dict[str, Any]:
        """Dotted fields of a run and their values; a family's own go before the fields common to all."""
        family = self.family(point)
        values = {field: filled(tree, field, point.__getitem__) for field, tree in self._common(family).items()}
        if family is not None:
            tree = filled(family.tree, family.name, point.__getitem__)
            values |= {f"schedule.{name}": tree.pop(name) for name in _OWN if name in tree}
            values["schedule.decay"] = {"shape": family.shape, **tree}
        return values


def parse_space(content: dict[str, Any]) -> Space:
    """The space of a sweep's YAML.

    Raises:
        UserError: one line, naming the key and the way out.
    """
    families, others = (), {}
    for key, tree in content.items():
        if key == "schedule" and isinstance(tree, list):
            families = _families(tree)
            continue
        if key == "schedule":
            raise UserError(f"space.schedule is {tree!r}: write a list of families, or fields such as schedule.peak_lr")
        _check_field(key)
        others[key] = tree
    space = Space(families, others)
    for family in families or (None,):
        try:
            space.parameters(family)
        except UserError as error:
            raise UserError(f"space.{error}") from None
    if not families and not any(space.parameters(None)):
        raise UserError("space: nothing varies; give a list of families under schedule, or a distribution")
    return space


def _families(entries: list[Any]) -> tuple[Family, ...]:
    families: list[Family] = []
    for i, entry in enumerate(entries):
        where = f"space.schedule[{i}]"
        if not isinstance(entry, dict) or FAMILY not in entry:
            raise UserError(f"{where} is {entry!r}: write a family, such as {{family: cosine, eta_min: 0.0}}")
        shape = entry[FAMILY]
        if shape not in DECAYS:
            raise UserError(f"{where}.family: unknown '{shape}'{nearest(str(shape), list(DECAYS))}")
        known = [*(field.name for field in dataclasses.fields(DECAYS[shape])), *_OWN]
        for name in entry:
            if name != FAMILY and name not in known:
                raise UserError(f"{where}: unknown key '{name}' of family {shape}{nearest(str(name), known)}")
        times = sum(family.shape == shape for family in families)
        tree = {name: value for name, value in entry.items() if name != FAMILY}
        families.append(Family(shape if not times else f"{shape}_{times + 1}", shape, tree))
    if not families:
        raise UserError("space.schedule is empty: write a list of families")
    return tuple(families)


def _check_field(dotted: str) -> None:
    for fixed, why in _FIXED.items():
        if _within(dotted, fixed):
            raise UserError(f"space.{dotted} cannot vary: {why}")
    known = all_keys(RunConfig)
    if dotted in RunConfig.model_fields:
        raise UserError(f"space.{dotted} is a block of a run: write its fields with dots, such as schedule.peak_lr")
    # The inside of a warm-up and of DeepSpeed's own settings is open.
    if dotted not in known and not dotted.startswith(("schedule.warmup.", "deepspeed.extra.")):
        raise UserError(f"space: unknown field '{dotted}'{nearest(dotted, list(known))}")


def _within(dotted: str, block: str) -> bool:
    return dotted == block or dotted.startswith(f"{block}.")


def draw(space: Space, seed: int, number: int) -> Point:
    """The point of trial ``number``: a pure function, so a sweep can be made longer without changing it.

    Families, and within a family the combinations of its grids, come in turn; all else is drawn.
    """
    rng = np.random.default_rng([seed, number])
    family, turn = _in_turn(space, seed, number)
    parameters = space.parameters(family)
    point: Point = {FAMILY: family.name} if family else {}
    grid = {name: each.values for name, each in parameters.items() if each.kind == "grid"}
    combination = _combination(grid, turn)
    for name, distribution in parameters.items():
        point[name] = combination[name] if name in combination else distribution.draw(rng)
    return point


def _in_turn(space: Space, seed: int, number: int) -> tuple[Family | None, int]:
    """Whose turn it is, and how often it was before: each round has every family once, in a drawn order."""
    if not space.families:
        return None, number
    turn, place = divmod(number, len(space.families))
    order = np.random.default_rng([seed, turn, 0]).permutation(len(space.families))
    return space.families[int(order[place])], turn


def _combination(grid: dict[str, tuple[Any, ...]], turn: int) -> Point:
    chosen = {}
    for name, options in grid.items():
        turn, place = divmod(turn, len(options))
        chosen[name] = options[place]
    return chosen


def all_combinations(space: Space) -> list[Point]:
    """Every point of a space that has only grids.

    Raises:
        UserError: a distribution that has no end of values.
    """
    points: list[Point] = []
    for family in space.families or (None,):
        parameters = space.parameters(family)
        for name, each in parameters.items():
            if each.kind != "grid":
                raise UserError(
                    f"space.{name}: {each.kind} with search: grid, which runs every combination; write grid"
                )
        for values in itertools.product(*(each.values for each in parameters.values())):
            points.append(({FAMILY: family.name} if family else {}) | dict(zip(parameters, values, strict=True)))
    return points


def extreme_points(space: Space, family: Family | None, most: int = 3000) -> list[Point]:
    """Points with every parameter at an end of its range, or at one of its options: all, or ``most`` drawn ones."""
    parameters = space.parameters(family)
    ends = [each.extremes() for each in parameters.values()]
    head: Point = {FAMILY: family.name} if family else {}
    if math.prod(map(len, ends)) <= most:
        return [head | dict(zip(parameters, values, strict=True)) for values in itertools.product(*ends)]
    rng = np.random.default_rng(0)
    return [
        head | {name: options[int(rng.integers(len(options)))] for name, options in zip(parameters, ends, strict=True)}
        for _ in range(most)
    ]
