"""The recipe's dropout on CPUs is torch's in distribution."""

import pytest
import torch
from torch import nn

from recipes.layers.dropout import Dropout, dropout


@pytest.mark.parametrize("rate", [0.1, 0.3, 1 / 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_zeros_come_at_the_rate_and_the_mean_stays(rate, dtype):
    torch.manual_seed(0)
    x = torch.ones(1001, 999, dtype=dtype, requires_grad=True)
    out = dropout(x, rate, training=True)
    assert out.dtype == dtype
    kept = out != 0
    sigma = (rate * (1 - rate) / x.numel()) ** 0.5
    assert float((~kept).double().mean()) == pytest.approx(rate, abs=5 * sigma + 2**-17)
    assert set(out[kept].tolist()) == {float(torch.tensor(1 / (1 - round(rate * 65536) / 65536), dtype=dtype))}
    out.sum().backward()
    assert torch.equal(x.grad, out)


def test_elements_and_calls_are_drawn_by_themselves():
    torch.manual_seed(0)
    x = torch.ones(1 << 20)
    one, two = (dropout(x, 0.5, True) > 0 for _ in range(2))
    sigma = (0.25 / len(x)) ** 0.5
    for shift in (1, 2, 3, 4, 7, 128):
        assert float((one == one.roll(shift)).double().mean()) == pytest.approx(0.5, abs=5 * sigma), shift
    assert float((one == two).double().mean()) == pytest.approx(0.5, abs=5 * sigma)


def test_the_draws_are_those_of_the_generators_state():
    x = torch.randn(7, 5)
    state = torch.get_rng_state()
    one = dropout(x, 0.3, True)
    other = dropout(x, 0.3, True)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x, 0.3, True), one)
    assert not torch.equal(other, one)


def test_what_is_not_finite_stays_so_and_a_strided_gradient_is_right():
    torch.manual_seed(0)
    x = torch.randn(6, 4, requires_grad=True)
    out = dropout(x.t(), 0.4, True)
    out.t().backward(torch.arange(24.0).view(6, 4))
    expected = torch.where(out.t() != 0, torch.arange(24.0).view(6, 4) / (1 - round(0.4 * 65536) / 65536), 0.0)
    assert torch.allclose(x.grad, expected, rtol=1e-6, atol=0)
    assert not torch.isfinite(dropout(torch.full((9,), float("inf")), 0.4, True)).all()


def test_without_training_or_rate_nothing_happens():
    x, module = torch.randn(3, 4), Dropout(0.3)
    state = torch.get_rng_state()
    assert dropout(x, 0.3, training=False) is x
    assert dropout(x, 0.0, training=True) is x
    assert module.eval()(x) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_a_compiled_model_has_torchs():
    """What a compiler fuses costs nothing."""
    compiled = torch.compile(lambda x: dropout(x, 0.3, True), backend="eager", fullgraph=True)
    torch.manual_seed(0)
    found = compiled(torch.ones(1000))
    torch.manual_seed(0)
    assert torch.equal(found, nn.functional.dropout(torch.ones(1000), 0.3))
