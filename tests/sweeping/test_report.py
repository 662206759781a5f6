"""The page of a sweep in several states, from a ledger without any training."""

import re

import pytest

from recipes.storage import Storage
from recipes.sweeping.answer import find_answer
from recipes.sweeping.conduct import Sweep, prepare_sweep
from recipes.sweeping.kendall import kendall_tau
from recipes.sweeping.report_pictures import Curve, Heights
from recipes.sweeping.results import write_results
from recipes.sweeping.sweep_config import load_sweep
from tests.sweeping.small_sweep import small_sweep


@pytest.fixture
def sweep(pairs, tmp_path) -> Sweep:
    path, *overrides = small_sweep(pairs, tmp_path / "sweeps")
    return prepare_sweep(load_sweep(path, overrides), lambda text: None, Storage(tmp_path / "cache"))


def page(sweep):
    write_results(sweep, find_answer(sweep.ledger, 16, 6))
    text = (sweep.folder.local / "report.html").read_text()
    return re.sub(r"data:image/png;base64,[^\"]+", "PICTURE", text)


def words(html):
    body = re.sub(r"<style>.*?</style>", "", html, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def score(ledger, name, step, value, goes_on=True):
    ledger.rung(name, {"step": step, "score": value, "raw": value + 0.1, "extra_updates": 1, "seconds": 0.1}, goes_on)


def fill(sweep):
    """Six trials: 000 and 002 finished, 001 and 003 stopped at the first rung, 004 at the second, 005 failed."""
    ledger = sweep.ledger
    for number in range(6):
        ledger.drawn(f"{number:03d}", number, sweep.search.point(number))
        ledger.started(f"{number:03d}")
    for name, value in (("000", 5.0), ("001", 6.0), ("002", 4.5), ("003", 5.5), ("004", 4.8)):
        score(ledger, name, 4, value, goes_on=name not in ("001", "003"))
    for name, value in (("000", 4.0), ("002", 3.5), ("004", 4.25)):
        score(ledger, name, 8, value, goes_on=name != "004")
    ledger.finished("000", 16, 3.0)
    ledger.finished("002", 16, 2.5)
    ledger.failed("005", 3, "diverged <b>badly</b>")
    for trial, name, losses in ((0, "000", (3.0, 3.2)), (2, "002", (2.5, 2.6))):
        for seed, loss in enumerate(losses, 1):
            ledger.drawn(f"{name}_seed{seed}", trial, sweep.search.point(trial), seed)
            ledger.finished(f"{name}_seed{seed}", 16, loss)


def test_the_page_of_a_finished_sweep(sweep):
    fill(sweep)
    html = page(sweep)
    text = words(html)
    assert "6 trials: 2 finished, 3 stopped, 1 failed" in text
    assert "2.5500 nats per target token; ± 0.6353 (95 %), 2 new seeds" in text  # 12.706 * 0.0707 / sqrt(2)
    # 2 * (16 + 2) + 2 * (4 + 1) + (8 + 2) + 3 updates, 8 of them on branches
    assert "59 61% of 96 exhaustive" in text
    assert "8 updates of the branches at rungs" in text
    assert "4.2500 3 of 3 0.7500" in text  # 004 at rung 8, behind 002
    assert "6.0000 5 of 5 1.5000" in text  # 001 at rung 4
    assert "diverged &lt;b&gt;badly&lt;/b&gt;" in html
    assert html.count("PICTURE") == 4 * 4
    assert "<script" not in html
    assert not re.search(r"(src|href)=\"(?!PICTURE)", html)


def test_the_page_of_a_sweep_that_was_stopped_early(sweep):
    sweep.ledger.drawn("000", 0, sweep.search.point(0))
    sweep.ledger.started("000")
    text = words(page(sweep))
    assert "Not over: 0 of 6 trials have ended" in text
    assert "None: no trial has finished." in text
    assert not sweep.folder.exists("winner.yaml")


def test_kendalls_tau():
    assert kendall_tau([1, 2, 3, 4], [10, 20, 30, 40]) == 1
    assert kendall_tau([1, 2, 3, 4], [4, 3, 2, 1]) == -1
    # scipy.stats.kendalltau([1, 2, 2, 4], [1, 3, 2, 4]).statistic
    assert kendall_tau([1, 2, 2, 4], [1, 3, 2, 4]) == pytest.approx(0.9128709, abs=1e-6)
    assert kendall_tau([1, 1], [1, 2]) is None


def curve(name, loss=None, state="finished", rungs=(), step=16):
    return Curve(name, "cosine", None, loss, state, False, step, [], list(rungs))


CURVES = [
    curve("a", 3.0),
    curve("b", 2.5),
    # Scores at rungs below all final losses: they are projections, not losses.
    curve("early", state="stopped", rungs=[(4, 1.5)], step=4),
    curve("worse early", state="stopped", rungs=[(4, 1.6)], step=4),
    curve("late", state="stopped", rungs=[(4, 1.2), (8, 1.9)], step=8),
    curve("broken", state="failed", rungs=[(4, 1.0)], step=5),
    curve("new", state="running", step=1),
]


def test_a_stopped_trial_never_ranks_before_a_finished_one():
    ranked = sorted((each for each in CURVES if each.standing is not None), key=lambda each: each.standing)
    assert [each.name for each in ranked] == ["b", "a", "late", "early", "worse early"]
    assert [each.outcome for each in ranked[:3]] == ["2.500", "3.000", "stopped at 8"]


def test_stopped_and_failed_trials_stand_in_lanes_above_all_losses():
    heights = Heights.of(CURVES)
    assert heights.lanes == ("at 8", "at 4", "failed")
    at = {each.name: heights.of_curve(each) for each in CURVES}
    assert (at["a"], at["b"], at["new"]) == (3.0, 2.5, None)
    assert at["a"] < at["late"] < at["early"] == at["worse early"] < at["broken"]


def test_a_loss_far_off_does_not_press_the_others_together():
    curves = [curve(str(i), 2.0 + 0.01 * i) for i in range(60)] + [curve("far", 50.0)]
    heights = Heights.of(curves)
    assert heights.top < 3
    assert heights.of_curve(curves[-1]) == heights.top
