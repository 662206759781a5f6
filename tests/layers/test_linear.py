"""Products by oneDNN are torch's, to the rounding of another order of sums."""

import pytest
import torch
import torch.nn.functional as F

from recipes.config import LoraBlock, ModelBlock
from recipes.layers import linear as module
from recipes.layers.linear import ENOUGH, Linear, linear, mkl_is_slow, product
from recipes.training.lora import add_lora
from recipes.training.model import build_model

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
WIDE, NARROW, SQUARE = (40, 300), (300, 40), (64, 64)


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(module, "ENOUGH", 0)
    monkeypatch.setattr(module, "mkl_is_slow", lambda: True)


def found_by(function, x, weight, of_output):
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    out = function(x, weight)
    out.backward(of_output)
    return out.detach(), x.grad, weight.grad


@needs_onednn
@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("shape", [WIDE, NARROW, SQUARE], ids=["wide", "narrow", "square"])
def test_products_and_gradients_are_torchs(always, shape, num_threads):
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(3, 17, shape[0], generator=draw), torch.randn(shape[1], shape[0], generator=draw)
    of_output = torch.randn(shape[1], 17, 3, generator=draw).permute(2, 1, 0)
    try:
        found = found_by(linear, x, weight, of_output)
    finally:
        torch.set_num_threads(before)
    exact = found_by(F.linear, x.double(), weight.double(), of_output.double())
    for ours, right in zip(found, exact, strict=True):
        assert (ours.dtype, ours.shape) == (torch.float32, right.shape)
        assert float((ours - right).norm()) < 5e-7 * float(right.norm())


@needs_onednn
def test_nothing_is_computed_for_what_needs_no_gradient(always):
    x, weight = torch.randn(5, 8, requires_grad=True), torch.randn(6, 8)
    linear(x, weight).sum().backward()
    assert torch.allclose(x.grad, weight.sum(0).expand(5, 8))
    x, weight = torch.randn(5, 8), torch.randn(6, 8, requires_grad=True)
    linear(x, weight).sum().backward()
    assert torch.allclose(weight.grad, x.sum(0).expand(6, 8), atol=1e-6)


@needs_onednn
def test_the_parameter_itself_is_kept(always):
    """ZeRO-3 takes a weight's memory away between forward and backward: only the parameter has it back."""
    weight, kept = torch.nn.Parameter(torch.randn(6, 8)), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        linear(torch.randn(5, 8), weight)
    assert any(tensor is weight for tensor in kept)


def test_what_onednn_does_not_help_is_torchs(monkeypatch):
    monkeypatch.setattr(module, "_Product", None)
    monkeypatch.setattr(module, "mkl_is_slow", lambda: True)
    small, weight = torch.randn(8, 64), torch.randn(32, 64)
    large = torch.randn(ENOUGH // (32 * 64), 64)
    assert torch.equal(linear(small, weight), F.linear(small, weight))
    for x, w, bias in ((large, weight, torch.randn(32)), (large.bfloat16(), weight.bfloat16(), None)):
        assert torch.equal(linear(x, w, bias), F.linear(x, w, bias))
    compiled = torch.compile(lambda x: linear(x, weight), backend="eager", fullgraph=True)
    assert torch.equal(compiled(large), F.linear(large, weight))
    with pytest.raises(AttributeError, match="apply"):
        linear(large, weight)
    monkeypatch.setattr(module, "mkl_is_slow", lambda: False)
    assert torch.equal(linear(large, weight), F.linear(large, weight))


@pytest.mark.parametrize(
    ("cpu", "capability", "slow"),
    [("AuthenticAMD", "AVX512", True), ("GenuineIntel", "AVX512", False), ("AuthenticAMD", "AVX2", False)],
)
def test_it_is_for_cpus_whose_avx512_mkl_leaves_alone(monkeypatch, cpu, capability, slow):
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        pytest.skip("this torch has no MKL or no oneDNN")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(module.Path, "read_text", lambda path: f"vendor_id\t: {cpu}\n")
    assert mkl_is_slow.__wrapped__() is slow


@needs_onednn
def test_oneDNN_is_faster_where_it_is_chosen():
    """The reason for it all: 2 to 2.3 times where this was written."""
    if not mkl_is_slow():
        pytest.skip("MKL uses what this CPU has")
    import timeit

    x, weight = torch.randn(1024, 512), torch.randn(1024, 512)
    with torch.no_grad():
        ours, mkl = (min(timeit.repeat(lambda by=by: by(x, weight), number=1, repeat=30)) for by in (product, F.linear))
    assert ours < mkl


def test_a_model_has_them_below_loras_too():
    shape = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 4}
    model = build_model(ModelBlock(shape=shape), 50, seed=0)
    assert {type(part) for part in model.modules() if isinstance(part, torch.nn.Linear)} == {Linear}
    add_lora(model, LoraBlock(rank=2), seed=0)
    below = {type(part) for name, part in model.named_modules() if name.endswith("base_layer")}
    assert below == {Linear}
