"""Numbers of a run over its updates, its tokens and its time of training."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipes.config.evaluation import PLAIN_FIELDS
from recipes.reporting.metrics import Metrics
from recipes.reporting.page_parts import is_number
from recipes.reporting.pictures import smoothed, spread

_MOST_POINTS = 400
_SMOOTHED = ("loss", "tokens_per_s", "mfu")
_SMOOTHED_FROM = 20


@dataclass(frozen=True)
class Series:
    """Values of one metric with, for each, the updates made, the tokens seen and the seconds of training."""

    updates: np.ndarray
    tokens: np.ndarray
    seconds: np.ndarray
    values: np.ndarray

    def along(self, axis: str) -> tuple[np.ndarray, np.ndarray]:
        """(x, y) for ``axis`` updates, tokens or seconds, without points that are not finite."""
        x = getattr(self, axis)
        known = np.isfinite(x) & np.isfinite(self.values)
        return x[known], self.values[known]

    @property
    def last(self) -> tuple[int, float] | None:
        """(update, value) of the last finite value."""
        known = np.flatnonzero(np.isfinite(self.values))
        return (int(self.updates[known[-1]]), float(self.values[known[-1]])) if len(known) else None

    def at(self, update: int) -> float | None:
        found = np.flatnonzero((self.updates == update) & np.isfinite(self.values))
        return float(self.values[found[-1]]) if len(found) else None

    def for_drawing(self, name: str) -> Series:
        """Smoothed where it is noisy, and thinned to what a screen can show."""
        values = self.values
        if name in _SMOOTHED and len(values) >= _SMOOTHED_FROM:
            values = np.where(np.isfinite(values), smoothed(values), np.nan)
        chosen = spread(len(values), _MOST_POINTS) if len(values) else []
        return Series(self.updates[chosen], self.tokens[chosen], self.seconds[chosen], values[chosen])


@dataclass(frozen=True)
class Progress:
    """All series of a run.

    Seconds of training are those of its updates (tokens between two lines of metrics over their tokens per second), its
    evaluations and the waits for its checkpoints: neither start-up nor what a crash has cost, so that a resumed run can
    be compared with one that was not interrupted.
    """

    metrics: Metrics
    steps: np.ndarray
    tokens: np.ndarray
    update_seconds: np.ndarray

    @classmethod
    def of(cls, metrics: Metrics) -> Progress:
        train = metrics.train
        tokens = np.array([0.0, *(_number(record, "tokens") for record in train)])
        rates = np.array([_number(record, "tokens_per_s") for record in train])
        stalls = np.array([_number(record, "checkpoint_stall_s", 0.0) for record in train])
        with np.errstate(divide="ignore", invalid="ignore"):
            seconds = np.diff(tokens) / rates + stalls
        steps = np.array([0, *(record["step"] for record in train)], dtype=float)
        return cls(metrics, steps, tokens, np.concatenate([[0.0], np.cumsum(seconds)]))

    def names(self) -> list[str]:
        """The metrics that there are, in the order they are shown."""
        known = {*_evaluated(self.metrics.eval), "loss", "lr", "tokens_per_s", "mfu"}
        return in_order({name for name in known if any(is_number(record.get(name)) for record in self._records(name))})

    def series(self, name: str) -> Series:
        records = [record for record in self._records(name) if name in record]
        updates = np.array([record["step"] for record in records], dtype=float)
        values = np.array([_number(record, name) for record in records], dtype=float)
        return Series(updates, np.interp(updates, self.steps, self.tokens), self._seconds(updates, name), values)

    @property
    def total_tokens(self) -> float | None:
        return _finite(self.tokens[-1]) if len(self.tokens) > 1 else None

    @property
    def total_seconds(self) -> float | None:
        seconds = self._seconds(np.array([np.inf]), "eval_loss")
        return _finite(seconds[0]) if len(self.steps) > 1 else None

    def _records(self, name: str) -> list[dict[str, Any]]:
        return self.metrics.eval if name.startswith("eval_") else self.metrics.train

    def _seconds(self, updates: np.ndarray, name: str) -> np.ndarray:
        """Seconds at which a value was known: an evaluation's own time counts for its values, not for the loss before it."""
        evals = self.metrics.eval
        steps = np.array([record["step"] for record in evals], dtype=float)
        spent = [_number(record, "eval_s", 0.0) + _number(record, "eval_generate_s", 0.0) for record in evals]
        side = "right" if name.startswith("eval_") else "left"
        so_far = np.concatenate([[0.0], np.cumsum(spent)])[np.searchsorted(steps, updates, side=side)]
        return np.interp(updates, self.steps, self.update_seconds) + so_far


def in_order(names: Collection[str]) -> list[str]:
    """The held-out loss first, then the training loss, what else was held out, and how the training went."""
    rest = sorted(name for name in names if name.startswith("eval_") and name != "eval_loss")
    return [name for name in ("eval_loss", "loss", *rest, "lr", "tokens_per_s", "mfu") if name in names]


def _evaluated(records: list[dict[str, Any]]) -> list[str]:
    """Fields of evaluations that are measures, whatever their names (also ``eval_loss/<task>``)."""
    fields = dict.fromkeys(name for record in records for name in record if name.startswith("eval_"))
    return [name for name in fields if name == "eval_loss" or name.split("/")[0] not in PLAIN_FIELDS[1:]]


def _number(record: dict[str, Any], name: str, missing: float = np.nan) -> float:
    value = record.get(name)
    return float(value) if is_number(value) else missing


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
