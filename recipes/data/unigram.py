"""Train the pieces of a Unigram vocabulary (Kudo 2018, https://arxiv.org/abs/1804.10959).

`tokenizers` has a trainer too, but it counts every different word once when it collects candidates, so that a frequent
word that is part of no other hardly becomes a piece (6 to 30 % more tokens on the texts we measured), and its result
depends on hash order. Here the same words give the same pieces in every process.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from tokenizers import Tokenizer, models

MAX_PIECE_CHARS = 16
MAX_WORDS = 100_000  # the most frequent different words; rarer ones would cost time and change little
CANDIDATES_PER_PIECE = 10
MIN_CANDIDATES = 20_000
KEPT_PER_ROUND = 0.75
_ITERATIONS = 2


def train_pieces(words: Counter[str], num_pieces: int) -> list[tuple[str, float]]:
    """Pieces with their log probabilities (nats), the most probable first.

    All characters are pieces. Candidates are the frequent parts of words; expectation maximisation along the best
    segmentation of each word gives their probabilities, and in rounds those are dropped whose loss lowers the
    likelihood of the text least.

    Args:
        words: how often each word occurs.
        num_pieces: how many pieces to make; fewer come out of a text that has fewer.

    Raises:
        ValueError: there are more different characters than ``num_pieces``.
    """
    chars = sorted(set().union(*words)) if words else []
    if len(chars) > num_pieces:
        raise ValueError(f"{len(chars)} characters, room for {num_pieces}")
    frequent = sorted(words.items(), key=lambda item: (-item[1], item[0]))[:MAX_WORDS]
    texts = [word for word, _ in frequent]
    times = np.array([count for _, count in frequent], np.float64)
    log_p = _candidates(frequent, chars, max(MIN_CANDIDATES, CANDIDATES_PER_PIECE * num_pieces))
    while True:
        for _ in range(_ITERATIONS):
            counts = _best_segmentation_counts(log_p, texts, times)
            log_p = _log_probabilities(counts)
        if len(log_p) <= num_pieces:
            return sorted(log_p.items(), key=lambda item: (-item[1], item[0]))
        used = sum(count > 0 or len(piece) == 1 for piece, count in counts.items())
        room = max(num_pieces, min(int(KEPT_PER_ROUND * len(log_p)), used)) - len(chars)
        losses = {
            piece: count * (log_p[piece] - _without(piece, log_p)) if count else 0.0
            for piece, count in counts.items()
            if len(piece) > 1
        }
        kept = sorted(losses, key=lambda piece: (-losses[piece], piece))[:room]
        log_p = {piece: log_p[piece] for piece in (*chars, *kept)}


def _candidates(frequent: list[tuple[str, int]], chars: list[str], most: int) -> dict[str, float]:
    """Characters, and parts of words that occur at least twice, with a first guess of their log probabilities."""
    parts: Counter[str] = Counter()
    for word, count in frequent:
        for begin in range(len(word)):
            for end in range(begin + 1, min(len(word), begin + MAX_PIECE_CHARS) + 1):
                parts[word[begin:end]] += count
    weights = {part: count * len(part) for part, count in parts.items() if count > 1 and len(part) > 1}
    best = sorted(weights, key=lambda part: (-weights[part], part))[:most]
    return _log_probabilities({char: parts[char] for char in chars} | {part: weights[part] for part in best})


def _best_segmentation_counts(log_p: dict[str, float], texts: list[str], times: np.ndarray) -> dict[str, float]:
    """How often each piece is used when every word is cut in its most probable way."""
    pieces = [("", 0.0), *log_p.items()]  # id 0 is the unknown piece, which nothing needs
    encodings = Tokenizer(models.Unigram(pieces, unk_id=0)).encode_batch_fast(texts)
    ids = [encoding.ids for encoding in encodings]
    lengths = [len(row) for row in ids]
    flat = np.fromiter((i for row in ids for i in row), np.int64, sum(lengths))
    counts = np.bincount(flat, weights=np.repeat(times, lengths), minlength=len(pieces))
    return dict(zip(log_p, counts[1:].tolist(), strict=True))


def _log_probabilities(counts: dict[str, float]) -> dict[str, float]:
    # An unused piece counts as half a use: it stays possible.
    total = sum(max(count, 0.5) for count in counts.values())
    return {piece: math.log(max(count, 0.5) / total) for piece, count in counts.items()}


def _without(piece: str, log_p: dict[str, float]) -> float:
    """Log probability of the best way to write ``piece`` with other pieces."""
    best = [0.0] + [-math.inf] * len(piece)
    for end in range(1, len(piece) + 1):
        for begin in range(1 if end == len(piece) else 0, end):
            score = log_p.get(piece[begin:end])
            if score is not None and best[begin] + score > best[end]:
                best[end] = best[begin] + score
    return best[-1]
