"""Parameter counts from the config alone, against transformers' own model without its weights."""

import json

import pytest
import torch
import yaml
from transformers import T5Config, T5ForConditionalGeneration

from recipes.config import ModelBlock, ShapeBlock
from recipes.config.published import CHECKPOINTS, SIZES
from recipes.config_file import parse_config, to_yaml
from recipes.errors import UserError
from recipes.planning.shapes import published_shape, shape_of
from recipes.training.model import _from_shape, build_model, untied


def make_config(model, tokenizer):
    return parse_config(
        {
            "run": {"name": "x"},
            "model": model,
            "data": {"source": "pydoc", "tokenizer": tokenizer},
            "schedule": {"peak_lr": 1e-3, "total_steps": 10},
        }
    )


def num_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def on_meta(shape):
    """transformers' model of this shape, without memory; untied as loading an untied checkpoint unties it."""
    config = T5Config(
        vocab_size=shape.vocab_size, d_model=shape.d_model, d_kv=shape.d_kv, d_ff=shape.d_ff, num_heads=shape.num_heads,
        num_layers=shape.num_layers, num_decoder_layers=shape.num_decoder_layers,
        feed_forward_proj="gated-gelu" if shape.gated else "relu",
    )  # fmt: skip
    with torch.device("meta"):
        model = T5ForConditionalGeneration(config)
        if not shape.tied:
            model.lm_head.weight = torch.nn.Parameter(torch.empty(shape.vocab_size, shape.d_model))
    return model


@pytest.mark.parametrize("name", [name for name in CHECKPOINTS if not name.startswith("google-t5/")])
def test_published_sizes_are_exact(name):
    model = on_meta(published_shape(name))
    assert published_shape(name).num_parameters == num_parameters(model)
    assert sorted(published_shape(name).parameter_sizes()) == sorted(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("t5-small", 60_506_624),
        ("t5-base", 222_903_552),
        ("t5-large", 737_668_096),
        ("t5-3b", 2_851_598_336),
        ("t5-11b", 11_307_321_344),
        ("google/flan-t5-base", 247_577_856),
        ("google/flan-t5-xxl", 11_135_332_352),
        ("google/mt5-small", 300_176_768),
        ("google/byt5-small", 299_637_760),
    ],
)
def test_published_sizes_are_those_of_the_checkpoints(name, count):
    assert published_shape(name).num_parameters == count


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("proj", ["relu", "gated-gelu"])
def test_a_shape_of_ones_own_is_exact(tied, proj):
    block = ShapeBlock(
        d_model=48, d_kv=10, d_ff=70, num_layers=3, num_decoder_layers=2, num_heads=5, feed_forward_proj=proj,
        tie_word_embeddings=tied, relative_attention_num_buckets=20,
    )  # fmt: skip
    config = make_config({"shape": block.model_dump()}, {"kind": "unigram", "vocab_size": 777})
    assert shape_of(config).num_parameters == num_parameters(_from_shape(block, 777))


def test_a_folder_is_read_without_its_weights(tmp_path):
    block = ShapeBlock(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, tie_word_embeddings=False)
    model = _from_shape(block, 300)
    model.save_pretrained(tmp_path)
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    config_file = tmp_path / "config.json"
    content = json.loads(config_file.read_text())
    config_file.write_text(json.dumps(content | {"tie_word_embeddings": False}))
    config = make_config({"folder": str(tmp_path)}, {"kind": "folder", "path": str(tmp_path)})
    assert shape_of(config).num_parameters == num_parameters(model)
    config_file.write_text(json.dumps(content | {"model_type": "bart"}))
    with pytest.raises(UserError, match="of a bart, not a T5"):
        shape_of(config)
    config_file.write_text(json.dumps(content | {"d_ff": "wide"}))
    with pytest.raises(UserError, match=r"d_ff in its config.json is 'wide', not a count"):
        shape_of(config)


def test_an_unknown_hub_name_names_the_nearest():
    config = make_config({"hub": "google/flan-t5-bse"}, {"kind": "hub", "path": "google/flan-t5-base"})
    with pytest.raises(UserError, match="did you mean 'google/flan-t5-base'; for another model"):
        shape_of(config)


@pytest.mark.parametrize("name", SIZES)
def test_a_preset_is_the_published_model_with_the_tokenizers_vocabulary(name):
    config = make_config({"shape": name}, {"kind": "bytes"})
    shape = config.model.shape
    assert shape == ShapeBlock(preset=name)
    published = {"google/" + name, name, "Salesforce/" + name} & set(CHECKPOINTS)
    [found] = published
    embeddings = 1 if shape.tie_word_embeddings else 2
    whole, mine = published_shape(found), shape_of(config)
    assert whole.num_parameters - mine.num_parameters == embeddings * (whole.vocab_size - 384) * shape.d_model
    # The resolved config is self-contained, and reads back as itself.
    assert parse_config(yaml.safe_load(to_yaml(config))) == config


def test_a_preset_may_be_changed():
    shape = ShapeBlock(preset="byt5-small", num_layers=3, dropout_rate=0.1)
    assert (shape.d_model, shape.num_layers, shape.num_decoder_layers, shape.dropout_rate) == (1472, 3, 4, 0.1)


def test_an_unknown_preset_is_refused_with_the_nearest():
    with pytest.raises(
        UserError, match=r"config: model.shape.*'t5-v1-base' is not a published size, did you mean 't5-v1_1-base'"
    ):
        make_config({"shape": "t5-v1-base"}, {"kind": "bytes"})


def test_a_preset_builds():
    model = build_model(ModelBlock(shape={"preset": "t5-v1_1-small", "num_layers": 1, "num_decoder_layers": 1}), 400, 0)
    assert (model.config.d_ff, model.config.num_heads, model.config.vocab_size) == (1024, 6, 400)
    assert untied(model)


@pytest.mark.parametrize("proj", ["relu", "gated-gelu"])
@pytest.mark.parametrize(
    "settings",
    [
        {"freeze": ["embedding"]}, {"freeze": ["encoder", "norms"]}, {"freeze": ["decoder", "classifier"]},
        {"lora": {"rank": 3}}, {"lora": {"rank": 5, "targets": ["q", "k", "v", "o", "wo"]}},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_trained_is_counted(settings, proj, tmp_path):
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=60,
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=3,
        feed_forward_proj=proj,
    )
    theirs = T5ForConditionalGeneration(config)
    theirs.lm_head.weight = torch.nn.Parameter(torch.randn(60, 16))
    theirs.config.tie_word_embeddings = False
    theirs.save_pretrained(tmp_path)
    block = ModelBlock(folder=str(tmp_path), **settings)
    model = build_model(block, 60, 0)
    shape = shape_of(make_config(block.model_dump(), {"kind": "folder", "path": str(tmp_path)}))
    assert shape.num_trained(block) == sum(p.numel() for p in model.parameters() if p.requires_grad)
