"""The one typed description of a run.

A config file is YAML with the top-level blocks of :class:`RunConfig`; ``key=value`` overrides use
dotted names (``schedule.peak_lr=3e-4``); `recipes.config_file` reads both.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from recipes.config.data import DataBlock, MixingBlock, ObjectiveBlock, TaskBlock, TokenizerBlock
from recipes.config.evaluation import TASK_FIELDS, EvaluationBlock, GenerationBlock
from recipes.config.model import LoraBlock, ModelBlock, ShapeBlock
from recipes.config.optimizing import OptimizerBlock, ScheduleBlock
from recipes.config.reporting import MlflowBlock, ReportBlock, WandbBlock
from recipes.config.scaling import ScalingBlock
from recipes.config.training import CheckpointBlock, DeepSpeedBlock, RunBlock, TrainingBlock
from recipes.config.values import Block
from recipes.errors import nearest

__all__ = [
    "Block",
    "CheckpointBlock",
    "DataBlock",
    "DeepSpeedBlock",
    "EvaluationBlock",
    "GenerationBlock",
    "LoraBlock",
    "MixingBlock",
    "MlflowBlock",
    "ModelBlock",
    "ObjectiveBlock",
    "OptimizerBlock",
    "ReportBlock",
    "RunBlock",
    "RunConfig",
    "ScalingBlock",
    "ScheduleBlock",
    "ShapeBlock",
    "TaskBlock",
    "TokenizerBlock",
    "TrainingBlock",
    "WandbBlock",
]


class RunConfig(Block):
    """One training run."""

    run: RunBlock = Field(description="Name, place, seed, resume.")
    model: ModelBlock = Field(description="The T5 to train and where its weights come from.")
    data: DataBlock = Field(description="Which text pairs, and how they become tokens.")
    schedule: ScheduleBlock = Field(description="Learning rate of every update.")
    optimizer: OptimizerBlock = Field(default_factory=OptimizerBlock, description="The optimizer.")
    training: TrainingBlock = Field(default_factory=TrainingBlock, description="Batches, evaluation, precision.")
    evaluation: EvaluationBlock = Field(
        default_factory=EvaluationBlock,
        description="What is measured on held-out examples, the best checkpoint, stopping early.",
    )
    deepspeed: DeepSpeedBlock = Field(default_factory=DeepSpeedBlock, description="ZeRO stage and offload.")
    checkpoint: CheckpointBlock = Field(default_factory=CheckpointBlock, description="When to save.")
    scaling: ScalingBlock = Field(default_factory=ScalingBlock, description="Workers and their resources.")
    report: ReportBlock = Field(default_factory=ReportBlock, description="Where the run can be watched.")

    @model_validator(mode="after")
    def _tokenizer_fits_model(self) -> RunConfig:
        if self.model.shape is None and self.data.tokenizer.kind == "unigram":
            raise ValueError(
                "a model from a folder or the hub needs its own token ids: set data.tokenizer to "
                f"{{kind: {'folder' if self.model.folder else 'hub'}, path: {self.model.folder or self.model.hub}}}"
            )
        return self

    @model_validator(mode="after")
    def _offload_fits_optimizer(self) -> RunConfig:
        extra = self.deepspeed.extra.get("zero_optimization")
        given = [f"extra.zero_optimization.{key}" for key in extra or {} if str(key).startswith("offload_")]
        given += ["offload"] * (self.deepspeed.offload != "none")
        if given and self.optimizer.name != "adamw":
            raise ValueError(
                f"deepspeed.{given[0]} works with optimizer.name adamw only, not {self.optimizer.name}: remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _embedding_ratio_has_an_effect(self) -> RunConfig:
        ratio, model = self.optimizer.embedding_lr_ratio, self.model
        if ratio != 1 and (model.lora is not None or {"embedding", "norms"} <= set(model.freeze)):
            why = "model.lora trains" if model.lora is not None else "model.freeze leaves"
            raise ValueError(f"optimizer.embedding_lr_ratio is {ratio}, but {why} neither embedding nor norms")
        return self

    @model_validator(mode="after")
    def _compiles(self) -> RunConfig:
        if self.training.compile and self.deepspeed.zero_stage == 3:
            raise ValueError(
                "training.compile is for ZeRO stages 0 to 2: at stage 3 weights come and go between the layers; "
                "set deepspeed.zero_stage=2 or training.compile=false"
            )
        return self

    @model_validator(mode="after")
    def _an_example_for_every_worker(self) -> RunConfig:
        workers = self.scaling.max_workers or self.scaling.num_workers
        if self.training.examples_per_update < workers:
            raise ValueError(
                f"training.examples_per_update is {self.training.examples_per_update}, fewer than the {workers} workers"
            )
        return self

    @model_validator(mode="after")
    def _generation_fits(self) -> RunConfig:
        self.evaluation.generation.check_limit(self.data.max_target_tokens)
        return self

    @model_validator(mode="after")
    def _texts_have_references(self) -> RunConfig:
        wanted = self.evaluation.text_metrics
        if wanted and all(task.objective.kind == "span_corruption" for task in self.data.texts):
            raise ValueError(
                f"evaluation.metrics: {wanted[0]} compares generated texts with references, and span_corruption has none: "
                "leave it out"
            )
        return self

    @model_validator(mode="after")
    def _best_is_of_a_task(self) -> RunConfig:
        best = self.evaluation.best
        kind, of_task, name = best.metric.partition("/") if best is not None else ("", "", "")
        # What is taken out of a text is no text to compare with.
        names = [
            task.name for task in self.data.tasks if kind == "eval_loss" or task.objective.kind != "span_corruption"
        ]
        if not of_task or kind not in TASK_FIELDS or name in names:
            return self
        known = nearest(best.metric, [f"{kind}/{each}" for each in names]) if names else ": there are no data.tasks"
        raise ValueError(f"evaluation.best.metric: nothing measures '{best.metric}'{known}")

    @model_validator(mode="after")
    def _generates_at_evaluations(self) -> RunConfig:
        every, evaluated = self.evaluation.generate_every_steps, self.training.eval_every_steps
        if every is not None and every % evaluated:
            raise ValueError(
                f"evaluation.generate_every_steps is {every}: give a multiple of training.eval_every_steps {evaluated}"
            )
        return self
