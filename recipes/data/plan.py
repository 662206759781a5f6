"""Which examples form update k, and how every rank computes them.

The plan is a pure function of the lengths and a few settings: nothing to save, nothing to send. Position in the data is
the number k of updates made, so a run resumes anywhere from k alone, on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recipes.config import RunConfig
from recipes.data.dealing import Cut, Lengths, MicroBatches, cut_packed, cut_padded, deal
from recipes.data.streams import Streams, mixing_rates
from recipes.data.token_files import TokenSplit
from recipes.errors import UserError

if TYPE_CHECKING:
    from recipes.data.cache import TokenData


@dataclass(frozen=True)
class PlanStatistics:
    """Over a sample of updates.

    Attributes:
        padding_ratio: share of the computed tokens that are padding.
        slowest_rank_ratio: computed tokens of the busiest rank over the mean of the ranks, averaged over the updates; 1.0
            is perfect balance.
        micro_batches_per_rank: mean number in one update.
    """

    padding_ratio: float
    slowest_rank_ratio: float
    micro_batches_per_rank: float


class BatchPlan:
    """Update k trains on the next E = examples_per_update examples of an endless stream of epochs (`Streams`).

    An update may begin in one epoch and end in the next; no example is left out and none comes twice in an epoch.
    Neither the number of ranks nor the micro-batch budget changes what is in an update.
    """

    def __init__(
        self,
        source_lengths: np.ndarray,
        target_lengths: np.ndarray,
        *,
        seed: int,
        examples_per_update: int,
        micro_batch_tokens: int,
        num_ranks: int,
        where: Callable[[int], str] = "example {}".format,
        tasks: tuple[Sequence[int], np.ndarray] | None = None,
        packed: bool = True,
    ):
        """
        Args:
            source_lengths, target_lengths: tokens of every example.
            seed: decides the order.
            examples_per_update: examples in the global batch of one update.
            micro_batch_tokens: most tokens of a micro-batch: of its examples, or, where they are not packed, rows *
                (longest source + longest target).
            num_ranks: processes that share the work.
            where: names an example in a message.
            tasks: of a mixture, numbers of examples of every task and their rates.
            packed: without padding; else each example has a row of its own.

        Raises:
            UserError: an example alone exceeds the budget; fewer examples per update than ranks; no examples.
        """
        if not len(source_lengths):
            raise UserError("data: there is not a single training example")
        if examples_per_update < num_ranks:
            raise UserError(
                f"training.examples_per_update: {examples_per_update} is fewer than the {num_ranks} workers "
                f"(scaling.num_workers); give at least {num_ranks}"
            )
        self.lengths = Lengths(source_lengths, target_lengths)
        _check_budget(self.lengths, micro_batch_tokens, where)
        self.seed = seed
        self.examples_per_update = examples_per_update
        self.micro_batch_tokens = micro_batch_tokens
        self.num_ranks = num_ranks
        self.packed = packed
        self.task_sizes, self.task_rates = tasks or ([len(source_lengths)], np.ones(1))
        self._streams = Streams(self.task_sizes, self.task_rates, seed=seed, examples_per_update=examples_per_update)

    @property
    def num_examples(self) -> int:
        return len(self.lengths)

    @property
    def updates_per_epoch(self) -> float:
        """Not rounded: 100 examples in updates of 64 are 1.5625 updates. Of a mixture, until as many examples have come
        as all tasks have together; each task has epochs of its own."""
        return self.num_examples / self.examples_per_update

    def task_epochs(self, num_updates: int) -> list[float]:
        """How often every task's examples come in the first updates, on average."""
        begins, _ = self._streams.parts(num_updates)
        return [begin / size for begin, size in zip(begins, self.task_sizes, strict=True)]

    def examples(self, k: int) -> np.ndarray:
        """The global batch of update k (from 0), in stream order."""
        if k < 0:
            raise ValueError(f"update {k}: updates count from 0")
        return self._streams.examples(k)

    def micro_batches(self, k: int) -> MicroBatches:
        """For every rank its micro-batches in update k, each the numbers of its examples.

        Every rank gets the same number, because ZeRO 3 communicates in every forward pass. The i-th micro-batches of
        all ranks cost about the same. Only where there are hardly more examples than micro-batches may some be empty.
        """
        return deal(self.examples(k), self.lengths, self.micro_batch_tokens, self.num_ranks, _cut(self.packed))

    def target_tokens(self, k: int) -> int:
        """Target tokens of the global batch: what the summed loss of update k is divided by."""
        return int(self.lengths.target[self.examples(k)].sum(dtype=np.int64))

    def statistics(self, updates: Sequence[int] = range(20)) -> PlanStatistics:
        return plan_statistics([self.micro_batches(k) for k in updates], self.lengths, self.packed)


def batch_plan(config: RunConfig, train: TokenSplit, num_ranks: int) -> BatchPlan:
    """The plan of a run: the same on the launcher, which describes it, and on every rank."""
    texts = config.data.texts
    sizes = train.task_sizes(len(texts))
    return BatchPlan(
        train.source_lengths,
        train.target_lengths,
        seed=config.run.seed,
        examples_per_update=config.training.examples_per_update,
        micro_batch_tokens=config.training.micro_batch_tokens,
        num_ranks=num_ranks,
        where=train.where,
        tasks=(sizes, mixing_rates(config.data.mixing, texts, sizes)),
        packed=config.training.packing,
    )


def task_numbers(data: TokenData, plan: BatchPlan, num_updates: int) -> list[dict[str, Any]]:
    """Of every task of a mixture: its examples, its rate, and its epochs in the first updates; of one task alone, none."""
    if len(data.task_names) == 1:
        return []
    rows = zip(data.meta["tasks"], plan.task_rates.tolist(), plan.task_epochs(num_updates), strict=True)
    return [
        {
            "name": task["name"],
            "objective": task["objective"],
            "training_examples": task["train_examples"],
            "held_out_examples": task["held_out_examples"],
            "rate": rate,
            "epochs": epochs,
        }
        for task, rate, epochs in rows
    ]


def held_out_plan(config: RunConfig, held_out: TokenSplit, num_ranks: int) -> list[MicroBatches]:
    """The micro-batches of a run's evaluations, the same in each: for every task, for every rank."""
    plans = []
    for task in range(len(config.data.texts)):
        examples = np.flatnonzero(held_out.tasks == task)

        def where(i: int, examples: np.ndarray = examples) -> str:
            return f"held-out {held_out.where(examples[i])}"

        plan = evaluation_plan(
            held_out.source_lengths[examples],
            held_out.target_lengths[examples],
            micro_batch_tokens=config.training.micro_batch_tokens,
            num_ranks=num_ranks,
            where=where,
            packed=config.training.packing,
        )
        plans.append([[examples[batch] for batch in rank] for rank in plan])
    return plans


def evaluation_plan(
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    *,
    micro_batch_tokens: int,
    num_ranks: int,
    where: Callable[[int], str] = "held-out example {}".format,
    packed: bool,
) -> MicroBatches:
    """For every rank, micro-batches that hold every example exactly once over all ranks.

    Every rank gets the same number. Only where there are fewer examples than ranks (or too few to split into equal
    numbers) are some of them empty; :mod:`recipes.data.batches` makes of an empty one a batch that counts nothing.

    Raises:
        UserError: an example alone exceeds the budget.
    """
    lengths = Lengths(source_lengths, target_lengths)
    _check_budget(lengths, micro_batch_tokens, where)
    return deal(np.arange(len(lengths)), lengths, micro_batch_tokens, num_ranks, _cut(packed))


def _cut(packed: bool) -> Cut:
    return cut_packed if packed else cut_padded


def plan_statistics(plans: Sequence[MicroBatches], lengths: Lengths, packed: bool) -> PlanStatistics:
    """Padding and balance over some updates."""
    real, computed, slowest, num = 0, 0, [], 0
    of_batch = lengths.real_tokens if packed else lengths.padded_tokens
    for ranks in plans:
        costs = [sum(map(of_batch, rank)) for rank in ranks]
        real += sum(lengths.real_tokens(batch) for rank in ranks for batch in rank)
        computed += sum(costs)
        slowest.append(max(costs) * len(costs) / max(1, sum(costs)))
        num += len(ranks[0])
    return PlanStatistics(
        padding_ratio=1 - real / max(1, computed),
        slowest_rank_ratio=float(np.mean(slowest)),
        micro_batches_per_rank=num / len(plans),
    )


def _check_budget(lengths: Lengths, micro_batch_tokens: int, where: Callable[[int], str]) -> None:
    too_long = np.flatnonzero(lengths.source > micro_batch_tokens - lengths.target)
    if len(too_long):
        total = lengths.tokens(too_long)
        i, longest = int(too_long[np.argmax(total)]), int(total.max())
        raise UserError(
            f"training.micro_batch_tokens: {micro_batch_tokens} is less than {where(i)} alone needs: "
            f"{lengths.source[i]} source + {lengths.target[i]} target = {longest} tokens ({len(too_long):,} such "
            f"examples); give at least {longest}, or lower data.max_source_tokens and data.max_target_tokens"
        )
