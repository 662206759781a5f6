"""A loaded model that answers texts, in batches of texts that are alike in length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recipes.data.tokenizer import truncate_tokens
from recipes.evaluation.generation import generate, generation_batches
from recipes.evaluation.saved_model import load_saved, model_folder
from recipes.prediction.settings import Settings
from recipes.storage import Storage

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

    from recipes.data.tokenizer import TextTokenizer

# Wraps the batches of a call; may show how far it is.
Progress = Callable[[list[Any]], Iterable[Any]]


class Predictor:
    """num_truncated: texts cut off at settings.max_source_tokens so far."""

    def __init__(self, model: T5ForConditionalGeneration, tokenizer: TextTokenizer, settings: Settings):
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.num_truncated = 0

    @classmethod
    def load(cls, folder: Storage, settings: Settings) -> Predictor:
        """From a run's folder (its export counts) or a saved model's.

        Raises:
            UserError: as `load_saved`, or there is no model.
        """
        with model_folder(folder) as path:
            model, tokenizer = load_saved(path, settings.device, settings.precision)
        return cls(model, tokenizer, settings)

    def answers(self, texts: Sequence[str | None], progress: Progress = iter) -> list[str | None]:
        """The model's text for each, in their order; None for None.

        All are sorted by length and cut into batches of settings.decoding.batch_tokens, so more texts in one call make
        fuller batches.
        """
        given = [i for i, text in enumerate(texts) if text is not None]
        ids, offsets = self.tokenizer.encode_batch([self.settings.prefix + texts[i] for i in given])
        limit = self.settings.max_source_tokens
        self.num_truncated += int((np.diff(offsets) > limit).sum())
        ids, offsets = truncate_tokens(ids, offsets, limit, self.tokenizer.eos_id)
        lengths = np.diff(offsets)
        [batches] = generation_batches(lengths, lengths, self.settings.decoding)
        found = generate(
            self.model, lambda i: ids[offsets[i] : offsets[i + 1]], progress(batches), self.settings.decoding
        )
        decoded = self.tokenizer.decode_batch(found[i] for i in range(len(given)))
        answers: list[str | None] = [None] * len(texts)
        for i, answer in zip(given, decoded, strict=True):
            answers[i] = answer
        return answers
