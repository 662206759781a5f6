"""A T5 that also takes examples one after the other, without padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration
from transformers.activations import NewGELUActivation
from transformers.models.t5.modeling_t5 import T5Attention, T5LayerNorm

from recipes.data.batches import Layout, Places
from recipes.layers.dropout import Dropout, dropout
from recipes.layers.gelu import Gelu
from recipes.layers.linear import Linear
from recipes.layers.norm import Norm


class PackedT5(T5ForConditionalGeneration):
    """transformers' model, the same weights under the same names, its layers those of this folder; `forward` takes one argument more.

    Everything in a T5 but attention works on every token by itself, and attention knows positions by their differences
    only: so a sequence of many examples is computed as it stands, and attention alone takes the examples apart.
    """

    def __init__(self, config: Any):
        super().__init__(config)
        for module in self.modules():
            module.__class__ = _OURS.get(type(module), type(module))

    def forward(self, *args: Any, layout: Layout | None = None, **kwargs: Any) -> Any:
        """As transformers' own; with ``layout`` input_ids and decoder_input_ids are a `PackedBatch`'s, and the scores are
        (1, target tokens, vocabulary).
        """
        if layout is None:
            return super().forward(*args, **kwargs)
        # Of four dimensions a mask is passed on as it is; no layer reads it.
        unread = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.device)
        encoded = self.encoder(input_ids=kwargs.pop("input_ids")[None], attention_mask=unread, layout=layout)
        return super().forward(
            encoder_outputs=encoded,
            attention_mask=unread,
            decoder_input_ids=kwargs.pop("decoder_input_ids")[None],
            decoder_attention_mask=unread,
            layout=layout,
            **kwargs,
        )


class Biases:
    """What is added to the scores of each group: a bias, a mask of keys, or None. Layers hand it on.

    Not a tuple: DeepSpeed's ZeRO-3 counts the tensors that go through a module and takes another number of groups for
    another order of modules, on which the ranks then must agree; where they do not, they wait for each other for ever.
    """

    def __init__(self, of_groups: Iterable[Tensor | None]):
        self.of_groups = tuple(of_groups)


class ExampleAttention(T5Attention):
    """transformers' attention, which with ``layout`` stays within each example of a packed sequence."""

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        key_value_states: Tensor | None = None,
        position_bias: Any = None,
        past_key_values: Any = None,
        layout: Layout | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Any, Tensor | None]:
        """hidden_states: (1, tokens, d_model). With ``layout`` the bias that layers hand on is that of every group, what masks
        its padding included."""
        if layout is None:
            return super().forward(hidden_states, mask, key_value_states, position_bias, past_key_values, **kwargs)
        attended = hidden_states if key_value_states is None else key_value_states
        queries = layout.target if self.is_decoder else layout.source
        keys = queries if key_value_states is None else layout.source
        if position_bias is None:
            position_bias = Biases(self._biases(keys, hidden_states) if key_value_states is None else _key_masks(keys))
        q, k, v = self._heads(self.q(hidden_states)), self._heads(self.k(attended)), self._heads(self.v(attended))
        found = []
        for at, to, bias in zip(queries, keys, position_bias.of_groups, strict=True):
            out = self._attend(_apart(q, at), _apart(k, to), _apart(v, to), bias)
            found.append(out.transpose(1, 2).flatten(0, 1))
        together = torch.cat(found) if len(found) > 1 else found[0]
        if not queries[0].whole:
            together = together.index_select(0, layout.target_back if self.is_decoder else layout.source_back)
        return self.o(together.flatten(1))[None], position_bias, None

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        rate = self.dropout if self.training else 0.0
        if rate and q.device.type == "cpu":
            # torch has no kernel for this there; what it does instead draws a number for every element.
            scores = torch.matmul(q, k.transpose(2, 3))
            if bias is not None:
                scores = scores.masked_fill_(~bias, _lowest(q)) if bias.dtype == torch.bool else scores.add_(bias)
            return torch.matmul(dropout(scores.softmax(dim=-1), rate, True), v)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=rate, scale=self.scaling)

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.view(-1, self.n_heads, self.key_value_proj_dim)

    def _biases(self, groups: tuple[Places, ...], like: Tensor) -> Iterator[Tensor]:
        """Of self-attention: the relative position bias, and the lowest number on what may not be attended to."""
        longest = max(group.index.shape[1] for group in groups)
        bias = self.compute_bias(longest, longest, device=like.device).to(like.dtype)
        lowest = _lowest(like)
        for group in groups:
            length = group.index.shape[1]
            own = bias[:, :, :length, :length]
            if self.is_decoder:  # padding comes after all that a token may attend to
                later = torch.ones(length, length, dtype=torch.bool, device=like.device).triu(1)
                own = own.masked_fill(later, lowest)
            elif group.mask is not None:
                own = own.masked_fill(~group.mask[:, None, None], lowest)
            yield own


def _key_masks(groups: tuple[Places, ...]) -> Iterator[Tensor | None]:
    return (None if group.mask is None else group.mask[:, None, None] for group in groups)


def _lowest(like: Tensor) -> float:
    return torch.finfo(like.dtype).min


def _apart(heads: Tensor, places: Places) -> Tensor:
    """(tokens, heads, d_kv) to the group's (examples, heads, longest, d_kv)."""
    num, longest = places.index.shape
    chosen = heads if places.whole else heads.index_select(0, places.index.flatten())
    return chosen.view(num, longest, *heads.shape[1:]).transpose(1, 2)


# By exact type: a subclass is somebody else's, such as LoRA's.
_OURS = {
    T5Attention: ExampleAttention,
    nn.Dropout: Dropout,
    nn.Linear: Linear,
    NewGELUActivation: Gelu,
    T5LayerNorm: Norm,
}
