"""Drawing points and turning them into runs."""

import math
from collections import Counter

import numpy as np
import pytest

from recipes.errors import UserError
from recipes.storage import Storage
from recipes.sweeping.distributions import Distribution
from recipes.sweeping.space import all_combinations, draw, extreme_points, parse_space
from recipes.sweeping.sweep_config import load_sweep
from recipes.sweeping.trial import TrialMaker
from recipes.sweeping.trial_process import name_of_sweep
from tests.sweeping.small_sweep import small_sweep

FAMILIES = {
    "schedule": [
        {
            "family": "cosine",
            "t_max": {"uniform": ["50% of decay", "100% of decay"]},
            "after": {"grid": ["hold", "rise"]},
        },
        {"family": "multistep", "milestones": [{"randint": [10, 20]}, {"randint": [30, 40]}], "gamma": 0.1},
        {"family": "one_cycle", "warmup": None, "up_steps": "20%", "peak_lr": {"choice": [0.5, 0.25]}},
    ],
    "schedule.peak_lr": {"loguniform": [1e-4, 1e-1]},
    "training.clip_norm": {"uniform": [0.5, 1.0]},
}


def test_families_come_in_turn_and_so_do_the_combinations_of_their_grids():
    space = parse_space(FAMILIES)
    points = [draw(space, 7, number) for number in range(24)]
    for begin in range(0, 24, 3):
        assert sorted(point["family"] for point in points[begin : begin + 3]) == ["cosine", "multistep", "one_cycle"]
    after = [point["cosine.after"] for point in points if point["family"] == "cosine"]
    assert after == ["hold", "rise"] * 4


def test_a_trial_depends_on_its_number_and_the_seed_alone():
    space = parse_space(FAMILIES)
    assert draw(space, 7, 5) == draw(space, 7, 5)
    assert draw(space, 7, 5) != draw(space, 8, 5)
    assert len({repr(draw(space, 7, number)) for number in range(50)}) == 50


@pytest.mark.parametrize(
    ("kind", "low", "high", "middle"),
    [("uniform", 2.0, 6.0, 4.0), ("loguniform", 1e-4, 1e-2, 1e-3), ("randint", 2, 7, 4)],
)
def test_ranges_are_drawn_from_as_their_name_says(kind, low, high, middle):
    rng = np.random.default_rng(0)
    values = [Distribution(kind, (low, high)).draw(rng) for _ in range(4000)]
    assert low <= min(values) < max(values) <= high
    # 4000 draws: the median is within three standard errors (0.5 / sqrt(4000) each) of the middle's rank.
    below = sum(value < middle for value in values) / len(values)
    expected = 2 / 5 if kind == "randint" else 0.5
    assert abs(below - expected) < 3 * 0.5 / math.sqrt(4000)
    if kind == "randint":
        assert sorted(Counter(values)) == [2, 3, 4, 5, 6]  # the upper bound itself is left out


def test_percentages_stay_text_with_their_unit():
    value = Distribution("uniform", (50.0, 100.0), "% of decay").draw(np.random.default_rng(0))
    number = value.removesuffix("% of decay")
    assert 50 <= float(number) <= 100
    assert value == f"{number}% of decay"


def test_a_familys_own_fields_go_before_those_common_to_all():
    space = parse_space(FAMILIES)
    point = next(p for p in (draw(space, 7, n) for n in range(3)) if p["family"] == "one_cycle")
    assert "schedule.peak_lr" not in point
    overrides = space.overrides(point)
    assert overrides["schedule.peak_lr"] in (0.5, 0.25)
    assert overrides["schedule.warmup"] is None
    assert overrides["schedule.decay"] == {"shape": "one_cycle", "up_steps": "20%"}
    assert 0.5 <= overrides["training.clip_norm"] <= 1.0


def test_every_combination_of_grids():
    space = parse_space(
        {
            "schedule": [{"family": "linear"}, {"family": "step", "step_size": {"grid": [5, 9]}, "gamma": 0.5}],
            "schedule.peak_lr": {"grid": [1e-3, 1e-2]},
        }
    )
    points = all_combinations(space)
    assert [tuple(point.values()) for point in points] == [
        *(("linear", 1e-3), ("linear", 1e-2)),
        *(("step", 5, 1e-3), ("step", 5, 1e-2), ("step", 9, 1e-3), ("step", 9, 1e-2)),
    ]
    with pytest.raises(UserError, match=r"space.schedule.peak_lr: uniform with search: grid"):
        all_combinations(parse_space({"schedule.peak_lr": {"uniform": [1, 2]}}))


def test_extreme_points_are_all_ends_of_all_ranges():
    space = parse_space({"schedule.peak_lr": {"uniform": [1, 2]}, "training.examples_per_update": {"randint": [8, 65]}})
    assert {tuple(point.values()) for point in extreme_points(space, None)} == {
        (1.0, 8),
        (1.0, 64),
        (2.0, 8),
        (2.0, 64),
    }


@pytest.fixture
def maker(pairs, tmp_path):
    def make(*overrides, **kwargs):
        config = load_sweep(*_split(small_sweep(pairs, tmp_path / "sweeps", *overrides, **kwargs)))
        return TrialMaker.of_sweep(config, parse_space(config.space), lambda text: None, Storage(tmp_path / "cache"))

    return make


def _split(arguments):
    return arguments[0], arguments[1:]


def test_lengths_in_percent_of_the_decay_become_updates(maker):
    # 16 updates, 3 of them warm-up: 50 % of the 13 left are 6.5, rounded upwards.
    config = maker().config(
        {"family": "cosine", "cosine.t_max": "50% of decay", "cosine.eta_min": 1e-5, "schedule.peak_lr": 0.01}
    )
    assert config.schedule.decay["t_max"] == 7
    assert config.schedule.decay["eta_min"] == 1e-5
    assert config.schedule.peak_lr == 0.01
    assert config.schedule.warmup["steps"] == 3
    assert config.schedule.total_steps == 16


def test_a_trial_knows_its_sweep_by_the_place_it_lies_in(maker):
    job = maker().job({"family": "wsd", "schedule.peak_lr": 0.01}, "000")
    assert (name_of_sweep(job), job.run_folder.local.name) == ("small", "000")


def test_an_impossible_combination_is_refused_with_its_values(maker):
    space = "space: {schedule: [{family: cosine, t_max: {uniform: ['50%', '90%']}}], schedule.warmup.steps: {choice: [0, 3]}}"
    with pytest.raises(UserError) as refused:
        maker(space=space).check_space()
    assert str(refused.value) == (
        "space: cosine with t_max 90%, schedule.warmup.steps 3: schedule.decay.t_max: 14 is longer than the 13 updates from "
        "the end of the warm-up to total_steps; write at most 13, or allow_unfinished: true if the run shall end before the decay"
    )


def test_a_warm_up_before_one_cycle_is_refused(maker):
    with pytest.raises(UserError, match=r"space: one_cycle: schedule.warmup.steps: 3 before decay shape one_cycle"):
        maker(space="space: {schedule: [{family: one_cycle, up_steps: 4}]}").check_space()
    maker(space="space: {schedule: [{family: one_cycle, warmup: null, up_steps: 4}]}").check_space()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"schedule": [{"family": "cosin"}]}, "space.schedule[0].family: unknown 'cosin', did you mean 'cosine'?"),
        (
            {"schedule": [{"family": "cosine", "tmax": 3}]},
            "space.schedule[0]: unknown key 'tmax' of family cosine, did you mean 't_max'?",
        ),
        ({"schedule.peak": {"choice": [1]}}, "space: unknown field 'schedule.peak', did you mean 'schedule.peak_lr'?"),
        (
            {"data.source": {"choice": ["a"]}},
            "space.data.source cannot vary: losses over other texts or tokens cannot be compared",
        ),
        ({"schedule.peak_lr": 0.1}, "space: nothing varies; give a list of families under schedule, or a distribution"),
        (
            {"schedule.peak_lr": {"uniform": [2, 1]}},
            "space.schedule.peak_lr: uniform [2, 1]: the first bound must be below the second",
        ),
        (
            {"schedule.peak_lr": {"loguniform": [0, 1]}},
            "space.schedule.peak_lr: loguniform [0, 1]: both bounds above 0, whose logarithms are drawn from; use uniform, or raise 0",
        ),
        (
            {"schedule": [{"family": "linear", "decay_steps": {"uniform": ["5%", 9]}}]},
            "space.linear.decay_steps: uniform ['5%', 9]: both bounds in the same unit, please",
        ),
        (
            {"schedule.peak_lr": {"uniform": ["a", 1]}},
            "space.schedule.peak_lr: uniform ['a', 1]: 'a' is not a number, nor a length such as '40%' or '40% of decay'",
        ),
        ({"schedule.peak_lr": {"choice": []}}, "space.schedule.peak_lr: choice []: write {choice: [a, b, ...]}"),
    ],
)
def test_a_space_that_makes_no_sense_is_one_line(space, message):
    with pytest.raises(UserError) as refused:
        parse_space(space)
    assert str(refused.value) == message
