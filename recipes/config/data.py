"""Which texts, and how they become tokens."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from recipes.config.values import Block, Count, Int, Number, repeated


class TokenizerBlock(Block):
    kind: Literal["unigram", "bytes", "folder", "hub"] = Field(
        "unigram",
        description="unigram: trained on the training text; bytes: ByT5's; folder or hub: a saved tokenizer.",
    )
    vocab_size: Annotated[Int, Field(ge=200)] = Field(
        8000, description="unigram: number of token ids, the 103 special ones included."
    )
    path: str | None = Field(None, description="folder: the folder; hub: the name on the Hub.")

    @model_validator(mode="after")
    def _path_when_needed(self) -> TokenizerBlock:
        if (self.path is not None) != (self.kind in ("folder", "hub")):
            raise ValueError(f"path is {'needed' if self.path is None else 'not used'} with kind: {self.kind}")
        return self


class ModePrefixesBlock(Block):
    R: str = Field("[R]", description="Text in front of sources with few and short gaps; empty: none.")
    X: str = Field("[X]", description="In front of those with many or long gaps.")
    S: str = Field("[S]", description="In front of the beginning of a text that is to be continued.")


# Keys of an objective that say something about some kinds only.
_KEYS_OF_KIND = {
    "seq2seq": (),
    "span_corruption": ("noise_ratio", "mean_span_tokens", "join", "max_chunk_tokens"),
    "prefix_lm": ("join", "max_chunk_tokens"),
    "ul2": ("mode_prefixes", "join", "max_chunk_tokens"),
}


class ObjectiveBlock(Block):
    kind: Literal["seq2seq", "span_corruption", "prefix_lm", "ul2"] = Field(
        "seq2seq",
        description="seq2seq: pairs as they are. Of source_column alone: span_corruption (T5: gaps are to be filled), "
        "prefix_lm (a text is to be continued from anywhere), ul2 (seven kinds of both).",
    )
    noise_ratio: Annotated[Number, Field(gt=0, lt=1)] = Field(
        0.15, description="span_corruption: share of the tokens that is taken out."
    )
    mean_span_tokens: Annotated[Number, Field(ge=1)] = Field(
        3.0, description="span_corruption: mean length of a gap in tokens."
    )
    mode_prefixes: ModePrefixesBlock = Field(
        default_factory=ModePrefixesBlock, description="ul2: what tells the model which kind it is given."
    )
    join: bool = Field(
        True,
        description="Texts one after the other, cut into chunks that fill max_source_tokens and max_target_tokens as far as "
        "both allow; false: each text alone, longer ones cut.",
    )
    max_chunk_tokens: Annotated[Int, Field(ge=2)] | None = Field(
        None, description="Longest chunk of text before anything is taken out; none: as the limits allow."
    )

    @model_validator(mode="after")
    def _no_idle_key(self) -> ObjectiveBlock:
        plain = type(self).model_construct()
        for name in type(self).model_fields:
            if name not in ("kind", *_KEYS_OF_KIND[self.kind]) and getattr(self, name) != getattr(plain, name):
                kinds = ", ".join(kind for kind, keys in _KEYS_OF_KIND.items() if name in keys)
                raise ValueError(f"{name} has no effect with kind: {self.kind} (it belongs to {kinds})")
        return self

    @property
    def of_text_alone(self) -> bool:
        """Whether pairs are made of source texts, without targets."""
        return self.kind != "seq2seq"


class TextsBlock(Block):
    """One set of texts."""

    source: str | None = Field(
        None,
        description="pydoc (functions of Python's standard library -> first sentence of their docstring), or a .parquet, "
        ".arrow, .jsonl, .json, .csv, .tsv or .txt file (a text a line), a folder of them, or a URI (s3://, gs://).",
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
    objective: ObjectiveBlock = Field(
        default_factory=ObjectiveBlock, description="What is to be said: a target, or what is missing in the text."
    )


class TaskBlock(TextsBlock):
    source: str = Field(description="As data.source.")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(
        description="Name in messages and metrics (eval_loss/NAME, eval_bleu/NAME)."
    )
    rate: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="mixing.by rate: its part of the examples, relative to the other tasks' rates."
    )

    @property
    def at(self) -> str:
        """Where the config has it, for messages."""
        return f"data.tasks[{self.name}]" if self.name else "data"


class MixingBlock(Block):
    by: Literal["examples", "temperature", "rate"] = Field(
        "examples",
        description="A task's part of the examples: by its number of them; by the 1/temperature-th power of that; or its rate.",
    )
    temperature: Annotated[Number, Field(ge=1)] = Field(
        1.0, description="temperature: 1 is by examples, the higher the more alike the parts."
    )
    max_examples: Count | None = Field(
        None, description="examples, temperature: a larger task counts as having so many (T5's artificial limit)."
    )

    @model_validator(mode="after")
    def _no_idle_key(self) -> MixingBlock:
        if self.by != "temperature" and self.temperature != 1:
            raise ValueError(f"temperature has no effect with by: {self.by}")
        if self.by == "rate" and self.max_examples is not None:
            raise ValueError("max_examples has no effect with by: rate")
        return self


class DataBlock(TextsBlock):
    tasks: tuple[TaskBlock, ...] = Field(
        (), description="Several sets of texts, mixed, in place of data.source; each with the keys above."
    )
    mixing: MixingBlock = Field(default_factory=MixingBlock, description="How tasks are mixed.")
    max_source_tokens: Annotated[Int, Field(ge=2)] = Field(
        512, description="Longest source in tokens, the end token included."
    )
    max_target_tokens: Annotated[Int, Field(ge=2)] = Field(
        128, description="Longest target in tokens, the end token included."
    )
    on_too_long: Literal["refuse", "truncate"] = Field(
        "refuse", description="What to do with a longer text: stop and name the row, or cut its end off."
    )
    on_bad_row: Literal["refuse", "skip"] = Field(
        "refuse", description="Null, empty or non-text rows: stop and name them, or leave them out and say how many."
    )
    tokenizer: TokenizerBlock = Field(default_factory=TokenizerBlock, description="Where token ids come from.")

    @model_validator(mode="after")
    def _source_or_tasks(self) -> DataBlock:
        if (self.source is None) == (not self.tasks):
            raise ValueError(f"give one of source and tasks; given: {'both' if self.tasks else 'none'}")
        if not self.tasks:
            if self.mixing != MixingBlock():
                raise ValueError("mixing has no effect without tasks")
            return self
        plain = TextsBlock()
        for name in TextsBlock.model_fields:
            if getattr(self, name) != getattr(plain, name):
                raise ValueError(f"{name} has no effect beside tasks: give it to those of the tasks that it belongs to")
        if twice := repeated(task.name for task in self.tasks):
            raise ValueError(f"tasks: the name {twice} is given twice")
        for task in self.tasks:
            if (task.rate is None) == (self.mixing.by == "rate"):
                what = "needs a rate" if task.rate is None else "has a rate, which has no effect"
                raise ValueError(f"tasks: {task.name} {what} with mixing.by: {self.mixing.by}")
        return self

    @property
    def texts(self) -> tuple[TaskBlock, ...]:
        """The tasks; of ``data.source`` one without a name."""
        if self.tasks:
            return self.tasks
        own = {name: getattr(self, name) for name in TextsBlock.model_fields}
        return (TaskBlock.model_construct(name="", rate=None, **own),)
