"""Ids of texts, word by word, each word tokenised once.

A text's ids are those of its words one after the other, for tokenizers that never look over the border of a word: those trained
here and T5's own. Nearly all words of a text have been seen before, and to look one up takes a tenth of what `tokenizers` takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from tokenizers import Tokenizer

MARK = "▁"
# Of a tokenizer trained here: a line break, the spaces before the last one of a run, a word with the space in front of it.
OWN_WORDS = f"\n|{MARK}+(?={MARK})|{MARK}?[^{MARK}\n]+|{MARK}"
# Closes a text while many are looked at together.
_END = "\0"
# Latin and Cyrillic letters, punctuation, kana, Chinese, Korean: NFC leaves them, and none combines with another, be it a space.
_ALONE = "\0-\u02ff\u0400-\u0482\u048a-\u052f\u2010-\u2027\u2030-\u205e\u20a0-\u20c0\u3000-\u3029\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3"
_NOT_ALONE = re.compile(f"[^{_ALONE}]")
# Some 80 MB. What comes later, and what is longer, is tokenised each time: by then the frequent words are there.
_MOST_WORDS, _LONGEST = 1 << 18, 32
# Characters of a word, on average, from which texts are taken to be of a script that has no spaces.
_NO_WORDS = 16


class Words:
    """Encodes texts as a tokenizer does, to the id.

    A subclass says how the texts, an end behind each, become words, and what the ids of a word are.
    """

    def __init__(self, backend: Tokenizer, eos_id: int):
        self._backend, self._eos_id = backend, eos_id
        self._known = _Known(self._ids_of, {_END: (eos_id,)})
        added = sorted((token.content for token in backend.get_added_tokens_decoder().values()), key=len, reverse=True)
        self._added = re.compile("|".join(map(re.escape, added)))
        self._begin_of_added = "<" if all(token.startswith("<") for token in added) else ""

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
        """``(ids, offsets)`` as `TextTokenizer.encode_batch`; None where a text has what only the tokenizer itself can tell."""
        joined = self._joined(texts)
        if joined.count(_END) != len(texts) or (self._begin_of_added in joined and self._added.search(joined)):
            return None
        words = self._split(joined)
        if words is None:
            return None
        ids = np.fromiter(chain.from_iterable(map(self._known.__getitem__, words)), np.int32)
        return ids, np.concatenate([[0], np.flatnonzero(ids == self._eos_id) + 1])

    def _joined(self, texts: Sequence[str]) -> str:
        return _END.join([*texts, ""])

    def _split(self, joined: str) -> list[str] | None:
        raise NotImplementedError

    def _ids_of(self, word: str) -> Sequence[int]:
        raise NotImplementedError


class _OwnWords(Words):
    """NFC; spaces become marks, one is put in front; words with their marks; the model."""

    _WORDS = re.compile(f"{_END}|{OWN_WORDS}".replace("[^", f"[^{_END}"))

    def _joined(self, texts: Sequence[str]) -> str:
        return super()._joined([text if not text or text[0] in (" ", MARK) else " " + text for text in texts])

    def _split(self, joined: str) -> list[str] | None:
        if _NOT_ALONE.search(joined):
            joined = self._backend.normalizer.normalize_str(joined)
        return self._WORDS.findall(joined.replace(" ", MARK))

    def _ids_of(self, word: str) -> Sequence[int]:
        return [token.id for token in self._backend.model.tokenize(word)]


class _T5Words(Words):
    """SentencePiece's normalisation, then words between white space, each with a mark in front.

    What stands between two spaces goes through all of that by itself, unless characters combine.
    """

    _WORDS = re.compile(f"{_END}|[^{_END} ]+")

    def _split(self, joined: str) -> list[str] | None:
        return None if _NOT_ALONE.search(joined) else self._WORDS.findall(joined)

    def _ids_of(self, word: str) -> Sequence[int]:
        return self._backend.encode(word, add_special_tokens=False).ids


class _Known(dict[str, tuple[int, ...]]):
    def __init__(self, ids_of: Callable[[str], Sequence[int]], known: dict[str, tuple[int, ...]]):
        super().__init__(known)
        self._ids_of = ids_of

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(self._ids_of(word))
        if len(self) < _MOST_WORDS and len(word) <= _LONGEST:
            self[word] = ids
        return ids


def have_words(texts: Sequence[str]) -> bool:
    """Whether it pays to look them up: Chinese has none that come again."""
    num_words = len(texts) + sum(text.count(" ") for text in texts)
    return num_words * _NO_WORDS >= sum(map(len, texts))


def words_of(backend: Tokenizer, eos_id: int) -> Words | None:
    """None for a tokenizer that may look over the borders of words, or that is not known here."""
    if backend.truncation or backend.padding or backend.encode("").ids != [eos_id]:
        return None
    normaliser, steps = _content(backend.normalizer), _content(backend.pre_tokenizer).get("pretokenizers", [])
    kinds = [step["type"] for step in steps]
    if kinds == ["Metaspace", "Split"] and normaliser.get("type") == "NFC" and _puts_marks(steps[0], "first", False):
        own = {"pattern": {"Regex": OWN_WORDS}, "behavior": "Isolated", "invert": False}
        return _OwnWords(backend, eos_id) if own.items() <= steps[1].items() else None
    if kinds == ["WhitespaceSplit", "Metaspace"] and normaliser.get("type", "Precompiled") == "Precompiled":
        return _T5Words(backend, eos_id) if _puts_marks(steps[1], "always", True) else None
    return None


def _puts_marks(metaspace: dict[str, Any], scheme: str, split: bool) -> bool:
    return {"replacement": MARK, "prepend_scheme": scheme, "split": split}.items() <= metaspace.items()


def _content(part: Any) -> dict[str, Any]:
    return {} if part is None else json.loads(part.__getstate__())
