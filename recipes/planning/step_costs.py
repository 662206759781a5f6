"""What one GPU does in an update beside the model's matrix products: operations to launch, memory to pass over."""

from __future__ import annotations

from recipes.planning.activations import TrainedModel
from recipes.planning.shapes import T5Shape
from recipes.planning.traffic import gathered_elements
from recipes.planning.zero import Zero

# Operations of the recipe's T5 in eager mode, counted by a TorchDispatchMode (views and allocations left out):
# (of a sublayer, besides), forward and backward together. bf16 casts around the norms.
_OPERATIONS = {"fp32": (40, 90), "bf16": (51, 103)}
# ZeRO 3 runs Python before and after each module, forward and backward; each was as long as one operation (torch's profiler).
_HOOKS = 4
# Of the step, besides those that each parameter tensor needs: at stage 0, and above.
_STEP_OPERATIONS = (15, 90)


def launches_per_micro_batch(model: TrainedModel, zero: Zero, num_gpus: int) -> float:
    """Operations of one forward and backward pass that Python or autograd starts one after the other.

    With L sublayers (attention or feed-forward), T parameter tensors and N GPUs, as counted: 40 L + 90 in fp32, 51 L + 103
    in bf16, the encoder's and decoder's layers once more with gradient checkpointing (forward only: a third); at stage 2
    T (1 + 1/N) more, at stage 3 2 T, one for each gathered tensor, and 4 for each module's hooks.
    """
    shape, each = model.shape, _OPERATIONS[model.precision]
    num_tensors = len(shape.parameter_sizes())
    sublayers = 2 * shape.num_layers + 3 * shape.num_decoder_layers
    found = each[0] * sublayers * (4 / 3 if model.gradient_checkpointing else 1) + each[1]
    if zero.stage == 2:
        found += num_tensors * (1 + 1 / num_gpus)
    if zero.stage == 3:
        split = sum(size > zero.persistence_threshold for size in shape.parameter_sizes())
        found += 2 * num_tensors + (split if num_gpus > 1 else 0) + _HOOKS * num_modules(shape)
    return found


def launches_per_step(model: TrainedModel, zero: Zero, num_gpus: int) -> float:
    """Operations from the last backward pass to the next forward pass, with AdamW on DeepSpeed 0.19.8, as counted.

    15 at stage 0 and 90 above, and for each parameter tensor 1, 1 + 3/N, 2/N, 2 at stages 0 to 3 in fp32; 20, 1 + 16/N, 15/N, 2
    in bf16. The update of all weights itself is one operation for each parameter group (AdamW is torch's fused one).
    """
    n = num_gpus
    fp32 = (1, 1 + 3 / n, 2 / n, 2)
    bf16 = (20, 1 + 16 / n, 15 / n, 2)
    each = (fp32 if model.precision == "fp32" else bf16)[zero.stage]
    return _STEP_OPERATIONS[zero.stage > 0] + each * len(model.shape.parameter_sizes())


def num_modules(shape: T5Shape) -> int:
    """torch modules of transformers' T5, containers included."""
    gates = (shape.num_layers + shape.num_decoder_layers) * shape.gated
    return 15 + 18 * shape.num_layers + 26 * shape.num_decoder_layers + gates


def memory_bytes(model: TrainedModel, zero: Zero, num_gpus: int, num_micro_batches: int) -> float:
    """Bytes that gradients, gathered weights and AdamW's step read and write in one update.

    P parameters of e bytes, N GPUs, M micro-batches; every operation's operands and results, as a TorchDispatchMode counts
    them on DeepSpeed 0.19.8:

                    gradients                                  the step, fp32 | bf16
        stage 0     3 e P (M-1)                                (52 | 70) P, and 2 e P where N > 1
        stage 1     3 e P (M-1) + g P                          (72 | 74) P/N
        stage 2     g P M + 3 e P/N (M-1)                      (72 | 74) P/N
        stage 3     (6 e + 4 e/N) P M + e P/N (M-1)            (72 | 70) P/N
                    and (2 e + 3 e/N) of each gathered element where N > 1 and several are gathered in one call

    with g = 4 e + 2 e [N > 1] + 4 e/N: into the bucket, divided, out of it, flattened. Adding up gradients reads two and
    writes one. The other optimizers are taken to be like AdamW.
    """
    e, trained, n, m = model.element_bytes, model.num_trained, num_gpus, num_micro_batches
    several = num_gpus > 1
    bucket = 4 * e + 2 * e * several + 4 * e / n
    fp32 = model.precision == "fp32"
    if zero.stage == 0:
        return trained * (3 * e * (m - 1) + (52 if fp32 else 70) + 2 * e * several)
    if zero.stage == 1:
        return trained * (3 * e * (m - 1) + bucket + (72 if fp32 else 74) / n)
    if zero.stage == 2:
        return trained * (bucket * m + 3 * e / n * (m - 1) + (72 if fp32 else 74) / n)
    gradients = trained * ((6 * e + 4 * e / n) * m + e / n * (m - 1))
    together = several and zero.prefetch_bucket > 0
    gathers = m * gathered_elements(model, zero) * (2 * e + 3 * e / n) * together
    return gradients + gathers + trained * (72 if fp32 else 70) / n
