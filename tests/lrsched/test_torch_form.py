"""The torch scheduler: what it writes, what it saves, and how it resumes."""

from __future__ import annotations

import dataclasses
import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from schedule_cases import DECAYS, make, schedules

from lrsched import Schedule, ScheduleError
from lrsched.torch_form import ScheduleLR


def sgd(*lrs: Any) -> torch.optim.Optimizer:
    """An optimizer with one group for each learning rate."""
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs], lr=lrs[0])


def train(optimizer: torch.optim.Optimizer, scheduler: Any, updates: int) -> list[list[float]]:
    """The learning rates of the groups at each update of a plain loop."""
    used = []
    for _ in range(updates):
        used.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return used


@pytest.mark.parametrize("decay", DECAYS)
def test_trains_at_lr_of_k(decay: str) -> None:
    schedule, optimizer = make(decay), sgd(1e-3)
    used = train(optimizer, schedule.to_torch(optimizer), 60)
    assert used == [[schedule.lr(k)] for k in range(60)]


def test_is_a_real_torch_scheduler() -> None:
    scheduler = make("cosine").to_torch(sgd(1e-3))
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert scheduler.get_last_lr() == [0.0]
    assert scheduler.k == scheduler.last_epoch == 0
    # What DeepSpeed asks of a scheduler it is given.
    assert bool(scheduler)
    assert not callable(scheduler)
    assert not hasattr(scheduler, "__len__")


def test_groups_keep_their_ratio() -> None:
    schedule, optimizer = make("cosine"), sgd(1e-3, 1e-4, 2e-3, 0.0)
    for k, used in enumerate(train(optimizer, schedule.to_torch(optimizer), 60)):
        lr = schedule.lr(k)
        assert used[0] == lr
        assert used[1:] == pytest.approx([lr * 0.1, lr * 2.0, 0.0], rel=4e-16, abs=0.0)


def test_an_optimizer_that_never_trains_at_the_peak_is_refused() -> None:
    with pytest.raises(ScheduleError) as caught:
        make("cosine").to_torch(sgd(1e-2, 1e-4))
    assert str(caught.value) == (
        "optimizer: no parameter group has lr = peak_lr 0.001; the groups have [0.01, 0.0001]; "
        "build the optimizer with lr=peak_lr; other groups keep their ratio to it"
    )


def test_what_is_not_an_optimizer_is_refused() -> None:
    with pytest.raises(ScheduleError, match="optimizer: Linear is not a torch Optimizer; give the innermost one"):
        make("cosine").to_torch(torch.nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(ScheduleError, match="on_mismatch: unknown choice 'newer'; did you mean 'new'"):
        make("cosine").to_torch(sgd(1e-3), on_mismatch="newer")


def test_step_ignores_whatever_it_is_given() -> None:
    """DeepSpeed calls step(train_batch_size) after a TypeError, and passes lr_kwargs along."""
    schedule, optimizer = make("cosine"), sgd(1e-3)
    scheduler = schedule.to_torch(optimizer)
    optimizer.step()
    for args, kwargs in (((), {}), ((128,), {}), ((), {"epoch": 3}), ((None, "x"), {"last_batch_iteration": 7})):
        scheduler.step(*args, **kwargs)
    assert scheduler.k == 4
    assert optimizer.param_groups[0]["lr"] == schedule.lr(4)


def test_wrong_order_is_torchs_own_warning() -> None:
    scheduler = make("cosine").to_torch(sgd(1e-3))
    with pytest.warns(UserWarning, match="before `optimizer.step\\(\\)`"):
        scheduler.step()


def test_group_dicts_may_be_replaced_and_added() -> None:
    schedule, optimizer = make("cosine"), sgd(1e-3, 1e-4)
    scheduler = schedule.to_torch(optimizer)
    train(optimizer, scheduler, 3)
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 5e-4})
    train(optimizer, scheduler, 3)
    lr = schedule.lr(6)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([lr, lr * 0.1, lr * 0.5], rel=4e-16)
    assert scheduler.get_last_lr() == [g["lr"] for g in optimizer.param_groups]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensor_learning_rates_are_filled_in_place(dtype: torch.dtype) -> None:
    schedule, lr = make("cosine"), torch.tensor(1e-3, dtype=dtype)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=lr, capturable=False, foreach=False)
    held = optimizer.param_groups[0]["lr"]
    scheduler = schedule.to_torch(optimizer)
    for k in range(60):
        assert optimizer.param_groups[0]["lr"] is held
        assert held.item() == torch.tensor(schedule.lr(k), dtype=dtype).item()
        optimizer.step()
        scheduler.step()
    last = scheduler.get_last_lr()[0]
    assert torch.equal(last, held)
    assert last is not held


def test_an_optimizer_that_was_scheduled_before_keeps_its_bases() -> None:
    optimizer = sgd(1e-3, 1e-4)
    train(optimizer, make("cosine").to_torch(optimizer), 30)
    schedule = make("step")
    for k, used in enumerate(train(optimizer, schedule.to_torch(optimizer), 10)):
        assert used == pytest.approx([schedule.lr(k), schedule.lr(k) * 0.1], rel=4e-16, abs=0.0)


def test_state_is_plain_data() -> None:
    optimizer = sgd(1e-3, 1e-4)
    scheduler = make("cosine").to_torch(optimizer)
    train(optimizer, scheduler, 7)
    state = scheduler.state_dict()
    assert state == {
        "k": 7,
        "fingerprint": scheduler.schedule.fingerprint,
        "definition": scheduler.schedule.to_dict(),
        "scales": [1.0, 0.1],
    }
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    assert torch.load(stream, weights_only=True) == state


def _optimizer_first(optimizer: Any, states: Any, build: Callable[[], Any]) -> Any:
    optimizer.load_state_dict(states[0])
    scheduler = build()
    scheduler.load_state_dict(states[1])
    return scheduler


def _optimizer_between(optimizer: Any, states: Any, build: Callable[[], Any]) -> Any:
    scheduler = build()
    optimizer.load_state_dict(states[0])
    scheduler.load_state_dict(states[1])
    return scheduler


def _optimizer_last(optimizer: Any, states: Any, build: Callable[[], Any]) -> Any:
    scheduler = build()
    scheduler.load_state_dict(states[1])
    optimizer.load_state_dict(states[0])
    return scheduler


def _no_optimizer(optimizer: Any, states: Any, build: Callable[[], Any]) -> Any:
    scheduler = build()
    scheduler.load_state_dict(states[1])
    return scheduler


ORDERS = [_optimizer_first, _optimizer_between, _optimizer_last, _no_optimizer]


@pytest.mark.parametrize("order", ORDERS)
@given(schedule=schedules(longest=40), k=st.integers(0, 45))
def test_resumes_at_any_k_whatever_is_loaded_first(order: Any, schedule: Schedule, k: int) -> None:
    peak = schedule.peak_lr
    optimizer = sgd(peak, peak / 8)
    scheduler = schedule.to_torch(optimizer)
    train(optimizer, scheduler, k)
    states = optimizer.state_dict(), scheduler.state_dict()
    unbroken = train(optimizer, scheduler, 10)
    fresh = sgd(peak, peak / 8)
    resumed = order(fresh, states, lambda: schedule.to_torch(fresh))
    assert resumed.k == k
    assert train(fresh, resumed, 10) == unbroken


def test_loading_writes_the_learning_rate_at_once() -> None:
    schedule, optimizer = make("cosine"), sgd(1e-3)
    scheduler = schedule.to_torch(optimizer)
    scheduler.load_state_dict({**scheduler.state_dict(), "k": 17})
    assert optimizer.param_groups[0]["lr"] == schedule.lr(17)
    assert scheduler.get_last_lr() == [schedule.lr(17)]


def test_seek_goes_anywhere() -> None:
    schedule, optimizer = make("cosine"), sgd(1e-3)
    scheduler = schedule.to_torch(optimizer)
    for k in (30, 3, 10**12, 0):
        scheduler.seek(k)
        assert (scheduler.k, optimizer.param_groups[0]["lr"]) == (k, schedule.lr(k))


OLD = make({"shape": "cosine", "t_max": 40})
NEW = make({"shape": "cosine", "t_max": 45}, peak_lr=2e-3)


def _old_states() -> tuple[dict[str, Any], dict[str, Any]]:
    optimizer = sgd(1e-3, 1e-4)
    scheduler = OLD.to_torch(optimizer)
    train(optimizer, scheduler, 20)
    return optimizer.state_dict(), scheduler.state_dict()


def test_another_schedule_is_refused_with_the_differences() -> None:
    scheduler = NEW.to_torch(sgd(2e-3, 2e-4))
    with pytest.raises(ScheduleError) as caught:
        scheduler.load_state_dict(_old_states()[1])
    assert str(caught.value) == (
        "state_dict: the checkpoint was trained with another schedule (peak_lr 0.001 there, 0.002 here, "
        'decay.t_max 40 there, 45 here); use the same one, or on_mismatch="checkpoint" or "new" to say which wins'
    )
    assert (scheduler.k, scheduler.schedule) == (0, NEW)


@pytest.mark.parametrize("order", [_optimizer_first, _optimizer_between, _no_optimizer])
@pytest.mark.parametrize(("who", "wins"), [("checkpoint", OLD), ("new", NEW)])
def test_who_wins_can_be_said(order: Any, who: str, wins: Schedule) -> None:
    optimizer = sgd(2e-3, 2e-4)
    scheduler = order(optimizer, _old_states(), lambda: NEW.to_torch(optimizer, on_mismatch=who))
    assert scheduler.schedule == wins
    for k, used in enumerate(train(optimizer, scheduler, 10), start=20):
        assert used == pytest.approx([wins.lr(k), wins.lr(k) * 0.1], rel=4e-16, abs=0.0)


def test_the_backend_is_not_a_difference() -> None:
    scheduler = dataclasses.replace(OLD, backend="torch").to_torch(sgd(1e-3, 1e-4))
    scheduler.load_state_dict(_old_states()[1])
    assert scheduler.k == 20


def test_other_group_ratios_are_refused_or_decided() -> None:
    state = _old_states()[1]
    with pytest.raises(ScheduleError, match=r"relate to peak_lr as \[1.0, 0.1\] in the checkpoint and as \[1.0, 0.5\]"):
        OLD.to_torch(sgd(1e-3, 5e-4)).load_state_dict(state)
    for who, scale in (("checkpoint", 0.1), ("new", 0.5)):
        optimizer = sgd(1e-3, 5e-4)
        OLD.to_torch(optimizer, on_mismatch=who).load_state_dict(state)
        assert optimizer.param_groups[1]["lr"] == pytest.approx(OLD.lr(20) * scale, rel=4e-16)


def test_foreign_states_are_refused() -> None:
    scheduler = OLD.to_torch(sgd(1e-3))
    with pytest.raises(ScheduleError) as caught:
        scheduler.load_state_dict({"last_batch_iteration": 6})
    assert str(caught.value) == (
        "state_dict: not the state of a Schedule: no 'k' among ['last_batch_iteration']; "
        "it was saved by another kind of scheduler; resume with that one"
    )
    with pytest.raises(ScheduleError, match="saved for 2 parameter groups, the optimizer has 1"):
        scheduler.load_state_dict(_old_states()[1])


def test_no_warnings_in_an_ordinary_run_and_resume() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = sgd(1e-3, 1e-4)
        scheduler = ScheduleLR(optimizer, OLD)
        states = _old_states()
        optimizer.load_state_dict(states[0])
        scheduler.load_state_dict(states[1])
        train(optimizer, scheduler, 3)
