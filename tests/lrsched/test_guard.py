"""The check before the first update: it passes what is right, quickly, and stops what is wrong."""

from __future__ import annotations

import logging
import pickle
import time
from typing import Any

import pytest
from schedule_cases import DECAYS, make

from lrsched import guard
from lrsched.guard import FormMismatch, check_forms
from lrsched.torch_form import ScheduleLR


@pytest.mark.parametrize("decay", DECAYS)
def test_all_forms_agree(decay: str) -> None:
    report = check_forms(make(decay))
    assert report.updates == 50
    assert report.torch == 0.0
    native = decay in ("constant", "cosine", "cosine-early", "linear-from-peak")
    assert (report.block is not None) == native
    if native:
        assert report.deepspeed is not None
        # OneCycle, which applies linear-from-peak, loses digits in its own arithmetic.
        assert report.deepspeed <= (2e-15 if decay == "linear-from-peak" else 1e-15)
        assert "DeepSpeed within" in str(report)
    else:
        assert report.deepspeed is None
        assert "no native DeepSpeed scheduler applies this schedule: at update k=" in str(report)


def test_every_update_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in one update, on either side of a piece of the work, is found."""
    monkeypatch.setattr(guard, "_CHUNK", 16)
    schedule = make("cosine")
    right = ScheduleLR.seek
    for bad in (1, 15, 16, 17, 48, 49):

        def seek(self: ScheduleLR, k: int, bad: int = bad) -> None:
            right(self, k)
            if k == bad:
                self.optimizer.param_groups[0]["lr"] += 2e-18

        monkeypatch.setattr(ScheduleLR, "seek", seek)
        if bad == 1:
            # The first step is torch's own, which asks get_lr.
            monkeypatch.setattr(
                ScheduleLR, "get_lr", lambda self: [schedule.lr(self.last_epoch) + 2e-18 * (self.k == 1)]
            )
        with pytest.raises(FormMismatch) as caught:
            check_forms(schedule)
        monkeypatch.undo()
        monkeypatch.setattr(guard, "_CHUNK", 16)
        assert (caught.value.form, caught.value.k) == ("torch", bad)
        assert caught.value.wanted == schedule.lr(bad) != caught.value.found


def test_a_deepspeed_that_does_something_else_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspeed.runtime.lr_schedules import WarmupCosineLR

    right = WarmupCosineLR.get_lr_ratio

    def changed(self: Any) -> float:
        return float("nan") if self.last_batch_iteration == 30 else right(self)

    monkeypatch.setattr(WarmupCosineLR, "get_lr_ratio", changed)
    with pytest.raises(FormMismatch) as caught:
        check_forms(make("cosine"))
    error = caught.value
    assert str(error) == (
        f"the DeepSpeed WarmupCosineLR form trains update k=31 at nan, the schedule says {make('cosine').lr(31)!r}"
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_without_deepspeed_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    report = check_forms(make("cosine"))
    assert (report.deepspeed, report.why_not) == (None, "DeepSpeed is not installed")


def test_it_is_quiet(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    from deepspeed.utils import logger

    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.DEBUG):
            check_forms(make("cosine"))
        assert caplog.messages == []
        # The filter is gone again: DeepSpeed may still say it elsewhere.
        logger.warning("scheduler before it has started")
        assert caplog.messages == ["scheduler before it has started"]
    finally:
        logger.removeHandler(caplog.handler)
    assert capfd.readouterr().out == ""


def test_it_is_quick() -> None:
    schedule = make({"shape": "cosine"}, total_steps=10_000, warmup=500)
    check_forms(make("cosine"))  # imports DeepSpeed, if nobody has yet
    start = time.process_time()
    check_forms(schedule)
    assert time.process_time() - start < 1.0
