"""A T5 that also takes rows of several examples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration


class PackedT5(T5ForConditionalGeneration):
    """transformers' model, the same weights under the same names; only `forward` knows two arguments more."""

    def forward(
        self, *args: Any, source_examples: Tensor | None = None, target_examples: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """As transformers' own; with ``source_examples`` and ``target_examples`` (see `MicroBatch`) tokens attend to those of
        their own example only, in encoder, decoder and between them.

        Nothing else keeps examples of a row apart or needs to: T5's relative position bias depends on differences of
        positions alone.
        """
        if source_examples is None or target_examples is None:
            return super().forward(*args, **kwargs)
        dtype = self.dtype
        encoded = self.encoder(
            input_ids=kwargs.pop("input_ids"), attention_mask=_mask(source_examples, source_examples, dtype)
        )
        causal = torch.ones(2 * target_examples.shape[1:], dtype=torch.bool, device=target_examples.device).tril()
        return super().forward(
            encoder_outputs=encoded,
            attention_mask=_mask(target_examples, source_examples, dtype),
            decoder_attention_mask=_mask(target_examples, target_examples, dtype, causal),
            **kwargs,
        )


def _mask(queries: Tensor, keys: Tensor, dtype: torch.dtype, allowed: Tensor | None = None) -> Tensor:
    """What is added to attention scores, (rows, 1, queries, keys): 0 within an example, else the lowest number.

    Padding belongs together, so that no row of scores is without any key.
    """
    same = queries[:, :, None] == keys[:, None, :]
    if allowed is not None:
        same = same & allowed
    return torch.zeros(same.shape, dtype=dtype, device=same.device).masked_fill_(~same, torch.finfo(dtype).min)[:, None]
