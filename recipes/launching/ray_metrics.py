"""A run's numbers among Ray's own metrics, so that the cluster's Prometheus and Grafana have them too."""

from __future__ import annotations

import threading
from typing import Any

from recipes.reporting.metrics import metric_fields
from recipes.reporting.page_parts import is_number

# Field of a line of metrics.jsonl -> (name of the gauge, what it says). Ray exports them with "ray_" before the name.
GAUGES = {
    "step": ("t5_update", "Optimizer updates made"),
    "loss": ("t5_loss", "Training loss since the line before, nats per target token"),
    "eval_loss": ("t5_eval_loss", "Held-out loss, nats per target token"),
    "lr": ("t5_lr", "Learning rate of the last update"),
    "tokens_per_s": ("t5_tokens_per_s", "Source and target tokens per second, without padding"),
    "mfu": ("t5_mfu", "Model FLOPs utilisation, 0 to 1"),
    "skipped": ("t5_skipped_batches", "Global batches left out so far"),
}
EVALUATED = ("t5_eval_metric", "A held-out metric beside the loss")
STALL = ("t5_checkpoint_stall_seconds", "Seconds that updates waited for checkpoints")
TAGS = ("run", "trial")


# Ray forgets a gauge that has not been set for two of its export intervals, 20 s.
_AGAIN_S = 2.0


class RayMetrics:
    """Gauges and a counter of one run, written by the worker of rank 0 until ``end``; the gauges vanish some 20 s later.

    trial: within a sweep, whose name is then ``run``.
    """

    def __init__(self, run: str, trial: str = ""):
        from ray.util.metrics import Counter, Gauge

        self._tags = {"run": run, "trial": trial}
        self._gauges = {field: Gauge(name, what, TAGS) for field, (name, what) in GAUGES.items()}
        self._evaluated = Gauge(*EVALUATED, (*TAGS, "metric"))
        self._stall = Counter(*STALL, TAGS)
        self._now: dict[str, float] = {}
        self._lock, self._over = threading.Lock(), threading.Event()
        threading.Thread(target=self._set_again, name="ray metrics", daemon=True).start()

    def hear(self, message: dict[str, Any]) -> None:
        """What rank 0 publishes."""
        record = message.get("metrics", {})
        fields = [*self._gauges, *metric_fields(record)]
        with self._lock:
            self._now |= {field: record[field] for field in fields if is_number(record.get(field))}
            self._set()
        # A counter takes nothing but growth.
        if record.get("checkpoint_stall_s", 0.0) > 0:
            self._stall.inc(record["checkpoint_stall_s"], self._tags)

    def end(self) -> None:
        self._over.set()

    def _set_again(self) -> None:
        while not self._over.wait(_AGAIN_S):
            with self._lock:
                self._set()

    def _set(self) -> None:
        for field, value in self._now.items():
            if field in self._gauges:
                self._gauges[field].set(value, self._tags)
            else:
                self._evaluated.set(value, self._tags | {"metric": field.removeprefix("eval_")})
