"""Text by greedy decoding or beam search, in batches of examples that are alike, for any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recipes.config import GenerationBlock

if TYPE_CHECKING:
    from transformers import GenerationConfig, T5ForConditionalGeneration

    from recipes.config import RunConfig
    from recipes.evaluation.request import RequestConfig

_BATCH_RATIO = 4


@dataclass(frozen=True)
class Decoding:
    """How text is generated, with nothing left open. Two models of the same weights give the same text.

    max_new_tokens, min_new_tokens: the end token included. batch_tokens: most tokens, (longest source +
    max_new_tokens) * rows * beams, of a batch; an example that needs more by itself gets a batch of its own.
    """

    max_new_tokens: int
    batch_tokens: int
    num_beams: int = 1
    min_new_tokens: int = 0
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0

    @classmethod
    def of(cls, block: GenerationBlock, *, max_target_tokens: int, micro_batch_tokens: int) -> Decoding:
        """What a config says; the two limits are its ``data.`` and ``training.``."""
        return cls(
            max_new_tokens=block.max_new_tokens or max_target_tokens,
            batch_tokens=block.batch_tokens or _BATCH_RATIO * micro_batch_tokens,
            num_beams=block.num_beams,
            min_new_tokens=block.min_new_tokens,
            length_penalty=1.0 if block.length_penalty is None else block.length_penalty,
            no_repeat_ngram_size=block.no_repeat_ngram_size,
            repetition_penalty=block.repetition_penalty,
        )

    def for_transformers(self, model: T5ForConditionalGeneration) -> GenerationConfig:
        """The settings as `generate` takes them; every one is given, so that none comes from the model's folder."""
        from transformers import GenerationConfig

        config = model.config
        start = config.pad_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
        beams = {"length_penalty": self.length_penalty, "early_stopping": False} if self.num_beams > 1 else {}
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            min_new_tokens=self.min_new_tokens or None,
            num_beams=self.num_beams,
            no_repeat_ngram_size=self.no_repeat_ngram_size,
            repetition_penalty=self.repetition_penalty,
            do_sample=False,
            use_cache=True,
            decoder_start_token_id=start,
            pad_token_id=config.pad_token_id,
            eos_token_id=config.eos_token_id,
            **beams,
        )


def decoding_of(config: RunConfig | RequestConfig) -> Decoding:
    """How a run, or an evaluation by itself, generates text."""
    return Decoding.of(
        config.evaluation.generation,
        max_target_tokens=config.data.max_target_tokens,
        micro_batch_tokens=config.training.micro_batch_tokens,
    )


def spread_evenly(num_examples: int, wanted: int | None) -> np.ndarray:
    """``wanted`` positions (none: all) from the first example to the last."""
    if wanted is None or wanted >= num_examples:
        return np.arange(num_examples)
    return np.linspace(0, num_examples - 1, wanted).round().astype(int)


def generation_batches(
    source_lengths: np.ndarray, expected_lengths: np.ndarray, decoding: Decoding, num_ranks: int = 1
) -> list[list[np.ndarray]]:
    """For every rank, batches of positions: each example once over all ranks, neighbours in length together.

    The costliest batches are dealt first, each to the rank with the least so far. Ranks may get different numbers
    of batches, because generating does not communicate.

    expected_lengths: a guess of each output's tokens, such as its reference's, for the balance only.
    """
    order = np.lexsort((np.arange(len(source_lengths)), -expected_lengths, -source_lengths))
    most_rows = max(1, -(-len(order) // num_ranks))
    batches, begin = [], 0
    while begin < len(order):
        row_tokens = (int(source_lengths[order[begin]]) + decoding.max_new_tokens) * decoding.num_beams
        rows = min(most_rows, max(1, decoding.batch_tokens // row_tokens))
        batches.append(order[begin : begin + rows])
        begin += rows
    costs = [len(batch) * int(source_lengths[batch].max() + expected_lengths[batch].max()) for batch in batches]
    ranks: list[list[np.ndarray]] = [[] for _ in range(num_ranks)]
    loads = [0] * num_ranks
    for i in sorted(range(len(batches)), key=lambda i: -costs[i]):
        idlest = loads.index(min(loads))
        ranks[idlest].append(batches[i])
        loads[idlest] += costs[i]
    return ranks


def generate(
    model: T5ForConditionalGeneration,
    source: Callable[[int], np.ndarray],
    batches: Iterable[np.ndarray],
    decoding: Decoding,
) -> dict[int, list[int]]:
    """Generated token ids by position, from after the start token to before the end token.

    source: the token ids of a position, the end token included. The model must be a plain one in evaluation mode: its
    own generation settings are put aside. Draws no random number.
    """
    import torch
    from transformers import GenerationConfig

    settings, own = decoding.for_transformers(model), model.generation_config
    pad, eos = model.config.pad_token_id, model.config.eos_token_id
    outputs: dict[int, list[int]] = {}
    # transformers takes what is not set from here, and a model's folder may have set anything.
    model.generation_config = GenerationConfig()
    try:
        for batch in batches:
            rows = [torch.from_numpy(np.array(source(i), np.int64)) for i in batch.tolist()]
            input_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
            lengths = torch.tensor([len(row) for row in rows])
            mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
            generated = model.generate(
                input_ids=input_ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=settings,
                synced_gpus=False,
            )
            outputs |= {i: _trimmed(ids, eos) for i, ids in zip(batch.tolist(), generated.tolist(), strict=True)}
    finally:
        model.generation_config = own
    return outputs


def _trimmed(ids: list[int], eos: int) -> list[int]:
    """Without the start token, and from the end token on; padding follows only that."""
    return ids[1 : ids.index(eos)] if eos in ids else ids[1:]
