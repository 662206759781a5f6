"""The loss that overwrites its logits is torch's cross-entropy."""

import functools

import pytest
import torch
import torch.nn.functional as F

from recipes.layers import cross_entropy
from recipes.layers.cross_entropy import summed_cross_entropy


def weights_and_inputs(dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(50, 8, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    labels = torch.randint(0, 50, (23,), generator=draw)
    labels[[0, 7, 22]] = -100
    return weights, torch.randn(23, 8, generator=draw, dtype=torch.float64).to(dtype), labels


def gradient(loss_of, scale=0.25, **more):
    weights, inputs, labels = weights_and_inputs(**more)
    loss = loss_of(inputs @ weights.t(), labels)
    (loss * scale).backward()
    return loss.detach(), weights.grad


def theirs(logits, labels):
    return F.cross_entropy(logits.float() if logits.dtype == torch.bfloat16 else logits, labels, reduction="sum")


@pytest.mark.parametrize("at_once", [1, 120, 1 << 24])
@pytest.mark.parametrize(
    ("dtype", "rel"), [(torch.float64, 1e-14), (torch.float32, 2e-6), (torch.bfloat16, 5e-3)], ids=str
)
def test_loss_and_gradient_are_torchs(monkeypatch, dtype, rel, at_once):
    monkeypatch.setattr(cross_entropy, "AT_ONCE", at_once)
    (loss, found), (expected, right) = gradient(summed_cross_entropy, dtype=dtype), gradient(theirs, dtype=dtype)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float(loss) == pytest.approx(float(expected), rel=min(rel, 2e-6))
    assert found.dtype == dtype
    assert float((found - right).norm()) < rel * float(right.norm())


@pytest.mark.parametrize("at_once", [120, 1 << 24])
def test_label_smoothing_is_torchs(monkeypatch, at_once):
    monkeypatch.setattr(cross_entropy, "AT_ONCE", at_once)
    ours = functools.partial(summed_cross_entropy, label_smoothing=0.1)
    right = functools.partial(F.cross_entropy, reduction="sum", label_smoothing=0.1)
    (loss, found), (expected, wanted) = (gradient(one, dtype=torch.float64) for one in (ours, right))
    assert float(loss) == pytest.approx(float(expected), rel=1e-14)
    assert float((found - wanted).norm()) < 1e-13 * float(wanted.norm())
    assert float(loss) != pytest.approx(float(gradient(theirs, dtype=torch.float64)[0]), rel=1e-3)


def test_nothing_counts():
    logits = torch.randn(4, 9, requires_grad=True)
    loss = summed_cross_entropy(logits * 1.0, torch.full((4,), -100))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_what_is_not_finite_stays_so():
    loss, found = gradient(summed_cross_entropy, scale=float("inf"))
    assert torch.isfinite(loss)
    assert not torch.isfinite(found).all()


def test_the_logits_are_all_that_is_kept():
    weights, inputs, labels = weights_and_inputs()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        logits = inputs @ weights.t()
        summed_cross_entropy(logits, labels)
    assert [tensor.data_ptr() for tensor in kept if tensor.shape == logits.shape] == [logits.data_ptr()]
    assert float(logits.detach()[1].sum()) == pytest.approx(0, abs=1e-5), "it is the gradient now"
