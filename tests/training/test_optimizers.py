"""adamw_rms and adafactor through the real engine, loop and checkpoints, at every ZeRO stage."""

import json
import math

import pytest
import torch

from recipes.config_file import load_config
from recipes.launching.preflight import prepare
from recipes.optimizers.segments import whole
from recipes.planning.activations import TrainedModel
from recipes.planning.memory import memory_per_gpu
from recipes.planning.shapes import shape_of_block
from recipes.planning.zero import Zero
from recipes.storage import Storage
from recipes.training import loop
from recipes.training.checkpoint import Checkpoints
from recipes.training.held_state import HeldState
from recipes.training.model import build_model, group_lr_ratios, parameter_groups
from recipes.training.notices import Notices
from recipes.training.update import run_update
from tests.conftest import small_run
from tests.training import optimizer_cases
from tests.training.alone import train_alone
from tests.training.programs import result_of
from tests.training.test_engine import TOO_SMALL, VOCAB, _weights, make_engine, micro_batches

NAMES = ("adamw_rms", "adafactor")


_OTHER_ORDERS = ("round_robin_gradients", "parameter_alignment")
_OTHER_PARTS = {"sub_group_size": 500, "zero_hpz_partition_size": 2}


def _with_slow(cases, default):
    return [case if case in default else pytest.param(*case, marks=pytest.mark.slow) for case in cases]


EVERY = [(name, stage, precision) for name in NAMES for stage in range(4) for precision in ("fp32", "bf16")]


@pytest.mark.parametrize(
    ("world", "names"), [(2, NAMES), pytest.param(3, ("adamw", *NAMES), marks=pytest.mark.slow)], ids=str
)
def test_updates_of_several_ranks_are_those_of_whole_parameters(world, names):
    """And each rank's state has the size that the planner says."""
    results = result_of("optimizer_cases.py", world, ",".join(names))
    assert [(one["name"], one["stage"]) for one in results] == [(name, s) for name in names for s in range(4)]
    for one in results:
        assert one["off"] < 1e-6, one
        assert one["off_of_change"] < 1e-5, one
        assert one["misplaced"] == 0, one
        if one["stage"] > 0 and one["name"] != "adamw":
            assert one["cut_rows"] > 0, "or nothing would have been tested about rows that two ranks share"
        planned = _planned_moments(one["name"], one["stage"], world)
        # DeepSpeed pads each group (1, 2) or each parameter (3) so that it divides.
        padding = 0 if one["name"] == "adafactor" or one["stage"] == 0 else 8 * 40
        assert planned <= one["state_bytes"] <= planned + padding, one


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        *((2, {"deepspeed": {"extra": {"zero_optimization": {key: True}}}}) for key in _OTHER_ORDERS),
        *((3, {"deepspeed": {"extra": {"zero_optimization": {key: n}}}}) for key, n in _OTHER_PARTS.items()),
        *((stage, {"model": {"freeze": ["decoder", "embedding"]}}) for stage in range(4)),
    ],
    ids=str,
)
def test_pieces_that_lie_in_another_way(stage, changes):
    arguments = [stage, "fp32", json.dumps(changes)]
    for one in result_of("optimizer_cases.py", 2, ",".join(NAMES), *arguments):
        assert one["off"] < 1e-6, one
        assert one["off_of_change"] < 1e-5, one
        assert one["misplaced"] == 0, one
        assert one["cut_rows"] > 0 or "model" in changes, one


def _planned_moments(name, stage, num_gpus):
    block = optimizer_cases.make_config(name, stage, "fp32").model.shape
    model = TrainedModel(shape_of_block(block, VOCAB), precision="fp32", optimizer=name)
    return memory_per_gpu(model, Zero(stage), num_gpus, (1, 4, 4), True, reserved_bytes=0).moments


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_bf16_updates_fp32_masters(process_group, name, stage):
    """Against masters updated by a plain loop from the engine's own gradients.

    Not clipped: DeepSpeed takes the norm of bf16 gradients in another way at each stage.
    """
    config = optimizer_cases.make_config(name, stage, "bf16", clip_norm=0)
    engine, schedule = make_engine(config)
    masters = build_model(config.model, VOCAB, config.run.seed).bfloat16().float()
    groups = parameter_groups(masters, config.optimizer, schedule.peak_lr)
    plain = optimizer_cases._plain_optimizer(config.optimizer, groups)
    gradients = _gradients_of_each_step(engine)
    for k in range(3):
        run_update(engine, *micro_batches(k, [(3, 7, 5)]))
        for each, parameter in masters.named_parameters():
            parameter.grad = gradients[each].view_as(parameter)
        for group, ratio in zip(plain.param_groups, group_lr_ratios(config.optimizer), strict=True):
            group["lr"] = schedule.lr(k) * ratio
        plain.step()
    expected, computed = {name: p.detach() for name, p in masters.named_parameters()}, _weights(engine)
    found = _masters(engine)
    assert set(found) == set(expected)
    for each, flat in found.items():
        held = flat.view_as(expected[each])
        assert float((held - expected[each]).norm()) < 1e-6 * float(expected[each].norm()), each
        assert torch.equal(computed[each], held.bfloat16()), each


def _gradients_of_each_step(engine):
    """By name of the parameter, filled anew whenever the optimizer steps; for one rank, which holds everything."""
    found = {}

    def keep(optimizer, args, kwargs):
        for master in (p for group in optimizer.param_groups for p in group["params"]):
            for name, segment in _held(engine, master):
                found[name] = segment.of(master.grad.flatten()).clone()

    engine.basic_optimizer.register_step_pre_hook(keep)
    return found


def _held(engine, master):
    """The name and segment of every parameter in a flat tensor; at stage 0 it is one parameter."""
    wrapped = engine.optimizer
    if engine.zero_optimization_stage() > 0:
        names = optimizer_cases._names_by_master(engine)[master]
        return [(names[s.parameter], s) for s in engine.basic_optimizer.layouts[master].segments]
    groups = zip(wrapped.fp16_groups, wrapped.fp32_groups, strict=True)
    pairs = [pair for parameters, masters in groups for pair in zip(parameters, masters, strict=True)]
    parameter = next(p for p, held in pairs if held is master)
    return [(engine.param_names[parameter], whole(parameter).segments[0])]


def _masters(engine):
    masters = engine.basic_optimizer.state
    return {name: s.of(master.detach().flatten()) for master in masters for name, s in _held(engine, master)}


@pytest.mark.parametrize("name", NAMES)
def test_the_update_that_deepspeed_makes_at_start_leaves_nothing(process_group, name):
    config = optimizer_cases.make_config(name, 0, "bf16")
    fresh = build_model(config.model, VOCAB, config.run.seed)
    engine, _ = make_engine(config)
    for each, weight in _weights(engine).items():
        assert torch.equal(weight, dict(fresh.named_parameters())[each].bfloat16())
    states = list(engine.basic_optimizer.state.values())
    assert states, "or DeepSpeed makes none any more"
    assert all(not value.any() for state in states for value in state.values())
    assert [group["weight_decay"] for group in engine.basic_optimizer.param_groups] == [0.3, 0.0, 0.3]


def _training(storage, name, stage, precision):
    config = optimizer_cases.make_config(name, stage, precision)
    engine, schedule = make_engine(config)
    said = []
    checkpoints = Checkpoints(storage, keep=2, schedule_fingerprint=schedule.fingerprint, say=said.append)
    return loop.Training(config, schedule, engine, None, None, [], checkpoints, Notices(), lambda metrics: None)


def _update(run):
    run_update(run.engine, *micro_batches(run.step))
    run.step += 1


def _everything(engine):
    states = engine.basic_optimizer.state.values()
    tensors = [value.clone() for state in states for value in state.values()]
    return [*_weights(engine).values(), *tensors]


def _same(some, others):
    return len(some) == len(others) and all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


@pytest.mark.parametrize(
    ("name", "stage", "precision"),
    _with_slow(EVERY, [("adafactor", s, "bf16") for s in (0, 2, 3)] + [("adamw_rms", s, "fp32") for s in (0, 1, 3)]),
)
def test_what_was_saved_comes_back_bit_for_bit(process_group, tmp_path, name, stage, precision):
    run = _training(Storage(tmp_path / "run"), name, stage, precision)
    _update(run)
    _update(run)
    loop.save(run)
    _update(run)
    _update(run)
    run.checkpoints.wait()
    straight = _everything(run.engine)
    again = _training(Storage(tmp_path / "run"), name, stage, precision)
    assert loop.restore(again)
    _update(again)
    assert not _same(straight, _everything(again.engine)), "or the updates would change nothing"
    _update(again)
    assert _same(straight, _everything(again.engine))


@pytest.mark.parametrize(
    ("name", "stage", "precision"),
    _with_slow(EVERY, [("adafactor", 0, "fp32"), ("adafactor", 3, "bf16"), ("adamw_rms", 2, "fp32")]),
)
def test_an_excursion_is_undone_and_a_refused_gradient_changes_nothing(process_group, tmp_path, name, stage, precision):
    run = _training(Storage(tmp_path / "run"), name, stage, precision)
    _update(run)
    before, held = _everything(run.engine), HeldState(run.engine)
    _update(run)
    assert not _same(before, _everything(run.engine))
    held.put_back()
    assert _same(before, _everything(run.engine))
    batches, num_tokens = micro_batches(1)
    assert not run_update(run.engine, batches, num_tokens * TOO_SMALL).applied
    assert _same(before, _everything(run.engine))


@pytest.mark.parametrize(("name", "backend"), [("adafactor", "deepspeed"), ("adamw_rms", "torch")])
def test_a_whole_run(process_group, pairs, tmp_path, name, backend):
    """With the guard that compares the lr in use with the schedule at every logged update."""
    arguments = small_run(
        pairs,
        tmp_path,
        "scaling.num_workers=1",
        f"optimizer={{name: {name}, embedding_lr_ratio: 2}}",
        f"schedule.backend={backend}",
    )
    job = prepare(load_config(arguments[0], arguments[1:]), lambda text: None, started_at=0.0)[0]
    assert "optimizer" not in job.ds_config
    summary, _ = train_alone(job)
    assert summary["updates"] == 8
    assert summary["schedule_driver"] == backend
    assert math.isfinite(summary["eval_loss"])
