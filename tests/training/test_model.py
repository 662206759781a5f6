"""Where the T5 comes from, and what its parameter groups are."""

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
    assert torch.equal(logits(plain), logits(model))
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
