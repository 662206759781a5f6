"""All scores of a plain model on text pairs, in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recipes.config import EvaluationBlock
from recipes.data.batches import pad
from recipes.data.plan import evaluation_plan
from recipes.evaluation.forced import ForcedScores, forced_sums
from recipes.evaluation.generation import Decoding, generate, generation_batches, spread_evenly
from recipes.evaluation.metrics import record_scores

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

    from recipes.data.tokenizer import TextTokenizer
    from recipes.evaluation.pairs import TextPairs

# Wraps the batches of a part of the work, whose name it is given.
Progress = Callable[[str, list[Any]], Iterable[Any]]


@dataclass(frozen=True)
class PairScores:
    """fields: as in metrics.jsonl. signatures: sacreBLEU's. predictions: source, reference and prediction of each
    example that text was generated for."""

    fields: dict[str, float]
    signatures: dict[str, str] = field(default_factory=dict)
    predictions: list[dict[str, str]] = field(default_factory=list)


def _no_progress(name: str, batches: list[Any]) -> Iterable[Any]:
    return batches


def score_pairs(
    model: T5ForConditionalGeneration,
    tokenizer: TextTokenizer,
    pairs: TextPairs,
    settings: EvaluationBlock,
    decoding: Decoding,
    *,
    micro_batch_tokens: int,
    always_generate: bool = False,
    progress: Progress = _no_progress,
) -> PairScores:
    """The loss and what ``settings.metrics`` names. References of generated text are the texts themselves, never cut off.

    always_generate: text is generated even where no metric needs it.

    Raises:
        UserError: an example alone needs more than ``micro_batch_tokens``.
        MetricFailed: one of the user's own metrics.
    """
    [batches] = evaluation_plan(
        pairs.source_lengths,
        pairs.target_lengths,
        micro_batch_tokens=micro_batch_tokens,
        num_ranks=1,
        where=pairs.where,
        packed=False,
    )
    tensors = (pad(pairs, batch, tokenizer.pad_id).to(model.device) for batch in progress("loss", batches))
    fields = ForcedScores.of_sums(forced_sums(model, tensors, model.device)).fields(settings)
    if not (settings.text_metrics or always_generate):
        return PairScores(fields)
    examples = spread_evenly(len(pairs), settings.num_generated)
    [batches] = generation_batches(pairs.source_lengths[examples], pairs.target_lengths[examples], decoding)
    ids = generate(model, lambda i: pairs.source(examples[i]), progress("generation", batches), decoding)
    texts = dict(zip(ids, tokenizer.decode_batch(ids.values()), strict=True))
    records = [
        {"source": pairs.sources[i], "reference": pairs.references[i], "prediction": texts[place]}
        for place, i in enumerate(examples.tolist())
    ]
    scores = record_scores(settings, records)
    return PairScores(fields | {"eval_generated": len(records)} | scores.values, scores.signatures, records)
