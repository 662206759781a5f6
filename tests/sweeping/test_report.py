"""The page of a sweep in several states, from a ledger without any training."""

import re

import pytest

from recipes.storage import Storage
from recipes.sweeping.answer import find_answer
from recipes.sweeping.conduct import Sweep, prepare_sweep
from recipes.sweeping.kendall import kendall_tau
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
