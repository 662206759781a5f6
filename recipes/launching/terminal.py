"""What the user sees while a run trains: one live line, and a lasting line for what matters."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

from recipes.reporting.metrics import metric_fields

_FORMAT = "{desc} {n_fmt}/{total_fmt} |{bar:20}| {postfix}"


def duration(seconds: float) -> str:
    """``75`` -> ``1:15``; ``3700`` -> ``1:01:40``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Terminal:
    """Shows metrics records; on a terminal as a live bar, else as plain lines some seconds apart."""

    def __init__(self, total_steps: int, stream: TextIO | None = None, plain_every_s: float = 10.0):
        self.total_steps, self.plain_every_s = total_steps, plain_every_s
        # The stream of now: later ones may lead into a log.
        self.stream = sys.stderr if stream is None else stream
        self._live = self.stream.isatty()
        self._bar: tqdm | None = None
        self._first: tuple[int, float] | None = None
        self._last_plain = float("-inf")

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.clear()
        print(text, file=self.stream, flush=True)
        if self._bar is not None:
            self._bar.refresh()

    def show(self, record: dict[str, Any]) -> None:
        """A line of metrics.jsonl, just written."""
        if "eval_loss" in record:
            others = "".join(
                f", {name.removeprefix('eval_').replace('_', ' ')} {record[name]:.4g}" for name in metric_fields(record)
            )
            self.say(f"update {record['step']}: held-out loss {record['eval_loss']:.4f} nats per target token{others}")
        elif "loss" in record:
            self._progress(record)

    def _progress(self, record: dict[str, Any]) -> None:
        step, now = record["step"], time.monotonic()
        if self._first is None or step <= self._first[0]:
            self._first = (step, now)
        done, spent = step - self._first[0], now - self._first[1]
        left = duration(spent / done * (self.total_steps - step)) if done else "?"
        text = f"loss {record['loss']:.4f}, lr {record['lr']:.3g}, {record['tokens_per_s']:,.0f} tokens/s, {left} left"
        if not self._live:
            if now - self._last_plain >= self.plain_every_s or step == self.total_steps:
                self._last_plain = now
                self.say(f"update {step}/{self.total_steps}: {text}")
            return
        if self._bar is None:
            self._bar = tqdm(total=self.total_steps, desc="update", bar_format=_FORMAT, file=self.stream, leave=False)
        self._bar.n = step
        self._bar.set_postfix_str(text, refresh=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
