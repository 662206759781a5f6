"""What a run would need and how long it would take: ``python -m recipes.plan CONFIG [key=value ...] --nodes 4 --gpu h100``."""

from __future__ import annotations

import argparse
import math
import sys

from recipes.command import exit_code
from recipes.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 a wrong input."""
    options = _parser().parse_intermixed_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.plan",
        description="Memory per GPU and time per update, on paper, for ZeRO stages 0 to 3. Starts nothing, needs no GPU.",
    )
    parser.add_argument("config", help="YAML file, such as recipes/configs/local.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as training.micro_batch_tokens=16384")
    parser.add_argument("--nodes", type=int, required=True, help="the table goes 1, 2, 4, ... up to here")
    parser.add_argument("--gpu", required=True, help="a100-40, a100-80, h100, h200, b200, l4, a10g, v100, or cpu")
    parser.add_argument("--gpus-per-node", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="everything, for machines")
    batch = parser.add_argument_group("batch")
    batch.add_argument("--source-tokens", type=int, help="of every example, padded; default: data.max_source_tokens")
    batch.add_argument("--target-tokens", type=int, help="default: data.max_target_tokens")
    batch.add_argument("--vocab-size", type=int, help="token ids, for model.shape with a tokenizer from the hub")
    link = parser.add_argument_group("hardware, in place of the published numbers")
    link.add_argument("--bandwidth-gbit", type=float, help="all network cards of a node, one direction; default 400")
    link.add_argument("--intra-gbit", type=float, help="one GPU to the others of its node, one direction")
    link.add_argument("--latency-us", type=float, help="one step of a ring between nodes; default 14")
    link.add_argument("--intra-latency-us", type=float, help="one step inside a node; default 3.4")
    link.add_argument("--peak-tflops", type=float, help="dense matmul, at the planned precision")
    link.add_argument("--peak-gflops", type=float, help="the same in GFLOP/s")
    link.add_argument("--memory-gib", type=float, help="what one process can allocate")
    link.add_argument("--reserve-gib", type=float, help="CUDA context, NCCL, fragmentation; default 2")
    link.add_argument("--attention", choices=("fused", "materialised"), help="whether scores are kept; default fused")
    assumed = parser.add_argument_group("assumptions")
    assumed.add_argument("--mfu", type=float, help="share of the peak that is reached; default 0.25 (docs/planning.md)")
    assumed.add_argument("--link-ratio", type=float, help="share of a link that a collective reaches; default 0.8")
    assumed.add_argument("--overlap", type=float, help="share of computing that may hide stage 3's gathers; default 0")
    assumed.add_argument(
        "--memory-gbyte-s", type=float, help="of a GPU's memory; default: published, of which 0.8 is reached"
    )
    assumed.add_argument("--launch-us", type=float, help="host time of one operation; default 10, cpu 30")
    assumed.add_argument("--imbalance", type=float, help="how much longer the slowest process computes; default 0")
    assumed.add_argument("--pays-above", type=float, default=0.7, help="scaling below which nodes stop paying")
    return parser


def _run(options: argparse.Namespace) -> int:
    from recipes.config_file import load_config
    from recipes.planning.activations import TrainedModel
    from recipes.planning.hardware import check_known, precision_on
    from recipes.planning.report import to_json, to_text
    from recipes.planning.shapes import shape_of
    from recipes.planning.survey import survey
    from recipes.planning.zero import not_modelled

    _check_numbers(options)
    check_known(options.gpu)
    config = load_config(options.config, options.overrides)
    dropout = config.model.shape.dropout_rate if config.model.shape else config.model.dropout_rate
    shape = shape_of(config, options.vocab_size)
    model = TrainedModel(
        shape,
        precision_on(options.gpu, config.training.precision),
        config.model.gradient_checkpointing,
        # A published model's own rate is 0.1.
        dropout=dropout is None or dropout > 0,
        optimizer=config.optimizer.name,
        trained=shape.num_trained(config.model),
    )
    notes = [f"not looked at: {key}" for key in not_modelled(config.deepspeed)]
    if config.deepspeed.offload != "none":
        notes.append(f"deepspeed.offload {config.deepspeed.offload}: the time of the step on the host is not in here")
    found = survey(
        config,
        model,
        _batch(options, config),
        _hardware(options, model.precision),
        options.nodes,
        options.gpus_per_node,
        options.pays_above,
    )
    print(to_json(found, notes) if options.json else to_text(found, notes))
    return 0


def _batch(options: argparse.Namespace, config):
    from recipes.planning.prediction import Batch

    batch = Batch(
        config.training.examples_per_update,
        config.training.micro_batch_tokens,
        options.source_tokens or config.data.max_source_tokens,
        options.target_tokens or config.data.max_target_tokens,
    )
    example = batch.source_tokens + batch.target_tokens
    if batch.micro_batch_tokens < example:
        raise UserError(
            f"training.micro_batch_tokens: {batch.micro_batch_tokens} is less than one example's {batch.source_tokens} + "
            f"{batch.target_tokens} tokens; raise it to {example} or more, or give --source-tokens and --target-tokens"
        )
    num_gpus = options.nodes * options.gpus_per_node
    if batch.examples_per_update < num_gpus:
        raise UserError(
            f"training.examples_per_update is {batch.examples_per_update}, fewer than the {num_gpus} GPUs of --nodes "
            f"{options.nodes}: raise it, or plan for fewer GPUs"
        )
    return batch


def _hardware(options: argparse.Namespace, precision: str):
    from recipes.planning.hardware import hardware_for

    gflops = options.peak_gflops
    return hardware_for(
        options.gpu,
        precision,
        peak_tflops=options.peak_tflops if gflops is None else gflops / 1e3,
        memory_gib=options.memory_gib,
        intra_gbit=options.intra_gbit,
        inter_gbit=options.bandwidth_gbit,
        intra_latency_us=options.intra_latency_us,
        inter_latency_us=options.latency_us,
        compute_ratio=options.mfu,
        link_ratio=options.link_ratio,
        overlap_ratio=options.overlap,
        memory_gbyte_s=options.memory_gbyte_s,
        launch_us=options.launch_us,
        imbalance_ratio=options.imbalance,
        reserved_gib=options.reserve_gib,
        fused_attention=None if options.attention is None else options.attention == "fused",
    )


def _check_numbers(options: argparse.Namespace) -> None:
    """Raises UserError for a number that no cluster has."""
    if options.peak_tflops is not None and options.peak_gflops is not None:
        raise UserError("--peak-tflops and --peak-gflops: give one of them")
    may_be_zero = {"overlap", "latency_us", "intra_latency_us", "reserve_gib", "launch_us", "imbalance"}
    shares = {"mfu", "link_ratio", "overlap", "pays_above"}
    for name, value in vars(options).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        flag = f"--{name.replace('_', '-')} {value:g}"
        if not math.isfinite(value) or value < 0 or (value == 0 and name not in may_be_zero):
            raise UserError(f"{flag}: must be {'0 or more' if name in may_be_zero else 'above 0'}")
        if name in shares and value > 1:
            raise UserError(f"{flag}: is a share, 1 at most")


if __name__ == "__main__":
    sys.exit(main())
