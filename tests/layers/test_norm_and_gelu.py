"""T5's norm and activation are transformers', to rounding."""

import copy

import pytest
import torch
from transformers.activations import NewGELUActivation
from transformers.models.t5.modeling_t5 import T5LayerNorm

from recipes.config import ModelBlock
from recipes.layers.gelu import Gelu
from recipes.layers.norm import Norm
from recipes.training.model import build_model

OURS = {T5LayerNorm: Norm, NewGELUActivation: Gelu}


def pair(kind, dtype):
    """transformers' module and ours with its weights."""
    theirs = kind(24) if kind is T5LayerNorm else kind()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, 1.0, 0.3)
    theirs = theirs.to(dtype)
    ours = copy.deepcopy(theirs)
    ours.__class__ = OURS[kind]
    return theirs, ours


def found_by(module, x, of_output):
    x = x.clone().requires_grad_()
    out = module(x)
    out.backward(of_output)
    return [out.detach(), x.grad, *[parameter.grad for parameter in module.parameters()]]


@pytest.mark.parametrize("kind", OURS, ids=["norm", "gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_values_and_gradients_are_transformers(kind, dtype):
    torch.manual_seed(0)
    theirs, ours = pair(kind, dtype)
    x, of_output = (3 * torch.randn(4, 50, 24)).to(dtype), torch.randn(4, 50, 24).to(dtype)
    exact = found_by(theirs.double(), x.double(), of_output.double())
    for mine, right in zip(found_by(ours, x, of_output), exact, strict=True):
        assert (mine.dtype, mine.shape) == (dtype, right.shape)
        assert float((mine - right).norm()) < 2 * torch.finfo(dtype).eps * float(right.norm())


def test_bf16_norms_round_where_transformers_does():
    torch.manual_seed(1)
    theirs, ours = pair(T5LayerNorm, torch.bfloat16)
    x = torch.randn(1000, 24).bfloat16()
    assert float((theirs(x) != ours(x)).double().mean()) < 0.002


def test_a_token_of_zeros_and_of_huge_numbers():
    theirs, ours = pair(T5LayerNorm, torch.float32)
    x = torch.stack([torch.zeros(24), torch.full((24,), 1e15), torch.full((24,), float("nan"))])
    found, expected = ([*found_by(module, x[:2], torch.ones(2, 24))] for module in (ours, theirs))
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other)
    assert ours(x).isfinite().all(-1).tolist() == [True, True, False]


@pytest.mark.parametrize("kind", OURS, ids=["norm", "gelu"])
def test_only_the_input_is_kept(kind):
    kept = []
    x = torch.randn(7, 24, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        pair(kind, torch.float32)[1](x)
    assert [tensor.data_ptr() for tensor in kept if tensor.shape == x.shape] == [x.data_ptr()]
    assert sum(tensor.numel() for tensor in kept) <= x.numel() + 7 + 24


def test_in_fp64_and_mixed_types_norms_are_transformers():
    theirs, ours = pair(T5LayerNorm, torch.float64)
    x = torch.randn(5, 24, dtype=torch.float64)
    assert torch.equal(ours(x), theirs(x))
    theirs, ours = pair(T5LayerNorm, torch.bfloat16)
    assert torch.equal(ours(x.float()), theirs(x.float()))


@pytest.mark.parametrize("kind", OURS, ids=["norm", "gelu"])
def test_they_can_be_compiled(kind):
    theirs, ours = pair(kind, torch.float32)
    x = torch.randn(5, 24)
    torch.testing.assert_close(torch.compile(ours, backend="eager", fullgraph=True)(x), theirs(x))


def test_a_model_has_them():
    shape = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 4, "feed_forward_proj": "gated-gelu"}
    kinds = [type(module) for module in build_model(ModelBlock(shape=shape), 50, seed=0).modules()]
    assert (kinds.count(Norm), kinds.count(Gelu)) == (2 + 3 + 2, 2)
    assert not {T5LayerNorm, NewGELUActivation} & set(kinds)
