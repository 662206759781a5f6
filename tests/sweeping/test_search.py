"""optuna's proposals, made from the ledger."""

import pytest

from recipes.storage import Storage
from recipes.sweeping.ledger import Ledger
from recipes.sweeping.search import OptunaSearch
from recipes.sweeping.space import draw, parse_space

SPACE = parse_space(
    {
        "schedule": [
            {"family": "cosine", "t_max": {"uniform": ["20%", "80%"]}, "after": {"choice": ["hold", "rise"]}},
            {"family": "step", "step_size": {"randint": [2, 50]}},
        ],
        "schedule.peak_lr": {"loguniform": [1e-4, 1.0]},
    }
)


def run_trials(ledger, search, numbers):
    """Ends every trial with a loss that is lowest at a cosine with lr 0.01."""
    import math

    for number in numbers:
        point = search.point(number)
        name = f"{number:03d}"
        ledger.drawn(name, number, point)
        loss = 1 + abs(math.log10(point["schedule.peak_lr"]) + 2) + (point["family"] != "cosine")
        if number % 5 == 4:
            rung = {"step": 4, "score": loss, "raw": loss, "extra_updates": 0, "seconds": 0.1}
            ledger.rung(name, rung, False)
        elif number % 7 == 6:
            ledger.failed(name, 3, "diverged")
        elif number % 11 != 10:  # else it still runs
            ledger.finished(name, 16, loss)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(Storage(tmp_path))


def test_optuna_finds_the_better_region(ledger):
    search = OptunaSearch(SPACE, 1, 60, ledger)
    assert search.num_drawn == 10
    assert search.point(3) == draw(SPACE, 1, 3)
    run_trials(ledger, search, range(60))
    late = [ledger.runs[f"{number:03d}"].point for number in range(40, 60)]
    # Of 20 drawn alike, 10 would lie here; 15 or more happen once in 50.
    assert sum(1e-3 < point["schedule.peak_lr"] < 1e-1 for point in late) >= 15


def test_the_proposal_is_the_same_after_a_resume(ledger, tmp_path):
    search = OptunaSearch(SPACE, 1, 60, ledger)
    run_trials(ledger, search, range(20))
    again = OptunaSearch(SPACE, 1, 60, Ledger(Storage(tmp_path)))
    assert again.point(20) == search.point(20)
    assert SPACE.overrides(again.point(20))["schedule.decay"]["shape"] in ("cosine", "step")
