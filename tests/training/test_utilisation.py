"""Model FLOPs utilisation, and the seconds that updates wait for checkpoints, in the lines of a real run."""

import json
from dataclasses import replace

import pytest
import torch

from recipes.config_file import load_config
from recipes.data.cache import open_data
from recipes.data.plan import batch_plan
from recipes.launching.preflight import prepare
from recipes.planning.flops import summed_training_flops, training_flops
from recipes.planning.hardware import peak_flops_of
from recipes.planning.shapes import shape_of
from recipes.training.utilisation import Utilisation, shape_of_model, utilisation_of
from tests.conftest import small_run
from tests.training.alone import train_alone


def test_a_sum_over_examples():
    shape = shape_of(load_config("recipes/configs/local.yaml"))
    lengths = [(40, 7), (3, 30), (12, 12)]
    expected = sum(training_flops(shape, source, target, gradient_checkpointing=False) for source, target in lengths)
    assert summed_training_flops(shape, *map(list, zip(*lengths, strict=True))) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989e12),
        ("NVIDIA H100 80GB HBM3", "fp32", 67e12),
        ("NVIDIA A100-SXM4-40GB", "fp16", 312e12),
        ("Tesla V100-SXM2-32GB", "bf16", None),
        ("NVIDIA H100 PCIe", "bf16", None),
    ],
)
def test_peaks_by_the_names_that_torch_gives(name, precision, expected):
    assert peak_flops_of(name, precision) == expected


def test_no_utilisation_where_no_peak_is_known():
    assert utilisation_of(torch.nn.Linear(2, 2), torch.device("cpu"), "fp32", 1) is None


def test_lines_of_a_run(process_group, pairs, tmp_path):
    one_worker = ("scaling.num_workers=1", "training.log_every_steps=2", "checkpoint.background=false")
    arguments = small_run(pairs, tmp_path, *one_worker)
    job, _, _ = prepare(load_config(arguments[0], arguments[1:]), lambda text: None, started_at=0.0)
    shapes = []

    def known_peak(run):
        # As if this CPU's peak were published: from update 3 on, so that a whole line has it.
        if run.step == 2:
            shapes.append(shape_of_model(run.engine.module.config))
            run.utilisation = Utilisation(shapes[0], peak_flops=1e9)

    train_alone(job, after_update=known_peak)
    lines = [json.loads(line) for line in (job.run_folder.local / "metrics.jsonl").read_text().splitlines()]
    first, *rest = [line for line in lines if "loss" in line]
    assert "mfu" not in first
    data = open_data(job.data_folder)
    plan = batch_plan(job.config, data.train, 1)
    # transformers calls every T5 tied; that changes no FLOPs.
    assert [replace(shape, tied=False) for shape in shapes] == [shape_of(job.config, data.vocab_size)]
    tokens = first["tokens"]
    for line in rest:
        examples = [example for k in (line["step"] - 2, line["step"] - 1) for example in plan.examples(k)]
        flops = summed_training_flops(shapes[0], plan.lengths.source[examples], plan.lengths.target[examples])
        seconds = (line["tokens"] - tokens) / line["tokens_per_s"]
        assert line["mfu"] == pytest.approx(flops / seconds / 1e9, rel=1e-9)
        tokens = line["tokens"]
    # The checkpoint of update 4 is in the line after it, the last one's in none.
    stalls = {line["step"]: line["checkpoint_stall_s"] for line in lines if "loss" in line}
    assert stalls[6] > 0
    assert [stalls[step] for step in (2, 4, 8)] == [0.0, 0.0, 0.0]
