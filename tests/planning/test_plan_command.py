"""The command: predictions by hand, one screen, JSON, and wrong inputs in one line."""

import json

import pytest

from recipes import plan
from recipes.planning.activations import TrainedModel
from recipes.planning.flops import forward_flops
from recipes.planning.hardware import hardware_for
from recipes.planning.prediction import Batch, World, predict
from recipes.planning.shapes import T5Shape, published_shape
from recipes.planning.zero import Zero

CPU = {"peak_tflops": 0.05, "memory_gib": 4.0, "inter_gbit": 1.0}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "base.yaml"
    path.write_text(
        """
run: {name: x}
model: {hub: google/flan-t5-base}
data: {source: pairs.parquet, tokenizer: {kind: hub, path: google/flan-t5-base}}
schedule: {peak_lr: 1.0e-3, total_steps: 1000}
training: {examples_per_update: 1024, micro_batch_tokens: 20480}
"""
    )
    return str(path)


def answer(capsys, *arguments):
    assert plan.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_flops_by_hand():
    shape = T5Shape(
        d_model=2, d_kv=3, d_ff=5, num_layers=1, num_decoder_layers=1, num_heads=2, gated=True, tied=False, vocab_size=7
    )
    s, t, inner = 11, 4, 6
    attention, ff = 2 * 4 * 2 * inner, 2 * 3 * 2 * 5
    encoder = s * (attention + ff) + 2 * 2 * s * s * inner
    decoder = t * (attention + ff) + 2 * 2 * t * t * inner
    cross = t * attention / 2 + s * attention / 2 + 2 * 2 * s * t * inner
    assert forward_flops(shape, s, t) == (encoder + decoder + cross, 2 * t * 2 * 7)


def test_flops_are_about_two_per_parameter_and_token_of_its_stack():
    """T5-base's published rule of thumb (encoder and decoder each see their own tokens), without the quadratic terms."""
    shape = published_shape("t5-base")
    layers, _ = forward_flops(shape, 1, 1)
    matrices = sum(n for n in shape.parameter_sizes() if n > 1000 and n != shape.vocab_size * shape.d_model)
    assert layers == pytest.approx(2 * matrices, rel=0.001)


def test_a_prediction_by_hand():
    """60 examples of 30 + 10 tokens on 2 nodes of 2: budget 400 tokens is 10 examples, so 2 micro-batches of 8."""
    model = TrainedModel(T5Shape(64, 16, 128, 2, 2, 4, True, False, 500), precision="fp32")
    hardware = hardware_for(
        "cpu", "fp32", **CPU, compute_ratio=0.5, link_ratio=1.0, inter_latency_us=50.0, intra_latency_us=5.0,
        memory_gbyte_s=10.0, launch_us=20.0, imbalance_ratio=0.1,
    )  # fmt: skip
    found = predict(model, Batch(60, 400, 30, 10), hardware, World(2, 2, Zero(1)))
    assert (found.num_micro_batches, found.examples_per_micro_batch) == (2, 8)
    flops = 3 * sum(forward_flops(model.shape, 30, 10))
    assert found.compute_s == pytest.approx(2 * 8 * flops / 25e9, rel=1e-12)
    assert found.busy_s == pytest.approx(found.compute_s + 2 * (40 * 10 + 90) * 20e-6, rel=1e-12)
    size, num_tensors = model.shape.num_parameters, len(model.shape.parameter_sizes())
    step_s = size * (12 + 4 * 4 + 2 * 4 + 4 + 72 / 4) / 10e9 + (90 + 1.75 * num_tensors) * 20e-6
    assert found.step_s == pytest.approx(step_s, rel=1e-12)
    assert found.waiting_s == pytest.approx(0.1 * (found.busy_s + step_s), rel=1e-12)
    payload = 4 * model.shape.num_parameters * 3 / 4
    latency = 2 * 5e-6 + 50e-6
    # Besides the all-reduce and two all-gathers, two numbers of 4 bytes are all-reduced.
    comm = (3 * payload + 2 * 8 * 3 / 4) / 1.25e8 + (2 + 2 + 4) * latency
    assert found.comm_s == pytest.approx(comm, rel=1e-12)
    assert found.update_s == pytest.approx(found.busy_s + step_s + found.waiting_s + comm, rel=1e-12)
    assert found.tokens_per_s == pytest.approx(60 * 40 / found.update_s, rel=1e-12)
    assert found.ideal_s == pytest.approx(60 * flops / 25e9 / 4, rel=1e-12)


def test_only_stage_3s_gathers_hide_and_only_behind_computing():
    model = TrainedModel(published_shape("t5-base"))
    batch = Batch(1024, 20480, 512, 128)
    for stage in range(4):
        alone = predict(model, batch, hardware_for("h100", "bf16"), World(4, 8, Zero(stage)))
        hidden = predict(model, batch, hardware_for("h100", "bf16", overlap_ratio=1.0), World(4, 8, Zero(stage)))
        assert alone.exposed_comm_s == alone.comm_s
        assert (hidden.exposed_comm_s < alone.comm_s) == (stage == 3)
        assert alone.comm_s - hidden.exposed_comm_s <= alone.compute_s


def test_a_gpu_computes_while_its_host_launches():
    model, batch = TrainedModel(published_shape("t5-base")), Batch(1024, 20480, 512, 128)
    quick, slow = (hardware_for("h100", "bf16", launch_us=each) for each in (1.0, 100.0))
    found = [predict(model, batch, hardware, World(1, 8, Zero(1))) for hardware in (quick, slow)]
    assert found[0].busy_s == found[0].compute_s > found[0].launch_s
    assert found[1].busy_s == found[1].launch_s > found[1].compute_s
    assert found[1].launch_s == pytest.approx(found[1].num_micro_batches * (51 * 60 + 103) * 100e-6, rel=1e-12)


def test_one_screen_and_the_same_numbers_as_json(capsys, config):
    arguments = [config, "--nodes", "4", "--gpu", "h100", "--bandwidth-gbit", "100"]
    assert plan.main(arguments) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 25
    assert max(map(len, text.splitlines())) <= 120
    content = answer(capsys, *arguments)
    assert content["model"]["num_parameters"] == 247_577_856
    assert "247,577,856 parameters, bf16" in text
    assert [(row["stage"], row["num_nodes"]) for row in content["rows"]] == [
        (s, n) for s in range(4) for n in (1, 2, 4)
    ]
    for row, line in zip(content["rows"], text.splitlines()[7:], strict=False):
        assert f"{row['memory']['peak_bytes'] / 2**30:.1f} GiB" in line
        assert f"{row['update_s']:.3f}s" in line


def test_the_advice_follows_memory_and_network(capsys, config):
    big = [
        "model.hub=t5-11b",
        "data.tokenizer.path=t5-11b",
        "training.micro_batch_tokens=5120",
        "model.gradient_checkpointing=true",
    ]
    content = answer(capsys, config, *big, "--nodes", "4", "--gpu", "h100")
    assert content["smallest_stage_by_nodes"] == {"1": 1, "2": 1, "4": 1}
    fits = {(row["stage"], row["num_nodes"]): row["fits"] for row in content["rows"]}
    assert not fits[0, 4]
    assert fits[3, 1]
    assert answer(capsys, config, *big, "--nodes", "2", "--gpu", "a100-40")["smallest_stage_by_nodes"] == {
        "1": 3,
        "2": 2,
    }
    here = [config, "--nodes", "4", "--gpu", "h100"]
    slow = answer(capsys, *here, "--bandwidth-gbit", "10")
    launched = answer(capsys, *here, "--bandwidth-gbit", "3200")
    fast = answer(capsys, *here, "--bandwidth-gbit", "3200", "--launch-us", "0")
    assert slow["pays_until_nodes_by_stage"]["1"] == 1
    # A micro-batch's operations take their time on however many nodes.
    assert launched["pays_until_nodes_by_stage"]["1"] == 4
    assert fast["pays_until_nodes_by_stage"]["1"] > 4


def test_a_local_config_on_measured_cpus(capsys):
    arguments = [
        "--gpu",
        "cpu",
        "--gpus-per-node",
        "1",
        "--peak-gflops",
        "50",
        "--memory-gib",
        "4",
        "--bandwidth-gbit",
        "1",
    ]
    content = answer(capsys, "recipes/configs/local.yaml", "--nodes", "4", *arguments)
    assert content["model"]["precision"] == "fp32"
    assert content["model"]["num_parameters"] == 731_776
    assert content["hardware"]["peak_tflops"] == 0.05


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gpu", "h10", "--nodes", "1"], "--gpu h10: not known, did you mean 'h100'?"),
        (["--gpu", "cpu", "--nodes", "1"], "give --peak-tflops or --peak-gflops, --memory-gib, --bandwidth-gbit"),
        (["--gpu", "h100", "--nodes", "0"], "--nodes 0: must be above 0"),
        (["--gpu", "h100", "--nodes", "1", "--mfu", "40"], "--mfu 40: is a share, 1 at most"),
        (["--gpu", "h100", "--nodes", "200"], "training.examples_per_update is 1024, fewer than the 1600 GPUs"),
        (
            ["--gpu", "h100", "--nodes", "1", "--vocab-size", "9"],
            "--vocab-size 9: model google/flan-t5-base has its own",
        ),
        (["--gpu", "v100", "--nodes", "1", "training.precision=bf16"], "set training.precision=fp32"),
        (
            ["--gpu", "h100", "--nodes", "1", "--source-tokens", "30000"],
            "training.micro_batch_tokens: 20480 is less than",
        ),
        (["--gpu", "h100", "--nodes", "1", "model.hub=t5-bse"], "did you mean 't5-base'"),
        (["--gpu", "h100", "--nodes", "1", "deepspeed.zero_stag=2"], "did you mean 'deepspeed.zero_stage'?"),
        (
            ["--gpu", "h100", "--nodes", "1", "deepspeed.extra={zero_optimization: {reduce_bucket_size: auto}}"],
            "deepspeed.extra.zero_optimization.reduce_bucket_size is 'auto'",
        ),
    ],
)
def test_refused_in_one_line(capsys, config, arguments, words):
    assert plan.main([config, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert words in captured.err
