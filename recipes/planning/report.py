"""A survey as one screen of text, and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from recipes.planning.activations import TrainedModel
from recipes.planning.memory import GIB
from recipes.planning.survey import Row, Survey


def to_text(survey: Survey, notes: list[str]) -> str:
    return "\n".join([*_header(survey), "", *_table(survey), "", *_advice(survey), *notes])


def _header(survey: Survey) -> list[str]:
    model, batch, hardware = survey.model, survey.batch, survey.hardware
    checkpointing = ", gradient checkpointing" if model.gradient_checkpointing else ""
    optimizer = "" if model.optimizer == "adamw" else f", {model.optimizer}"
    attention = "" if hardware.fused_attention else ", attention scores kept"
    return [
        f"model      {model.shape.num_parameters:,} parameters{_trained(model)}, "
        f"{model.precision}{optimizer}{checkpointing}{attention}",
        f"update     {batch.examples_per_update:,} examples of {batch.source_tokens} + {batch.target_tokens} tokens, "
        f"micro-batches of {batch.micro_batch_tokens:,} tokens at most",
        f"hardware   {survey.gpus_per_node} x {hardware.name} per node: {hardware.peak_tflops:g} TFLOP/s peak, "
        f"{hardware.memory_gib:g} GiB; {hardware.intra_gbit:g} Gbit/s per GPU inside, {hardware.inter_gbit:g} per node outside",
        f"assumed    {hardware.compute_ratio:.0%} of the peak, {hardware.link_ratio:.0%} of the links, "
        f"{hardware.overlap_ratio:.0%} overlap, {hardware.reserved_gib:g} GiB reserved; memory {hardware.memory_gbyte_s:g} GB/s "
        f"at {hardware.memory_ratio:.0%},",
        f"           {hardware.launch_us:g} us per operation, {hardware.imbalance_ratio:.0%} imbalance; a model on paper, not a "
        "measurement",
    ]


def _trained(model: TrainedModel) -> str:
    return "" if model.num_trained == model.shape.num_parameters else f" ({model.num_trained:,} trained)"


def _table(survey: Survey) -> list[str]:
    lines = [
        "stage  nodes  GPUs  memory/GPU  fits  micro    busy     step  comm exposed/all    update    tokens/s  scaling"
    ]
    for row in survey.rows:
        lines.append(_line(row, survey))
    return lines


def _line(row: Row, survey: Survey) -> str:
    p = row.prediction
    mark = "*" if p.world.zero.stage == survey.config_stage else " "
    return (
        f"{p.world.zero.stage:>4}{mark} {p.world.num_nodes:>6} {p.world.num_gpus:>5} {p.memory.peak / GIB:>7.1f} GiB "
        f"{'yes' if p.fits else 'NO':>5} {p.num_micro_batches:>6} {p.busy_s:>6.3f}s {p.step_s + p.waiting_s:>7.3f}s "
        f"{p.exposed_comm_s:>8.3f}s {p.comm_s:>6.3f}s {p.update_s:>7.3f}s {p.tokens_per_s:>11,.0f} {row.scaling:>7.0%}"
    )


def _advice(survey: Survey) -> list[str]:
    lines = ["* the config's stage. scaling: tokens/s per node, as a share of one node's."]
    fits = ", ".join(
        f"{nodes} {'node' if nodes == 1 else 'nodes'}: {'none' if stage is None else stage}"
        for nodes, stage in survey.smallest_stage.items()
    )
    lines.append(f"smallest stage that fits: {fits}")
    until = ", ".join(f"{nodes} at stage {stage}" for stage, nodes in survey.pays_until.items())
    lines.append(
        f"nodes that scale at {survey.pays_ratio:.0%} or better: {until}; examples for {survey.examples_limit}"
    )
    return lines


def to_json(survey: Survey, notes: list[str]) -> str:
    content: dict[str, Any] = {
        "model": asdict(survey.model) | {"num_parameters": survey.model.shape.num_parameters},
        "batch": asdict(survey.batch),
        "hardware": asdict(survey.hardware),
        "config_stage": survey.config_stage,
        "rows": [_row(row) for row in survey.rows],
        "smallest_stage_by_nodes": survey.smallest_stage,
        "pays_ratio": survey.pays_ratio,
        "pays_until_nodes_by_stage": survey.pays_until,
        "examples_limit_nodes": survey.examples_limit,
        "notes": notes,
    }
    return json.dumps(content, indent=2)


def _row(row: Row) -> dict[str, Any]:
    content = asdict(row.prediction) | {"scaling_ratio": row.scaling}
    world = content.pop("world")
    memory = {f"{name.removesuffix('_bytes')}_bytes": value for name, value in content.pop("memory").items()}
    memory |= {"states_bytes": row.prediction.memory.states, "peak_bytes": row.prediction.memory.peak}
    return {**world, "stage": row.prediction.world.zero.stage, "memory": memory, **content}
