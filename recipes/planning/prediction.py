"""The model on paper: memory per GPU and time per update of one run on one cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass

from recipes.planning.activations import TrainedModel
from recipes.planning.flops import training_flops
from recipes.planning.hardware import Hardware
from recipes.planning.memory import GIB, Memory, memory_per_gpu
from recipes.planning.step_costs import launches_per_micro_batch, launches_per_step, memory_bytes
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
    """compute_s: matrix products of the GPU with the most to do. launch_s: launching its forward and backward passes.
    busy_s: these two together, which a GPU does at the same time and a CPU one after the other. step_s: gradients' buffers
    and the optimizer's step. waiting_s: for the slowest process. comm_s: all collectives of an update; exposed_comm_s: that
    part of it during which nothing is computed. update_s: busy_s + step_s + waiting_s + exposed_comm_s.
    num_launches, step_launches: operations in all micro-batches, and in the step. memory_bytes: passed over, besides.
    ideal_s: compute_s without rounding, its examples split evenly. flops: of the whole update.
    """

    world: World
    num_micro_batches: int
    examples_per_micro_batch: int
    memory: Memory
    fits: bool
    flops: float
    num_launches: float
    step_launches: float
    memory_bytes: float
    compute_s: float
    launch_s: float
    busy_s: float
    step_s: float
    waiting_s: float
    traffic: tuple[Traffic, ...]
    comm_s: float
    exposed_comm_s: float
    update_s: float
    ideal_s: float
    tokens_per_s: float


def predict(model: TrainedModel, batch: Batch, hardware: Hardware, world: World) -> Prediction:
    """Memory and time of one update.

    Micro-batches as `recipes.data.dealing` cuts them: with b = micro_batch_tokens // (source + target) examples in one,
    every GPU gets M = ceil(examples / (b N)) of at most ceil(examples / (M N)) examples.

        compute_s = M * examples per micro-batch * FLOPs per example / (peak * compute_ratio)

        launch_s  = M * operations of a micro-batch * launch
        busy_s    = max(compute_s, launch_s) on a GPU, compute_s + launch_s on a CPU
        step_s    = bytes passed over / (memory_ratio * memory bandwidth) + operations of the step * launch
        waiting_s = imbalance_ratio * (busy_s + step_s), where there is more than one GPU

    Operations and bytes: `step_costs`. Collectives that can hide (stage 3's prefetched weights) hide behind overlap_ratio * compute_s, the others never:
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
    num_launches = num_micro_batches * launches_per_micro_batch(model, world.zero, world.num_gpus)
    step_launches = launches_per_step(model, world.zero, world.num_gpus)
    passed = memory_bytes(model, world.zero, world.num_gpus, num_micro_batches)
    launch_s = 1e-6 * hardware.launch_us * num_launches
    busy_s = compute_s + launch_s if hardware.on_cpu else max(compute_s, launch_s)
    memory_s = passed / (hardware.memory_ratio * hardware.memory_gbyte_s * 1e9)
    step_s = memory_s + 1e-6 * hardware.launch_us * step_launches
    waiting_s = hardware.imbalance_ratio * (busy_s + step_s) if world.num_gpus > 1 else 0.0
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
    update_s = busy_s + step_s + waiting_s + exposed
    return Prediction(
        world=world,
        num_micro_batches=num_micro_batches,
        examples_per_micro_batch=examples,
        memory=memory,
        fits=memory.peak <= hardware.memory_gib * GIB,
        flops=batch.examples_per_update * flops,
        num_launches=num_launches,
        step_launches=step_launches,
        memory_bytes=passed,
        compute_s=compute_s,
        launch_s=launch_s,
        busy_s=busy_s,
        step_s=step_s,
        waiting_s=waiting_s,
        traffic=tuple(traffic),
        comm_s=comm_s,
        exposed_comm_s=exposed,
        update_s=update_s,
        ideal_s=batch.examples_per_update * flops / (flops_per_s * world.num_gpus),
        tokens_per_s=batch.tokens / update_s,
    )
