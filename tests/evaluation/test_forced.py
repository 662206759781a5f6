"""Teacher-forced scores against a loop over tokens."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recipes.config import EvaluationBlock
from recipes.data.batches import pad
from recipes.data.denoising import Pair
from recipes.evaluation.forced import ForcedScores, forced_sums
from tests.evaluation.tiny import PAD, sources, tiny_model


def test_loss_and_accuracy_are_those_of_a_loop_over_tokens():
    model, inputs, targets = tiny_model(), sources(9, seed=1), sources(9, seed=2)
    split = SimpleNamespace(pair=lambda i: Pair(inputs[i], targets[i]))
    batches = [pad(split, np.array(part, int), PAD) for part in ([0, 3, 8], [1, 2, 4, 5], [6, 7], [])]
    found = ForcedScores.of_sums(forced_sums(model, batches, torch.device("cpu")))
    loss, right, num = 0.0, 0, 0
    for source, target in zip(inputs, targets, strict=True):
        for place, token in enumerate(target.tolist()):
            with torch.no_grad():
                logits = model(
                    input_ids=torch.tensor([source.tolist()]),
                    decoder_input_ids=torch.tensor([[PAD, *target[:place].tolist()]]),
                ).logits[0, -1]
            loss -= float(torch.log_softmax(logits, dim=-1)[token])
            right += int(logits.argmax()) == token
            num += 1
    assert found.num_tokens == num
    assert found.loss == pytest.approx(loss / num, rel=1e-6)
    assert found.token_accuracy == right / num
    assert 0 < right < num


def test_fields_are_those_asked_for():
    scores = ForcedScores(2.0, 50, 0.25)
    assert scores.fields(EvaluationBlock()) == {
        "eval_loss": 2.0, "eval_tokens": 50, "eval_token_accuracy": 0.25, "eval_perplexity": math.exp(2.0)
    }  # fmt: skip
    assert scores.fields(EvaluationBlock(metrics=["bleu"])) == {"eval_loss": 2.0, "eval_tokens": 50}
