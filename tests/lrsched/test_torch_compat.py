"""The torch scheduler in the loops people write: optimizers, GradScaler, torch.compile, accelerate, torch's own."""

from __future__ import annotations

import copy
import io
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from schedule_cases import make, schedules
from torch.optim import lr_scheduler

from lrsched import Schedule, ScheduleError
from lrsched.torch_form import _BLOCK, ScheduleLR

PEAK = 1e-3
SCHEDULE = make("cosine")

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=0.9),
    "SGD-foreach": lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=0.9, foreach=True),
    "SGD-fused": lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=0.9, fused=True),
    "AdamW": lambda groups, lr: torch.optim.AdamW(groups, lr=lr, foreach=False),
    "AdamW-foreach": lambda groups, lr: torch.optim.AdamW(groups, lr=lr, foreach=True),
    "AdamW-fused": lambda groups, lr: torch.optim.AdamW(groups, lr=lr, fused=True),
    "Adafactor": lambda groups, lr: torch.optim.Adafactor(groups, lr=lr),
}
# torch refuses a tensor lr for AdamW(foreach=True) unless it is captured.
TENSOR_LR = [name for name in OPTIMIZERS if name != "AdamW-foreach"]


def optimizer_of(kind: str, *lrs: Any) -> torch.optim.Optimizer:
    """One group for each learning rate, of one small matrix with numbers of its own."""
    values = [torch.linspace(-1.0, 1.0 + i, 6).reshape(2, 3) for i in range(len(lrs))]
    groups = [{"params": [torch.nn.Parameter(value)], "lr": lr} for value, lr in zip(values, lrs, strict=True)]
    return OPTIMIZERS[kind](groups, lr=lrs[0])


def parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for group in optimizer.param_groups for parameter in group["params"]]


def backward(optimizer: torch.optim.Optimizer, factor: float = 1.0) -> torch.Tensor:
    optimizer.zero_grad()
    loss = torch.stack([(p * p * p).sum() for group in optimizer.param_groups for p in group["params"]]).sum()
    return loss * factor


def train(optimizer: torch.optim.Optimizer, scheduler: Any, updates: int) -> list[list[float]]:
    """The learning rates of the groups at each update of a plain loop."""
    used = []
    for _ in range(updates):
        backward(optimizer).backward()
        used.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return used


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_groups_keep_their_ratio_in_every_optimizer(kind: str) -> None:
    lrs = [PEAK, PEAK / 10, PEAK * 2, 0.0]
    optimizer = optimizer_of(kind, *lrs)
    scheduler = SCHEDULE.to_torch(optimizer)
    assert isinstance(scheduler, lr_scheduler.LRScheduler)
    before = parameters(optimizer)
    for k, used in enumerate(train(optimizer, scheduler, 60)):
        assert used == [SCHEDULE.lr(k) * (lr / PEAK) for lr in lrs]
    moved = [not torch.equal(one, other) for one, other in zip(before, parameters(optimizer), strict=True)]
    assert moved == [True, True, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", TENSOR_LR)
def test_tensor_learning_rates_keep_their_storage(kind: str, dtype: torch.dtype) -> None:
    optimizer = optimizer_of(kind, torch.tensor(PEAK, dtype=dtype), torch.tensor(PEAK / 4, dtype=dtype))
    held = [group["lr"] for group in optimizer.param_groups]
    places = [lr.data_ptr() for lr in held]
    scheduler = SCHEDULE.to_torch(optimizer)
    for k in range(60):
        wanted = torch.tensor([SCHEDULE.lr(k), SCHEDULE.lr(k) * scheduler._scales[1]], dtype=dtype)
        last = scheduler.get_last_lr()
        assert torch.equal(torch.stack(last), wanted)
        # Whoever changes what get_last_lr gave does not change the optimizer.
        last[0].fill_(7.0)
        assert torch.equal(torch.stack([group["lr"] for group in optimizer.param_groups]), wanted)
        train(optimizer, scheduler, 1)
    assert [group["lr"] for group in optimizer.param_groups] == held
    assert [group["lr"].data_ptr() for group in optimizer.param_groups] == places


@pytest.mark.parametrize("kind", ["SGD", "AdamW", "AdamW-fused"])
def test_a_skipped_update_does_not_move_the_schedule(kind: str) -> None:
    """The loop of torch's documentation: a scale that went down says that the update was skipped."""
    optimizer = optimizer_of(kind, PEAK)
    scheduler = SCHEDULE.to_torch(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=5)
    used, skipped = [], 0
    for i in range(40):
        overflows = i in (0, 3, 4, 20)
        before, lr = parameters(optimizer), optimizer.param_groups[0]["lr"]
        scaler.scale(backward(optimizer, float("inf") if overflows else 1.0)).backward()
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() < scale:
            skipped += 1
            assert torch.equal(before[0], parameters(optimizer)[0])
        else:
            used.append(lr)
            scheduler.step()
    assert skipped == 4
    assert scheduler.k == len(used) == 36
    assert used == [SCHEDULE.lr(k) for k in range(36)]


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_a_compiled_update_follows_a_tensor_lr_without_being_compiled_again(kind: str) -> None:
    compiled: list[int] = []

    def backend(module: torch.fx.GraphModule, inputs: Any) -> Any:
        compiled.append(scheduler.k)
        return module.forward

    def update() -> torch.Tensor:
        optimizer.step()
        return optimizer.param_groups[0]["lr"] + 0.0

    torch._dynamo.reset()
    optimizer, plain = optimizer_of(kind, torch.tensor(PEAK)), optimizer_of(kind, torch.tensor(PEAK))
    scheduler, plain_scheduler = SCHEDULE.to_torch(optimizer), SCHEDULE.to_torch(plain)
    compiled_update = torch.compile(update, backend=backend)
    for k in range(60):
        backward(optimizer).backward()
        assert compiled_update().item() == torch.tensor(SCHEDULE.lr(k)).item()
        scheduler.step()
    # SGD's momentum appears in its first update, which makes the second another function.
    assert compiled == ([0, 1] if kind == "SGD" else [0])
    train(plain, plain_scheduler, 60)
    assert torch.allclose(parameters(optimizer)[0], parameters(plain)[0], rtol=1e-5, atol=0.0)


ORDERS = ["optimizer, build, scheduler", "build, optimizer, scheduler", "build, scheduler, optimizer"]


def resume(order: str, optimizer: torch.optim.Optimizer, states: Any, build: Callable[[], Any]) -> Any:
    """The scheduler, with the states loaded and itself built in the order named."""
    scheduler = None
    for what in order.split(", "):
        if what == "build":
            scheduler = build()
        elif what == "optimizer":
            optimizer.load_state_dict(states[0])
        else:
            scheduler.load_state_dict(states[1])
    return scheduler


def saved(*states: Any) -> Any:
    stream = io.BytesIO()
    torch.save(states, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


@given(
    schedule=schedules(longest=40),
    k=st.integers(0, 45),
    order=st.sampled_from(ORDERS),
    kind=st.sampled_from(list(OPTIMIZERS)),
)
def test_a_resumed_run_ends_with_the_same_parameters(schedule: Schedule, k: int, order: str, kind: str) -> None:
    peak = schedule.peak_lr
    optimizer = optimizer_of(kind, peak, peak / 8)
    scheduler = schedule.to_torch(optimizer)
    train(optimizer, scheduler, k)
    states, values = saved(optimizer.state_dict(), scheduler.state_dict()), parameters(optimizer)
    unbroken = train(optimizer, scheduler, 5)
    fresh = optimizer_of(kind, peak, peak / 8)
    for group, value in zip(fresh.param_groups, values, strict=True):
        group["params"][0].data.copy_(value)
    resumed = resume(order, fresh, states, lambda: schedule.to_torch(fresh))
    assert train(fresh, resumed, 5) == unbroken
    for one, other in zip(parameters(optimizer), parameters(fresh), strict=True):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())


NEW = make("step", peak_lr=PEAK * 2)


@pytest.mark.parametrize("order", ORDERS[:2])
@pytest.mark.parametrize("kind", ["SGD-foreach", "AdamW-fused", "Adafactor"])
def test_another_schedule_is_refused_or_decided(kind: str, order: str) -> None:
    optimizer = optimizer_of(kind, PEAK, PEAK / 10)
    scheduler = SCHEDULE.to_torch(optimizer)
    train(optimizer, scheduler, 12)
    states = saved(optimizer.state_dict(), scheduler.state_dict())

    def resumed(on_mismatch: str) -> tuple[torch.optim.Optimizer, ScheduleLR]:
        fresh = optimizer_of(kind, PEAK * 2, PEAK / 5)
        return fresh, resume(order, fresh, states, lambda: NEW.to_torch(fresh, on_mismatch))

    with pytest.raises(ScheduleError, match="the checkpoint was trained with another schedule"):
        resumed("error")
    for who, wins in (("checkpoint", SCHEDULE), ("new", NEW)):
        fresh, scheduler = resumed(who)
        for k, used in enumerate(train(fresh, scheduler, 10), start=12):
            assert used == pytest.approx([wins.lr(k), wins.lr(k) / 10], rel=4e-16, abs=0.0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_go_on_by_themselves(copied: Callable[[ScheduleLR], ScheduleLR]) -> None:
    optimizer = optimizer_of("AdamW", PEAK, PEAK / 10)
    scheduler = SCHEDULE.to_torch(optimizer)
    train(optimizer, scheduler, 7)
    other = copied(scheduler)
    assert other.optimizer is not optimizer
    assert train(other.optimizer, other, 20) == train(optimizer, scheduler, 20)
    for one, two in zip(parameters(optimizer), parameters(other.optimizer), strict=True):
        assert torch.equal(one, two)


@settings(max_examples=30)
@given(schedule=schedules(longest=3 * _BLOCK))
def test_long_runs_are_lr_of_k(schedule: Schedule) -> None:
    """The values of step() come in blocks; lr(k) is asked for one by one here."""
    optimizer = optimizer_of("SGD", schedule.peak_lr)
    scheduler = schedule.to_torch(optimizer)
    optimizer.step()
    for k in range(1, 2 * _BLOCK + 50):
        scheduler.step()
        lr = optimizer.param_groups[0]["lr"]
        assert type(lr) is float
        assert lr == schedule.lr(k)


_SOMEWHERE = st.integers(0, 3 * _BLOCK) | st.integers(2**53 - 2 * _BLOCK, 2**53 + 5) | st.just(2**80)
_ACTIONS = st.one_of(
    st.tuples(st.just("seek"), _SOMEWHERE),
    st.tuples(st.just("last_epoch"), _SOMEWHERE),
    st.tuples(st.just("load"), _SOMEWHERE),
    st.tuples(st.just("schedule"), st.sampled_from(["linear", "step", "inverse-sqrt"])),
    st.tuples(st.just("step"), st.integers(1, 2 * _BLOCK)),
)


@given(actions=st.lists(_ACTIONS, max_size=8))
def test_a_step_is_right_after_whatever_happened(actions: list[tuple[str, Any]]) -> None:
    optimizer = optimizer_of("SGD", PEAK, PEAK / 4)
    scheduler = SCHEDULE.to_torch(optimizer, on_mismatch="checkpoint")
    optimizer.step()
    k = 0
    for action, value in actions:
        if action == "step":
            for _ in range(value - 1):
                scheduler.step()
            k += value - 1
        elif action == "schedule":
            scheduler.schedule = make(value)
        elif action == "load":
            scheduler.load_state_dict({**scheduler.state_dict(), "k": value})
        elif action == "seek":
            scheduler.seek(value)
        else:
            scheduler.last_epoch = value
        k = value if action in ("seek", "last_epoch", "load") else k
        scheduler.step()
        k += 1
        lr = scheduler.schedule.lr(k)
        assert scheduler.k == k
        assert [group["lr"] for group in optimizer.param_groups] == scheduler.get_last_lr() == [lr, lr * 0.25]


def test_a_schedule_that_ends_is_followed_to_its_end() -> None:
    class Ending(Schedule):
        """Refuses what lies beyond, as a recursion of torch's schedulers does."""

        def lr(self, k: Any) -> Any:
            if np.max(k) > 30:
                raise ScheduleError("k", f"{np.max(k)} is beyond 30")
            return super().lr(k)

    schedule = Ending(PEAK, 30)
    optimizer = optimizer_of("SGD", PEAK)
    scheduler = schedule.to_torch(optimizer)
    assert train(optimizer, scheduler, 30) == [[schedule.lr(k)] for k in range(30)]
    with pytest.raises(ScheduleError, match="31 is beyond 30"):
        scheduler.step()
    assert scheduler.k == 30


@pytest.mark.parametrize("wrong", [-1, 2.0, True, "3"])
def test_what_is_no_update_cannot_be_gone_to(wrong: Any) -> None:
    scheduler = SCHEDULE.to_torch(optimizer_of("SGD", PEAK))
    # Numbers of a block that is already there.
    scheduler.seek(0)
    with pytest.raises(ScheduleError, match=r"^k: "):
        scheduler.seek(wrong)
    scheduler.seek(np.int64(5))  # type: ignore[arg-type]
    assert (scheduler.k, type(scheduler.last_epoch)) == (5, int)


@pytest.fixture
def accelerator() -> Iterator[Any]:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    # What it holds is per process, and other tests have their own.
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True, gradient_accumulation_steps=2)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def accelerated_epoch(accelerator: Any, model: Any, optimizer: Any, loader: Any, scheduler: Any) -> list[float]:
    used: list[float] = []
    hook = optimizer.optimizer.register_step_pre_hook(lambda inner, *_: used.append(inner.param_groups[0]["lr"]))
    for x in loader:
        with accelerator.accumulate(model):
            accelerator.backward(model(x).square().mean())
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    hook.remove()
    return used


def test_accelerate_moves_it_once_per_update(accelerator: Any, tmp_path: Path) -> None:
    """15 batches, accumulated by two: the last update of an epoch is made of one."""
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK)
    loader = torch.utils.data.DataLoader(torch.ones(15, 2), batch_size=1)
    prepared = accelerator.prepare(model, optimizer, loader, SCHEDULE.to_torch(optimizer))
    scheduler = prepared[-1]
    assert type(scheduler).__name__ == "AcceleratedScheduler"
    assert accelerated_epoch(accelerator, *prepared) == [SCHEDULE.lr(k) for k in range(8)]
    assert scheduler.get_last_lr() == [SCHEDULE.lr(8)]
    accelerator.save_state(str(tmp_path))
    rest = [SCHEDULE.lr(k) for k in range(8, 16)]
    assert accelerated_epoch(accelerator, *prepared) == rest
    accelerator.load_state(str(tmp_path))
    assert accelerated_epoch(accelerator, *prepared) == rest


def members(first: bool) -> tuple[torch.optim.Optimizer, list[lr_scheduler.LRScheduler]]:
    """Ours and one of torch's, built in the order in which they stand."""
    optimizer = optimizer_of("SGD", PEAK)
    builds = [SCHEDULE.to_torch, lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.9)]
    return optimizer, [build(optimizer) for build in (builds if first else reversed(builds))]


def in_sequence(first: bool) -> tuple[torch.optim.Optimizer, lr_scheduler.SequentialLR]:
    optimizer, schedulers = members(first)
    return optimizer, lr_scheduler.SequentialLR(optimizer, schedulers, [10])


@pytest.mark.parametrize("first", [True, False])
def test_it_can_be_a_member_of_a_sequential_lr(first: bool) -> None:
    """In its turn it applies lr(0), lr(1) and so on; before and after it, the others are not disturbed."""
    used = [lr for (lr,) in train(*in_sequence(first), 30)]
    ours, others = (used[:10], used[10:]) if first else (used[10:], used[:10])
    assert ours == [SCHEDULE.lr(k) for k in range(len(ours))]
    assert others == pytest.approx([PEAK * 0.9**k for k in range(len(others))], rel=1e-14)


@pytest.mark.parametrize("k", [0, 4, 9, 10, 17])
@pytest.mark.parametrize("first", [True, False])
def test_a_sequential_lr_resumes_if_the_optimizer_is_loaded_last(first: bool, k: int) -> None:
    """Not if it is loaded first: load_state_dict writes lr(k) also when another member's turn has come."""
    optimizer, scheduler = in_sequence(first)
    train(optimizer, scheduler, k)
    states = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    unbroken = train(optimizer, scheduler, 12)
    fresh, resumed = in_sequence(first)
    resume(ORDERS[-1], fresh, states, lambda: resumed)
    assert train(fresh, resumed, 12) == unbroken


@pytest.mark.parametrize(("first", "factor"), [(True, 0.9), (False, 1.0)])
def test_a_chain_applies_the_others_once_at_most(first: bool, factor: float) -> None:
    """Each step writes lr(k), so a chain is no product of factors: what the docstring of torch_form.py warns of."""
    optimizer, schedulers = members(first)
    used = train(optimizer, lr_scheduler.ChainedScheduler(schedulers), 20)
    assert used == [[SCHEDULE.lr(k) * factor] for k in range(20)]


def test_a_step_takes_microseconds() -> None:
    optimizer = optimizer_of("SGD", PEAK, PEAK / 10)
    scheduler = make("cosine", total_steps=100_000).to_torch(optimizer)
    optimizer.step()
    quickest = float("inf")
    for _ in range(50):
        start = time.perf_counter()
        for _ in range(200):
            scheduler.step()
        quickest = min(quickest, time.perf_counter() - start)
    assert quickest / 200 < 20e-6
