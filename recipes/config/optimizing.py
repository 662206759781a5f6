"""Learning rate and optimizer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from recipes.config.values import Block, Number


class ScheduleBlock(Block):
    """Checked and explained by lrsched; `docs/schedules.md` has the formulas."""

    peak_lr: Any = Field(description="Highest learning rate, reached at the end of the warm-up.")
    total_steps: Any = Field(description="Optimizer updates in the run, or text such as '3 epochs'.")
    warmup: dict[str, Any] | None = Field(
        None, description="steps (500, '3%', '2 epochs'), shape (linear, log, cosine), start_ratio."
    )
    decay: dict[str, Any] | None = Field(
        None,
        description="shape (constant, cosine, linear, polynomial, step, multistep, exponential, inverse_sqrt, wsd, "
        "one_cycle, piecewise) and its parameters, for cosine: t_max, eta_min, after, ends_at_min; docs/schedules.md.",
    )
    backend: Literal["deepspeed", "torch", "auto"] = Field(
        "auto", description="Who steps the lr: DeepSpeed's own scheduler, ours, or the first where it is exact."
    )


class OptimizerBlock(Block):
    name: Literal["adamw"] = Field("adamw", description="AdamW; its lr is schedule.peak_lr.")
    betas: tuple[Number, Number] = Field((0.9, 0.999), description="Decay rates of the two moments.")
    eps: Annotated[Number, Field(gt=0)] = Field(1e-8, description="Added to the denominator.")
    weight_decay: Annotated[Number, Field(ge=0)] = Field(
        0.01, description="Decoupled decay of matrices; norms, biases and relative position bias never decay."
    )

    embedding_lr_ratio: Annotated[Number, Field(gt=0)] = Field(
        1.0,
        description="Learning rate of the embedding, norms and relative position bias as a multiple of the schedule's. "
        "T5's embedding starts 10 to 30 times larger than its other weights: a short run from scratch needs 3 to 10.",
    )

    @model_validator(mode="after")
    def _betas_below_one(self) -> OptimizerBlock:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {list(self.betas)} must each be at least 0 and below 1")
        return self
