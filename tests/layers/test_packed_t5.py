"""Examples one after the other compute what they compute alone, by transformers' own forward pass."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recipes.config import ModelBlock
from recipes.data.batches import pack, pad
from recipes.data.denoising import Pair
from recipes.training.model import build_model
from recipes.training.update import summed_loss, target_logits

SHAPE = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 3}
# Three groups of unlike lengths; the second batch in one, with nothing to look up.
UNLIKE, ALIKE = np.array([3, 0, 7, 12, 5, 1, 2]), np.array([14, 15, 16])


@pytest.fixture(scope="module")
def split():
    draw = np.random.default_rng(3)
    sizes = [*draw.integers(1, 30, (12, 2)).tolist(), (70, 20), (9, 80), *[(40, 25)] * 3]
    pairs = [Pair(*(np.append(draw.integers(2, 60, size), 1) for size in of_pair)) for of_pair in sizes]
    return SimpleNamespace(pair=pairs.__getitem__)


def model_of(dtype=torch.float64, shape=(), **settings):
    return build_model(ModelBlock(shape=SHAPE | dict(shape), **settings), 60, seed=0).to(dtype)


def test_the_batches_are_what_they_are_meant_to_be(split):
    assert len(pack(split, UNLIKE, 0).layout.source) == 3
    [places] = pack(split, ALIKE, 0).layout.source
    assert places.whole


@pytest.mark.parametrize("examples", [UNLIKE, ALIKE], ids=["unlike", "alike"])
@pytest.mark.parametrize(
    ("checkpointing", "shape"),
    [(False, {}), (True, {}), (False, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False})],
    ids=["plain", "checkpointing", "v1.1"],
)
def test_scores_and_gradients_are_those_of_examples_alone(split, checkpointing, shape, examples):
    model = model_of(gradient_checkpointing=checkpointing, shape=shape)
    logits, begin = target_logits(model, pack(split, examples, 0))[0], 0
    for i in examples:
        alone = target_logits(model, pad(split, np.array([i]), 0))[0]
        assert torch.allclose(logits[begin : begin + len(alone)], alone, rtol=0, atol=1e-12)
        begin += len(alone)
    assert begin == len(logits)
    gradients = []
    for batches in ([pack(split, examples, 0)], [pad(split, np.array([i]), 0) for i in examples]):
        model.zero_grad()
        for batch in batches:
            summed_loss(model, batch).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for packed, alone in zip(*gradients, strict=True):
        assert (packed - alone).norm() < 1e-10 * (1 + alone.norm())


def test_dropout_drops_as_much(split):
    """By the mean loss over many draws, as the masks themselves are others."""
    model = model_of(torch.float32, shape={"dropout_rate": 0.3})
    without = float(summed_loss(model.eval(), pad(split, UNLIKE, 0)).detach())
    model.train()
    torch.manual_seed(0)
    raised = {}
    for made in (pack, pad):
        batch = made(split, UNLIKE, 0)
        with torch.no_grad():
            raised[made] = np.array([float(summed_loss(model, batch)) for _ in range(400)]) - without
    error = np.sqrt(sum(some.var() / len(some) for some in raised.values()))
    assert abs(raised[pack].mean() - raised[pad].mean()) < 3 * error
    assert raised[pack].mean() > 20 * error, "or a quarter more or less would not be seen"


def test_an_example_hears_nothing_of_its_neighbours(split):
    model = model_of()
    changed = SimpleNamespace(pair=lambda i: Pair(*(ids[::-1] for ids in split.pair(i))) if i != 3 else split.pair(i))
    batches = [pack(texts, UNLIKE, 0) for texts in (split, changed)]
    assert not torch.equal(batches[0].input_ids, batches[1].input_ids)
    length = len(split.pair(3).target)
    assert torch.equal(*(target_logits(model, batch)[0, :length] for batch in batches))


def test_bf16_keeps_them_apart_too(split):
    exact = target_logits(model_of(), pack(split, UNLIKE, 0)).detach()
    packed = target_logits(model_of(torch.bfloat16), pack(split, UNLIKE, 0)).detach()
    assert torch.isfinite(packed).all()
    # Rounding only: leaking would move the scores by their own size.
    assert float((packed.double() - exact).abs().mean() / exact.abs().mean()) < 0.03
