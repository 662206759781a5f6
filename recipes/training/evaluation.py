"""Held-out scores of the engine as it is: every held-out example once, over all ranks. Changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist

from recipes.errors import UserError
from recipes.evaluation.forced import ForcedScores, forced_sums
from recipes.evaluation.generation import Decoding, decoding_of, generate, generation_batches, spread_evenly
from recipes.evaluation.metrics import MetricFailed, TextScores, record_scores
from recipes.training.checkpoint import random_state, set_random_state
from recipes.training.export import plain_model

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine
    from transformers import T5ForConditionalGeneration

    from recipes.data.batches import MicroBatch
    from recipes.data.cache import TokenData
    from recipes.training.loop import Training

PREDICTIONS_FILE = "predictions.jsonl"


def held_out_scores(engine: DeepSpeedEngine, tasks: Mapping[str, Iterable[MicroBatch]]) -> ForcedScores:
    """Teacher-forced scores over all ranks, of all tasks together and the loss of each.

    Every rank must bring the same number of micro-batches of each: ZeRO-3 gathers weights in each forward.
    """
    engine.eval()
    sums = torch.stack([forced_sums(engine, batches, engine.device) for batches in tasks.values()])
    engine.train()
    dist.all_reduce(sums)
    scores = ForcedScores.of_sums(sums.sum(dim=0))
    if len(tasks) == 1:
        return scores
    return scores._replace(task_losses={name: float(one[0] / one[1]) for name, one in zip(tasks, sums, strict=True)})


def predictions(
    model: T5ForConditionalGeneration,
    data: TokenData,
    examples: np.ndarray,
    decoding: Decoding,
    rank: int = 0,
    num_ranks: int = 1,
) -> dict[int, str]:
    """This rank's share of the generated texts, by place in ``examples`` (held-out examples)."""
    held_out = data.held_out
    batches = generation_batches(
        held_out.source_lengths[examples], held_out.target_lengths[examples], decoding, num_ranks
    )
    ids = generate(model, lambda i: held_out.source(int(examples[i])), batches[rank], decoding)
    return {place: _words(data, int(examples[place]))(tokens) for place, tokens in ids.items()}


def _words(data: TokenData, i: int) -> Callable[[Iterable[int]], str]:
    """Ids to text; where gaps are to be filled, with their marks."""
    return data.tokenizer.decode if data.held_out.is_pair[i] else data.tokenizer.show


def as_records(data: TokenData, examples: np.ndarray, texts: dict[int, str]) -> list[dict[str, str]]:
    """Source, reference and prediction of each example, in order, and its task where there are several.

    Source and reference are decoded tokens: what the model sees.
    """
    records, names = [], data.task_names
    for place, i in enumerate(examples.tolist()):
        source, target = map(_words(data, i), data.held_out.pair(i))
        record = {"source": source, "reference": target, "prediction": texts[place]}
        if len(names) > 1:
            record["task"] = names[data.held_out.tasks[i]]
        records.append(record)
    return records


def generated_scores(run: Training) -> tuple[TextScores, int]:
    """Metrics of text generated for held-out examples, of all together and of each task of several; the same on all ranks.
    And the number of examples. Collective.

    Examples whose target is only what was taken out of the source are left out.

    Every rank generates its share with a plain model of the engine's weights, without talking to the others. Rank 0
    computes the metrics and leaves the texts in the run's folder.

    Raises:
        UserError, MetricFailed: a metric of the user's own cannot be computed; on all ranks alike.
    """
    before = random_state()
    held_out = run.data.held_out
    pairs = np.flatnonzero(held_out.is_pair)
    examples = pairs[spread_evenly(len(pairs), run.config.evaluation.num_generated)]
    model = plain_model(run.engine)
    texts = predictions(model, run.data, examples, decoding_of(run.config), run.rank, dist.get_world_size())
    del model
    parts: list[Any] | None = [None] * dist.get_world_size() if run.rank == 0 else None
    dist.gather_object(texts, parts)
    box: list[Any] = [None]
    if parts is not None:
        whole = {place: text for part in parts for place, text in part.items()}
        box = [_scored(run, as_records(run.data, examples, whole))]
    dist.broadcast_object_list(box, src=0)
    set_random_state(before)
    if isinstance(box[0], Exception):
        raise box[0]
    return box[0], len(examples)


def _scored(run: Training, records: list[dict[str, str]]) -> TextScores | Exception:
    _write(run, records)
    try:
        return record_scores(run.config.evaluation, records)
    except (UserError, MetricFailed) as error:
        # Not here: the other ranks wait for the scores.
        return type(error)(str(error))


def _write(run: Training, records: list[dict[str, str]]) -> None:
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    try:
        run.checkpoints.run_folder.write_text(PREDICTIONS_FILE, lines)
    except OSError as error:
        run.say(f"{PREDICTIONS_FILE} could not be written ({error.strerror or error}): training goes on")
