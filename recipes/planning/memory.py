"""Memory of one GPU, in the parts DeepSpeed really keeps."""

from __future__ import annotations

from dataclasses import dataclass

from recipes.planning.activations import TrainedModel, activation_bytes
from recipes.planning.shapes import T5Shape
from recipes.planning.zero import Zero

GIB = 2**30
# recipes.layers.cross_entropy; this package imports no torch.
_LOGITS_AT_ONCE = 2**24


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU. All parts but the last four are there all the time.

    weights: as computed with. master_weights: fp32. moments: the optimizer's. gradients: accumulated over micro-batches.
    reserved: CUDA context, NCCL, fragmentation. While a micro-batch is computed there are activations (logits included),
    buckets (of gradients on their way) and, at stage 3, live_weights (gathered). While the optimizer steps there is
    step_scratch instead (fp32 gradients and temporaries). host_bytes: of this GPU's share, in its node's memory.
    """

    weights: float
    master_weights: float
    moments: float
    gradients: float
    reserved: float
    activations: float
    buckets: float
    live_weights: float
    step_scratch: float
    host_bytes: float = 0.0

    @property
    def states(self) -> float:
        return self.weights + self.master_weights + self.moments + self.gradients

    @property
    def peak(self) -> float:
        computing = self.activations + self.buckets + self.live_weights
        return self.states + self.reserved + max(computing, self.step_scratch)


def memory_per_gpu(
    model: TrainedModel,
    zero: Zero,
    num_gpus: int,
    micro_batch: tuple[int, int, int],
    fused_attention: bool,
    reserved_bytes: float,
) -> Memory:
    """micro_batch: (examples, source tokens, target tokens) of the largest one.

    With P parameters, N GPUs and e bytes per element, as read in DeepSpeed 0.19.8 (the ZeRO paper, arXiv 1910.02054,
    section 3, counts 2 + 2 + 12 bytes per parameter, which stages 1, 2 and 3 split over N one after the other):

                    stage 0     stage 1     stage 2      stage 3
        weights     e P         e P         e P          e P/N + persistent
        master      4 P (bf16)  4 P/N       4 P/N        4 P/N (bf16)            at stages 1 and 2 in fp32 too
        moments     8 P         8 P/N       8 P/N        8 P/N                   adamw, adamw_rms
                    4 R         4 R         4 R          4 R                     adafactor: R of `num_factored_moments`
        gradients   e P         e P         e P/N        e P/N                   in the computing precision
        buckets     -           e B         2 e B        2 e B                   B: reduce_bucket, allocated whole; at
                                                                                 2 and 3 a copy of what is in it
        live        -           -           -            e min(P, max_live + largest)
        step        4 P (bf16)  (4 + e) P/N (4 + e) P/N  (4 + e) min(P/N, sub_group)

    The step needs gradients in fp32 (4) and the flattened gradients (e); in fp32 the two are one, and stage 0 needs neither.
    Where weights are fp32 themselves, e is 4 throughout. adamw_rms and adafactor also keep an update (4 P/N), and the squares
    of one parameter's part; at stage 0 both of one parameter at a time.

    With frozen weights or LoRA P is the number of trained parameters everywhere but in weights and live, and R at most that.
    """
    size, trained, e, stage = model.shape.num_parameters, model.num_trained, model.element_bytes, zero.stage
    sizes = model.shape.parameter_sizes()
    share = trained / num_gpus
    split = share if stage >= 1 else trained
    mixed = model.precision == "bf16"
    offloaded = zero.offload != "none"
    bucket = min(zero.reduce_bucket, trained)
    persistent = sum(n for n in sizes if n <= zero.persistence_threshold)

    weights = e * size if stage < 3 else e * (size / num_gpus + persistent)
    if zero.offload == "all":
        weights = e * persistent
    master = 4 * split if mixed or stage in (1, 2) else 0.0
    gradients = e * trained if stage < 2 else e * share
    buckets = {0: 0, 1: e * zero.reduce_bucket}.get(stage, e * (zero.reduce_bucket + bucket))
    live = e * min(size, zero.max_live + max(sizes)) if stage == 3 else 0.0
    moments = 4 * min(num_factored_moments(model.shape), trained) if model.optimizer == "adafactor" else 8 * split
    largest = min(max(sizes), trained) if model.optimizer != "adamw" else None
    scratch = _step_scratch(e, zero, trained, share, bucket, mixed, largest)
    host = 0.0
    if offloaded:
        host = master + moments + 4 * share + e * share + (e * size / num_gpus if zero.offload == "all" else 0)
        master, moments, scratch = 0.0, 0.0, e * max(sizes)
        gradients = e * trained if stage == 1 else 0.0
    examples, source, target = micro_batch
    # The loss works on so many logits at once, in fp32.
    logits = 4 * min(examples * target * model.shape.vocab_size, _LOGITS_AT_ONCE)
    return Memory(
        weights=weights,
        master_weights=master,
        moments=moments,
        gradients=gradients,
        reserved=reserved_bytes,
        activations=examples * activation_bytes(model, source, target, fused_attention) + logits,
        buckets=buckets,
        live_weights=live,
        step_scratch=scratch,
        host_bytes=host,
    )


def num_factored_moments(shape: T5Shape) -> int:
    """Adafactor's second moments: the rows and columns of every matrix, and every element of a norm."""
    d, inner, f = shape.d_model, shape.inner, shape.d_ff
    layers, decoder_layers = shape.num_layers, shape.num_decoder_layers
    attention = 4 * (d + inner)
    feed_forward = (3 if shape.gated else 2) * (d + f)
    encoder = layers * (attention + feed_forward + 2 * d)
    decoder = decoder_layers * (2 * attention + feed_forward + 3 * d)
    once_per_stack = 2 * (shape.num_buckets + shape.num_heads + d)
    return encoder + decoder + once_per_stack + (1 if shape.tied else 2) * (shape.vocab_size + d)


def _step_scratch(e: int, zero: Zero, size: int, share: float, bucket: int, mixed: bool, largest: int | None) -> float:
    """largest: elements of the largest parameter, where the optimizer looks at one after the other."""
    if zero.stage == 0:
        temporaries = 0 if largest is None else 8 * largest
        return max((4 * size if mixed else 0) + temporaries, e * bucket)
    at_once = min(share, zero.sub_group) if zero.stage == 3 else share
    own = 0 if largest is None else 4 * min(largest, share) + 4 * at_once
    return own + ((4 + e) * at_once if mixed else 4 * at_once)
