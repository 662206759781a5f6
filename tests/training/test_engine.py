"""The update against a plain torch loop, at every ZeRO stage, through the real DeepSpeed engine."""

import numpy as np
import pytest
import torch

from lrsched import Schedule, deepspeed_backend
from recipes.config_file import parse_config
from recipes.data.batches import PaddedBatch
from recipes.optimizers.build import build_optimizer
from recipes.training.ds_config import deepspeed_config
from recipes.training.engine import start_engine
from recipes.training.model import build_model, group_lr_ratios, parameter_groups
from recipes.training.update import run_update, summed_loss

VOCAB, UPDATES, WEIGHT_DECAY = 60, 6, 0.3
TOO_SMALL = 1e-300  # as a divisor of the loss it makes every gradient overflow


def make_config(
    stage=0, precision="fp32", backend="auto", clip_norm=0.5, embedding_lr_ratio=1.0, freeze=(), optimizer=None
):
    return parse_config(
        {
            "run": {"name": "x"},
            "model": {
                "shape": {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 4},
                "freeze": freeze,
            },
            "data": {"source": "pydoc"},
            "schedule": {
                "peak_lr": 1e-2,
                "total_steps": UPDATES,
                "warmup": {"steps": 3},
                "decay": {"shape": "cosine", "eta_min": 1e-3},
                "backend": backend,
            },
            "optimizer": {"weight_decay": WEIGHT_DECAY, "embedding_lr_ratio": embedding_lr_ratio, **(optimizer or {})},
            "training": {"precision": precision, "clip_norm": clip_norm},
            "deepspeed": {"zero_stage": stage},
        }
    )


def make_engine(config):
    schedule = Schedule.from_dict(config.schedule.model_dump(exclude_none=True))
    _, block = deepspeed_backend(schedule)
    model = build_model(config.model, VOCAB, seed=0)
    groups = parameter_groups(model, config.optimizer, schedule.peak_lr)
    ds_config = deepspeed_config(config, config.training.precision, block)
    optimizer = build_optimizer(groups, config.optimizer, schedule.peak_lr)
    return start_engine(model, groups, ds_config, schedule, optimizer), schedule


def micro_batches(k, sizes=((3, 7, 5), (4, 5, 3))):
    rng = np.random.default_rng(k)
    batches = []
    for rows, source, target in sizes:
        inputs = torch.from_numpy(rng.integers(3, VOCAB, (rows, source)))
        labels = torch.from_numpy(rng.integers(3, VOCAB, (rows, target)))
        labels[0, -2:] = -100
        decoder = torch.cat([torch.zeros(rows, 1, dtype=torch.long), labels[:, :-1].clamp(min=0)], dim=1)
        batches.append(PaddedBatch(inputs, decoder, labels, torch.ones_like(inputs)))
    return batches, sum(int((batch.labels != -100).sum()) for batch in batches)


def plain_torch_losses(config, schedule):
    """The same training written without DeepSpeed: the mean loss over all target tokens, clipped."""
    model = build_model(config.model, VOCAB, seed=0)
    optimizer = torch.optim.AdamW(parameter_groups(model, config.optimizer, schedule.peak_lr), eps=1e-8)
    ratios = group_lr_ratios(config.optimizer)
    losses, norms = [], []
    for k in range(UPDATES):
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            group["lr"] = schedule.lr(k) * ratio
        batches, num_tokens = micro_batches(k)
        loss = sum(summed_loss(model, batch) for batch in batches) / num_tokens
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), config.training.clip_norm or np.inf)))
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, norms


@pytest.mark.parametrize(
    ("clip_norm", "backend", "embedding_lr_ratio"),
    [(0.5, "deepspeed", 1.0), (0.0, "deepspeed", 4.0), (0.5, "torch", 4.0)],
)
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_training_equals_a_plain_torch_loop(process_group, stage, clip_norm, backend, embedding_lr_ratio):
    config = make_config(stage, clip_norm=clip_norm, backend=backend, embedding_lr_ratio=embedding_lr_ratio)
    engine, schedule = make_engine(config)
    losses, norms = [], []
    for k in range(UPDATES):
        batches, num_tokens = micro_batches(k)
        update = run_update(engine, batches, num_tokens)
        losses.append(float(update.loss_sum) / num_tokens)
        norms.append(update.grad_norm)
        for lr, ratio in zip(update.lrs, group_lr_ratios(config.optimizer), strict=True):
            assert abs(lr - schedule.lr(k) * ratio) <= 1e-15 * schedule.peak_lr * ratio
    expected_losses, expected_norms = plain_torch_losses(config, schedule)
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    assert norms == pytest.approx(expected_norms, rel=1e-4)
    assert min(norms) > 0.5  # or clipping would not have been tested


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_non_finite_gradient_changes_nothing(process_group, stage, precision):
    engine, _ = make_engine(make_config(stage, precision))
    run_update(engine, *micro_batches(0))
    run_update(engine, *micro_batches(1))
    before = _weights(engine)
    batches, num_tokens = micro_batches(2)
    assert not run_update(engine, batches, num_tokens * TOO_SMALL).applied
    after = _weights(engine)
    assert all(torch.equal(before[name], after[name]) for name in before)


def _weights(engine):
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(engine.module.parameters())):
        return {name: p.detach().clone() for name, p in engine.module.named_parameters()}


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_starting_the_engine_changes_no_weight(process_group, stage, precision):
    config = make_config(stage, precision)
    fresh = build_model(config.model, VOCAB, seed=0)
    engine, _ = make_engine(config)
    started = dict(engine.module.named_parameters())
    for name, parameter in fresh.named_parameters():
        assert torch.equal(started[name], parameter.to(started[name].dtype)), name
    assert [group["weight_decay"] for group in engine.basic_optimizer.param_groups] == [WEIGHT_DECAY, 0.0]
    assert all(float(state["step"]) == 0.0 for state in engine.basic_optimizer.state.values())


@pytest.mark.parametrize("backend", ["deepspeed", "torch"])
def test_the_config_names_the_scheduler_only_where_it_drives(backend):
    config = make_config(backend=backend)
    schedule = Schedule.from_dict(config.schedule.model_dump(exclude_none=True))
    driver, block = deepspeed_backend(schedule)
    assert driver == backend
    assert deepspeed_config(config, "fp32", block).get("scheduler") == block
    assert (block is None) == (backend == "torch")
