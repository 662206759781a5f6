"""What the planner says DeepSpeed sends, against what DeepSpeed's own logger counts; and how long a ring takes."""

import json

import pytest

from recipes.planning.activations import TrainedModel
from recipes.planning.hardware import hardware_for
from recipes.planning.shapes import T5Shape
from recipes.planning.traffic import Traffic, seconds, traffic_per_update
from recipes.planning.zero import Zero
from tests.planning import collective_cases
from tests.training import programs

# The model of tests/training/test_engine.py, in fp32, two micro-batches.
MODEL = TrainedModel(T5Shape(16, 4, 32, 1, 1, 4, gated=True, tied=False, vocab_size=60), precision="fp32")
KEPT = {"stage3_param_persistence_threshold": 100}
CASES = [
    (0, {}, Zero(0)),
    (1, {}, Zero(1)),
    (2, {}, Zero(2)),
    (3, {}, Zero(3)),
    (3, KEPT, Zero(3, persistence_threshold=100)),
    (
        3,
        {**KEPT, "stage3_max_reuse_distance": 0, "stage3_prefetch_bucket_size": 0},
        Zero(3, persistence_threshold=100, max_reuse_distance=0, prefetch_bucket=0),
    ),
]


@pytest.fixture(scope="module")
def counted():
    program = collective_cases.__file__
    return programs.result_of(program, json.dumps([[stage, extra] for stage, extra, _ in CASES]))


@pytest.mark.parametrize("index", range(len(CASES)))
def test_payloads_are_those_deepspeed_sends(index, counted):
    said = {}
    for traffic in traffic_per_update(MODEL, CASES[index][2], num_micro_batches=2):
        said[traffic.kind] = said.get(traffic.kind, 0) + traffic.payload_bytes
    # The logger counts what a rank gives to an all-gather: half of the whole with two ranks.
    factor = {"all_reduce": 1, "reduce_scatter_tensor": 1, "all_gather_into_tensor": 2}
    sent = {
        name.split("_tensor")[0].removesuffix("_into"): factor[name] * size
        for name, (_, size) in counted[index].items()
    }
    # Besides, a few numbers: norms and overflow flags.
    sent = {kind: size for kind, size in sent.items() if size > 100}
    # Released at once, the embedding is gathered once more, for the decoder: 6 % of this small model.
    assert sent == pytest.approx(said, abs=20, rel=0.06 if index == 5 else 0)


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
