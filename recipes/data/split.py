"""Which examples are trained on and which are held out."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

import numpy as np
import pyarrow.compute as pc

from recipes.config import DataBlock, TaskBlock
from recipes.data.sources import Examples, read_examples
from recipes.errors import UserError


def split_examples(
    config: DataBlock, say: Callable[[str], None], task: TaskBlock | None = None
) -> tuple[Examples, Examples, int]:
    """Read a task's sources and part them: (training, held out, training examples dropped).

    Without ``eval_source`` the hash of the source text decides, so a source text is on one side only, the same side
    in every run, on every machine, and whatever other rows are added. With ``eval_source``, training examples whose
    source text is also held out are dropped (said, and counted in the meta data): the evaluation would else measure
    memory.

    Raises:
        UserError: one side is empty; and all that :func:`recipes.data.sources.read_examples` raises.
    """
    task = task or config.texts[0]
    examples = read_examples(config, "source", task)
    if task.eval_source is not None:
        held_out = read_examples(config, "eval_source", task)
        seen = pc.is_in(examples.sources, value_set=held_out.sources.combine_chunks()).to_numpy()
        if seen.all():
            raise UserError(
                f"{task.at}.eval_source: all {len(examples):,} source texts of {task.source} are also in "
                f"{task.eval_source}; nothing is left to train on"
            )
        if seen.any():
            say(f"data: {int(seen.sum()):,} training examples dropped, their source text is in {task.at}.eval_source")
        return (examples.select(~seen) if seen.any() else examples), held_out, int(seen.sum())
    mask = held_out_mask(examples.sources.to_pylist(), task.held_out_ratio)
    if mask.all() or not mask.any():
        raise UserError(
            f"{task.at}.held_out_ratio: {task.held_out_ratio} of {len(examples):,} examples left "
            f"{int((~mask).sum()):,} to train on and {int(mask.sum()):,} held out; "
            "change the ratio, give more data, or name an eval_source"
        )
    return examples.select(~mask), examples.select(mask), 0


def held_out_mask(sources: list[str], ratio: float) -> np.ndarray:
    """True where the first 8 bytes of blake2b(source) fall below ``ratio``."""
    limit = int(ratio * 2**64)
    return np.fromiter(
        (int.from_bytes(blake2b(text.encode("utf-8"), digest_size=8).digest(), "big") < limit for text in sources),
        bool,
        len(sources),
    )
