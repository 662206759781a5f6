"""Text that teaches by itself: a chunk of it becomes a (source, target) pair.

Two denoisers. Span corruption (Raffel et al. 2020, "Exploring the Limits of Transfer Learning", 3.1.4; its numbers are
those of the ``t5`` package's ``random_spans_noise_mask``) takes spans out of the chunk and asks for them; a prefix
language model asks for the chunk's end. UL2 (Tay et al. 2022, "Unifying Language Learning Paradigms", table 1) mixes
seven of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from recipes.config import ObjectiveBlock
from recipes.data.tokenizer import TextTokenizer
from recipes.errors import UserError


class Pair(NamedTuple):
    """Token ids, the end token included."""

    source: np.ndarray
    target: np.ndarray


@dataclass(frozen=True)
class Denoiser:
    """How chunks of one kind become pairs.

    Attributes:
        name: for messages, such as ``"X"``.
        noise_ratio: share of a chunk's tokens that the target holds; None with ``prefix_lm``: every split is as likely.
        mean_span_tokens: span corruption; None: a prefix language model.
        prefix: ids in front of every source.
        longest_chunk: most tokens of a chunk, as `fitted` finds them.
    """

    name: str
    noise_ratio: float | None
    mean_span_tokens: float | None
    prefix: tuple[int, ...] = ()
    longest_chunk: int = 0

    @property
    def takes_spans(self) -> bool:
        return self.mean_span_tokens is not None

    def num_noise(self, num_tokens: np.ndarray) -> np.ndarray:
        """``round(noise_ratio * tokens)``, half to even, but at least 1, and one token less than there are at most."""
        return np.clip(np.round(num_tokens * self.noise_ratio).astype(np.int64), 1, num_tokens - 1)

    def num_spans(self, num_tokens: np.ndarray) -> np.ndarray:
        """``round(num_noise / mean_span_tokens)``, at least 1. In short chunks no more than there are tokens of either kind,
        where the ``t5`` package fails: every span holds a token, and so does every gap in front of one."""
        noise = self.num_noise(num_tokens)
        spans = np.maximum(np.round(noise / self.mean_span_tokens).astype(np.int64), 1)
        return np.minimum(spans, np.minimum(noise, num_tokens - noise))

    def lengths(self, num_tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of source and target, end tokens and prefix included, of chunks of ``num_tokens``, for any draw.

        Span corruption of n tokens: ``n - noise + spans + 1 + prefix`` and ``noise + spans + 1``.
        """
        noise = self.num_noise(num_tokens)
        extra = self.num_spans(num_tokens) + 1 if self.takes_spans else 1
        return num_tokens - noise + extra + len(self.prefix), noise + extra

    def draw(self, chunk: np.ndarray, sentinels: Sequence[int], eos_id: int, draw: np.random.Generator) -> Pair:
        """A pair of a chunk of at least two tokens.

        Spans alternate, kept and taken out, beginning with a kept one; all ways to cut are as likely. The i-th span taken
        out leaves sentinel i in the source and follows it in the target. As in T5, a chunk ends with a span that is
        taken out, and the target with that and the end token: no sentinel closes it.
        """
        if not self.takes_spans:
            return self._split(chunk, eos_id, draw)
        num_noise, num_spans = int(self.num_noise(len(chunk))), int(self.num_spans(len(chunk)))
        kept = _segments(len(chunk) - num_noise, num_spans, draw)
        gaps = _segments(num_noise, num_spans, draw)
        in_gap = np.repeat(np.tile([False, True], num_spans), np.stack([kept, gaps], axis=1).ravel())
        marks, order = np.asarray(sentinels[:num_spans], np.int32), np.arange(num_spans)
        prefix = np.array(self.prefix, np.int32)
        source = _inserted(
            np.concatenate([prefix, chunk[~in_gap]]), marks, len(prefix) + np.cumsum(kept) + order, eos_id
        )
        return Pair(source, _inserted(chunk[in_gap], marks, np.cumsum(gaps) - gaps + order, eos_id))

    def _split(self, chunk: np.ndarray, eos_id: int, draw: np.random.Generator) -> Pair:
        if self.noise_ratio is None:
            kept = int(draw.integers(1, len(chunk)))
        else:
            kept = len(chunk) - int(self.num_noise(len(chunk)))
        end = np.array([eos_id], np.int32)
        source = np.concatenate([np.array(self.prefix, np.int32), chunk[:kept], end])
        return Pair(source, np.concatenate([chunk[kept:], end]))

    def fitted(self, objective: ObjectiveBlock, max_source: int, max_target: int, num_sentinels: int) -> Denoiser:
        """With the longest chunk whose source and target are within the limits, however it is drawn.

        Raises:
            UserError: not even two tokens fit; a chunk would need more sentinels than there are.
        """
        sizes = np.arange(2, 2 + 8 * (max_source + max_target))
        if objective.max_chunk_tokens is not None:
            sizes = sizes[sizes <= objective.max_chunk_tokens]
        if self.noise_ratio is None:
            source, target = sizes + len(self.prefix), sizes
        else:
            source, target = self.lengths(sizes)
        fits = (source <= max_source) & (target <= max_target)
        if not fits.any():
            raise UserError(
                f"data.max_source_tokens {max_source} and data.max_target_tokens {max_target} leave no room for a text "
                f"({self.name}: {len(self.prefix)} tokens in front of each, an end token, and what is taken out)"
            )
        longest = int(sizes[fits].max())
        if self.takes_spans and self.num_spans(longest) > num_sentinels:
            fewer = sizes[self.num_spans(sizes) <= num_sentinels]
            remedy = f"; give data.objective.max_chunk_tokens {fewer.max()}" if len(fewer) else ""
            raise UserError(
                f"data.tokenizer has {num_sentinels} sentinels (<extra_id_0>, ...), {self.name} takes up to "
                f"{self.num_spans(longest)} spans out of {longest} tokens{remedy or ': take another tokenizer'}"
            )
        return replace(self, longest_chunk=longest)

    def to_dict(self) -> dict[str, Any]:
        return vars(self) | {"prefix": list(self.prefix)}

    @classmethod
    def of_dict(cls, content: dict[str, Any]) -> Denoiser:
        return cls(**(content | {"prefix": tuple(content["prefix"])}))


def denoisers(
    objective: ObjectiveBlock, prefix: str, tokenizer: TextTokenizer, max_source: int, max_target: int
) -> list[Denoiser]:
    """Those of an objective, each as likely as the other.

    prefix: text in front of every source.

    Raises:
        UserError: see `Denoiser.fitted`.
    """
    if objective.kind == "span_corruption":
        kinds = [("span_corruption", objective.noise_ratio, objective.mean_span_tokens, "")]
    elif objective.kind == "prefix_lm":
        kinds = [("prefix_lm", None, None, "")]
    else:
        r, x, s = (getattr(objective.mode_prefixes, name) for name in "RXS")
        kinds = [("R", 0.15, 3.0, r), ("R", 0.15, 8.0, r), ("S", 0.25, None, s)]
        kinds += [("X", ratio, span, x) for ratio, span in ((0.5, 3.0), (0.5, 8.0), (0.15, 64.0), (0.5, 64.0))]
    found = []
    for name, ratio, span, mode in kinds:
        ids = tuple(tokenizer.encode_batch([prefix + mode])[0][:-1].tolist()) if prefix + mode else ()
        plain = Denoiser(name, ratio, span, ids)
        found.append(plain.fitted(objective, max_source, max_target, len(tokenizer.sentinel_ids)))
    return found


def _inserted(tokens: np.ndarray, marks: np.ndarray, places: np.ndarray, eos_id: int) -> np.ndarray:
    """The tokens with ``marks`` at these places of the result, and the end token."""
    result = np.full(len(tokens) + len(marks) + 1, eos_id, np.int32)
    free = np.ones(len(result) - 1, bool)
    free[places] = False
    result[places] = marks
    result[:-1][free] = tokens
    return result


def _segments(num_tokens: int, num_segments: int, draw: np.random.Generator) -> np.ndarray:
    """Lengths of ``num_segments`` parts of at least one token; every way to cut is as likely."""
    cuts = np.sort(draw.permutation(num_tokens - 1)[: num_segments - 1]) + 1
    return np.diff(cuts, prepend=0, append=num_tokens)
