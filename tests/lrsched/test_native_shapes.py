"""The shapes beyond cosine, linear and steps: hand-made values, ends, joins, refusals."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schedule_cases import DECAYS, make

from lrsched import InverseSqrt, Piece, Piecewise, Schedule, ScheduleError, Wsd
from lrsched.decays import DECAYS as SHAPES
from lrsched.numeric import half_cosine

R2 = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("decay", "wanted"),
    [
        ({"shape": "polynomial", "decay_steps": 4, "power": 2, "ends_at_min": False}, [1, 9 / 16, 1 / 4, 1 / 16, 0, 0]),
        ({"shape": "polynomial", "decay_steps": 4, "power": 2}, [9 / 16, 1 / 4, 1 / 16, 0, 0]),
        ({"shape": "polynomial", "decay_steps": 4, "power": 0.5}, [math.sqrt(0.75), R2, 0.5, 0, 0]),
        ({"shape": "polynomial", "decay_steps": 4, "power": 1.5, "eta_min": 0.2}, [0.2 + 0.8 * 0.75**1.5]),
        ({"shape": "polynomial", "decay_steps": 4, "power": 0.3}, [0.75**0.3, 0.5**0.3, 0.25**0.3, 0]),
        ({"shape": "inverse_sqrt", "timescale": 4, "hold": False}, [1, math.sqrt(4 / 5), math.sqrt(4 / 6)]),
        ({"shape": "cosine", "t_max": 2, "after": "restart", "cycle_mult": 2}, [1, 0.5, 1, (1 + R2) / 2, 0.5, (1 - R2) / 2, 1]),
        ({"shape": "cosine", "t_max": 2, "after": "restart", "cycle_gamma": 0.5}, [1, 0.5, 0.5, 0.25, 0.25, 0.125]),
        (
            {"shape": "cosine", "t_max": 2, "after": "restart", "cycle_gamma": 0.5, "eta_min": 0.2},
            [1, 0.6, 0.6, 0.4, 0.4, 0.3],
        ),
        (
            {"shape": "piecewise", "pieces": [{"steps": 2}, {"steps": 2, "peak_ratio": 0.5}, {"peak_ratio": 0}]},
            [1, 1, 0.5, 0.5, 0, 0],
        ),
        (
            {"shape": "piecewise", "pieces": [{"steps": 2}, {"warmup": {"steps": 2}, "decay": {"shape": "linear", "decay_steps": 2}}]},
            [1, 1, 0, 0.5, 0.5, 0, 0],
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("warmup", [0, 3])
def test_values(decay: dict[str, Any], wanted: list[float], warmup: int) -> None:
    schedule = make(decay, peak_lr=1.0, warmup=warmup)
    assert [schedule.lr(warmup + j) for j in range(len(wanted))] == pytest.approx(wanted, rel=4e-16, abs=2e-16)


@pytest.mark.parametrize("shape", ["linear", "cosine", "1-sqrt"])
@pytest.mark.parametrize("ends_at_min", [True, False])
def test_wsd(shape: str, ends_at_min: bool) -> None:
    down = {"linear": lambda p: 1 - p, "cosine": lambda p: (1 + math.cos(math.pi * p)) / 2, "1-sqrt": lambda p: 1 - math.sqrt(p)}[shape]  # fmt: skip
    decay = {"shape": "wsd", "decay_steps": 4, "decay_shape": shape, "eta_min": 0.1, "ends_at_min": ends_at_min}
    schedule = make(decay, peak_lr=1.0, total_steps=20, warmup=3)
    parts = [(i + ends_at_min) / 4 for i in range(4)]
    wanted = [1.0] * 13 + [0.1 + 0.9 * down(p) for p in parts] + [0.1] * 3
    assert [schedule.lr(k) for k in range(3, 23)] == pytest.approx(wanted, rel=0, abs=3e-16)
    assert schedule.lr(15) == 1.0
    assert (schedule.lr(19) == 0.1) == ends_at_min


def test_the_curve_that_t5_was_trained_with() -> None:
    schedule = Schedule(peak_lr=0.01, total_steps=1_000_000, decay=InverseSqrt())
    for k in (0, 1, 9_999, 10_000, 10_001, 250_000, 999_999, 10**9):
        assert schedule.lr(k) == pytest.approx(1 / math.sqrt(max(k, 10_000)), rel=3e-16, abs=0)
    ramp = make({"shape": "inverse_sqrt"}, peak_lr=0.01, total_steps=20_000, warmup=1000)
    assert ramp.lr(500) == 0.005
    k = np.arange(1000, 25_000)
    assert ramp.lr(k).tolist() == schedule.lr(k).tolist(), "after the ramp it is the same curve"


def test_inverse_sqrt_from_the_warmup() -> None:
    """T5X's linear_warmup * rsqrt_decay, and transformers' inverse_sqrt: timescale is the warm-up."""
    schedule = make({"shape": "inverse_sqrt", "hold": False}, peak_lr=1.0, warmup=16)
    assert schedule.decay.timescale == 16
    for k in (16, 17, 64, 400):
        assert schedule.lr(k) == pytest.approx(math.sqrt(16 / k), rel=3e-16)
    assert make({"shape": "inverse_sqrt", "hold": False}, warmup=0).decay.timescale == 10_000


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize("three_phase", [True, False])
def test_one_cycle_meets_its_marks(anneal: str, three_phase: bool) -> None:
    decay = {"shape": "one_cycle", "up_steps": 10, "anneal": anneal, "three_phase": three_phase}
    schedule = make(decay | {"start_ratio": 0.1, "end_ratio": 0.01}, total_steps=40, warmup=0)
    assert schedule.lr(0) == 0.1 * 1e-3
    assert schedule.lr(9) == 1e-3
    assert schedule.lr(39) == schedule.lr(40) == schedule.lr(10**9) == 0.01 * 1e-3
    values = schedule.lr(np.arange(50))
    assert (np.diff(values[:10]) > 0).all()
    assert (np.diff(values[9:40]) < 0).all()
    if three_phase:
        assert schedule.lr(18) == 0.1 * 1e-3


def test_cycles_are_exact_at_huge_k() -> None:
    schedule = make("cosine-cycles", warmup=0)
    start = 5 * (2**40 - 1)
    assert schedule.lr(start) == pytest.approx(1e-3 * 0.7**40, rel=1e-14)
    assert schedule.lr(start + 5 * 2**39) == pytest.approx(schedule.lr(start) / 2, rel=1e-14)
    assert schedule.lr(10**400) >= 0.0


@given(st.floats(0.0, 1.0))
def test_half_cosine(p: float) -> None:
    value = half_cosine(p)
    assert value == half_cosine(np.array([p]))[0]
    assert abs(value - (1 + math.cos(math.pi * p)) / 2) <= 5e-16
    assert 0.0 <= value <= 1.0
    # Near the end the textbook formula has lost its digits, this one has not.
    assert value == pytest.approx(math.cos(math.pi * p / 2) ** 2, rel=1e-13, abs=1e-32)


def test_pieces_written_in_python_are_those_of_the_yaml() -> None:
    mapping = {"shape": "piecewise", "pieces": [{"steps": 40, "decay": {"shape": "wsd", "decay_steps": 10}}, {"peak_ratio": 0.1}]}  # fmt: skip
    written = Piecewise(pieces=[Piece(steps=40, decay=Wsd(decay_steps=10)), Piece(peak_ratio=0.1)])
    assert make(mapping) == Schedule(1e-3, 50, make().warmup, written)


def test_a_piece_may_be_piecewise() -> None:
    inner = {"shape": "piecewise", "pieces": [{"steps": 5}, {"peak_ratio": 0.5}]}
    outer = {"shape": "piecewise", "pieces": [{"steps": 10, "decay": inner}, {"peak_ratio": 0.5, "decay": inner}]}
    schedule = make(outer, peak_lr=1.0, total_steps=30, warmup=0)
    assert schedule.lr(np.arange(30)).tolist() == [1.0] * 5 + [0.5] * 5 + [0.5] * 5 + [0.25] * 15


def test_inverse_sqrt_in_a_piece_counts_from_the_start_of_the_piece() -> None:
    curve = {"warmup": {"steps": 4}, "decay": {"shape": "inverse_sqrt", "timescale": 9}}
    schedule = make({"shape": "piecewise", "pieces": [{"steps": 20}, curve]}, peak_lr=1.0, warmup=5)
    alone = make(curve["decay"], peak_lr=1.0, total_steps=25, warmup=4)
    assert schedule.lr(np.arange(25, 60)).tolist() == alone.lr(np.arange(35)).tolist()
    assert schedule.lr(25 + 9) == 1.0
    assert schedule.lr(25 + 16) == math.sqrt(9 / 16)
    at_once = {"decay": {"shape": "inverse_sqrt", "hold": False}, "warmup": {"steps": 4}}
    assert make({"shape": "piecewise", "pieces": [{"steps": 20}, at_once]}).decay.pieces[1].decay.timescale == 4


def test_ten_thousand_pieces() -> None:
    pieces = [{"steps": 2, "peak_ratio": 1 / (i + 1), "decay": {"shape": "linear"}} for i in range(10_000)]
    schedule = make({"shape": "piecewise", "pieces": pieces}, peak_lr=1.0, total_steps=20_000, warmup=0)
    k = np.arange(20_100)
    assert schedule.lr(k).tolist() == [schedule.lr(i) for i in range(20_100)]
    assert schedule.lr(2 * 9_999) == 0.5 / 10_000
    assert "9995 more pieces" in schedule.describe()


def test_a_multiple_has_no_unit() -> None:
    with pytest.raises(ScheduleError) as caught:
        make({"shape": "cosine", "after": "restart", "cycle_mult": "50%"})
    assert str(caught.value) == "decay.cycle_mult: '50%' is not a whole number; write one such as 2"


REFUSED = [
    ({"shape": "polynomial", "power": 0}, "decay.power: 0.0 is not above 0; write one such as 2"),
    ({"shape": "polynomial", "decay_steps": 60}, "decay.decay_steps: 60 is longer than the 45 updates from the end of the warm-up to total_steps; write at most 45, or allow_unfinished: true if the run shall end before the decay"),
    ({"shape": "wsd"}, "decay.decay_steps: is missing; it has no default"),
    ({"shape": "wsd", "decay_steps": 46}, "decay.decay_steps: 46 is longer than the 45 updates from the end of the warm-up to total_steps; write at most 45, or allow_unfinished: true if the run shall end before the decay"),
    ({"shape": "wsd", "decay_steps": 5, "decay_shape": "sqrt"}, "decay.decay_shape: unknown choice 'sqrt'; did you mean '1-sqrt'? known: linear, cosine, 1-sqrt"),
    ({"shape": "inverse_sqrt", "timescale": 0}, "decay.timescale: 0 is too short; it must be at least 1"),
    ({"shape": "one_cycle", "up_steps": 10}, "warmup.steps: 5 before decay shape one_cycle, which brings its own rise; leave the warm-up out"),
    ({"shape": "cosine", "cycle_mult": 2}, "decay.cycle_mult: 2 has no effect with after: hold; write after: restart"),
    ({"shape": "cosine", "after": "rise", "cycle_gamma": 0.5}, "decay.cycle_gamma: 0.5 has no effect with after: rise; write after: restart"),
    ({"shape": "cosine", "after": "restart", "cycle_mult": 0}, "decay.cycle_mult: 0 is too short; it must be at least 1"),
    ({"shape": "cosine", "after": "restart", "cycle_gamma": 2}, "decay.cycle_gamma: 2.0 is not above 0 and at most 1; the peak is the highest learning rate"),
    ({"shape": "piecewise", "pieces": []}, "decay.pieces: [] is not a list of pieces; write one such as [{steps: 100}, {}]"),
    ({"shape": "piecewise", "pieces": [{}, {}]}, "decay.pieces[0].steps: is missing; only the last piece may leave it out"),
    ({"shape": "piecewise", "pieces": [{"steps": 50}, {}]}, "decay.pieces[0].steps: the pieces have 50 updates together, the decay has 45; make them equal, or leave out the steps of the last piece"),
    ({"shape": "piecewise", "pieces": [{"steps": 45}, {}]}, "decay.pieces[1].steps: the pieces have 45 updates together, the decay has 45; make them equal, or leave out the steps of the last piece"),
    ({"shape": "piecewise", "pieces": [{"steps": 20}, {"steps": 20}]}, "decay.pieces[1].steps: the pieces have 40 updates together, the decay has 45; make them equal, or leave out the steps of the last piece"),
    ({"shape": "piecewise", "pieces": [{"peak_ratio": 1.5}]}, "decay.pieces[0].peak_ratio: 1.5 is not from 0 to 1; it is a part of peak_lr"),
    ({"shape": "piecewise", "pieces": [{"stpes": 3}]}, "decay.pieces[0].stpes: unknown key 'stpes'; did you mean 'steps'? known: steps, peak_ratio, warmup, decay"),
    ({"shape": "piecewise", "pieces": [{"decay": {"shape": "cosine", "t_max": 99}}]}, "decay.pieces[0].decay.t_max: 99 is longer than the 45 updates from the end of the warm-up to total_steps; write at most 45, or allow_unfinished: true if the run shall end before the decay"),
    ({"shape": "piecewise", "pieces": [{"warmup": {"steps": 46}}]}, "decay.pieces[0].warmup.steps: 46 is more than the piece's 45 updates; shorten the warm-up or lengthen the piece"),
    ({"shape": "piecewise", "pieces": [{"warmup": {"steps": 3}, "decay": {"shape": "one_cycle", "up_steps": 3}}]}, "decay.pieces[0].warmup.steps: 3 before decay shape one_cycle, which brings its own rise; leave the warm-up out"),
    ({"shape": "deepspeed.WarmupLr"}, "decay.shape: unknown shape 'deepspeed.WarmupLr'; did you mean 'deepspeed.WarmupLR'? known: deepspeed.WarmupLR, deepspeed.WarmupDecayLR, deepspeed.WarmupCosineLR, deepspeed.OneCycle, deepspeed.LRRangeTest"),
]  # fmt: skip


@pytest.mark.parametrize(("decay", "says"), REFUSED)
def test_refusals(decay: dict[str, Any], says: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        make(decay)
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("decay", "says"),
    [
        ({"up_steps": 1}, "decay.up_steps: 1 is too short; it must be at least 2"),
        ({"up_steps": 50}, "decay.up_steps: 50 leaves no way down in a run of 50 updates; shorten it, or make the run at least 51 updates"),
        ({"up_steps": 26, "three_phase": True}, "decay.up_steps: 26 leaves no way down in a run of 50 updates; shorten it, or make the run at least 52 updates"),
        ({"up_steps": 9, "start_ratio": 2}, "decay.start_ratio: 2.0 is not from 0 to 1; it is a part of peak_lr"),
        ({"up_steps": 9, "end_ratio": 0.5, "three_phase": True}, "decay.end_ratio: 0.5 is above start_ratio 0.04; lower it"),
    ],
)  # fmt: skip
def test_one_cycle_refusals(decay: dict[str, Any], says: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        make({"shape": "one_cycle", **decay}, warmup=0)
    assert str(caught.value) == says


@pytest.mark.parametrize("name", DECAYS)
@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_runs(name: str, total: int) -> None:
    """One update, T = W, W = 0, 1 and 2: a schedule, or a refusal with the numbers."""
    for warm in range(total + 1):
        mapping = {"peak_lr": 1e-3, "total_steps": total, "warmup": {"steps": warm}, "decay": DECAYS[name]}
        refusal = ""
        try:
            schedule = Schedule.from_dict(mapping)
        except ScheduleError as error:
            refusal = str(error)
        if refusal:
            assert refusal.startswith(("decay.", "warmup.steps: "))
            assert any(digit in refusal for digit in "0123456789") or "leaves no update" in refusal
            continue
        values = schedule.lr(np.arange(total + 2))
        assert (values >= 0.0).all()
        assert (values <= 1e-3).all()
        assert schedule.describe()


def test_every_shape_has_cases() -> None:
    assert {decay["shape"] for decay in DECAYS.values()} == set(SHAPES)


@pytest.mark.parametrize("name", [name for name in DECAYS if name != "polynomial-root"])
def test_a_million_updates_at_once(name: str) -> None:
    """20 ms are promised on an idle machine (benchmarks/schedule_speed.py); five times that here."""
    schedule, k = make(name), np.arange(10**6)
    schedule.lr(k[:10])
    spent = []
    for _ in range(3):
        start = time.process_time()
        schedule.lr(k)
        spent.append(time.process_time() - start)
    assert min(spent) < 0.1
