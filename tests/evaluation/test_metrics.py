"""Metrics against the libraries whose numbers they are, called directly."""

import math

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from recipes.config import EvaluationBlock
from recipes.errors import UserError
from recipes.evaluation.metrics import MetricFailed, own_metric, perplexity, record_scores, text_scores

PREDICTIONS = ["The cat sat on the mat.", " a dog ", "high birds fly", "一只猫坐着"]
REFERENCES = ["The cat is on the mat.", "a dog", "birds fly high above", "一只猫坐在那里"]
SOURCES = ["s one", "s two", "s three", "s four"]
OWN = "tests.evaluation.own_metrics"


def scores(*metrics, **settings):
    return text_scores(EvaluationBlock(metrics=metrics, **settings), PREDICTIONS, REFERENCES, SOURCES)


@pytest.mark.parametrize("tokenizer", ["13a", "intl", "char", "zh", "none"])
def test_bleu_is_sacrebleus_with_its_signature(tokenizer):
    found = scores("bleu", bleu_tokenizer=tokenizer)
    expected = sacrebleu.corpus_bleu(PREDICTIONS, [REFERENCES], tokenize=tokenizer)
    assert found.values == {"eval_bleu": expected.score}
    assert 0 < expected.score < 100
    version = sacrebleu.__version__
    assert found.signatures == {"bleu": f"nrefs:1|case:mixed|eff:no|tok:{tokenizer}|smooth:exp|version:{version}"}


def test_chrf_is_sacrebleus_with_its_signature():
    found = scores("chrf")
    assert found.values == {"eval_chrf": sacrebleu.corpus_chrf(PREDICTIONS, [REFERENCES]).score}
    assert found.signatures == {
        "chrf": f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{sacrebleu.__version__}"
    }


def test_rouge_is_the_mean_of_rouge_scores_f_measures():
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    each = [scorer.score(target=r, prediction=p) for r, p in zip(REFERENCES, PREDICTIONS, strict=True)]
    found = scores("rouge").values
    assert found == {
        f"eval_{kind}": pytest.approx(sum(one[kind].fmeasure for one in each) / 4, rel=1e-12) for kind in each[0]
    }
    assert len(set(found.values())) == 3


def test_exact_match_strips_the_ends_and_nothing_else():
    assert scores("exact_match").values == {"eval_exact_match": 1 / 4}


def test_several_metrics_come_together_and_forced_ones_are_not_ours():
    found = scores("perplexity", "exact_match", "bleu", "token_accuracy")
    assert list(found.values) == ["eval_exact_match", "eval_bleu"]


def test_each_tasks_texts_are_scored_alone_too():
    rows = zip(PREDICTIONS, REFERENCES, SOURCES, ("a", "b", "a", "b"), strict=True)
    records = [dict(zip(("prediction", "reference", "source", "task"), row, strict=True)) for row in rows]
    settings = EvaluationBlock(metrics=["exact_match", "bleu", f"{OWN}:word_overlap"])
    found = record_scores(settings, records)
    whole = scores(*settings.metrics)
    assert {name: found.values[name] for name in whole.values} == whole.values
    for task, places in (("a", [0, 2]), ("b", [1, 3])):
        columns = ([column[i] for i in places] for column in (PREDICTIONS, REFERENCES, SOURCES))
        alone = text_scores(settings, *columns).values
        assert {name: found.values[f"{name}/{task}"] for name in alone} == alone
    assert len(found.values) == 3 * len(whole.values)
    assert found.values["eval_exact_match/b"] == 1 / 2
    assert found.signatures == whole.signatures


def test_metrics_of_ones_own():
    found = scores(f"{OWN}:word_overlap", f"{OWN}:lengths").values
    assert found == {
        "eval_word_overlap": pytest.approx((5 / 6 + 1 + 3 / 4 + 0) / 4),
        "eval_chars": pytest.approx(sum(map(len, PREDICTIONS)) / 4),
        "eval_source_chars": 5.75,
    }
    assert type(found["eval_chars"]) is float


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", "own_metrics:broken raised ZeroDivisionError: division by zero"),
        ("text", "own_metrics:text returned 'good' for 'text', which is not a number"),
        ("loss", "own_metrics:loss returned 'loss', which is the name of another number"),
    ],
)
def test_a_metric_of_ones_own_that_fails_is_named(name, words):
    with pytest.raises(MetricFailed, match=words):
        scores(f"{OWN}:{name}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_package.x:f", "the module no_such_package.x cannot be imported .No module named 'no_such_package'"),
        (f"{OWN}:word_overlop", "has no word_overlop, did you mean 'word_overlap'?"),
        (f"{OWN}:of_two", "must be a function .predictions, references, sources."),
        (f"{OWN}:__doc__", "must be a function .predictions, references, sources."),
    ],
)
def test_what_cannot_be_called_is_refused(name, words):
    with pytest.raises(UserError, match=words):
        own_metric(name)


def test_perplexity():
    assert perplexity(2.0) == math.exp(2.0)
    assert perplexity(1000.0) == math.inf
    assert math.isnan(perplexity(math.nan))
