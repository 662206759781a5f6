"""The schedule as a value: its form in YAML, its refusals, its identity."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import json
import math
import pickle
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schedule_cases import DECAYS, FALLING, make, schedules

import lrsched.schedule
from lrsched import Constant, Cosine, MultiStep, Schedule, ScheduleError, Warmup

KNOWN = "constant, cosine, linear, polynomial, step, multistep, exponential, inverse_sqrt, wsd, one_cycle, piecewise"
DESIGN = """
schedule:
  peak_lr: 1.0e-3
  total_steps: 10000
  warmup: {steps: 500, shape: linear, start_ratio: 0.0}
  decay:  {shape: cosine, t_max: 9500, eta_min: 1.0e-5, after: hold, ends_at_min: true}
  backend: auto
"""


def test_the_documented_form_is_the_object() -> None:
    assert Schedule.from_yaml(DESIGN) == Schedule(
        peak_lr=1e-3, total_steps=10000, warmup=Warmup(500), decay=Cosine(t_max=9500, eta_min=1e-5)
    )


def test_defaults_are_filled_in() -> None:
    short = Schedule.from_dict(
        {"peak_lr": 1e-3, "total_steps": 10000, "warmup": {"steps": 500}, "decay": {"shape": "cosine", "eta_min": 1e-5}}
    )
    assert short == Schedule.from_yaml(DESIGN)
    assert short.fingerprint == Schedule.from_yaml(DESIGN).fingerprint


def test_without_warmup_and_decay_it_is_constant() -> None:
    schedule = Schedule.from_dict({"peak_lr": 0.5, "total_steps": 3})
    assert schedule.decay == Constant()
    assert schedule.lr(np.arange(5)).tolist() == [0.5] * 5


def test_whole_curve_by_hand() -> None:
    schedule = make({"shape": "cosine", "eta_min": 0.2}, peak_lr=1.0, total_steps=7, warmup=3)
    wanted = [0.0, 1 / 3, 2 / 3, 0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2, 0.6, 0.2 + 0.8 * (1 - math.sqrt(0.5)) / 2, 0.2]
    assert [schedule.lr(k) for k in range(7)] == pytest.approx(wanted, rel=1e-15, abs=0.0)
    assert schedule.lr(6) == schedule.lr(7) == schedule.lr(10**30) == 0.2


@given(schedules(), st.data())
def test_array_and_single_k_agree_to_the_last_bit(schedule: Schedule, data: st.DataObject) -> None:
    ks = data.draw(st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 300), max_size=20))
    together = schedule.lr(np.array(ks, np.int64))
    assert together.dtype == np.float64
    assert together.tolist() == [schedule.lr(k) for k in ks]


@pytest.mark.parametrize("decay", DECAYS)
def test_the_largest_k_of_an_array(decay: str) -> None:
    schedule, last = make(decay, warmup=0), 2**63 - 1
    assert schedule.lr(np.array([last])).tolist() == [schedule.lr(last)]


@given(schedules(), st.integers(0, 10**40) | st.integers(0, 250))
def test_stays_between_zero_and_peak(schedule: Schedule, k: int) -> None:
    assert 0.0 <= schedule.lr(k) <= schedule.peak_lr


@given(schedules())
def test_warmup_never_falls_and_stays_below_the_peak(schedule: Schedule) -> None:
    values = schedule.lr(np.arange(schedule.warmup.steps))
    slack = 1e-15 * schedule.peak_lr
    assert (np.diff(values) >= -slack).all()
    assert (values <= schedule.peak_lr).all()
    assert (values >= schedule.warmup.start_ratio * schedule.peak_lr - slack).all()


@given(schedules())
def test_decay_never_rises_unless_it_cycles(schedule: Schedule) -> None:
    if schedule.decay.shape in FALLING and getattr(schedule.decay, "after", "hold") == "hold":
        values = schedule.lr(np.arange(schedule.warmup.steps, 2 * schedule.total_steps + 2))
        assert (np.diff(values) <= 1e-15 * schedule.peak_lr).all()


@given(schedules())
def test_the_warmup_hands_over_to_the_decay(schedule: Schedule) -> None:
    """Where the decay begins at the peak, the curve goes on from where the ramp was heading."""
    steps, decay, peak = schedule.warmup.steps, schedule.decay, schedule.peak_lr
    begins_at_peak = decay.shape in ("constant", "step", "exponential") or getattr(decay, "ends_at_min", True) is False
    if steps < 2 or not begins_at_peak or decay.shape not in FALLING or steps == schedule.total_steps:
        return
    before, here = schedule.lr(steps - 1), schedule.lr(steps)
    assert here == peak
    # No ramp ends with a step longer than the steepest of its own: that of the logarithm's first, or pi/2 of a line's.
    assert peak - before <= peak * max(math.log(2) / math.log(steps), math.pi / 2 / steps) + 1e-15 * peak


@given(schedules())
def test_the_last_update_trains_at_eta_min_where_that_is_promised(schedule: Schedule) -> None:
    decay, last = schedule.decay, schedule.total_steps - 1
    lasts = getattr(decay, "t_max", getattr(decay, "decay_steps", None))
    ends = getattr(decay, "ends_at_min", False) and getattr(decay, "after", "hold") == "hold"
    if not ends or (decay.shape != "wsd" and lasts != schedule.total_steps - schedule.warmup.steps):
        return
    assert schedule.lr(last) == schedule.lr(last + 1) == schedule.lr(10**12) == decay.eta_min


def test_shape_of_the_array_is_kept() -> None:
    schedule = make("cosine")
    assert schedule.lr(np.arange(6).reshape(2, 3)).shape == (2, 3)
    assert schedule.lr(np.array(7)) == schedule.lr(7)
    assert schedule.lr(np.array([], np.int64)).tolist() == []


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint64])
def test_narrow_and_unsigned_arrays_do_not_wrap_around(kind: type) -> None:
    schedule = make("cosine", total_steps=1000, warmup=500)
    assert schedule.lr(np.array([0, 100, 127], kind)).tolist() == [schedule.lr(k) for k in (0, 100, 127)]
    assert schedule.lr(kind(3)) == schedule.lr(3)


@pytest.mark.parametrize(
    ("k", "says"),
    [
        (-1, "k: -1 is negative; k counts the updates already made, from 0"),
        (np.array([3, -2]), "k: -2 is negative; k counts the updates already made, from 0"),
        (1.0, "k: 1.0 is not a whole number of updates; give an int or an integer NumPy array"),
        (True, "k: True is not a number of updates; give an int"),
        (np.True_, "k: np.True_ is not a number of updates; give an int"),
        (np.array([1.0]), "k: an array of float64 is not a number of updates; give an integer NumPy array"),
        (np.array([True]), "k: an array of bool is not a number of updates; give an integer NumPy array"),
        ("3", "k: '3' is not a whole number of updates; give an int or an integer NumPy array"),
        (np.array([2**63], np.uint64), "k: 9223372036854775808 does not fit int64; give such a k as an int"),
    ],
)
def test_bad_k(k: Any, says: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        make("cosine").lr(k)
    assert str(caught.value) == says


@given(schedules())
def test_round_trips(schedule: Schedule) -> None:
    for again in (
        Schedule.from_dict(schedule.to_dict()),
        Schedule.from_yaml(schedule.to_yaml()),
        Schedule.from_yaml(json.dumps({"schedule": schedule.to_dict()})),
        pickle.loads(pickle.dumps(schedule)),
    ):
        assert again == schedule
        assert hash(again) == hash(schedule)
        assert again.fingerprint == schedule.fingerprint


def test_fingerprint_is_of_the_curve_and_does_not_change_with_versions() -> None:
    schedule = Schedule.from_yaml(DESIGN)
    # A checkpoint holds this text: it must stay what it is.
    assert schedule.fingerprint == "5c3dcf657ba6f87d"
    assert dataclasses.replace(schedule, backend="torch").fingerprint == schedule.fingerprint
    assert dataclasses.replace(schedule, backend="torch") != schedule
    others = [
        dataclasses.replace(schedule, peak_lr=2e-3),
        dataclasses.replace(schedule, total_steps=10001),
        dataclasses.replace(schedule, warmup=Warmup(499)),
        dataclasses.replace(schedule, warmup=Warmup(500, "log")),
        dataclasses.replace(schedule, decay=Cosine(9500, 2e-5)),
        dataclasses.replace(schedule, decay=Cosine(9500, 1e-5, "rise")),
        dataclasses.replace(schedule, decay=Cosine(9500, 1e-5, ends_at_min=False)),
    ]
    assert len({s.fingerprint for s in [schedule, *others]}) == 8


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make("cosine").peak_lr = 1.0  # type: ignore[misc]


def test_files(tmp_path: Path) -> None:
    plain, config, as_json = tmp_path / "s.yaml", tmp_path / "config.yaml", tmp_path / "s.json"
    schedule = Schedule.from_yaml(DESIGN)
    plain.write_text(schedule.to_yaml())
    config.write_text(f"model: t5-small\n{DESIGN}")
    as_json.write_text(json.dumps(schedule.to_dict()))
    assert [Schedule.from_file(path) for path in (plain, str(config), as_json)] == [schedule] * 3


def test_numbers_that_yaml_reads_as_text() -> None:
    schedule = Schedule.from_yaml("{peak_lr: 1e-3, total_steps: 10, decay: {shape: cosine, eta_min: 1e-5}}")
    assert (schedule.peak_lr, schedule.decay.eta_min) == (1e-3, 1e-5)
    assert Schedule.from_yaml("{peak_lr: 1, total_steps: 3, decay: {shape: exponential, gamma: 9e-1}}").lr(1) == 0.9


def _with(**more: Any) -> dict[str, Any]:
    return {"peak_lr": 1e-3, "total_steps": 100, **more}


def _decay(shape: str, **more: Any) -> dict[str, Any]:
    return _with(decay={"shape": shape, **more})


REFUSED: list[tuple[Any, str]] = [
    ([1], "schedule: [1] is not a mapping; write key: value pairs"),
    (None, "schedule: None is not a mapping; write key: value pairs"),
    ({"total_steps": 10}, "s.peak_lr: is missing; it has no default"),
    ({"peak_lr": 1}, "s.total_steps: is missing; it has no default"),
    (
        _with(warmpu={}),
        "s.warmpu: unknown key 'warmpu'; did you mean 'warmup'? known: peak_lr, total_steps, warmup, decay, backend",
    ),
    (_with(x=1), "s.x: unknown key 'x'; known: peak_lr, total_steps, warmup, decay, backend"),
    (
        _with(warmup={"stpes": 5}),
        "s.warmup.stpes: unknown key 'stpes'; did you mean 'steps'? known: steps, shape, start_ratio",
    ),
    (_with(warmup=5), "s.warmup: 5 is not a mapping; write key: value pairs"),
    (_with(peak_lr=True), "s.peak_lr: True is not a number; write one such as 1.0e-3"),
    (_with(peak_lr="fast"), "s.peak_lr: 'fast' is not a number; write one such as 1.0e-3"),
    (_with(peak_lr="nan"), "s.peak_lr: 'nan' is not a number; write one such as 1.0e-3"),
    (_with(peak_lr="1_0"), "s.peak_lr: '1_0' is not a number; write one such as 1.0e-3"),
    (_with(peak_lr="1e999"), "s.peak_lr: '1e999' is not a finite number; write one such as 1.0e-3"),
    (_with(peak_lr=math.nan), "s.peak_lr: nan is not a finite number; write one such as 1.0e-3"),
    (_with(peak_lr=math.inf), "s.peak_lr: inf is not a finite number; write one such as 1.0e-3"),
    (_with(peak_lr=10**400), f"s.peak_lr: {10**400} is not a finite number; write one such as 1.0e-3"),
    (_with(peak_lr=0), "s.peak_lr: 0 is not above 0; write one such as 1.0e-3"),
    (_with(peak_lr="-1e-3"), "s.peak_lr: '-1e-3' is not above 0; write one such as 1.0e-3"),
    (_with(total_steps=0), "s.total_steps: 0 is too short; it must be at least 1"),
    (_with(total_steps=-5), "s.total_steps: -5 is negative; it must be at least 1"),
    (_with(total_steps=2**53 + 1), "s.total_steps: 9007199254740993 is too long; at most 2**53"),
    (
        _with(total_steps=True),
        "s.total_steps: True is not a length; write a whole number of updates such as 500, or '3%', or '2 epochs'",
    ),
    (_with(total_steps=1e4), "s.total_steps: 10000.0 is not a length; write 10000, without a point or exponent"),
    (_with(total_steps="3%"), "s.total_steps: '3%' is a part of total_steps, which is not known here; give updates"),
    (
        _with(warmup={"steps": 0.1}),
        "s.warmup.steps: 0.1 is not a length; write '10%' for that part of total_steps, or a whole number of updates",
    ),
    (_with(warmup={"steps": 1.0}), "s.warmup.steps: 1.0 is not a length; write 1, without a point or exponent"),
    (
        _with(warmup={"steps": None}),
        "s.warmup.steps: None is not a length; write a whole number of updates such as 500, or '3%', or '2 epochs'",
    ),
    (_with(warmup={"steps": -1}), "s.warmup.steps: -1 is negative; it must be at least 0"),
    (
        _with(warmup={"steps": "2 epochs"}),
        "s.warmup.steps: '2 epochs' is in epochs, but the number of updates per epoch is not known here; pass steps_per_epoch, or write the length in updates",
    ),
    (
        _with(warmup={"steps": 101}),
        "s.warmup.steps: 101 is more than total_steps 100; shorten the warm-up or lengthen the run",
    ),
    (
        _with(warmup={"shape": "lin"}),
        "s.warmup.shape: unknown choice 'lin'; did you mean 'linear'? known: linear, log, cosine",
    ),
    (_with(warmup={"start_ratio": 1.5}), "s.warmup.start_ratio: 1.5 is not from 0 to 1; it is a part of peak_lr"),
    (
        _with(backend="deep"),
        "s.backend: unknown backend 'deep'; did you mean 'deepspeed'? known: auto, deepspeed, torch",
    ),
    (_with(decay={}), "s.decay.shape: is missing; known: " + KNOWN),
    (
        _decay("cosin"),
        "s.decay.shape: unknown shape 'cosin'; did you mean 'cosine'? known: " + KNOWN,
    ),
    (
        _decay("cosine", T_max=5),
        "s.decay.T_max: unknown key 'T_max'; did you mean 't_max'? known: shape, t_max, eta_min, after, cycle_mult, cycle_gamma, ends_at_min, allow_unfinished",
    ),
    (_decay("cosine", t_max=0), "s.decay.t_max: 0 is too short; it must be at least 1"),
    (
        _decay("cosine", t_max=101),
        "s.decay.t_max: 101 is longer than the 100 updates from the end of the warm-up to total_steps; write at most 100, or allow_unfinished: true if the run shall end before the decay",
    ),
    (
        _with(warmup={"steps": "10%"}, decay={"shape": "cosine", "t_max": 91}),
        "s.decay.t_max: 91 is longer than the 90 updates from the end of the warm-up to total_steps; write at most 90, or allow_unfinished: true if the run shall end before the decay",
    ),
    (
        _with(warmup={"steps": 100}, decay={"shape": "cosine"}),
        "s.decay.t_max: the warm-up leaves no update for the decay; shorten it or use decay shape constant",
    ),
    (_decay("cosine", eta_min=2e-3), "s.decay.eta_min: 0.002 is not from 0 to peak_lr 0.001; lower it"),
    (_decay("cosine", eta_min="-1e-9"), "s.decay.eta_min: -1e-09 is not from 0 to peak_lr 0.001; lower it"),
    (_decay("cosine", after="stop"), "s.decay.after: unknown choice 'stop'; known: hold, rise, restart"),
    (_decay("cosine", ends_at_min="yes"), "s.decay.ends_at_min: 'yes' is neither true nor false; write true or false"),
    (
        _decay("cosine", after="restart", ends_at_min=True),
        "s.decay.ends_at_min: true does not apply to after: restart, whose cycles begin at exactly the peak; write false, or after: hold",
    ),
    (
        _decay("step", step_size=5, ends_at_min=True),
        "s.decay.ends_at_min: does not apply to shape step; only to cosine, linear, polynomial, wsd; leave it out",
    ),
    (
        _decay("linear", decay_steps=101),
        "s.decay.decay_steps: 101 is longer than the 100 updates from the end of the warm-up to total_steps; write at most 100, or allow_unfinished: true if the run shall end before the decay",
    ),
    (_decay("step"), "s.decay.step_size: is missing; it has no default"),
    (_decay("step", step_size=0), "s.decay.step_size: 0 is too short; it must be at least 1"),
    (
        _decay("step", step_size=5, gamma=0),
        "s.decay.gamma: 0.0 is not above 0 and at most 1; the peak is the highest learning rate",
    ),
    (
        _decay("exponential", gamma=1.01),
        "s.decay.gamma: 1.01 is not above 0 and at most 1; the peak is the highest learning rate",
    ),
    (_decay("exponential"), "s.decay.gamma: is missing; it has no default"),
    (_decay("multistep", milestones=5), "s.decay.milestones: 5 is not a list; write one such as [3000, 6000]"),
    (_decay("multistep", milestones=[5, 3]), "s.decay.milestones: [5, 3] does not rise; sort them"),
    (
        _decay("multistep", milestones=[5, 0.5]),
        "s.decay.milestones[1]: 0.5 is not a length; write '50%' for that part of total_steps, or a whole number of updates",
    ),
    (
        _decay("multistep", milestones=[100]),
        "s.decay.milestones: 100 is never reached in the 100 updates of the decay; milestones count from the end of the warm-up; leave it out or lengthen total_steps",
    ),
]


@pytest.mark.parametrize(("mapping", "says"), REFUSED)
def test_refusals(mapping: Any, says: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        Schedule.from_dict(mapping, where="" if says.startswith("schedule:") else "s")
    assert str(caught.value) == says
    assert "\n" not in says


def test_every_mistake_is_reported_at_once() -> None:
    mapping = {
        "peak_lr": -1,
        "total_steps": 10,
        "backend": "x",
        "warmup": {"steps": 1.5, "shape": 3},
        "decay": {"shape": "no"},
        "y": 0,
    }
    with pytest.raises(ScheduleError) as caught:
        Schedule.from_dict(mapping, where="schedule")
    assert [line.split(":")[0] for line in str(caught.value).split("\n")] == [
        "schedule.y",
        "schedule.peak_lr",
        "schedule.backend",
        "schedule.warmup.steps",
        "schedule.warmup.shape",
        "schedule.decay.shape",
    ]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_constructors_check_as_files_do() -> None:
    for wrong, says in (
        (lambda: Warmup(steps=2.5), "warmup.steps: 2.5 is not a length"),
        (lambda: Cosine(t_max=True), "decay.t_max: True is not a length"),
        (lambda: MultiStep(milestones=3), "decay.milestones: 3 is not a list"),
        (lambda: Schedule(1e-3, 10, Warmup(11)), "warmup.steps: 11 is more than total_steps 10"),
        (lambda: Schedule(1e-3, 10, {"steps": 3}), "warmup: {'steps': 3} is not a Warmup"),
        (lambda: Schedule(1e-3, 10, decay="cosine"), "decay: 'cosine' is not a decay shape"),
        (lambda: Schedule(1e-3, 10, decay=Cosine(11)), "decay.t_max: 11 is longer than the 10 updates"),
    ):
        with pytest.raises(ScheduleError) as caught:
            wrong()
        assert str(caught.value).startswith(says)


def test_bad_files(tmp_path: Path) -> None:
    for content, says in (
        (b"peak_lr: [", "not YAML: while parsing a flow node"),
        (b"- 1", "schedule: [1] is not a mapping"),
        (b"", "schedule: None is not a mapping"),
        (b"\xff\xfe\xff", f"cannot read {tmp_path / 'bad.yaml'}: not UTF-8 text"),
        (b"schedule: 3", "schedule: 3 is not a mapping"),
        (b"schedule: {peak_lr: 1}", "schedule.total_steps: is missing"),
    ):
        (tmp_path / "bad.yaml").write_bytes(content)
        with pytest.raises(ScheduleError) as caught:
            Schedule.from_file(tmp_path / "bad.yaml")
        assert str(caught.value).startswith(says)
        assert "\n" not in str(caught.value)
    with pytest.raises(ScheduleError, match=r"cannot read .*none\.yaml: No such file or directory"):
        Schedule.from_file(tmp_path / "none.yaml")


@pytest.mark.parametrize("decay", DECAYS)
def test_describe_names_the_numbers(decay: str) -> None:
    schedule = make(decay)
    sentence = schedule.describe()
    assert "\n" not in sentence
    assert schedule.decay.rises_itself or sentence.startswith(
        "Rises linearly from 0.0 towards 0.001 over 5 updates (k=0 to 4), then "
    )
    assert (
        f"50 updates in all, the first trains at {schedule.lr(0)!r}, the last (k=49) at {schedule.lr(49)!r}."
        in sentence
    )


def test_describe_in_full() -> None:
    assert Schedule.from_yaml(DESIGN).describe() == (
        "Rises linearly from 0.0 towards 0.001 over 500 updates (k=0 to 499), then cosine from 0.001 to 1e-05 over "
        "9500 updates, the last of them at 1e-05 (then held at 1e-05); 10000 updates in all, the first trains at 0.0, the last (k=9999) at 1e-05."
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{peak_lr: 1, peak_lr: 2, total_steps: 3}", "not YAML: the key 'peak_lr' is written twice"),
        ("{peak_lr: 1, total_steps: 2001-13-45}", "not YAML: month must be in 1..12"),
        ("[" * 3000, "nested too deeply; join the pieces in one list"),
        ("", "schedule: None is not a mapping; write key: value pairs"),
    ],
)
def test_text_that_is_no_schedule(text: str, says: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        Schedule.from_yaml(text)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_describe_tells_two_schedules_apart_and_says_only_what_happens() -> None:
    ends, starts = (make({"shape": "linear", "ends_at_min": flag}).describe() for flag in (True, False))
    assert "over 45 updates, the last of them at 0.0 (then" in ends
    assert "over 45 updates, the first of them at 0.001 (then" in starts
    assert "constant" not in make(warmup=50).describe()
    assert "until update" not in make({"shape": "inverse_sqrt", "timescale": 5}, warmup=10).describe()
    cut = make({"shape": "cosine", "t_max": 99, "allow_unfinished": True})
    assert "over 99 updates, the last of them at 0.0, of which the run has 45 (then" in cut.describe()


def test_docstring_examples() -> None:
    """Of every module: those of the dialects and the proof, too."""
    attempted = 0
    for found in pkgutil.walk_packages(lrsched.__path__, "lrsched."):
        if found.name.endswith("__main__"):
            continue
        result = doctest.testmod(importlib.import_module(found.name))
        assert result.failed == 0, found.name
        attempted += result.attempted
    assert attempted > 10


def test_import_is_light() -> None:
    """Neither NumPy nor torch nor YAML, and under 100 ms (of processor time: the machine may be busy)."""
    code = (
        "import time, sys; start = time.process_time(); import lrsched; spent = time.process_time() - start;"
        "print(spent, *sorted({'numpy', 'torch', 'yaml', 'ray', 'deepspeed', 'matplotlib'} & set(sys.modules)))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(5)
    ]
    assert all(run[1:] == [] for run in runs)
    assert min(float(run[0]) for run in runs) < 0.1
