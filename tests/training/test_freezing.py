"""model.freeze: what is named stays as it is, to the last bit, and costs the optimizer nothing."""

import pytest
import torch
from safetensors.torch import load_file

from recipes.config import ModelBlock
from recipes.config_file import load_config
from recipes.errors import UserError
from recipes.launching.preflight import prepare
from recipes.training.model import build_model, group_lr_ratios, parameter_groups, parts_of
from tests.conftest import small_run
from tests.training.alone import train_alone

SHAPE = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 2}


def job_of(pairs, storage, *settings):
    arguments = small_run(pairs, storage, "scaling.num_workers=1", "schedule.total_steps=4", *settings)
    return prepare(load_config(arguments[0], arguments[1:]), lambda text: None, started_at=0.0)[0]


@pytest.mark.parametrize("ratio", [1.0, 6.0])
@pytest.mark.parametrize(
    "frozen",
    [(), ("embedding",), ("encoder",), ("decoder", "classifier"), ("norms",), ("encoder", "embedding", "norms")],
)
def test_groups_hold_the_rest(frozen, ratio):
    block = ModelBlock(shape=SHAPE, freeze=frozen)
    model = build_model(block, 50, 0)
    optimizer = load_config("recipes/configs/local.yaml").optimizer.model_copy(update={"embedding_lr_ratio": ratio})
    groups = parameter_groups(model, optimizer, 1e-3)
    assert [group["lr"] for group in groups] == [1e-3 * each for each in group_lr_ratios(optimizer, block)]
    trained = {id(p) for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in trained) == parameter.requires_grad == (not parts_of(name, parameter) & set(frozen))
    assert 0 < len(trained) <= len(list(model.parameters()))


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_frozen_weights_do_not_move(process_group, pairs, tmp_path, stage):
    settings = ("model.freeze=[embedding, encoder]", f"deepspeed.zero_stage={stage}")
    job = job_of(pairs, tmp_path, *settings)
    summary, _ = train_alone(job)
    start = build_model(job.config.model, 384, job.config.run.seed)
    end = load_file(tmp_path / "small" / "export" / "model.safetensors")
    for name, parameter in start.named_parameters():
        frozen = bool(parts_of(name, parameter) & {"embedding", "encoder"})
        assert torch.equal(parameter, end[name]) == frozen, name
        assert frozen == (not parameter.requires_grad)
    assert summary["num_trained"] == sum(p.numel() for p in start.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model.freeze=[encoder, decoder]"], "with encoder and decoder both frozen"),
        (["model.freeze=[encodr]"], "model.freeze.0 is 'encodr'"),
        (["model.shape.tie_word_embeddings=true", "model.freeze=[classifier]"], "the classifier is the embedding"),
        (["model.freeze=[embedding, norms]", "optimizer.embedding_lr_ratio=2"], "leaves neither embedding nor norms"),
    ],
)
def test_wrong_settings_are_refused(pairs, tmp_path, settings, words):
    with pytest.raises(UserError) as caught:
        job_of(pairs, tmp_path, *settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
