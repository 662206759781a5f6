"""What the terminal shows of a sweep."""

import io

import pytest

from recipes.storage import Storage
from recipes.sweeping.ledger import Ledger
from recipes.sweeping.table import Table, expected_updates

RUNG = {"step": 4, "score": 4.5, "raw": 4.75, "extra_updates": 1, "seconds": 0.5}


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(Storage(tmp_path))
    for number, family in enumerate(("cosine", "step", "wsd")):
        ledger.drawn(f"00{number}", number, {"family": family})
        ledger.started(f"00{number}")
    return ledger


def table(ledger, stream, **times):
    return Table(ledger, total_steps=16, num_trials=4, expected_updates=8, stream=stream, **times)


def test_without_a_terminal_every_event_is_one_line(ledger):
    stream = io.StringIO()
    shown = table(ledger, stream, plain_every_s=1e9)
    shown.tick()
    assert stream.getvalue() == ""
    ledger.rung("000", RUNG, True)
    shown.tick()
    ledger.rung("001", RUNG | {"score": 6.0}, False)
    ledger.finished("000", 16, 3.25)
    ledger.failed("002", 3, "diverged")
    shown.tick()
    shown.close()
    assert stream.getvalue().splitlines() == [
        "000 cosine at update 4: score 4.5000, goes on",
        "000 cosine finished: held-out loss 3.2500",
        "001 step at update 4: score 6.0000, stopped",
        "002 failed after update 3: diverged",
    ]


def test_on_a_terminal_the_table_is_drawn_over_itself(ledger):
    stream = Screen()
    shown = table(ledger, stream, every_s=0.0)
    ledger.rung("000", RUNG, True)
    ledger.rung("001", RUNG | {"score": 6.0}, False)
    shown.metrics("000", {"step": 7, "lr": 2.5e-3, "loss": 4.0})
    shown.tick()
    first = stream.getvalue().splitlines()
    assert first[1].split() == ["000", "cosine", "7/16", "2.50e-03", "4", "4.5000", "running"]
    assert first[2].split() == ["002", "wsd", "0/16", "running"]
    assert first[3].split() == ["001", "step", "4/16", "4", "6.0000", "stopped"]
    # 7 updates of 000 (5 at its rung, 7 now), 5 of 001, of 4 * 16
    assert " ".join(first[4:]).startswith(
        "4 trials: 2 running, 0 finished, 1 stopped, 0 failed | 12 updates of 64 exhaustive | "
    )
    ledger.finished("000", 16, 3.25)
    shown.tick()
    second = stream.getvalue().removeprefix("\n".join(first) + "\n")
    assert second.startswith(f"\x1b[{len(first)}F\x1b[J")  # up over the lines of before
    assert "best 000 cosine 3.2500" in " ".join(second.split())


def test_what_a_trial_takes_on_average():
    assert expected_updates([4, 8, 16], 2) == 4 + 4 / 2 + 8 / 4
    assert expected_updates([4, 8, 16], 1) == 16
