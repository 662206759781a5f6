"""Teacher-forced scores: how likely the model finds the references, by one forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from recipes.config import EvaluationBlock
from recipes.data.batches import IGNORED, MicroBatch
from recipes.evaluation.metrics import perplexity
from recipes.training.update import target_logits

if TYPE_CHECKING:
    from torch import Tensor


class ForcedScores(NamedTuple):
    """loss: mean nats per target token, the end token included. token_accuracy: share of target tokens that the model
    finds likeliest, each given the true tokens before it. task_losses: by name, where there are several tasks."""

    loss: float
    num_tokens: int
    token_accuracy: float
    task_losses: Mapping[str, float] = MappingProxyType({})

    @classmethod
    def of_sums(cls, sums: Tensor) -> ForcedScores:
        """From `forced_sums`, over all batches and ranks."""
        loss_sum, num_tokens, num_right = sums.tolist()
        return cls(loss_sum / num_tokens, int(num_tokens), num_right / num_tokens)

    def fields(self, settings: EvaluationBlock) -> dict[str, float]:
        """As they stand in metrics.jsonl: the loss, and what ``settings.metrics`` names."""
        fields = {"eval_loss": self.loss, "eval_tokens": self.num_tokens}
        if "token_accuracy" in settings.metrics:
            fields["eval_token_accuracy"] = self.token_accuracy
        if "perplexity" in settings.metrics:
            fields["eval_perplexity"] = perplexity(self.loss)
        return fields | {f"eval_loss/{name}": loss for name, loss in self.task_losses.items()}


def forced_sums(model: torch.nn.Module, micro_batches: Iterable[MicroBatch], device: torch.device) -> Tensor:
    """Loss in nats, number of target tokens, number of right ones: float64, summed over the micro-batches.

    The model must be in evaluation mode; padding does not count.
    """
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    with torch.no_grad():
        for batch in micro_batches:
            logits = target_logits(model, batch).float().flatten(0, 1)
            labels = batch.labels.flatten()
            sums[0] += F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum").double()
            sums[1] += (labels != IGNORED).sum()
            # A padding label is -100, which no token id equals.
            sums[2] += (logits.argmax(dim=-1) == labels).sum()
    return sums
