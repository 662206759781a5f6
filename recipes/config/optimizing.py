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


# What each optimizer is told, with its defaults: torch's and DeepSpeed's for adamw, nanoT5's for adamw_rms, T5's for adafactor.
_SETTINGS: dict[str, dict[str, Any]] = {
    "adamw": {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
    "adamw_rms": {"betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0, "min_rms": 1e-3},
    "adafactor": {"decay_rate": 0.8, "clip_threshold": 1.0, "eps1": 1e-30, "eps2": 1e-3, "weight_decay": 0.0},
}


class OptimizerBlock(Block):
    """docs/optimizers.md has the formulas. A key left out gets the optimizer's own default."""

    name: Literal["adamw", "adamw_rms", "adafactor"] = Field(
        "adamw",
        description="adamw; adamw_rms (nanoT5: AdamW times the RMS of the parameter); adafactor (T5's own: no momentum, "
        "second moments of rows and columns). The lr is schedule.peak_lr; that of the latter two is relative to the parameter.",
    )
    betas: tuple[Number, Number] | None = Field(
        None, description="adamw, adamw_rms: decay rates of the two moments; 0.9 and 0.999."
    )
    eps: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="adamw, adamw_rms: added to the denominator; 1e-8, adamw_rms 1e-6."
    )
    weight_decay: Annotated[Number, Field(ge=0)] | None = Field(
        None,
        description="Decoupled decay of matrices; norms, biases and relative position bias never decay. adamw 0.01, others 0.",
    )
    min_rms: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="adamw_rms: least RMS a parameter counts with; 1e-3."
    )
    decay_rate: Annotated[Number, Field(gt=0, le=1)] | None = Field(
        None, description="adafactor: update t decays the second moment by 1 - t^-decay_rate; 0.8."
    )
    clip_threshold: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="adafactor: largest RMS of a parameter's update before the lr; 1."
    )
    eps1: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="adafactor: added to squared gradients; 1e-30."
    )
    eps2: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="adafactor: least RMS a parameter counts with; 1e-3."
    )
    embedding_lr_ratio: Annotated[Number, Field(gt=0)] = Field(
        1.0,
        description="Learning rate of the embedding, norms and relative position bias as a multiple of the schedule's. "
        "T5's embedding starts 10 to 30 times larger than its other weights: a short run from scratch with adamw needs "
        "3 to 10. The other two are relative to the parameter already.",
    )

    @model_validator(mode="before")
    @classmethod
    def _own_defaults(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        given = {key: value for key, value in content.items() if value is not None}
        name = given.get("name", "adamw")
        return _SETTINGS.get(name, {}) | given

    @model_validator(mode="after")
    def _no_idle_key(self) -> OptimizerBlock:
        for key in {key: None for keys in _SETTINGS.values() for key in keys}:
            if key not in _SETTINGS[self.name] and getattr(self, key) is not None:
                owners = ", ".join(name for name, keys in _SETTINGS.items() if key in keys)
                raise ValueError(f"{key} has no effect with name: {self.name} (it belongs to {owners})")
        return self

    @model_validator(mode="after")
    def _betas_below_one(self) -> OptimizerBlock:
        if self.betas is not None and not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {list(self.betas)} must each be at least 0 and below 1")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """What the optimizer is told besides the lr."""
        return {key: getattr(self, key) for key in _SETTINGS[self.name]}
