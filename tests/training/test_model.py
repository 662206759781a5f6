"""Where the T5 comes from, and what its parameter groups are."""

import copy

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from recipes.config import ModelBlock, OptimizerBlock
from recipes.errors import UserError
from recipes.training.model import build_model, group_lr_ratios, parameter_groups, untied

SHAPE = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4}


def build(seed=0, vocab_size=50, **shape):
    return build_model(ModelBlock(shape=SHAPE | shape), vocab_size, seed)


def logits(model):
    tokens = torch.arange(3, 13).reshape(2, 5)
    with torch.no_grad():
        return model.eval()(input_ids=tokens, decoder_input_ids=tokens).logits


def assert_same(theirs, ours):
    """In fp64: transformers' layers and ours round in other places."""
    found, expected = (logits(copy.deepcopy(model).double()) for model in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_seed_decides_the_weights_and_nothing_else_moves():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = build(seed=1), build(seed=1), build(seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(logits(first), logits(again))
    assert not torch.equal(logits(first), logits(other))


@pytest.mark.parametrize("tied", [True, False])
def test_tied_or_not(tied):
    model = build(tie_word_embeddings=tied)
    assert untied(model) != tied
    assert model.config.scale_decoder_outputs == tied
    assert model.encoder.embed_tokens.weight is model.shared.weight
    assert model.config._attn_implementation == "sdpa"
    assert 0.3 < float(logits(model).std()) < 3.0


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_starts_a_run(tmp_path, tied):
    from recipes.training.export import rebuilt

    model = build(tie_word_embeddings=tied)
    exported = rebuilt(model, {name: p.detach().clone() for name, p in model.named_parameters()})
    exported.save_pretrained(tmp_path / "m")
    loaded = build_model(ModelBlock(folder=str(tmp_path / "m"), dropout_rate=0.2), 50, seed=9)
    assert torch.equal(logits(loaded), logits(model))
    assert (untied(loaded), loaded.config.dropout_rate) == (not tied, 0.2)
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "m")
    assert_same(plain, model)
    with pytest.raises(UserError, match="has 50 embeddings but the tokenizer has 51 token ids"):
        build_model(ModelBlock(folder=str(tmp_path / "m")), 51, seed=0)


def test_a_folder_without_a_t5_is_refused(tmp_path):
    from transformers import GPT2Config

    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is a gpt2, not a T5"):
        build_model(ModelBlock(folder=str(tmp_path)), 50, seed=0)
    with pytest.raises(UserError, match="cannot be loaded"):
        build_model(ModelBlock(folder=str(tmp_path / "absent")), 50, seed=0)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("ratio", [1.0, 5.0])
def test_every_parameter_is_in_one_group(tied, ratio):
    model = build(tie_word_embeddings=tied)
    optimizer = OptimizerBlock(weight_decay=0.1, embedding_lr_ratio=ratio)
    groups = parameter_groups(model, optimizer, peak_lr=1e-3)
    assert sorted(map(id, model.parameters())) == sorted(id(p) for group in groups for p in group["params"])
    assert [group["lr"] for group in groups] == [1e-3 * each for each in group_lr_ratios(optimizer)]
    names = {id(p): name for name, p in model.named_parameters()}
    kept = {names[id(p)] for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert kept == {name for name in names.values() if "layer_norm" in name or "relative_attention_bias" in name}
    assert len(kept) == 2 * 5 + 2 + 2  # norms of two encoder and two decoder layers, final norms, biases
    fast = {names[id(p)] for group in groups if group["lr"] > 1e-3 for p in group["params"]}
    assert fast == (set() if ratio == 1.0 else kept | {"shared.weight"})


V1_0 = {"feed_forward_proj": "relu", "tie_word_embeddings": True}
V1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
# What the families' published config.json differ in; ByT5 has more encoder layers, heads * d_kv is not d_model in all but T5.
FAMILIES = {
    "t5": ("t5", V1_0 | {"d_kv": 4, "num_heads": 4}, 50),
    "t5-v1_1": ("t5", V1_1 | {"d_kv": 4, "num_heads": 6}, 50),
    "flan-t5": ("t5", V1_1 | {"d_kv": 4, "num_heads": 6, "n_positions": 512, "output_past": True}, 50),
    "mt5": ("mt5", V1_1 | {"d_kv": 4, "num_heads": 6, "tokenizer_class": "T5Tokenizer"}, 60),
    "byt5": ("mt5", V1_1 | {"d_kv": 4, "num_heads": 6, "num_layers": 3, "num_decoder_layers": 1}, 384),
    "codet5": ("t5", V1_0 | {"d_kv": 4, "num_heads": 4, "bos_token_id": 1, "eos_token_id": 2}, 50),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read_changed_and_written_as_transformers_has_it(tmp_path, family):
    import json

    from safetensors.torch import save_file

    from recipes.training.export import rebuilt

    kind, settings, vocab_size = FAMILIES[family]
    names = {"d_model": 16, "d_ff": 24, "num_layers": 2, "model_type": kind, "vocab_size": vocab_size}
    shape = names | {"decoder_start_token_id": 0, "pad_token_id": 0, "dropout_rate": 0.1} | settings
    own = {
        key: value
        for key, value in shape.items()
        if key in ModelBlock.model_fields or key in SHAPE or key.startswith("num_")
    }
    source = build_model(
        ModelBlock(
            shape=own
            | {"feed_forward_proj": shape["feed_forward_proj"], "tie_word_embeddings": shape["tie_word_embeddings"]}
        ),
        vocab_size,
        seed=2,
    )
    # As on the Hub: their own config.json beside the weights.
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "config.json").write_text(json.dumps(shape | {"is_encoder_decoder": True}))
    weights = {name: p.detach().clone() for name, p in source.named_parameters()}
    save_file(weights, tmp_path / "hub" / "model.safetensors", metadata={"format": "pt"})

    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "hub")
    ours = build_model(ModelBlock(folder=str(tmp_path / "hub")), vocab_size, seed=0)
    assert untied(ours) == (settings["feed_forward_proj"] != "relu")
    assert_same(theirs, ours)
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.1)
    ours.train()(input_ids=torch.tensor([[3, 4]]), labels=torch.tensor([[5, 1]])).loss.backward()
    optimizer.step()
    rebuilt(ours, {name: p.detach().clone() for name, p in ours.named_parameters()}).save_pretrained(tmp_path / "out")
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
    assert_same(again, ours)
    assert not torch.equal(logits(again), logits(theirs))
