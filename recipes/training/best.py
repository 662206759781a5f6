"""Which evaluation was the best so far, and whether to go on."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from recipes.config import EvaluationBlock
from recipes.errors import UserError, nearest


@dataclass
class Best:
    """The best evaluation by ``evaluation.best``; part of every checkpoint.

    value, step: of the best; None and 0 before the first. mark: the value that the patience counts from.
    num_worse: evaluations in a row that were not better than the mark by more than min_delta.
    """

    value: float | None = None
    step: int = 0
    mark: float | None = None
    num_worse: int = 0

    def note(self, evaluated: dict[str, Any], settings: EvaluationBlock, generated: bool) -> bool:
        """Whether this evaluation is the best so far; a number that is not finite never is.

        An evaluation without the metric (no text was generated) counts for nothing.

        Raises:
            UserError: text was generated, and still the metric is not among the numbers.
        """
        if settings.best is None:
            return False
        name = settings.best.metric
        if name not in evaluated:
            if not generated:
                return False
            fields = [key for key in evaluated if key.startswith("eval_")]
            raise UserError(f"evaluation.best.metric: no metric gave '{name}'{nearest(name, fields)}")
        value = float(evaluated[name])
        sign = 1.0 if settings.best.lower_is_better else -1.0
        min_delta = settings.early_stopping.min_delta if settings.early_stopping else 0.0
        if _better(value, self.mark, sign, min_delta):
            self.mark, self.num_worse = value, 0
        else:
            self.num_worse += 1
        if not _better(value, self.value, sign):
            return False
        self.value, self.step = value, evaluated["step"]
        return True

    def ends_run(self, settings: EvaluationBlock) -> bool:
        """Whether the patience is over."""
        return settings.early_stopping is not None and self.num_worse >= settings.early_stopping.patience_evals

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return asdict(self)


def _better(value: float, than: float | None, sign: float, by: float = 0.0) -> bool:
    return math.isfinite(value) and (than is None or sign * (than - value) > by)
