"""What the GPUs of a run say to each other in one update, and how long that takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from recipes.planning.activations import TrainedModel
from recipes.planning.hardware import Hardware
from recipes.planning.zero import Zero


@dataclass(frozen=True)
class Traffic:
    """Collectives of one kind in one update, all together.

    kind: all_reduce, reduce_scatter or all_gather. payload_bytes: size of the full tensors (that every rank has before
    or after), summed. count: number of calls. can_hide: issued ahead, so that computing may go on meanwhile.
    """

    kind: str
    payload_bytes: float
    count: int
    can_hide: bool = False

    @property
    def phases(self) -> int:
        """An all-reduce is a reduce-scatter and an all-gather."""
        return 2 if self.kind == "all_reduce" else 1


def traffic_per_update(model: TrainedModel, zero: Zero, num_micro_batches: int) -> list[Traffic]:
    """What DeepSpeed 0.19.8 sends with this recipe's settings (`recipes.training.ds_config`).

    P parameters of e bytes, M micro-batches per rank and update; weights and gradients travel in the computing
    precision. The ZeRO paper (section 7) has 2 P for stages 1 and 2 and 3 P for stage 3. DeepSpeed sends more:

        stage 0   all-reduce P, once, in `engine.step`
        stage 1   all-reduce P, once, in `engine.step`; all-gather P after the step
        stage 2   all-reduce P for every micro-batch (`reduce_scatter` with `use_multi_rank_bucket_allreduce`, both
                  the default, is an all-reduce of which each rank keeps its share); all-gather P after the step
        stage 3   for every micro-batch: reduce-scatter P; all-gather of the forward pass, and of the backward pass all
                  but what is used again within max_reuse_distance elements, so: P + max(0, P - max_reuse_distance / 2);
                  once the small persistent parameters, one by one

    From stage 1 on two all-reduces of one number: the gradients' norm, and whether they are finite.
    No call is larger than its bucket, apart from a single larger parameter. Frozen weights have no gradients to send and
    do not change: for them P counts in stage 3's all-gather only.
    """
    sizes, e = model.shape.parameter_sizes(), model.element_bytes
    size, trained, m = sum(sizes), model.num_trained, num_micro_batches
    calls = max(1, math.ceil(trained / zero.reduce_bucket))
    numbers = Traffic("all_reduce", 8.0, 2)
    if zero.stage == 0:
        return [Traffic("all_reduce", e * trained, calls)]
    if zero.stage < 3:
        times = m if zero.stage == 2 else 1
        # One all-gather per parameter group: matrices, and norms with biases.
        return [
            Traffic("all_reduce", times * e * trained, times * calls),
            Traffic("all_gather", e * trained, 2),
            numbers,
        ]
    small = [n for n in sizes if n <= zero.persistence_threshold]
    split, gathered = size - sum(small), gathered_elements(model, zero)
    # Prefetching fills a bucket; without it every parameter is a call of its own.
    alone = math.ceil((len(sizes) - len(small)) * gathered / split) if split else 0
    gathers = min(alone, math.ceil(gathered / zero.prefetch_bucket)) if zero.prefetch_bucket else alone
    found = [
        Traffic("all_gather", m * e * gathered, m * gathers, can_hide=True),
        Traffic("reduce_scatter", m * e * trained, m * calls),
        Traffic("all_gather", e * sum(small), len(small)),
        numbers,
    ]
    return [traffic for traffic in found if traffic.payload_bytes]


def gathered_elements(model: TrainedModel, zero: Zero) -> float:
    """What stage 3 gathers for one micro-batch, forward and backward, in elements."""
    split = sum(n for n in model.shape.parameter_sizes() if n > zero.persistence_threshold)
    return split + max(0.0, split - zero.max_reuse_distance / 2)


def seconds(traffic: Traffic, hardware: Hardware, num_nodes: int, gpus_per_node: int) -> float:
    """Duration of these collectives on rings through all N GPUs, node after node.

    A phase passes (N-1)/N of the payload over every link of the ring, so the slowest link decides:

        time = phases * (payload (N-1)/N / (link_ratio * bandwidth) + count * latency)

    bandwidth: of one GPU inside the node; between nodes of all of a node's network cards, because NCCL lays as many
    rings as there are cards; the smaller of the two. latency: N-1 steps, of which num_nodes-1 cross the network.
    (Patarasuk and Yuan 2009; NCCL's cost model in src/graph/tuning.cc.) gloo's reduce-scatter is an all-reduce of a copy, of
    which every rank keeps its part (torch's ProcessGroupGloo.cpp): two phases on CPUs.
    """
    num_gpus = num_nodes * gpus_per_node
    if num_gpus == 1:
        return 0.0
    links = [hardware.intra_gbit] * (gpus_per_node > 1) + [hardware.inter_gbit] * (num_nodes > 1)
    bytes_per_s = hardware.link_ratio * min(links) * 1e9 / 8
    latency_s = 1e-6 * (
        (num_gpus - num_nodes) * hardware.intra_latency_us + (num_nodes - 1) * hardware.inter_latency_us
    )
    moved = traffic.payload_bytes * (num_gpus - 1) / num_gpus
    phases = 2 if traffic.kind == "reduce_scatter" and hardware.on_cpu else traffic.phases
    return phases * (moved / bytes_per_s + traffic.count * latency_s)
