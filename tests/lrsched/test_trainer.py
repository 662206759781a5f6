"""transformers' real Trainer on CPU: the learning rate that each optimizer update really used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from schedule_cases import make
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lrsched import NotExpressible, Schedule
from lrsched.dialects.from_transformers import from_transformers
from lrsched.proof.row import PEAK, TOLERANCE
from lrsched.torch_form import ScheduleLR
from lrsched.transformers_form import training_arguments

STEPS = 20


class Tiny(torch.nn.Module):
    """The smallest model that Trainer takes: a loss for a batch of numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line = torch.nn.Linear(1, 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": torch.nn.functional.mse_loss(self.line(x), labels)}


def data() -> list[dict[str, torch.Tensor]]:
    return [{"x": torch.tensor([float(i)]), "labels": torch.tensor([2.0 * i])} for i in range(4 * STEPS)]


def arguments(folder: Path, **more: Any) -> transformers.TrainingArguments:
    return transformers.TrainingArguments(
        output_dir=str(folder),
        **{
            "per_device_train_batch_size": 2,
            "max_steps": STEPS,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "logging_strategy": "no",
            "use_cpu": True,
            "dataloader_pin_memory": False,
            **more,
        },
    )


def trained(trainer: transformers.Trainer, **more: Any) -> list[float]:
    """The learning rate in the optimizer at each of its updates, first seen by a hook inside ``step``."""
    used: list[float] = []

    def note(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        lrs = {group["lr"] for group in optimizer.param_groups}
        assert len(lrs) == 1, "Trainer's two groups have the same learning rate"
        used.extend(lrs)

    handle = register_optimizer_step_pre_hook(note)
    try:
        trainer.train(**more)
    finally:
        handle.remove()
    return used


def trainer_of(folder: Path, schedule: Schedule, **more: Any) -> transformers.Trainer:
    """A Trainer that is told the schedule by its arguments."""
    return transformers.Trainer(
        model=Tiny(), args=arguments(folder, **training_arguments(schedule), **more), train_dataset=data()
    )


def trainer_with(folder: Path, schedule: Schedule, **more: Any) -> transformers.Trainer:
    """A Trainer that is handed the torch form."""
    model = Tiny()
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.peak_lr)
    scheduler = schedule.to_torch(optimizer)
    args = arguments(folder, gradient_accumulation_steps=2, **more)
    return transformers.Trainer(model=model, args=args, train_dataset=data(), optimizers=(optimizer, scheduler))


EXPRESSIBLE: dict[str, Schedule] = {
    "constant": make(None, total_steps=STEPS, warmup=0),
    "constant-warmup": make(None, total_steps=STEPS),
    "cosine": make({"shape": "cosine", "ends_at_min": False}, total_steps=STEPS),
    "cosine-floor": make({"shape": "cosine", "eta_min": 1e-5, "ends_at_min": False}, total_steps=STEPS),
    "cosine-warmup-from-a-quarter": make(
        {"shape": "cosine", "eta_min": 1e-5, "ends_at_min": False},
        total_steps=STEPS,
        warmup={"steps": 5, "start_ratio": 0.25},
    ),
    "restart": make({"shape": "cosine", "t_max": 5, "after": "restart"}, total_steps=STEPS),
    "linear": make({"shape": "linear", "ends_at_min": False}, total_steps=STEPS, warmup=1),
    "polynomial": make({"shape": "polynomial", "power": 2, "ends_at_min": False}, total_steps=STEPS),
    "inverse-sqrt": make({"shape": "inverse_sqrt", "hold": False}, total_steps=STEPS),
    "wsd": make(
        {"shape": "wsd", "decay_steps": 6, "decay_shape": "1-sqrt", "eta_min": 1e-4, "ends_at_min": False},
        total_steps=STEPS,
        warmup={"steps": 4, "shape": "cosine", "start_ratio": 0.1},
    ),
    "T < W": from_transformers(
        "cosine", peak_lr=PEAK, num_warmup_steps=30, num_training_steps=STEPS, num_cycles=1.5
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_trained_by_its_arguments(name: str, tmp_path: Path) -> None:
    schedule = EXPRESSIBLE[name]
    used = trained(trainer_of(tmp_path, schedule))
    assert used == pytest.approx([schedule.lr(k) for k in range(STEPS)], rel=0.0, abs=TOLERANCE * PEAK)
    assert len(used) == STEPS


# It says which of two lengths wins, and that one is meant.
@pytest.mark.filterwarnings("ignore:Both num_training_steps and num_stable_steps are specified:UserWarning")
@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_a_decay_to_its_floor_is_trained_by_its_arguments(shape: str, tmp_path: Path) -> None:
    schedule = make({"shape": shape}, total_steps=STEPS)
    used = trained(trainer_of(tmp_path, schedule))
    assert used == pytest.approx([schedule.lr(k) for k in range(STEPS)], rel=0.0, abs=TOLERANCE * PEAK)
    assert used[-1] == 0.0


NOT_EXPRESSIBLE: dict[str, Schedule] = {
    "cosine": make("cosine", total_steps=STEPS),
    "multistep": make({"shape": "multistep", "milestones": [3, 9]}, total_steps=STEPS, warmup={"steps": 4, "shape": "log"}),
    "one-cycle": make({"shape": "one_cycle", "up_steps": 6}, total_steps=STEPS, warmup=0),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_EXPRESSIBLE)
def test_trained_by_the_torch_form(name: str, tmp_path: Path) -> None:
    schedule = NOT_EXPRESSIBLE[name]
    with pytest.raises(NotExpressible):
        training_arguments(schedule)
    trainer = trainer_with(tmp_path, schedule)
    assert trained(trainer) == [schedule.lr(k) for k in range(STEPS)]
    assert trainer.lr_scheduler.k == STEPS
    assert not [one for one in trainer.callback_handler.callbacks if type(one).__module__.startswith("lrsched")]


def test_a_resumed_run_goes_on_as_the_unbroken_one(tmp_path: Path) -> None:
    schedule = NOT_EXPRESSIBLE["cosine"]
    whole = trainer_with(tmp_path, schedule, save_strategy="steps", save_steps=8)
    used = trained(whole)
    again = trainer_with(tmp_path, schedule)
    assert trained(again, resume_from_checkpoint=str(tmp_path / "checkpoint-8")) == used[8:]
    assert isinstance(again.lr_scheduler, ScheduleLR)
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_resumed_run_by_its_arguments_goes_on_as_the_unbroken_one(tmp_path: Path) -> None:
    schedule = EXPRESSIBLE["cosine-floor"]
    used = trained(trainer_of(tmp_path, schedule, save_strategy="steps", save_steps=8))
    again = trainer_of(tmp_path, schedule)
    assert trained(again, resume_from_checkpoint=str(tmp_path / "checkpoint-8")) == used[8:]


def test_another_schedule_is_refused_on_resume(tmp_path: Path) -> None:
    trained(trainer_with(tmp_path, NOT_EXPRESSIBLE["cosine"], save_strategy="steps", save_steps=8))
    again = trainer_with(tmp_path, NOT_EXPRESSIBLE["one-cycle"])
    with pytest.raises(ValueError, match="state_dict: the checkpoint was trained with another schedule"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
