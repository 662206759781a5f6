"""The warm-up: the updates k < W, on the way from ``start_ratio * peak`` to the peak.

The decay begins at k = W, so the warm-up itself never applies the peak (it is the decay's
business what update W uses). With r(k) from the table, update k uses
``peak * (start_ratio + (1 - start_ratio) * r(k))``.

=======  =============================  ==================================================
shape    r(k), k < W                    same as
=======  =============================  ==================================================
linear   k / W                          transformers; torch LinearLR(start_factor, W)
log      ln(max(1, k)) / ln(W)          DeepSpeed's warmup_type "log" as it is applied:
                                        updates 0 and 1 both use start_ratio
cosine   (1 - cos(pi k / W)) / 2        the cosine decay, mirrored
=======  =============================  ==================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lrsched import fields
from lrsched.errors import ScheduleError
from lrsched.numeric import Steps, Values, at_least, half_cosine, log


def _linear(k: Steps, steps: int) -> Values:
    return k / steps


def _log(k: Steps, steps: int) -> Values:
    # With one step there is only k = 0, where the ratio is 0 whatever it is divided by.
    return log(at_least(k, 1)) / math.log(max(2, steps))


def _cosine(k: Steps, steps: int) -> Values:
    return 1.0 - half_cosine(k / steps)


SHAPES = {"linear": _linear, "log": _log, "cosine": _cosine}


@dataclass(frozen=True)
class Warmup(fields.Section):
    """W = ``steps`` updates of warm-up; 0 for none.

    steps: optimizer updates. shape: linear, log or cosine. start_ratio: what update 0 uses, as
    a part of the peak, from 0 to 1.

    >>> from lrsched import Schedule, Warmup
    >>> schedule = Schedule(peak_lr=1.0, total_steps=8, warmup=Warmup(steps=4, start_ratio=0.2))
    >>> [round(schedule.lr(k), 4) for k in range(5)]
    [0.2, 0.4, 0.6, 0.8, 1.0]
    """

    section = "warmup"
    steps: int = fields.length(0)
    shape: str = fields.choice(*SHAPES)
    start_ratio: float = fields.number(0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.start_ratio <= 1.0:
            raise ScheduleError(
                "warmup.start_ratio", f"{self.start_ratio!r} is not from 0 to 1", "it is a part of peak_lr"
            )

    def lr(self, k: Steps, peak: float) -> Values:
        """The learning rate of update k < W."""
        ratio = SHAPES[self.shape](k, self.steps)
        return peak * (self.start_ratio + (1.0 - self.start_ratio) * ratio)

    def phrase(self, peak: float) -> str:
        """The warm-up in words."""
        how = {"linear": "rises linearly", "log": "rises as a logarithm", "cosine": "rises as a half cosine"}[
            self.shape
        ]
        return f"{how} from {self.start_ratio * peak!r} towards {peak!r} over {self.steps} updates"
