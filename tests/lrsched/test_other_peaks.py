"""An optimizer whose learning rate is not the schedule's peak is refused, or set right, in every form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from schedule_cases import make

from lrsched import ScheduleError


def sgd(*lrs: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs], lr=lrs[0])


@pytest.mark.parametrize("config", [None, {"train_batch_size": 1}])
def test_deepspeeds_own_scheduler_is_not_bound_to_another_lr(config: Any) -> None:
    with pytest.raises(ScheduleError) as caught:
        make("cosine").initialize_kwargs(sgd(5e-3), config)
    assert str(caught.value) == (
        "optimizer: no parameter group has lr = peak_lr 0.001; the groups have [0.005]; "
        "build the optimizer with lr=peak_lr; other groups keep their ratio to it"
    )


def test_nor_to_an_optimizer_of_the_config_with_another_lr() -> None:
    config = {"optimizer": {"type": "Adam", "params": {"lr": 0.5}}}
    with pytest.raises(ScheduleError) as caught:
        make("cosine").initialize_kwargs(config=config)
    assert str(caught.value) == ("config.optimizer.params.lr: 0.5 is not peak_lr 0.001; write the same number in both")


@pytest.mark.parametrize(
    ("config", "says"), [("ds.json", "config: 'ds.json' is not a mapping"), ([1], "config: [1] is")]
)
def test_a_config_is_a_mapping(config: Any, says: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        make("cosine").initialize_kwargs(config=config)
    assert str(caught.value).startswith(says)


def test_a_tensor_lr_is_the_peak_rounded() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=torch.tensor(1e-3))
    linear = make("linear-from-peak")
    assert type(linear.initialize_kwargs(optimizer)["lr_scheduler"]).__name__ == "OneCycle"


@pytest.mark.parametrize("peak", [2e-4, 5e-3])
def test_a_second_schedule_with_another_peak_trains_at_its_own(peak: float) -> None:
    optimizer = sgd(1e-3, 1e-4)
    make("cosine").to_torch(optimizer)
    second = make("cosine", peak_lr=peak)
    scheduler = second.to_torch(optimizer)
    for k in range(50):
        lrs = [group["lr"] for group in optimizer.param_groups]
        assert lrs[0] == second.lr(k)
        assert lrs[1] == pytest.approx(second.lr(k) * 0.1, rel=1e-15)
        optimizer.step()
        scheduler.step()


STATES = [
    (None, "state_dict: None is not a state"),
    ({"k": -5}, "state_dict: k is -5, no number of updates"),
    ({"k": 1.5}, "state_dict: k is 1.5, no number of updates"),
    ({"k": None}, "state_dict: k is None, no number of updates"),
    ({"scales": None}, "state_dict: its scales or definition are no list and mapping"),
    ({"definition": None}, "state_dict: its scales or definition are no list and mapping"),
]


@pytest.mark.parametrize(("damage", "says"), STATES)
def test_a_damaged_state_changes_nothing(damage: Any, says: str) -> None:
    scheduler = make("cosine").to_torch(sgd(1e-3), on_mismatch="checkpoint")
    state = make("wsd").to_torch(sgd(1e-3)).state_dict()
    before = scheduler.schedule
    with pytest.raises(ScheduleError) as caught:
        scheduler.load_state_dict(None if damage is None else state | damage)
    assert str(caught.value).startswith(says)
    assert scheduler.schedule is before
    assert scheduler.k == 0
