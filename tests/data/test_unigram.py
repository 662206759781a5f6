import math
from collections import Counter

import pytest

from recipes.data.unigram import _without, train_pieces


def test_frequent_words_and_all_characters_are_pieces():
    words = Counter({"▁house": 90, "▁houses": 5, "▁garden": 60, "▁x": 2})
    pieces = dict(train_pieces(words, 20))
    assert {"▁house", "▁garden"} <= pieces.keys()
    assert set("▁houseagrdnx") <= pieces.keys()
    assert len(pieces) == 20


def test_probabilities_sum_to_one_and_fall():
    scores = [score for _, score in train_pieces(Counter({"▁abab": 7, "▁ab": 3, "▁ba": 9, "▁bab": 4}), 10)]
    assert scores == sorted(scores, reverse=True)
    assert math.fsum(map(math.exp, scores)) == pytest.approx(1)


def test_a_word_that_is_part_of_no_other_becomes_a_piece():
    words = Counter({"▁(": 1000, "▁)": 1000, "▁of": 500, "▁off": 1})
    assert {"▁(", "▁)", "▁of"} <= dict(train_pieces(words, 12)).keys()


def test_size_is_exact_or_what_the_text_has():
    words = Counter({f"▁{a}{b}{c}": 3 for a in "klm" for b in "aeiou" for c in "rst"})
    assert len(train_pieces(words, 40)) == 40
    assert len(train_pieces(words, 12)) == 12
    assert len(train_pieces(words, 5000)) < 5000
    with pytest.raises(ValueError, match="12 characters, room for 11"):
        train_pieces(words, 11)


def test_best_way_around_a_piece():
    log_p = {"a": -3.0, "b": -3.0, "c": -3.0, "ab": -4.0, "bc": -2.0, "abc": -1.0}
    assert _without("abc", log_p) == -5.0
    assert _without("ab", log_p) == -6.0
