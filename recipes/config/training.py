"""The run, its batches, ZeRO and its checkpoints."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from recipes.config.values import Block, Count, CountOrZero, Number


class RunBlock(Block):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(
        description="Name of the run; its folder is storage_path/name."
    )
    storage_path: str = Field(
        "runs",
        description="Folder or URI (s3://, gs://) that every node can read and write; runs and token caches go there.",
    )
    seed: CountOrZero = Field(
        0, description="Decides weights, data order and dropout; same seed and workers, same run."
    )
    resume: Literal["auto", "never", "must"] = Field(
        "never",
        description="auto: go on from the newest whole checkpoint if there is one; never: refuse a folder that holds a "
        "run; must: refuse to start without a checkpoint.",
    )


class TrainingBlock(Block):
    examples_per_update: Count = Field(
        128, description="Examples in the global batch of one optimizer update, over all workers."
    )
    micro_batch_tokens: Count = Field(
        4096,
        description="Most tokens (source + target) in one forward and backward pass of one worker, computed padding included.",
    )
    packing: bool = Field(
        True,
        description="Examples are computed one after the other, without padding, with the same gradient; false: a row each.",
    )
    compile: bool = Field(
        False,
        description="torch.compile: minutes at the start, then fewer seconds per update (docs/models.md). Needs a C++ compiler on "
        "every node, and ZeRO 0 to 2.",
    )
    eval_every_steps: Count = Field(500, description="Updates between two evaluations; one always follows the last.")
    log_every_steps: Count = Field(10, description="Updates between two lines of metrics.jsonl.")
    clip_norm: Annotated[Number, Field(ge=0)] = Field(1.0, description="Largest global gradient norm; 0 does not clip.")
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Share of the wanted distribution that is spread evenly over the vocabulary in training (0.1: translation from "
        "scratch). The training loss then contains it; the held-out loss never does.",
    )
    max_skipped_updates: CountOrZero = Field(
        10,
        description="Updates in a row that may be skipped, because their gradient is not finite or their loss spikes, "
        "before the run stops and names the examples.",
    )
    on_spike: Literal["ignore", "skip", "rewind"] = Field(
        "ignore",
        description="When an update's loss is above spike_ratio times the mean of the last spike_window_steps: nothing; "
        "skip the update; or rewind to the last checkpoint and leave out all examples since.",
    )
    spike_ratio: Annotated[Number, Field(gt=1)] = Field(2.0, description="What on_spike calls a spike.")
    spike_window_steps: Count = Field(50, description="Updates whose mean loss a spike is measured against.")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 where the hardware computes it natively, else fp32."
    )
    num_samples: CountOrZero = Field(8, description="Held-out examples whose greedy predictions the report shows.")

    @field_validator("precision", mode="before")
    @classmethod
    def _no_fp16(cls, value: Any) -> Any:
        if value == "fp16":
            raise ValueError(
                "fp16 overflows in T5's feed-forward layers (T5 was trained in bf16); use auto, bf16 or fp32"
            )
        return value


class DeepSpeedBlock(Block):
    zero_stage: Literal[0, 1, 2, 3] = Field(
        2, description="What is split over workers: 0 nothing, 1 optimizer, 2 and gradients, 3 and weights."
    )
    offload: Literal["none", "optimizer", "all"] = Field(
        "none", description="Keep optimizer state (stages 1 to 3), or weights too (stage 3), in host memory."
    )
    extra: dict[str, Any] = Field(
        default_factory=dict,
        description="Merged into the DeepSpeed config; a key that contradicts this recipe's is refused.",
    )

    @model_validator(mode="after")
    def _offload_fits(self) -> DeepSpeedBlock:
        least = {"none": 0, "optimizer": 1, "all": 3}[self.offload]
        if self.zero_stage < least:
            raise ValueError(f"offload: {self.offload} needs zero_stage {least} or more, not {self.zero_stage}")
        return self


class CheckpointBlock(Block):
    every_steps: Count = Field(500, description="Updates between two checkpoints; one always follows the last.")
    keep: Count = Field(2, description="Newest checkpoints to keep.")
    background: bool = Field(
        True,
        description="Write checkpoints beside training, from a copy in host memory; false: training waits for the write.",
    )
