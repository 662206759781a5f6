"""Examples that share a row compute what they compute alone."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recipes.config import ModelBlock
from recipes.data.batches import collate
from recipes.data.denoising import Pair
from recipes.training.model import build_model
from recipes.training.update import summed_loss, target_logits

SHAPE = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 3}


@pytest.fixture(scope="module")
def split():
    draw = np.random.default_rng(3)
    pairs = [Pair(*(np.append(draw.integers(2, 60, draw.integers(1, 40)), 1) for _ in "st")) for _ in range(12)]
    return SimpleNamespace(pair=pairs.__getitem__)


def model_of(dtype=torch.float64, **settings):
    return build_model(ModelBlock(shape=SHAPE, **settings), 60, seed=0).to(dtype)


ROWS = [np.array([3, 0, 7]), np.array([5]), np.array([1, 2]), np.array([4, 6, 8, 9]), np.array([10, 11])]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_scores_and_gradients_are_those_of_examples_alone(split, checkpointing):
    model = model_of(gradient_checkpointing=checkpointing)
    logits = target_logits(model, collate(split, ROWS, 0))
    for number, row in enumerate(ROWS):
        begin = 0
        for i in row:
            alone = target_logits(model, collate(split, np.array([i]), 0))[0]
            assert torch.allclose(logits[number, begin : begin + len(alone)], alone, rtol=0, atol=1e-12)
            begin += len(alone)
    gradients = []
    for batches in ([ROWS], [[np.array([i])] for i in range(12)]):
        model.zero_grad()
        for batch in batches:
            summed_loss(model, collate(split, batch, 0)).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for packed, alone in zip(*gradients, strict=True):
        assert (packed - alone).norm() < 1e-10 * (1 + alone.norm())


def test_an_example_hears_nothing_of_its_neighbours(split):
    model, row = model_of(), [np.array([3, 0, 7])]
    before = collate(split, row, 0)
    length = int((before.target_examples == 1).sum())
    changed = SimpleNamespace(pair=lambda i: Pair(*(ids[::-1] for ids in split.pair(i))) if i != 3 else split.pair(i))
    assert not torch.equal(collate(changed, row, 0).input_ids, before.input_ids)
    scores = [target_logits(model, collate(texts, row, 0))[0, :length] for texts in (split, changed)]
    assert torch.equal(*scores)


def test_bf16_keeps_them_apart_too(split):
    model = model_of(torch.bfloat16)
    exact = target_logits(model_of(), collate(split, ROWS, 0))
    packed = target_logits(model, collate(split, ROWS, 0)).detach()
    assert torch.isfinite(packed).all()
    # Rounding only: leaking would move the scores by their own size.
    assert float((packed.double() - exact.detach()).abs().mean() / exact.detach().abs().mean()) < 0.03
