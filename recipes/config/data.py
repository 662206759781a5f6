"""Which texts, and how they become tokens."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from recipes.config.values import Block, Int, Number


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
