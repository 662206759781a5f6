"""Ids word by word are those of the tokenizer itself, whatever the text."""

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from transformers import T5Tokenizer

from recipes.data import words as module
from recipes.data.tokenizer import TextTokenizer, train_unigram
from recipes.data.words import have_words, words_of
from tests.data.corpus import pairs

SENTENCES = [row["source"] for row in pairs(60)]
# Marks, line breaks, other white space, umlauts, what combines, what NFC changes, other scripts, special tokens.
PARTS = [
    " ", "  ", "▁", "▁▁", "\n", "\r\n", "\t", "\0", "\xa0", "ä", "a\u0308", "\u0301", "\u212b", "한", "\u1161", "中", "é", "ß", "¨", "-",
    "</s>", "<pad>", "<extra_id_0>", "<", "a", "b", "The", "house", "Haus", "...", "🙂", "\u200d", "\u3000", "\u0345", "1", "x" * 40,
    "’", "–", "ё", "か", "\u3099", "\u0600", "\u03ac", "\u1f71",
]  # fmt: skip
TEXTS = st.lists(st.lists(st.sampled_from(PARTS), max_size=12).map("".join), max_size=6)


@pytest.fixture(scope="module")
def own():
    return train_unigram(SENTENCES, 400)


@pytest.fixture(scope="module")
def t5(own, tmp_path_factory):
    """transformers' T5Tokenizer with a vocabulary of ours."""
    folder = tmp_path_factory.mktemp("t5")
    pieces = sorted(piece for piece in own._backend.get_vocab() if not piece.startswith("<"))
    vocabulary = [(piece, -5.0 - 0.01 * i) for i, piece in enumerate(pieces)]
    T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *vocabulary]).save_pretrained(folder)
    return TextTokenizer.load(folder)


def itself(tokenizer, texts):
    rows = [encoding.ids for encoding in tokenizer._backend.encode_batch_fast(texts)]
    return [i for row in rows for i in row], np.cumsum([0, *map(len, rows)]).tolist()


@pytest.mark.parametrize("kind", ["own", "t5"])
def test_ids_are_the_tokenizers(kind, request):
    tokenizer = request.getfixturevalue(kind)
    answered = []

    @settings(max_examples=600, deadline=None, derandomize=True)
    @given(TEXTS)
    @example([])
    @example([""])
    @example(["", " ", "  ", "▁", "a"])
    @example(["The house", "house", " The  house "])
    def same(texts):
        found = tokenizer._words.encode(texts)
        answered.append(found is not None)
        if found is not None:
            assert (found[0].tolist(), found[1].tolist()) == itself(tokenizer, texts)
            assert (found[0].dtype, found[1].dtype) == (np.int32, np.int64)
        ids, offsets = tokenizer.encode_batch(texts)
        assert (ids.tolist(), offsets.tolist()) == itself(tokenizer, texts)

    same()
    assert 0.1 < np.mean(answered) < 0.9


@pytest.mark.parametrize("kind", ["own", "t5"])
def test_plain_sentences_are_answered_and_words_asked_for_once(kind, request, monkeypatch):
    tokenizer = request.getfixturevalue(kind)
    words, asked = words_of(tokenizer._backend, tokenizer.eos_id), []
    ids_of = words._known._ids_of
    monkeypatch.setattr(words._known, "_ids_of", lambda word: asked.append(word) or ids_of(word))
    texts = [f"{text} Ä{i % 5}" for i, text in enumerate(SENTENCES * 3)]
    ids, offsets = words.encode(texts)
    assert (ids.tolist(), offsets.tolist()) == itself(tokenizer, texts)
    assert len(asked) == len(set(asked)) == len(words._known) - 1


def test_what_stands_alone_does():
    alone = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000 and not module._NOT_ALONE.match(chr(i))]
    assert len(alone) > 30_000
    assert not [c for c in alone if unicodedata.combining(c) or unicodedata.category(c) in ("Mn", "Mc", "Me")]
    assert all(unicodedata.is_normalized("NFC", c) for c in alone)
    # What composes with a character before it is in none of them.
    second = {d[1] for c in map(chr, range(0x110000)) if len(d := unicodedata.normalize("NFD", c)) > 1}
    assert not second & set(alone)


def test_memory_is_bounded(own, monkeypatch):
    monkeypatch.setattr(module, "_MOST_WORDS", 10)
    words = words_of(own._backend, own.eos_id)
    texts = [f"word{i}" for i in range(50)]
    assert words.encode(texts)[0].tolist() == itself(own, texts)[0]
    assert len(words._known) == 10


def test_texts_without_spaces_are_left_to_all_cores(own, monkeypatch):
    chinese = ["天地玄黃宇宙洪荒日月盈昃辰宿列張"[i:] * 9 for i in range(9)]
    assert not have_words(chinese)
    assert have_words(SENTENCES)
    assert have_words([])
    monkeypatch.setattr(own._words, "encode", None)
    ids, offsets = own.encode_batch(chinese)
    assert (ids.tolist(), offsets.tolist()) == itself(own, chinese)


def test_long_words_are_not_kept(own):
    words = words_of(own._backend, own.eos_id)
    texts = ["short " + "x" * 500]
    assert words.encode(texts)[0].tolist() == itself(own, texts)[0]
    assert sorted(words._known) == ["\0", "▁short"]


def copy_of(own):
    return Tokenizer.from_str(own._backend.to_str())


def test_a_tokenizer_of_another_kind_is_left_alone(own, t5):
    assert words_of(copy_of(own), own.eos_id) is not None
    for change in (
        lambda backend: setattr(backend, "pre_tokenizer", pre_tokenizers.Whitespace()),
        lambda backend: setattr(backend, "pre_tokenizer", pre_tokenizers.Metaspace()),
        lambda backend: setattr(backend, "normalizer", normalizers.NFKC()),
        lambda backend: setattr(backend, "pre_tokenizer", t5._backend.pre_tokenizer),
        lambda backend: backend.enable_truncation(5),
        lambda backend: backend.enable_padding(),
    ):
        other = copy_of(own)
        change(other)
        assert words_of(other, own.eos_id) is None
    assert words_of(copy_of(own), own.eos_id + 1) is None


def test_one_text_that_it_cannot_tell_leaves_the_others_to_it(own, tmp_path):
    texts = [*(SENTENCES * 20)[:1000], "a <extra_id_0> b", *SENTENCES]
    answered = []
    own.save(tmp_path)
    tokenizer = TextTokenizer.load(tmp_path)
    encode = tokenizer._words.encode
    tokenizer._words.encode = lambda some: answered.append((len(some), encode(some))) or answered[-1][1]
    ids, offsets = tokenizer.encode_batch(texts)
    assert (ids.tolist(), offsets.tolist()) == itself(own, texts)
    assert sum(num for num, found in answered if found is not None) > len(texts) - 70
