"""The typed description of a sweep: what varies, how long trials run, how the answer is made sure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from recipes.config import Block, RunConfig
from recipes.config.values import Count, CountOrZero, Number
from recipes.config_file import apply_overrides, parse_as, parse_config, read_yaml
from recipes.errors import UserError
from recipes.sweeping.scoring import Scoring


class SweepBlock(Block):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(
        description="Name of the sweep; its folder is storage_path/name."
    )
    storage_path: str = Field("runs", description="Folder or URI that every node can read and write.")
    seed: CountOrZero = Field(0, description="Decides which trials are drawn, and their order.")
    num_trials: Count | None = Field(None, description="Trials to run; with search: grid all combinations are run.")
    search: Literal["random", "grid", "optuna"] = Field(
        "random",
        description="random: drawn from the space, families in turn; grid: every combination; optuna: its TPE sampler, "
        "which learns from the trials that have ended.",
    )
    resume: Literal["auto", "never"] = Field(
        "never", description="auto: go on with the sweep of this folder if there is one; never: refuse such a folder."
    )
    max_concurrent: Count | None = Field(
        None, description="Trials at a time; none: as many as the cluster's CPUs and GPUs hold."
    )
    keep_checkpoints: bool = Field(
        False, description="Keep the checkpoints of trials that have ended; false: they are deleted, models stay."
    )

    @model_validator(mode="after")
    def _enough_said(self) -> SweepBlock:
        if self.search != "grid" and self.num_trials is None:
            raise ValueError(f"num_trials is missing: search {self.search} needs to know how many trials to run")
        if self.search == "grid" and self.num_trials is not None:
            raise ValueError("num_trials has no use with search: grid, which runs every combination; leave it out")
        return self


class SchedulerBlock(Block):
    kind: Literal["asha", "fifo"] = Field(
        "asha", description="asha: trials that fall behind at a rung are stopped; fifo: all run to the end."
    )
    grace_steps: Count | None = Field(
        None, description="Optimizer updates at the first rung; with fifo it may be left out: no rungs are scored."
    )
    reduction_factor: Annotated[Count, Field(ge=2)] = Field(
        4, description="One of so many goes on at a rung; each rung has so many times the updates of the one before."
    )
    rule: Literal["promote", "strict", "percentile"] = Field(
        "promote",
        description="asha: who goes on. promote: trials pause at a rung and are called back when they are among its best "
        "1/reduction_factor; strict: those that are among them on arrival, the others are stopped for good; percentile: Tune's "
        "own rule, which lets more of the early ones through. Measured in docs/sweeps.md.",
    )
    brackets: Count = Field(
        1, description="Trials are spread over so many brackets; each one's first rung is one rung later."
    )

    @model_validator(mode="after")
    def _rungs_given(self) -> SchedulerBlock:
        if self.kind == "asha" and self.grace_steps is None:
            raise ValueError("grace_steps is missing: the updates a trial gets before it may be stopped")
        if self.kind == "asha" and self.rule == "promote" and self.brackets > 1:
            raise ValueError("brackets are for rule: strict or percentile; promote has one")
        if self.kind == "fifo" and self.brackets > 1:
            raise ValueError("brackets are for kind: asha; fifo stops nobody")
        return self


class ScoringBlock(Block):
    method: Literal["raw", "averaged", "annealed", "projected"] = Field(
        Scoring.method,
        description="What trials are compared by at a rung. raw: the held-out loss as it is; averaged: that of the mean "
        "of the last weights; annealed: that at the end of a short branch; projected: that, times what the rest of the "
        "schedule is expected to gain after the branch. Measured in docs/sweeps.md.",
    )
    branch_ratio: Annotated[Number, Field(ge=0, le=1)] = Field(
        Scoring.branch_ratio,
        description="annealed, projected: updates of the branch as a part of the rung's; 0, with projected only: no branch.",
    )
    branch_path: Literal["rest", "floor"] = Field(
        Scoring.branch_path,
        description="What the lr does on the branch. rest: what the schedule has left to do, in fast forward; floor: it "
        "falls in a straight line to eta_min, or 0.",
    )
    averaged_ratio: Annotated[Number, Field(gt=0, le=1)] = Field(
        Scoring.averaged_ratio,
        description="averaged: updates whose weights are averaged, as a part of the rung's.",
    )
    projection_exponent: Annotated[Number, Field(gt=0, le=1)] = Field(
        Scoring.projection_exponent,
        description="projected: the loss falls as this power of the sum of the learning rates.",
    )

    @model_validator(mode="after")
    def _a_branch_where_needed(self) -> ScoringBlock:
        if self.method == "annealed" and self.branch_ratio == 0:
            raise ValueError("branch_ratio is 0: method annealed needs a branch; projected does without")
        return self

    @property
    def scoring(self) -> Scoring:
        return Scoring(**self.model_dump())


class FinalBlock(Block):
    top_k: CountOrZero = Field(2, description="Best finished trials to train again with new seeds; 0: none.")
    num_seeds: Annotated[Count, Field(ge=2)] = Field(
        3, description="Seeds each of them is trained with, none of them the trials' own."
    )


class SweepConfig(Block):
    """One sweep."""

    sweep: SweepBlock = Field(description="Name, place, how many trials.")
    base: RunConfig = Field(
        description="The run that every trial is a variation of: a config file, or its content. Its run.name, "
        "run.storage_path and run.resume are not used."
    )
    space: dict[str, Any] = Field(min_length=1, description="What varies; docs/sweeps.md.")
    scheduler: SchedulerBlock = Field(description="Who is stopped, and when.")
    scoring: ScoringBlock = Field(default_factory=ScoringBlock, description="The score at a rung.")
    final: FinalBlock = Field(default_factory=FinalBlock, description="How the answer is made sure.")

    @model_validator(mode="after")
    def _ended_by_rungs_alone(self) -> SweepConfig:
        stopping = "evaluation.early_stopping"
        if self.base.evaluation.early_stopping is not None or any(key.startswith(stopping) for key in self.space):
            raise ValueError(f"{stopping} does not go with a sweep: its rungs say which trials end early; leave it out")
        return self

    @model_validator(mode="after")
    def _watched_as_a_sweep(self) -> SweepConfig:
        trackers = [name for name in self.base.report.to if name != "tensorboard"]
        if trackers or any(key.startswith("report.") for key in self.space):
            named = f"report.to {trackers}" if trackers else "a report. key in the space"
            raise ValueError(f"{named} does not go with a sweep, which has a report of its own; leave it out")
        return self


def load_sweep(path: str | Path, overrides: list[str] = ()) -> SweepConfig:
    """Read a sweep's YAML, with ``key=value`` overrides such as ``sweep.num_trials=8`` or ``base.run.seed=3``.

    ``base`` may name a run's config file; ``base_overrides`` (dotted keys of a run and their values) are
    laid over it before the command's.

    Raises:
        UserError: naming the file or field, the value and the way out; one line per problem.
    """
    content = read_yaml(Path(path))
    others = []
    for override in overrides:
        dotted, _, text = override.partition("=")
        if dotted == "base":
            content["base"] = text
        elif dotted.startswith("space.") and isinstance(content.get("space"), dict):
            # A field of a run is one key of the space, dots and all.
            value = apply_overrides({}, [f"value={text}"])["value"]
            content["space"] = content["space"] | {dotted.removeprefix("space."): value}
        else:
            others.append(override)
    return parse_sweep(apply_overrides(_with_base(content, str(path)), others), str(path))


def parse_sweep(content: dict[str, Any], where: str) -> SweepConfig:
    if isinstance(content.get("base"), dict):
        # By itself first: a key of a run is best explained by where it stands in a run.
        parse_config(content["base"], where=f"{where}: base")
    return parse_as(SweepConfig, content, where)


def _with_base(content: dict[str, Any], where: str) -> dict[str, Any]:
    content = dict(content)
    base, overrides = content.get("base"), content.pop("base_overrides", None) or {}
    if isinstance(base, str):
        base = read_yaml(Path(base))
    if base is None:
        raise UserError(f"{where}: base is missing: give a run's config file, such as recipes/configs/local.yaml")
    if not isinstance(base, dict):
        raise UserError(f"{where}: base is {base!r}: give a run's config file, or its content")
    if not isinstance(overrides, dict):
        raise UserError(f"{where}: base_overrides is {overrides!r}: write dotted keys and values, {{run.seed: 3}}")
    for dotted, value in overrides.items():
        base = with_value(base, dotted, value)
    # What a trial has of its own; a base that is not a whole run need not invent it.
    run = {"seed": 0} | (base.get("run") or {}) | {"name": "base", "storage_path": "base", "resume": "never"}
    content["base"] = base | {"run": run}
    return content


def with_value(content: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """A copy of ``content`` with a value at a dotted place.

    Raises:
        UserError: a part of the way is a value, not a block.
    """
    first, dot, rest = dotted.partition(".")
    if not dot:
        return content | {first: value}
    inner = content.get(first)
    if inner is None:
        inner = {}
    if not isinstance(inner, dict):
        raise UserError(f"{dotted}: {first} is a value, not a block")
    return content | {first: with_value(inner, rest, value)}
