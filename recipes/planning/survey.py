"""Predictions for several stages and numbers of nodes, and what they advise."""

from __future__ import annotations

from dataclasses import dataclass

from recipes.config import RunConfig
from recipes.planning.activations import TrainedModel
from recipes.planning.hardware import Hardware
from recipes.planning.prediction import Batch, Prediction, World, predict
from recipes.planning.zero import zero_of

STAGES = (0, 1, 2, 3)


@dataclass(frozen=True)
class Row:
    """scaling: tokens per second and node, as a share of what one node reaches at the same stage."""

    prediction: Prediction
    scaling: float


@dataclass(frozen=True)
class Survey:
    """rows: by stage, then nodes. smallest_stage: by number of nodes, the first that fits, None where none does.
    pays_until: by stage, the most nodes (1, 2, 4, ...) that still scale at pays_ratio or better; examples_limit: the
    most there can be, because every GPU needs an example."""

    model: TrainedModel
    batch: Batch
    hardware: Hardware
    gpus_per_node: int
    config_stage: int
    rows: tuple[Row, ...]
    smallest_stage: dict[int, int | None]
    pays_ratio: float
    pays_until: dict[int, int]
    examples_limit: int


def node_counts(num_nodes: int) -> list[int]:
    """1, 2, 4, ... and ``num_nodes`` itself."""
    counts = [1]
    while counts[-1] * 2 < num_nodes:
        counts.append(counts[-1] * 2)
    return counts + [num_nodes] * (num_nodes > 1)


def survey(
    config: RunConfig,
    model: TrainedModel,
    batch: Batch,
    hardware: Hardware,
    num_nodes: int,
    gpus_per_node: int,
    pays_ratio: float,
) -> Survey:
    def at(stage: int, nodes: int) -> Prediction:
        return predict(model, batch, hardware, World(nodes, gpus_per_node, zero_of(config.deepspeed, stage)))

    def scaling(one: Prediction, many: Prediction) -> float:
        return one.update_s / (many.update_s * many.world.num_nodes)

    limit = batch.examples_per_update // gpus_per_node
    rows, until = [], {}
    for stage in STAGES:
        one = at(stage, 1)
        predictions = [at(stage, nodes) for nodes in node_counts(num_nodes)]
        rows += [Row(prediction, scaling(one, prediction)) for prediction in predictions]
        until[stage] = 1
        while until[stage] * 2 <= limit and scaling(one, at(stage, until[stage] * 2)) >= pays_ratio:
            until[stage] *= 2
    smallest: dict[int, int | None] = dict.fromkeys(node_counts(num_nodes))
    for row in reversed(rows):
        if row.prediction.fits:
            smallest[row.prediction.world.num_nodes] = row.prediction.world.zero.stage
    return Survey(
        model=model,
        batch=batch,
        hardware=hardware,
        gpus_per_node=gpus_per_node,
        config_stage=config.deepspeed.zero_stage,
        rows=tuple(rows),
        smallest_stage=smallest,
        pays_ratio=pays_ratio,
        pays_until=until,
        examples_limit=limit,
    )
