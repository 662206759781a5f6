"""The answer, from a ledger alone."""

import pytest

from recipes.storage import Storage
from recipes.sweeping.answer import Interval, as_json, find_answer, verdict
from recipes.sweeping.ledger import Ledger

RUNG = {"step": 4, "score": 3.5, "raw": 3.75, "extra_updates": 2, "seconds": 0.5}


def test_the_interval_is_students():
    # scipy.stats.t.interval(0.95, 2, loc=2, scale=scipy.stats.sem([1, 2, 3])) = (-0.4841, 4.4841)
    interval = Interval.of([1.0, 2.0, 3.0])
    assert (interval.mean, interval.num) == (2.0, 3)
    assert interval.half_width == pytest.approx(2.4841, abs=5e-4)
    # 40 values: t = 2.0227
    assert Interval.of([0.0, 1.0] * 20).half_width == pytest.approx(2.0227 * 0.50637 / 40**0.5, rel=2e-3)
    assert Interval.of([1.0]).half_width is None


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(Storage(tmp_path))
    scores = [3.0, 2.9, None, 3.3]
    for number, score in enumerate(scores):
        ledger.drawn(f"00{number}", number, {"family": "linear"})
        ledger.started(f"00{number}")
        ledger.rung(f"00{number}", RUNG, score is not None)
        if score is not None:
            ledger.finished(f"00{number}", 16, score)
    # The trial that looked best by luck is worse with other seeds.
    for number, losses in ((0, (2.95, 3.0, 3.05)), (1, (3.05, 3.12, 3.16))):
        for seed, loss in enumerate(losses, 1):
            ledger.drawn(f"00{number}_seed{seed}", number, {"family": "linear"}, seed)
            ledger.finished(f"00{number}_seed{seed}", 16, loss)
    return ledger


def test_new_seeds_decide_who_wins(ledger):
    answer = find_answer(ledger, 16, 5)
    assert [each.run.name for each in answer.candidates] == ["000", "001", "003"]
    assert answer.winner.interval.mean == pytest.approx(3.0)
    # Differences over the common seeds: 0.10, 0.12, 0.11.
    assert answer.behind[1].mean == pytest.approx(0.11)
    assert answer.behind[1].half_width == pytest.approx(4.303 * 0.01 / 3**0.5)
    assert verdict(answer.behind[1]) == "worse"
    assert list(answer.behind) == [1]


def test_what_was_spent_and_what_it_would_have_been(ledger):
    answer = find_answer(ledger, 16, 5)
    assert answer.updates_spent == 3 * (16 + 2) + (4 + 2)
    assert answer.updates_exhaustive == 5 * 16
    assert as_json(answer)["ended"] == {"finished": 3, "stopped": 1, "failed": 0}
    assert as_json(answer)["updates_final"] == 6 * 16


def test_the_time_saved_counts_trials_that_ran_together(ledger):
    assert find_answer(ledger, 16, 5).max_concurrent == 1
    for name, start, end in (("000", 0.0, 10.0), ("001", 5.0, 15.0), ("002", 10.0, 20.0), ("003", 16.0, 20.0)):
        run = ledger.runs[name]
        run.starts, run.ended = [start], end
    answer = find_answer(ledger, 16, 5)
    assert answer.max_concurrent == 2
    each = answer.seconds_per_update
    assert answer.seconds_saved == pytest.approx((5 * 16 - answer.updates_spent) * each / 2)


def test_a_difference_within_the_noise_is_not_called_one():
    assert verdict(Interval(0.1, 0.2, 3)) == "cannot be told apart"
    assert verdict(Interval(0.1, None, 1)) == "one seed cannot tell"
