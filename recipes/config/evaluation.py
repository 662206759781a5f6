"""What is measured on held-out examples, and what follows from it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from recipes.config.values import Block, Count, CountOrZero, Number, repeated
from recipes.errors import nearest

# Metrics by the forward pass of the held-out loss, and metrics of generated text -> their fields in metrics.jsonl.
FORCED_METRICS = {"token_accuracy": ("eval_token_accuracy",), "perplexity": ("eval_perplexity",)}
TEXT_METRICS = {
    "bleu": ("eval_bleu",),
    "chrf": ("eval_chrf",),
    "rouge": ("eval_rouge1", "eval_rouge2", "eval_rougeL"),
    "exact_match": ("eval_exact_match",),
}
# Of an evaluation too, beside its metrics.
PLAIN_FIELDS = ("eval_loss", "eval_tokens", "eval_s", "eval_generated", "eval_generate_s")
# Where there are several tasks, these fields are there of each too, with /NAME behind them.
TASK_FIELDS = ("eval_loss", *(name for names in TEXT_METRICS.values() for name in names))
_FALLING = ("eval_loss", "eval_perplexity")
_OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_own_metric(name: str) -> bool:
    """Whether a metric is named as ``package.module:function``."""
    return ":" in name


class GenerationBlock(Block):
    num_beams: Count = Field(1, description="1: greedy decoding; more: beam search.")
    max_new_tokens: Count | None = Field(
        None, description="Longest generated text in tokens, the end token included; none: data.max_target_tokens."
    )
    min_new_tokens: CountOrZero = Field(0, description="The end token is not allowed before so many tokens.")
    length_penalty: Number | None = Field(
        None, description="Beam search: a beam's score is its log-probability over length to this power; none: 1."
    )
    no_repeat_ngram_size: CountOrZero = Field(0, description="No n-gram of this size comes twice; 0: no such rule.")
    repetition_penalty: Annotated[Number, Field(gt=0)] = Field(
        1.0, description="Scores of tokens generated before are divided by it (multiplied where negative); 1: nothing."
    )
    batch_tokens: Count | None = Field(
        None,
        description="Most tokens (source + max_new_tokens, times beams) in one batch; none: 4 times "
        "training.micro_batch_tokens, because nothing is kept for a backward pass.",
    )

    @model_validator(mode="after")
    def _penalty_has_an_effect(self) -> GenerationBlock:
        if self.length_penalty is not None and self.num_beams == 1:
            raise ValueError("length_penalty has no effect with num_beams 1: it compares beams")
        return self

    def check_limit(self, max_target_tokens: int) -> None:
        """Raise ValueError where texts could get longer than ``data.max_target_tokens``, or must be longer than they may."""
        longest = self.max_new_tokens or max_target_tokens
        if longest > max_target_tokens:
            raise ValueError(
                f"evaluation.generation.max_new_tokens is {longest}, more than data.max_target_tokens {max_target_tokens}: "
                "the model is not trained for longer texts; lower the one, or raise the other"
            )
        if self.min_new_tokens > longest:
            raise ValueError(
                f"evaluation.generation.min_new_tokens is {self.min_new_tokens}, more than the longest text of {longest} tokens"
            )


class BestBlock(Block):
    metric: str = Field(
        "eval_loss",
        description="A field of the evaluations in metrics.jsonl, such as eval_bleu or eval_bleu/NAME of a task.",
    )
    mode: Literal["auto", "min", "max"] = Field(
        "auto", description="Whether lower or higher is better; auto: known for all but metrics of your own."
    )

    @property
    def lower_is_better(self) -> bool:
        return self.mode == "min" or (self.mode == "auto" and self.metric.partition("/")[0] in _FALLING)


class EarlyStoppingBlock(Block):
    patience_evals: Count = Field(description="Evaluations in a row without a better best.metric that end the run.")
    min_delta: Annotated[Number, Field(ge=0)] = Field(
        0.0, description="A change of best.metric by no more than this is not better, for the patience."
    )


class EvaluationBlock(Block):
    metrics: tuple[str, ...] = Field(
        ("token_accuracy", "perplexity"),
        description="Beside the loss. token_accuracy and perplexity cost nothing; bleu, chrf, rouge, exact_match and "
        "package.module:function (predictions, references, sources -> a number, or several by name) generate text.",
    )
    bleu_tokenizer: Literal["13a", "intl", "char", "zh", "none"] = Field(
        "13a", description="How sacreBLEU cuts text into words; zh and char for languages without spaces."
    )
    generation: GenerationBlock = Field(default_factory=GenerationBlock, description="How text is generated.")
    num_generated: Count | None = Field(
        None, description="Held-out examples, spread evenly, that text is generated for while training; none: all."
    )
    generate_every_steps: Count | None = Field(
        None, description="Updates between two evaluations with generated text; none: each evaluation has it."
    )
    best: BestBlock | None = Field(
        None, description="Keep the checkpoint of the evaluation with the best metric; none: only the newest are kept."
    )
    early_stopping: EarlyStoppingBlock | None = Field(
        None, description="End the run when the metric of evaluation.best stops getting better; none: never."
    )
    export: Literal["last", "best"] | None = Field(
        None, description="Which update's weights are exported; none: the best's with early_stopping, else the last's."
    )

    @model_validator(mode="before")
    @classmethod
    def _what_early_stopping_implies(cls, content: Any) -> Any:
        """Written into the resolved config: the best is tracked, and exported."""
        if isinstance(content, dict) and content.get("early_stopping") is not None:
            implied = {"best": {}, "export": "best"}
            return content | {key: value for key, value in implied.items() if content.get(key) is None}
        return content

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = [*FORCED_METRICS, *TEXT_METRICS]
        for name in names:
            if is_own_metric(name) and not _OWN.fullmatch(name):
                raise ValueError(f"'{name}': a metric of your own is named package.module:function")
            if not is_own_metric(name) and name not in known:
                raise ValueError(f"unknown metric '{name}'{nearest(name, known)}, or package.module:function")
        if twice := repeated(names):
            raise ValueError(f"{twice} given twice")
        return names

    @model_validator(mode="after")
    def _best_is_measured(self) -> EvaluationBlock:
        if self.export == "best" and self.best is None:
            raise ValueError("export: best needs best, such as best: {metric: eval_loss}")
        if self.best is None:
            return self
        fields = ["eval_loss"]
        for name in self.metrics:
            fields += (FORCED_METRICS | TEXT_METRICS).get(name, ())
        kind, of_task, _ = self.best.metric.partition("/")
        if self.best.metric in fields or (of_task and kind in fields and kind in TASK_FIELDS):
            return self
        for name, its_fields in (FORCED_METRICS | TEXT_METRICS).items():
            if self.best.metric in its_fields or (of_task and kind in its_fields and kind in TASK_FIELDS):
                raise ValueError(f"best.metric: '{self.best.metric}' is not measured: add {name} to evaluation.metrics")
        if not self.own_metrics:
            raise ValueError(f"best.metric: nothing measures '{self.best.metric}'{nearest(self.best.metric, fields)}")
        if self.best.mode == "auto":
            raise ValueError(f"best.mode: whether a lower {self.best.metric} is better is not known: give min or max")
        return self

    @model_validator(mode="after")
    def _text_settings_have_an_effect(self) -> EvaluationBlock:
        for key in ("num_generated", "generate_every_steps"):
            if getattr(self, key) is not None and not self.text_metrics:
                raise ValueError(f"{key} has no effect: none of the metrics {list(self.metrics)} generates text")
        return self

    @property
    def text_metrics(self) -> tuple[str, ...]:
        """The metrics that need generated text, in their order."""
        return tuple(name for name in self.metrics if name in TEXT_METRICS or is_own_metric(name))

    @property
    def own_metrics(self) -> tuple[str, ...]:
        return tuple(filter(is_own_metric, self.metrics))
