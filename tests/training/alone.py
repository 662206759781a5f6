"""A whole run in this process."""

import torch

from recipes.training.run import train


def train_alone(job, after_update=None):
    """The run's summary, and what it said."""
    said = []
    summary = train(
        job,
        device=torch.device("cpu"),
        phases={},
        publish=lambda message: said.append(message["say"]) if "say" in message else None,
        report=lambda metrics: None,
        after_update=after_update,
    )
    return summary, said
