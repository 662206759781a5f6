"""The learning rates of a branch, what a loss foretells after it, and settings that make no score."""

import pytest

from lrsched import Schedule
from recipes.errors import UserError
from recipes.sweeping.scoring import Scoring, branch_lrs, floor_lr, lr_sum_share, project


def schedule(decay, warmup_steps=0):
    return Schedule.from_dict(
        {"peak_lr": 1.0, "total_steps": 100, "warmup": {"steps": warmup_steps}, "decay": decay, "backend": "torch"}
    )


@pytest.mark.parametrize(
    ("decay", "floor"),
    [
        ({"shape": "cosine", "eta_min": 0.2}, 0.2),
        ({"shape": "wsd", "decay_steps": 10, "eta_min": 0.1}, 0.1),
        ({"shape": "linear"}, 0.0),
        ({"shape": "one_cycle", "up_steps": 10, "end_ratio": 0.25}, 0.25),
        ({"shape": "step", "step_size": 10}, 0.0),
        ({"shape": "constant"}, 0.0),
    ],
)
def test_floor(decay, floor):
    assert floor_lr(schedule(decay)) == floor


def test_a_branch_falls_from_the_present_lr_to_the_floor_without_reaching_either():
    flat = schedule({"shape": "wsd", "decay_steps": 10, "eta_min": 0.2})
    assert branch_lrs(flat, 40, 0.1, "floor") == pytest.approx([0.9, 0.7, 0.5, 0.3])
    assert branch_lrs(flat, 3, 0.1, "floor") == pytest.approx([0.6])  # at least one update


def test_below_its_floor_a_schedule_keeps_its_lr():
    rising = schedule({"shape": "cosine", "eta_min": 0.5}, warmup_steps=50)
    assert rising.lr(10) == 0.2
    assert branch_lrs(rising, 10, 0.2, "floor") == [0.2, 0.2]


def test_a_branch_does_the_rest_of_the_schedule_in_fewer_updates():
    steps = schedule({"shape": "multistep", "milestones": [60, 80], "gamma": 0.1})
    # 60 updates are left after 40: 20 at the peak, 20 at a tenth, 20 at a hundredth.
    assert branch_lrs(steps, 40, 0.15, "rest") == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01, 0.01])
    line = schedule({"shape": "linear", "ends_at_min": False})
    assert branch_lrs(line, 50, 0.1, "rest") == pytest.approx([0.45, 0.35, 0.25, 0.15, 0.05])


def test_a_branch_of_the_rest_is_never_longer_than_the_rest():
    line = schedule({"shape": "linear", "ends_at_min": False})
    assert branch_lrs(line, 97, 0.5, "rest") == pytest.approx([0.03, 0.02, 0.01])


def test_the_share_of_the_lr_is_that_of_the_schedule_whatever_its_peak():
    assert lr_sum_share(schedule({"shape": "constant"}), 25, []) == pytest.approx(0.25)
    assert lr_sum_share(schedule({"shape": "constant"}), 25, [1.0] * 5) == pytest.approx(0.3)
    line = schedule({"shape": "linear", "ends_at_min": False})
    # 1 + 0.99 + ... + 0.51 of 1 + 0.99 + ... + 0.01.
    assert lr_sum_share(line, 50, []) == pytest.approx(37.75 / 50.5)
    higher = Schedule.from_dict(
        {"peak_lr": 7.0, "total_steps": 100, "decay": {"shape": "linear", "ends_at_min": False}}
    )
    assert lr_sum_share(higher, 50, []) == pytest.approx(lr_sum_share(line, 50, []), rel=1e-12)


def test_of_equal_losses_the_one_with_more_lr_to_come_is_projected_lower():
    assert project(5.0, 0.25, 0.076) == pytest.approx(5.0 * 0.25**0.076)
    assert project(5.0, 0.25, 0.076) < project(5.0, 0.75, 0.076) < project(5.0, 1.0, 0.076) == 5.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "anealed"}, "scoring.method: unknown 'anealed', did you mean 'annealed'?"),
        ({"branch_path": "rst"}, "scoring.branch_path: unknown 'rst', did you mean 'rest'?"),
        ({"method": "annealed", "branch_ratio": 0.0}, "scoring.branch_ratio is 0.0: give more than 0 and at most 1, a part of the updates made"),
        ({"branch_ratio": -0.1}, "scoring.branch_ratio is -0.1: give more than 0 and at most 1, a part of the updates made"),
        ({"projection_exponent": 0.0}, "scoring.projection_exponent is 0.0: give more than 0 and at most 1; 0.05 to 0.1 is usual"),
        ({"averaged_ratio": 1.5}, "scoring.averaged_ratio is 1.5: give more than 0 and at most 1, a part of the updates made"),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UserError) as refusal:
        Scoring(**settings)
    assert str(refusal.value) == message
