"""The ledger, and Tune's ASHA filled from it."""

import numpy as np
import pytest

from recipes.errors import UserError
from recipes.storage import Storage
from recipes.sweeping.ledger import Ledger
from recipes.sweeping.rungs import in_best_part, rung_steps, survives
from recipes.sweeping.schedulers import Asha, Desk
from recipes.sweeping.sweep_config import SchedulerBlock

RUNGS = rung_steps(4, 3, 108)


class Decisions:
    """What the schedulers use of the board's handle."""

    def __init__(self):
        self.told = {}
        self.decide = self

    def remote(self, name, step, goes_on):
        self.told[name, step] = goes_on


def asha(ledger, brackets=1, rule="percentile"):
    settings = SchedulerBlock(kind="asha", grace_steps=4, reduction_factor=3, brackets=brackets, rule=rule)
    desk = Desk(ledger, Decisions())
    return Asha(desk, RUNGS, settings, seed=5), desk.board.told


def report(scheduler, name, step, score):
    result = {
        "run": name,
        "state": "rung",
        "step": step,
        "score": score,
        "raw": score,
        "extra_updates": 1,
        "seconds": 0.5,
    }
    assert scheduler.on_trial_result(None, None, result) == "CONTINUE"


def events(num_trials, seed=0):
    """(run, step, score) of trials that reach their rungs in a mixed order."""
    rng = np.random.default_rng(seed)
    at = {f"{number:03d}": 0 for number in range(num_trials)}
    while at:
        name = str(rng.choice(list(at)))
        yield name, RUNGS[at[name]], float(rng.normal(5, 1))
        at[name] += 1
        if at[name] == len(RUNGS) - 1:
            del at[name]


def drawn(ledger, num_trials):
    for number in range(num_trials):
        ledger.drawn(f"{number:03d}", number, {"family": "linear"})


@pytest.mark.parametrize(("rule", "pure"), [("percentile", survives), ("strict", in_best_part)])
def test_the_scheduler_decides_as_the_pure_rule_does(tmp_path, rule, pure):
    ledger = Ledger(Storage(tmp_path))
    drawn(ledger, 40)
    scheduler, told = asha(ledger, rule=rule)
    earlier = {step: [] for step in RUNGS}
    stopped = set()
    for name, step, score in events(40):
        if name in stopped:
            continue
        report(scheduler, name, step, score)
        assert told[name, step] == pure(score, earlier[step], 3)
        earlier[step].append(score)
        if not told[name, step]:
            stopped.add(name)
    assert 10 < len(stopped) < 40
    assert {run.name for run in ledger.trials() if run.state == "stopped"} == stopped


@pytest.mark.parametrize("rule", ["percentile", "strict"])
@pytest.mark.parametrize("brackets", [1, 3])
def test_a_resumed_scheduler_decides_as_the_one_that_was_not_interrupted(tmp_path, brackets, rule):
    unbroken, broken = Ledger(Storage(tmp_path / "a")), Ledger(Storage(tmp_path / "b"))
    drawn(unbroken, 40)
    drawn(broken, 40)
    first, told = asha(unbroken, brackets, rule)
    second, told_again = asha(broken, brackets, rule)
    stopped = set()
    for count, (name, step, score) in enumerate(events(40)):
        if name in stopped:
            continue
        if count % 7 == 3:
            # The driver dies: nothing but the file is left.
            broken = Ledger(Storage(tmp_path / "b"))
            before = told_again
            second, told_again = asha(broken, brackets, rule)
            told_again |= before
        report(first, name, step, score)
        report(second, name, step, score)
        if not told[name, step]:
            stopped.add(name)
    assert told == told_again
    assert 5 < len(stopped) < 40
    if brackets == 3:
        # Trials of a later bracket are not judged at the first rungs.
        assert len({step for (_, step), goes_on in told.items() if not goes_on}) > 1


def test_the_ledger_is_its_file(tmp_path):
    ledger = Ledger(Storage(tmp_path))
    ledger.drawn("000", 0, {"family": "cosine", "cosine.eta_min": 1e-5})
    ledger.drawn("001", 1, {"family": "step"})
    ledger.started("000")
    ledger.rung("000", {"step": 4, "score": 3.5, "raw": 3.75, "extra_updates": 2, "seconds": 0.5}, True)
    ledger.finished("000", 16, 3.25)
    ledger.failed("001", 7, "diverged")
    ledger.drawn("000_seed4", 0, {"family": "cosine"}, seed=4)
    again = Ledger(Storage(tmp_path))
    assert again.runs == ledger.runs
    assert [(run.name, run.state, run.step, run.score) for run in again.trials()] == [
        ("000", "finished", 16, 3.25),
        ("001", "failed", 7, None),
    ]
    assert again.runs["000"].updates == 16 + 2
    assert [run.seed for run in again.finals()] == [4]


def test_a_damaged_line_of_the_ledger_is_named(tmp_path):
    ledger = Ledger(Storage(tmp_path))
    ledger.drawn("000", 0, {})
    path = tmp_path / "ledger.jsonl"
    path.write_text(path.read_text() + '{"event": "rung", "run"\n')
    with pytest.raises(
        UserError, match=r"ledger.jsonl line 2 is damaged \(JSONDecodeError\): mend or remove that line"
    ):
        Ledger(Storage(tmp_path))
