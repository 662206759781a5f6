"""Each optimizer on whole parameters, update by update, against the library or the formula it follows."""

import numpy as np
import pytest
import torch
import transformers

from recipes.config import OptimizerBlock
from recipes.optimizers.adafactor import Adafactor
from recipes.optimizers.build import build_optimizer

SHAPES = [(5, 7), (7,), (1, 6), (40, 3), (2, 3, 4)]
# The last one is smaller than the least RMS that counts.
SPREADS = [1.0, 0.5, 2.0, 1e-5]
UPDATES = 12


def parameters(shapes=SHAPES):
    torch.manual_seed(0)
    spreads = [*SPREADS, 0.3][: len(shapes)]
    return [torch.nn.Parameter(torch.randn(s, dtype=torch.float64) * e) for s, e in zip(shapes, spreads, strict=True)]


def gradients(k, shapes=SHAPES):
    torch.manual_seed(100 + k)
    # An element without a gradient, as the embedding of a token that does not occur has.
    return [
        torch.randn(s, dtype=torch.float64).mul_(3.0**k).fill_diagonal_(0) if len(s) == 2 else torch.randn(s).double()
        for s in shapes
    ]


def train(optimizer, weights, lrs, shapes=SHAPES):
    for k, lr in enumerate(lrs):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for weight, gradient in zip(weights, gradients(k, shapes), strict=True):
            weight.grad = gradient
        optimizer.step()
    return [weight.detach() for weight in weights]


LRS = [0.01 * (k + 1) for k in range(UPDATES)]


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
@pytest.mark.parametrize("settings", [{}, {"decay_rate": 0.6, "clip_threshold": 0.5, "eps1": 1e-4, "eps2": 0.1}])
def test_adafactor_is_that_of_transformers(weight_decay, settings):
    shapes = SHAPES[:4]
    mine, theirs = parameters(shapes), parameters(shapes)
    block = OptimizerBlock(name="adafactor", weight_decay=weight_decay, **settings)
    library = transformers.Adafactor(
        theirs,
        lr=0.0,
        eps=(block.eps1, block.eps2),
        clip_threshold=block.clip_threshold,
        decay_rate=-block.decay_rate,
        weight_decay=weight_decay,
        scale_parameter=True,
        relative_step=False,
    )
    groups = [{"params": mine, "weight_decay": weight_decay, "lr": 0.0}]
    found = train(build_optimizer(groups, block, 0.0), mine, LRS, shapes)
    for one, other, start in zip(found, train(library, theirs, LRS, shapes), parameters(shapes), strict=True):
        start = start.detach()
        assert float((one - other).norm()) < 1e-11 * float((other - start).norm())


def test_three_dimensions_are_not_factored():
    """A moment for each element: the first update is then the gradient's sign, clipped to nothing less."""
    (weight,) = parameters([(2, 3, 4)])
    before, gradient = weight.detach().clone(), torch.randn(2, 3, 4).double()
    optimizer = Adafactor([weight], lr=0.1)
    weight.grad = gradient.clone()
    optimizer.step()
    size = float(before.pow(2).mean().sqrt())
    assert torch.allclose(before - weight.detach(), 0.1 * size * gradient.sign(), rtol=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
def test_adamw_rms_is_the_formula_of_nanot5(weight_decay):
    mine = parameters()
    block = OptimizerBlock(name="adamw_rms", weight_decay=weight_decay, betas=(0.8, 0.95), eps=1e-3)
    groups = [{"params": mine, "weight_decay": weight_decay, "lr": 0.0}]
    found = train(build_optimizer(groups, block, 0.0), mine, LRS)
    expected = [weight.detach().numpy().copy() for weight in parameters()]
    first, second = [np.zeros(s) for s in SHAPES], [np.zeros(s) for s in SHAPES]
    for k, lr in enumerate(LRS):
        for i, gradient in enumerate(g.numpy() for g in gradients(k)):
            first[i] = 0.8 * first[i] + 0.2 * gradient
            second[i] = 0.95 * second[i] + 0.05 * gradient**2
            size = max(1e-3, np.sqrt(np.mean(expected[i] ** 2)))
            rate = lr * size * np.sqrt(1 - 0.95 ** (k + 1)) / (1 - 0.8 ** (k + 1))
            expected[i] = (expected[i] - rate * first[i] / (np.sqrt(second[i]) + 1e-3)) * (1 - lr * weight_decay)
    for one, other, start in zip(found, expected, parameters(), strict=True):
        difference = np.linalg.norm(one.numpy() - other) / np.linalg.norm(other - start.detach().numpy())
        assert difference < 1e-11


def test_adamw_is_deepspeeds_to_build():
    assert build_optimizer([{"params": parameters()}], OptimizerBlock(), 0.1) is None
