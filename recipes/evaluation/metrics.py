"""Metrics of generated text by the libraries whose numbers people compare, and by functions of the user's own."""

from __future__ import annotations

import importlib
import inspect
import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from recipes.config import EvaluationBlock
from recipes.config.evaluation import FORCED_METRICS, PLAIN_FIELDS, TEXT_METRICS
from recipes.errors import UserError, first_line, nearest

# Fields of an evaluation that are not a user's.
_TAKEN = {
    *PLAIN_FIELDS,
    *(name for names in (FORCED_METRICS | TEXT_METRICS).values() for name in names),
}

# (predictions, references, sources) -> a number, or several by name.
Metric = Callable[[Sequence[str], Sequence[str], Sequence[str]], Any]


class MetricFailed(RuntimeError):
    """A metric of the user's own raised an error, or returned something that is not a number."""


@dataclass(frozen=True)
class TextScores:
    """values: number by its field in metrics.jsonl (``eval_bleu``). signatures: how sacreBLEU computed its ones, in its words."""

    values: dict[str, float] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)


def text_scores(
    settings: EvaluationBlock, predictions: Sequence[str], references: Sequence[str], sources: Sequence[str]
) -> TextScores:
    """All metrics of generated text that ``settings.metrics`` names; one reference for each prediction.

    bleu: sacreBLEU's corpus BLEU, 0 to 100 (Post 2018, arXiv 1804.08771). chrf: its chrF2, 0 to 100 (Popović 2015).
    rouge: mean F-measures of rouge_score's rouge1, rouge2 and rougeL, 0 to 1, without stemming (Lin 2004).
    exact_match: share of predictions equal to their reference, both without white space at their ends; nothing else
    is normalised.

    Raises:
        MetricFailed: one of the user's own.
        UserError: one of the user's own cannot be imported any more.
    """
    values: dict[str, float] = {}
    signatures: dict[str, str] = {}
    for name in settings.text_metrics:
        if name == "bleu":
            values["eval_bleu"], signatures["bleu"] = _bleu(predictions, references, settings.bleu_tokenizer)
        elif name == "chrf":
            values["eval_chrf"], signatures["chrf"] = _chrf(predictions, references)
        elif name == "rouge":
            values |= _rouge(predictions, references)
        elif name == "exact_match":
            pairs = zip(predictions, references, strict=True)
            values["eval_exact_match"] = sum(p.strip() == r.strip() for p, r in pairs) / len(predictions)
        else:
            values |= _own(name, predictions, references, sources)
    return TextScores(values, signatures)


def record_scores(settings: EvaluationBlock, records: Sequence[dict[str, str]]) -> TextScores:
    """`text_scores` of records with prediction, reference and source; where records have a ``task`` also of each
    task's alone, such as ``eval_bleu/NAME``."""
    scores = _record_scores(settings, records)
    values = dict(scores.values)
    for task in dict.fromkeys(record["task"] for record in records if "task" in record):
        of_task = _record_scores(settings, [record for record in records if record.get("task") == task])
        values |= {f"{name}/{task}": value for name, value in of_task.values.items()}
    return TextScores(values, scores.signatures)


def _record_scores(settings: EvaluationBlock, records: Sequence[dict[str, str]]) -> TextScores:
    columns = ([record[name] for record in records] for name in ("prediction", "reference", "source"))
    return text_scores(settings, *columns)


def _bleu(predictions: Sequence[str], references: Sequence[str], tokenizer: str) -> tuple[float, str]:
    from sacrebleu.metrics import BLEU

    bleu = BLEU(tokenize=tokenizer)
    score = bleu.corpus_score(list(predictions), [list(references)]).score
    return float(score), str(bleu.get_signature())


def _chrf(predictions: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    from sacrebleu.metrics import CHRF

    chrf = CHRF()
    score = chrf.corpus_score(list(predictions), [list(references)]).score
    return float(score), str(chrf.get_signature())


def _rouge(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(kinds, use_stemmer=False)
    found = [scorer.score(reference, text) for reference, text in zip(references, predictions, strict=True)]
    return {f"eval_{kind}": sum(one[kind].fmeasure for one in found) / len(found) for kind in kinds}


def _own(name: str, predictions: Sequence[str], references: Sequence[str], sources: Sequence[str]) -> dict[str, float]:
    function = own_metric(name)
    try:
        found = function(list(predictions), list(references), list(sources))
    except Exception as error:
        reason = first_line(error)
        raise MetricFailed(f"evaluation.metrics: {name} raised {type(error).__name__}: {reason}") from error
    by_name = found if isinstance(found, dict) else {name.rpartition(":")[2]: found}
    for key, value in by_name.items():
        if f"eval_{key}" in _TAKEN:
            raise MetricFailed(f"evaluation.metrics: {name} returned {key!r}, which is the name of another number")
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise MetricFailed(f"evaluation.metrics: {name} returned {value!r} for {key!r}, which is not a number")
    return {f"eval_{key}": float(value) for key, value in by_name.items()}


def check_own_metrics(settings: EvaluationBlock) -> None:
    """Import every metric of the user's own.

    Raises:
        UserError: one line that names the first that is not there or cannot be called.
    """
    for name in settings.own_metrics:
        own_metric(name)


def own_metric(name: str) -> Metric:
    """The function that ``package.module:function`` names.

    Raises:
        UserError: it cannot be imported, is not callable, or does not take predictions, references and sources.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"evaluation.metrics: {name}: the module {module_name} cannot be imported ({reason}); it must be installed, "
            "or lie in the folder that the command is started in"
        ) from None
    function = getattr(module, function_name, None)
    if function is None:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(
            f"evaluation.metrics: {name}: {module_name} has no {function_name}{nearest(function_name, known)}"
        )
    try:
        inspect.signature(function).bind([], [], [])
    except TypeError:
        raise UserError(
            f"evaluation.metrics: {name} must be a function (predictions, references, sources) -> a number or several by name"
        ) from None
    except ValueError:
        # Some built-in functions do not tell their arguments.
        pass
    return function


def perplexity(loss: float) -> float:
    """exp(loss), the loss in nats per target token; inf where that is more than a float holds."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
