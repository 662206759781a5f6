"""Where a run can be watched."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from recipes.config.values import Block, CountOrZero, repeated
from recipes.errors import nearest

TRACKERS = ("tensorboard", "mlflow", "wandb")
Place = Annotated[str, Field(min_length=1)]


class MlflowBlock(Block):
    tracking_uri: Place | None = Field(
        None,
        description="Server (http://, https://, databricks) or database (sqlite:///path); none: the environment's "
        "MLFLOW_TRACKING_URI, or else sqlite in storage_path/mlflow.",
    )
    experiment: Place = Field("t5-on-ray", description="Experiment that the run stands in; made if it does not exist.")


class WandbBlock(Block):
    project: Place = Field("t5-on-ray", description="Project that the run stands in.")
    entity: Place | None = Field(None, description="User or team; none: the default of your account.")
    mode: Literal["offline", "online"] = Field(
        "offline", description="offline: files in the run's folder, for `wandb sync`; online: sent while training."
    )


class ReportBlock(Block):
    every_s: CountOrZero = Field(
        30,
        description="Least seconds between two versions of report.html while training; 0: only at the end.",
    )
    to: tuple[str, ...] = Field(
        ("tensorboard",),
        description="Also written for: tensorboard (files in the run's folder), mlflow, wandb (their packages: "
        "pip install '.[mlflow]', '.[wandb]').",
    )
    mlflow: MlflowBlock = Field(default_factory=MlflowBlock, description="With mlflow in report.to.")
    wandb: WandbBlock = Field(default_factory=WandbBlock, description="With wandb in report.to.")

    @field_validator("to")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in TRACKERS:
                raise ValueError(f"unknown '{name}'{nearest(name, list(TRACKERS))}")
        if twice := repeated(names):
            raise ValueError(f"{twice} given twice")
        return names

    @model_validator(mode="before")
    @classmethod
    def _no_options_without_use(cls, content: Any) -> Any:
        if isinstance(content, dict):
            to = content.get("to", ("tensorboard",))
            for name, block in (("mlflow", MlflowBlock), ("wandb", WandbBlock)):
                given = content.get(name)
                # A resolved config has every block written out, with its defaults.
                if given and isinstance(to, (list, tuple)) and name not in to and given != block().model_dump():
                    raise ValueError(f"{name} has no effect: add {name} to report.to")
        return content
