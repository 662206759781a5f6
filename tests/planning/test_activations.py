"""What the planner says the forward pass keeps, against what autograd really keeps."""

import pytest
import torch

from recipes.config import ModelBlock, ShapeBlock
from recipes.layers.cross_entropy import summed_cross_entropy
from recipes.planning.activations import TrainedModel, activation_bytes
from recipes.planning.shapes import shape_of_block
from recipes.training.model import build_model

VOCAB, ROWS, SOURCE, TARGET = 200, 3, 96, 48


def kept_by_autograd(block, precision):
    """Bytes of the different storages, weights aside, that autograd keeps between forward and backward."""
    model = build_model(block, VOCAB, seed=0).to(torch.bfloat16 if precision == "bf16" else torch.float32)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = tensor.detach()  # held, so that no address is used twice
        return tensor

    source, labels = torch.randint(3, VOCAB, (ROWS, SOURCE)), torch.randint(3, VOCAB, (ROWS, TARGET))
    mask = torch.ones_like(source)
    mask[0, -2:] = 0
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(input_ids=source, attention_mask=mask, decoder_input_ids=labels, use_cache=False)
        summed_cross_entropy(output.logits.flatten(0, 1), labels.flatten())
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("proj", ["gated-gelu", "relu"])
def test_kept_bytes_are_those_of_autograd(precision, dropout, proj):
    sizes = {"d_model": 64, "d_kv": 24, "d_ff": 160, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4}
    block = ShapeBlock(**sizes, feed_forward_proj=proj, dropout_rate=dropout, tie_word_embeddings=False)
    model = TrainedModel(shape_of_block(block, VOCAB), precision, dropout=dropout > 0)
    said = activation_bytes(model, SOURCE, TARGET, fused_attention=False)
    assert ROWS * said == pytest.approx(kept_by_autograd(ModelBlock(shape=block), precision), rel=0.06)
