"""Memory of model states, against DeepSpeed's own estimators and by hand."""

import pytest
from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

from recipes.layers import cross_entropy
from recipes.planning import memory as planned
from recipes.planning.activations import TrainedModel, activation_bytes
from recipes.planning.memory import memory_per_gpu, num_factored_moments
from recipes.planning.shapes import published_shape
from recipes.planning.zero import Zero
from tests.planning.test_shapes import on_meta

BASE = TrainedModel(published_shape("t5-base"))
SIZE = BASE.shape.num_parameters


def memory(zero, num_gpus, model=BASE, micro_batch=(1, 8, 8)):
    return memory_per_gpu(model, zero, num_gpus, micro_batch, True, reserved_bytes=0)


@pytest.mark.parametrize("num_nodes", [1, 4])
def test_stage_2_states_and_fp32_gradients_are_deepspeeds_estimate(num_nodes):
    _, said = estimate_zero2_model_states_mem_needs(SIZE, 8, num_nodes, cpu_offload=False)
    found = memory(Zero(2), 8 * num_nodes)
    assert found.states + 4 * SIZE / (8 * num_nodes) == pytest.approx(said, abs=2)


@pytest.mark.parametrize("num_nodes", [1, 4])
def test_stage_3_is_deepspeeds_estimate_and_the_split_weights_it_leaves_out(num_nodes):
    num_gpus = 8 * num_nodes
    _, said, largest = estimate_zero3_model_states_mem_needs(SIZE, 10**6, 8, num_nodes, False, False)
    found = memory(Zero(3, persistence_threshold=0), num_gpus)
    assert found.states + 4 * SIZE / num_gpus == pytest.approx(said - largest + 2 * SIZE / num_gpus, abs=2)


def test_offloaded_stage_2_keeps_deepspeeds_estimate_on_the_gpu():
    _, said = estimate_zero2_model_states_mem_needs(SIZE, 8, 1, cpu_offload=True)
    found = memory(Zero(2, offload="optimizer"), 8)
    assert found.states == said
    assert found.host_bytes == pytest.approx((4 + 8 + 4 + 2) * SIZE / 8)


def test_bytes_per_parameter_by_stage():
    """The ZeRO paper's 16 bytes per parameter, split one kind after the other; 64 GPUs."""
    n = 64
    kept = [memory(Zero(stage, persistence_threshold=0), n).states / SIZE for stage in range(4)]
    assert kept == pytest.approx([16, 4 + 12 / n, 2 + 14 / n, 16 / n])
    fp32 = TrainedModel(published_shape("t5-base"), precision="fp32")
    kept = [memory(Zero(stage, persistence_threshold=0), n, fp32).states / SIZE for stage in range(4)]
    assert kept == pytest.approx([16, 8 + 12 / n, 4 + 16 / n, 16 / n])


def test_the_peak_is_the_worse_of_computing_and_stepping():
    small, large = memory(Zero(0), 1), memory(Zero(0), 1, micro_batch=(64, 512, 128))
    assert small.peak == small.states + 4 * SIZE
    assert large.peak == large.states + large.activations
    assert large.activations == 64 * activation_bytes(BASE, 512, 128, True) + 4 * 2**24


def test_checkpointing_keeps_inputs_and_one_layer():
    """By hand, without the classifier and the last norms: 2 bytes of every layer's input, and one encoder layer."""
    model = TrainedModel(published_shape("t5-base"), gradient_checkpointing=True)
    difference = activation_bytes(model, 512, 128, True) - activation_bytes(model, 0, 128, True)
    s, t, d, f, h = 512, 128, 768, 3072, 12
    norm = 2 * 2 * d
    layer = 2 * norm * s + 8 * d * s + 2 * h * s * s + 2 * f * s
    decoder = 3 * norm * t + 8 * d * t + 2 * h * t * t + 2 * f * t + 4 * d * t
    assert difference == pytest.approx(2 * d * 12 * s + norm * s + layer - decoder)


def test_buckets_are_allocated_whole():
    assert memory(Zero(1), 8).buckets == 2 * 500_000_000
    assert memory(Zero(2, reduce_bucket=10**7), 8).buckets == 2 * 2 * 10**7


def test_frozen_weights_are_kept_and_nothing_more():
    n, trained = 16, 1_000_000
    few = TrainedModel(published_shape("t5-base"), trained=trained)
    kept = [memory(Zero(stage, persistence_threshold=0), n, few).states for stage in range(4)]
    weights = [2 * SIZE] * 3 + [2 * SIZE / n]
    own = [14 * trained, (2 + 12 / n) * trained, 14 / n * trained, 14 / n * trained]
    assert kept == pytest.approx([a + b for a, b in zip(weights, own, strict=True)])


def test_adafactors_moments_are_whole_on_every_gpu_and_adamw_rms_has_adamws():
    for stage in range(4):
        for num_gpus in (1, 16):
            adafactor = memory(Zero(stage), num_gpus, TrainedModel(BASE.shape, optimizer="adafactor"))
            scaled = memory(Zero(stage), num_gpus, TrainedModel(BASE.shape, optimizer="adamw_rms"))
            plain = memory(Zero(stage), num_gpus)
            assert adafactor.moments == 4 * num_factored_moments(BASE.shape)
            assert scaled.moments == plain.moments == 8 * SIZE / (num_gpus if stage else 1)
            assert adafactor.weights == plain.weights
            assert adafactor.master_weights == plain.master_weights
            assert adafactor.gradients == plain.gradients


def test_one_parameter_after_the_other_needs_less_while_stepping():
    largest = max(BASE.shape.parameter_sizes())
    found = memory(Zero(0, reduce_bucket=1), 1, TrainedModel(BASE.shape, optimizer="adafactor"))
    assert found.step_scratch == 4 * SIZE + 8 * largest


@pytest.mark.parametrize("name", ["t5-small", "t5-3b", "google/t5-v1_1-large", "google/byt5-base"])
def test_adafactor_has_a_moment_for_every_row_column_and_element_of_a_norm(name):
    parameters = on_meta(published_shape(name)).parameters()
    counted = sum(sum(p.shape) if p.ndim == 2 else p.numel() for p in parameters)
    assert num_factored_moments(published_shape(name)) == counted


def test_the_loss_takes_as_many_logits_at_once_as_planned():
    assert planned._LOGITS_AT_ONCE == cross_entropy.AT_ONCE
