"""The one typed description of a run.

A config file is YAML with the top-level blocks of :class:`RunConfig`; ``key=value`` overrides use
dotted names (``schedule.peak_lr=3e-4``); `recipes.config_file` reads both.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is expected, not true or false")
    return value


_Int = Annotated[int, BeforeValidator(_refuse_bool)]
Count = Annotated[_Int, Field(gt=0)]
CountOrZero = Annotated[_Int, Field(ge=0)]
Number = Annotated[float, BeforeValidator(_refuse_bool), Field(allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0.0, lt=1.0)]


class Block(BaseModel):
    """A part of the config: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


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


class ShapeBlock(Block):
    """A T5 of one's own, with random weights. Defaults are the v1.1 recipe at t5-small's size."""

    d_model: Count = Field(512, description="Width of the residual stream.")
    d_kv: Count = Field(64, description="Width of one attention head.")
    d_ff: Count = Field(1024, description="Width inside the feed-forward layers.")
    num_layers: Count = Field(8, description="Encoder layers.")
    num_decoder_layers: Count | None = Field(None, description="Decoder layers; none: as many as the encoder has.")
    num_heads: Count = Field(6, description="Attention heads.")
    feed_forward_proj: Literal["gated-gelu", "relu"] = Field(
        "gated-gelu", description="gated-gelu (T5 v1.1) or relu (original T5)."
    )
    tie_word_embeddings: bool = Field(
        False,
        description="One matrix for input embedding and output classifier; T5 v1.1 does not tie.",
    )
    dropout_rate: Share = Field(0.0, description="Dropout probability while training.")
    relative_attention_num_buckets: Count = Field(32, description="Buckets of the relative position bias.")
    relative_attention_max_distance: Count = Field(
        128, description="Distance from which all positions share the last bucket."
    )
    initializer_factor: Annotated[Number, Field(gt=0)] = Field(
        1.0, description="Scale of the initial weights (transformers' T5Config)."
    )


class ModelBlock(Block):
    shape: ShapeBlock | None = Field(
        None, description="Train from scratch a model of this shape (one of shape, folder, hub)."
    )
    folder: str | None = Field(None, description="Start from a save_pretrained folder.")
    hub: str | None = Field(
        None, description="Start from a model of the Hugging Face Hub; the only setting that uses the network."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of the Hub model.")
    dropout_rate: Share | None = Field(
        None, description="Dropout for a model from a folder or the Hub; none: as the model says."
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, about a third more time."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> ModelBlock:
        given = [name for name in ("shape", "folder", "hub") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of shape, folder, hub; given: {', '.join(given) or 'none'}")
        if self.revision is not None and self.hub is None:
            raise ValueError("revision is for a model from the hub")
        if self.dropout_rate is not None and self.shape is not None:
            raise ValueError("set shape.dropout_rate instead of dropout_rate")
        return self


class TokenizerBlock(Block):
    kind: Literal["unigram", "bytes", "folder", "hub"] = Field(
        "unigram",
        description="unigram: trained on the training text; bytes: ByT5's; folder or hub: a saved tokenizer.",
    )
    vocab_size: Annotated[_Int, Field(ge=200)] = Field(
        8000, description="unigram: number of token ids, the 103 special ones included."
    )
    path: str | None = Field(None, description="folder: the folder; hub: the name on the Hub.")

    @model_validator(mode="after")
    def _path_when_needed(self) -> TokenizerBlock:
        if (self.path is not None) != (self.kind in ("folder", "hub")):
            raise ValueError(f"path is {'needed' if self.path is None else 'not used'} with kind: {self.kind}")
        return self


class DataBlock(Block):
    source: str = Field(
        description="pydoc (functions of Python's standard library -> first sentence of their docstring), or a .parquet, "
        ".jsonl or .json file, a folder of them, or a URI (s3://, gs://)."
    )
    source_column: str = Field("source", description="Column that holds the input text.")
    target_column: str = Field("target", description="Column that holds the output text.")
    eval_source: str | None = Field(
        None, description="Held-out examples from a file of their own; none: split off by hash of the source text."
    )
    held_out_ratio: Annotated[Number, Field(gt=0, le=0.5)] = Field(
        0.05, description="Share of examples held out by hash when eval_source is not given."
    )
    prefix: str = Field("", description="Task prefix put in front of every source text.")
    max_source_tokens: Annotated[_Int, Field(ge=2)] = Field(
        512, description="Longest source in tokens, the end token included."
    )
    max_target_tokens: Annotated[_Int, Field(ge=2)] = Field(
        128, description="Longest target in tokens, the end token included."
    )
    on_too_long: Literal["refuse", "truncate"] = Field(
        "refuse", description="What to do with a longer text: stop and name the row, or cut its end off."
    )
    on_bad_row: Literal["refuse", "skip"] = Field(
        "refuse", description="Null, empty or non-text rows: stop and name them, or leave them out and say how many."
    )
    tokenizer: TokenizerBlock = Field(default_factory=TokenizerBlock, description="Where token ids come from.")


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


class TrainingBlock(Block):
    examples_per_update: Count = Field(
        128, description="Examples in the global batch of one optimizer update, over all workers."
    )
    micro_batch_tokens: Count = Field(
        4096, description="Most padded tokens (source + target) in one forward and backward pass of one worker."
    )
    eval_every_steps: Count = Field(500, description="Updates between two evaluations; one always follows the last.")
    log_every_steps: Count = Field(10, description="Updates between two lines of metrics.jsonl.")
    clip_norm: Annotated[Number, Field(ge=0)] = Field(1.0, description="Largest global gradient norm; 0 does not clip.")
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


class ScalingBlock(Block):
    num_workers: Count = Field(1, description="Training processes, one GPU each with use_gpu.")
    use_gpu: bool = Field(False, description="Train on GPUs with nccl; false: on CPUs with gloo.")
    cpus_per_worker: Annotated[Number, Field(gt=0)] = Field(
        1.0, description="CPUs reserved for each worker; also its torch threads."
    )
    max_failures: CountOrZero = Field(
        0, description="Times the workers are started again from the last checkpoint after one fails."
    )
    hang_timeout_s: Count = Field(
        600,
        description="A worker that has not answered the others, or Ray, for so long counts as failed.",
    )
    stop_grace_s: CountOrZero = Field(
        60, description="What a run gets for a last checkpoint after Ctrl-C or SIGTERM; 0: stop at once."
    )
    node_wait_s: Count = Field(
        1800,
        description="Longest wait without a running worker, at the start or after a failure, while nodes are missing.",
    )
    network_interface: str | None = Field(
        None,
        description="Interface that gloo and nccl use on every node, such as eth0; none: the one by whose address Ray "
        "reaches the node.",
    )
    min_workers: Count | None = Field(
        None, description="Elastic training: go on with this many workers when nodes leave (with max_workers)."
    )
    max_workers: Count | None = Field(
        None,
        description="Elastic training: grow to this many workers when nodes come; num_workers does not count then.",
    )
    resize_interval_s: Count = Field(
        60,
        description="Elastic training: how often to look whether more workers would fit. Growing goes back to the last "
        "checkpoint.",
    )

    @model_validator(mode="after")
    def _elastic_pair(self) -> ScalingBlock:
        if (self.min_workers is None) != (self.max_workers is None):
            raise ValueError("min_workers and max_workers go together")
        if self.min_workers is None:
            return self
        if self.min_workers > self.max_workers:
            raise ValueError(f"min_workers {self.min_workers} is above max_workers {self.max_workers}")
        if self.max_failures == 0:
            raise ValueError("min_workers needs max_failures above 0: a node that dies counts as a failure")
        return self

    @property
    def fewest_workers(self) -> int:
        return self.min_workers or self.num_workers

    @property
    def most_workers(self) -> int:
        return self.max_workers or self.num_workers


class RunConfig(Block):
    """One training run."""

    run: RunBlock = Field(description="Name, place, seed, resume.")
    model: ModelBlock = Field(description="The T5 to train and where its weights come from.")
    data: DataBlock = Field(description="Which text pairs, and how they become tokens.")
    schedule: ScheduleBlock = Field(description="Learning rate of every update.")
    optimizer: OptimizerBlock = Field(default_factory=OptimizerBlock, description="The optimizer.")
    training: TrainingBlock = Field(default_factory=TrainingBlock, description="Batches, evaluation, precision.")
    deepspeed: DeepSpeedBlock = Field(default_factory=DeepSpeedBlock, description="ZeRO stage and offload.")
    checkpoint: CheckpointBlock = Field(default_factory=CheckpointBlock, description="When to save.")
    scaling: ScalingBlock = Field(default_factory=ScalingBlock, description="Workers and their resources.")

    @model_validator(mode="after")
    def _tokenizer_fits_model(self) -> RunConfig:
        if self.model.shape is None and self.data.tokenizer.kind == "unigram":
            raise ValueError(
                "a model from a folder or the hub needs its own token ids: set data.tokenizer to "
                f"{{kind: {'folder' if self.model.folder else 'hub'}, path: {self.model.folder or self.model.hub}}}"
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
