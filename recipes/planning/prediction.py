"""The model on paper: memory per GPU and time per update of one run on one cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass

from recipes.planning.activations import TrainedModel
from recipes.planning.flops import training_flops
from recipes.planning.hardware import Hardware
from recipes.planning.memory import GIB, Memory, memory_per_gpu
from recipes.planning.traffic import Traffic, seconds, traffic_per_update
from recipes.planning.zero import Zero


@dataclass(frozen=True)
class Batch:
    """One optimizer update: every example has source_tokens and target_tokens, padding included.

    micro_batch_tokens: most tokens (source + target) of one forward and backward pass of one GPU.
    """

    examples_per_update: int
    micro_batch_tokens: int
    source_tokens: int
    target_tokens: int

    @property
    def tokens(self) -> int:
        return self.examples_per_update * (self.source_tokens + self.target_tokens)


@dataclass(frozen=True)
class World:
    num_nodes: int
    gpus_per_node: int
    zero: Zero

    @property
    def num_gpus(self) -> int:
        return self.num_nodes * self.gpus_per_node


@dataclass(frozen=True)
class Prediction:
    """compute_s: forward and backward of the GPU with the most to do. comm_s: all collectives of an update;
    exposed_comm_s: that part of it during which nothing is computed. update_s: compute_s + exposed_comm_s.
    ideal_s: the update without communication, its examples split evenly. flops: of the whole update.
    """

    world: World
    num_micro_batches: int
    examples_per_micro_batch: int
    memory: Memory
    fits: bool
    flops: float
    compute_s: float
    traffic: tuple[Traffic, ...]
    comm_s: float
    exposed_comm_s: float
    update_s: float
    ideal_s: float
    tokens_per_s: float


def predict(model: TrainedModel, batch: Batch, hardware: Hardware, world: World) -> Prediction:
    """Memory and time of one update.

    Micro-batches as `recipes.data.packing` cuts them: with b = micro_batch_tokens // (source + target) examples in one,
    every GPU gets M = ceil(examples / (b N)) of at most ceil(examples / (M N)) examples.

        compute_s = M * examples per micro-batch * FLOPs per example / (peak * compute_ratio)

    Collectives that can hide (stage 3's prefetched weights) hide behind overlap_ratio * compute_s, the others never:
    the recipe sets `overlap_comm: false`.

    Raises:
        ValueError: fewer examples than GPUs, or a micro-batch too small for one example.
    """
    per_example = batch.source_tokens + batch.target_tokens
    largest = batch.micro_batch_tokens // per_example
    if largest < 1:
        raise ValueError(f"{batch.micro_batch_tokens} tokens per micro-batch, but one example has {per_example}")
    if batch.examples_per_update < world.num_gpus:
        raise ValueError(f"{batch.examples_per_update} examples per update for {world.num_gpus} GPUs")
    num_micro_batches = math.ceil(batch.examples_per_update / (largest * world.num_gpus))
    examples = math.ceil(batch.examples_per_update / (num_micro_batches * world.num_gpus))
    flops = training_flops(model.shape, batch.source_tokens, batch.target_tokens, model.gradient_checkpointing)
    flops_per_s = hardware.peak_tflops * 1e12 * hardware.compute_ratio
    compute_s = num_micro_batches * examples * flops / flops_per_s
    traffic = traffic_per_update(model, world.zero, num_micro_batches)
    times = {t: seconds(t, hardware, world.num_nodes, world.gpus_per_node) for t in traffic}
    can_hide = sum(time for t, time in times.items() if t.can_hide)
    comm_s = sum(times.values())
    exposed = comm_s - min(can_hide, hardware.overlap_ratio * compute_s)
    memory = memory_per_gpu(
        model,
        world.zero,
        world.num_gpus,
        (examples, batch.source_tokens, batch.target_tokens),
        hardware.fused_attention,
        hardware.reserved_gib * GIB,
    )
    update_s = compute_s + exposed
    return Prediction(
        world=world,
        num_micro_batches=num_micro_batches,
        examples_per_micro_batch=examples,
        memory=memory,
        fits=memory.peak <= hardware.memory_gib * GIB,
        flops=batch.examples_per_update * flops,
        compute_s=compute_s,
        traffic=tuple(traffic),
        comm_s=comm_s,
        exposed_comm_s=exposed,
        update_s=update_s,
        ideal_s=batch.examples_per_update * flops / (flops_per_s * world.num_gpus),
        tokens_per_s=batch.tokens / update_s,
    )
