"""What the planner says DeepSpeed sends, launches and passes over, against what is counted; and how long a ring takes."""

import json

import pytest

from recipes.planning.activations import TrainedModel
from recipes.planning.hardware import hardware_for
from recipes.planning.shapes import T5Shape, published_shape
from recipes.planning.step_costs import launches_per_micro_batch, launches_per_step, memory_bytes, num_modules
from recipes.planning.traffic import Traffic, seconds, traffic_per_update
from recipes.planning.zero import Zero
from tests.planning import collective_cases
from tests.training import programs

# The model of tests/training/test_engine.py, two micro-batches on each of two ranks.
SHAPE = T5Shape(16, 4, 32, 1, 1, 4, gated=True, tied=False, vocab_size=60)
KEPT = {"stage3_param_persistence_threshold": 100}
AT_ONCE = {**KEPT, "stage3_max_reuse_distance": 0, "stage3_prefetch_bucket_size": 0}
CASES = [(stage, precision, {}, Zero(stage)) for precision in ("fp32", "bf16") for stage in range(4)] + [
    (3, "fp32", KEPT, Zero(3, persistence_threshold=100)),
    (3, "fp32", AT_ONCE, Zero(3, persistence_threshold=100, max_reuse_distance=0, prefetch_bucket=0)),
]
EACH = pytest.mark.parametrize("index", range(len(CASES)))


@pytest.fixture(scope="module")
def counted():
    program = collective_cases.__file__
    return programs.result_of(program, json.dumps([case[:3] for case in CASES]))


def model_of(index):
    return TrainedModel(SHAPE, precision=CASES[index][1])


def said_of(index, what):
    found = {}
    for traffic in traffic_per_update(model_of(index), CASES[index][3], num_micro_batches=2):
        found[traffic.kind] = found.get(traffic.kind, 0) + getattr(traffic, what)
    return found


def sent_of(found, place):
    """The logger counts what a rank gives to an all-gather: half of the whole with two ranks."""
    whole = {"all_reduce": 1, "reduce_scatter_tensor": 1, "all_gather_into_tensor": 2}
    return {
        name.split("_tensor")[0].removesuffix("_into"): numbers[place] * (whole[name] if place else 1)
        for name, numbers in found["sent"].items()
    }


@EACH
def test_payloads_are_those_deepspeed_sends(index, counted):
    # Released at once, the embedding is gathered once more, for the decoder: 6 % of this small model.
    said = said_of(index, "payload_bytes")
    assert sent_of(counted[index], 1) == pytest.approx(said, abs=20, rel=0.06 if index == len(CASES) - 1 else 0)


@EACH
def test_calls_are_as_many_as_deepspeed_makes(index, counted):
    """In bf16 stages 1 and 2 look once more whether the gradients are finite; released at once, see above."""
    stage, precision, extra, _ = CASES[index]
    more = {"all_reduce": 1} if precision == "bf16" and stage in (1, 2) else {}
    if extra == AT_ONCE:
        more = {"all_gather": 2}
    said = said_of(index, "count")
    assert sent_of(counted[index], 0) == {kind: count + more.get(kind, 0) for kind, count in said.items()}


@EACH
def test_memory_is_passed_over_as_counted(index, counted):
    """All stages have the model's own passes in common: what is compared is what they differ by from stage 0."""
    plain = 4 if CASES[index][1] == "bf16" else 0
    said = [memory_bytes(model_of(i), CASES[i][3], 2, 2) for i in (index, plain)]
    found = counted[index]["bytes"] - counted[plain]["bytes"]
    assert said[0] - said[1] == pytest.approx(found, abs=0.02 * said[0])


@pytest.mark.parametrize("index", [0, 4])
def test_the_step_at_stage_0_passes_over_memory_as_counted(index, counted):
    accumulated = 3 * model_of(index).element_bytes * SHAPE.num_parameters
    said = memory_bytes(model_of(index), Zero(0), 2, 2) - accumulated
    assert said == pytest.approx(counted[index]["step_bytes"], rel=0.01)


@EACH
def test_operations_are_as_many_as_torch_dispatches(index, counted):
    """Within 15 %: gates, masks and casts differ from model to model. Hooks dispatch nothing, and are taken off."""
    model, zero = model_of(index), CASES[index][3]
    hooks = 4 * num_modules(SHAPE) if zero.stage == 3 else 0
    said = 2 * (launches_per_micro_batch(model, zero, 2) - hooks) + launches_per_step(model, zero, 2)
    assert said == pytest.approx(counted[index]["operations"], rel=0.15)


@pytest.mark.parametrize("gated", [False, True])
def test_modules_are_those_of_transformers(gated):
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    kind = "gated-gelu" if gated else "relu"
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 3}
    with torch.device("meta"):
        model = T5ForConditionalGeneration(T5Config(vocab_size=60, feed_forward_proj=kind, **sizes))
    assert num_modules(T5Shape(16, 4, 32, 2, 3, 4, gated, tied=True, vocab_size=60)) == len(list(model.modules()))


def test_the_step_is_shared_and_grows_with_micro_batches_where_the_stage_says_so():
    model = TrainedModel(published_shape("t5-3b"))
    size = model.num_trained
    for stage, per_micro_batch in ((0, 6), (1, 6), (2, 12 + 8 / 8 + 6 / 8), (3, 12 + 8 / 8 + 2 / 8)):
        one, two = (memory_bytes(model, Zero(stage, max_reuse_distance=10**12), 8, m) for m in (1, 2))
        gathered = 0 if stage < 3 else sum(n for n in model.shape.parameter_sizes() if n > 100_000) * (4 + 6 / 8)
        assert two - one == pytest.approx(per_micro_batch * size + gathered, rel=1e-12)
    assert memory_bytes(model, Zero(1), 16, 1) - memory_bytes(model, Zero(1), 32, 1) == (8 + 74) * size / 32


def test_a_ring_by_hand():
    """1 GB all-reduced by 4 nodes of 2: 2 * 7/8 of it over the slower link, plus 2 * (4 * 3 + 3 * 10) us per call."""
    hardware = hardware_for(
        "h100", "bf16", intra_gbit=800.0, inter_gbit=80.0, link_ratio=0.5, intra_latency_us=3.0, inter_latency_us=10.0
    )
    found = seconds(Traffic("all_reduce", 1e9, 5), hardware, num_nodes=4, gpus_per_node=2)
    assert found == pytest.approx(2 * (7 / 8 * 1e9 / 5e9 + 5 * 42e-6), rel=1e-12)
    inside = seconds(Traffic("all_gather", 1e9, 1), hardware, num_nodes=1, gpus_per_node=2)
    assert inside == pytest.approx(0.5 * 1e9 / 50e9 + 3e-6, rel=1e-12)
    assert seconds(Traffic("all_gather", 1e9, 1), hardware, 1, 1) == 0
