import hashlib
import json
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from recipes.config import TokenizerBlock
from recipes.data.tokenizer import (
    SPECIAL_TOKEN,
    TextTokenizer,
    bytes_tokenizer,
    saved_tokenizer,
    train_unigram,
    truncate_tokens,
)
from recipes.errors import UserError
from tests.data.corpus import pairs

CODE = "def f(x):\n    if x:\n        return  x\n\n# tab\there"
TEXTS = [text for row in pairs(200) for text in row.values()] + [
    CODE,
    "Grüße aus Köln: 5 € für 2 m²",
    'a "quote" (b) [c] <d>',
]
HARD = [
    *TEXTS[-40:],
    "",
    " ",
    " leading",
    "trailing  ",
    "\n",
    "日本",
    "\r\n x",
    "e\u0301",
    "\ufb01ve",
    "a<extra_id_0>b <extra_id_99>",
]


@pytest.fixture(scope="module")
def unigram():
    return train_unigram(TEXTS, 400)


@pytest.fixture(params=["unigram", "bytes"])
def tokenizer(request, unigram):
    return unigram if request.param == "unigram" else bytes_tokenizer()


def pieces_of(tokenizer) -> list[tuple[str, float]]:
    return json.loads(tokenizer.files()["tokenizer.json"])["model"]["vocab"][3:-100]


def encode(tokenizer, text):
    return tokenizer.encode_batch([text])[0].tolist()


def test_unigram_ids_are_where_t5_has_them(unigram):
    ids = Tokenizer.from_str(unigram.files()["tokenizer.json"].decode()).get_vocab()
    assert [ids[token] for token in ("<pad>", "</s>", "<unk>")] == [0, 1, 2]
    assert (unigram.pad_id, unigram.eos_id, unigram.unk_id) == (0, 1, 2)
    size = unigram.vocab_size
    assert size == 400
    assert sorted(ids.values()) == list(range(size))
    assert [ids[f"<extra_id_{i}>"] for i in range(100)] == [size - 1 - i for i in range(100)]


def test_byt5_ids():
    tokenizer = bytes_tokenizer()
    assert tokenizer.vocab_size == 384
    assert encode(tokenizer, "a ü") == [100, 35, 198, 191, 1]
    assert encode(tokenizer, "<extra_id_3>b") == [262, 101, 1]
    assert tokenizer.unk_id not in tokenizer.encode_batch(HARD)[0]


@pytest.mark.parametrize("text", [CODE, "two  spaces", "tab\there", "Grüße: 5 € für 2 m²", "trailing  ", "line\n"])
def test_unigram_keeps_line_breaks_and_spaces(unigram, text):
    assert unigram.decode(encode(unigram, text)) == text


def test_frequent_words_are_one_piece(unigram):
    assert len(encode(unigram, "quiet yellow house")) == 4


def test_a_small_text_supports_fewer_ids_than_asked():
    tokenizer = train_unigram(["one two", "two three"], 8000)
    assert 110 < tokenizer.vocab_size < 200
    assert tokenizer.decode(encode(tokenizer, "three two one")) == "three two one"


def test_special_tokens_in_the_text_are_not_learned():
    tokenizer = train_unigram(["<extra_id_0> quiet </s> house"] * 5 + ["<b>"], 400)
    assert not any("extra" in piece for piece, _ in pieces_of(tokenizer))
    assert encode(tokenizer, "</s>") == [1, 1]


@settings(deadline=None, max_examples=50)
@given(text=st.text(alphabet=sorted(set("".join(TEXTS))), max_size=60))
def test_unigram_round_trip(unigram, text):
    assume(not SPECIAL_TOKEN.search(text))
    expected = unicodedata.normalize("NFC", text)
    assert unigram.decode(encode(unigram, text)) == expected.removeprefix(" ")


@settings(deadline=None, max_examples=50)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_bytes_round_trip(text):
    assume(not SPECIAL_TOKEN.search(text))
    tokenizer = bytes_tokenizer()
    ids = encode(tokenizer, text)
    assert ids == [*(byte + 3 for byte in text.encode()), 1]
    assert tokenizer.decode(ids) == text


def test_a_text_that_names_a_special_token_means_it():
    assert encode(bytes_tokenizer(), "a<pad>b") == [ord("a") + 3, 0, ord("b") + 3, 1]


def test_batch_is_flat_and_closed(tokenizer):
    ids, offsets = tokenizer.encode_batch(HARD)
    assert (ids.dtype, offsets.dtype) == (np.int32, np.int64)
    assert len(offsets) == len(HARD) + 1
    assert (ids[offsets[1:] - 1] == 1).all()
    for i, text in enumerate(HARD):
        assert ids[offsets[i] : offsets[i + 1]].tolist() == encode(tokenizer, text)
    assert [len(part) for part in tokenizer.encode_batch([])] == [0, 1]


def test_truncation_keeps_the_end_token(tokenizer):
    whole, whole_offsets = tokenizer.encode_batch(TEXTS[:20])
    ids, offsets = tokenizer.encode_batch(TEXTS[:20], max_tokens=5)
    assert np.diff(offsets).tolist() == np.minimum(np.diff(whole_offsets), 5).tolist()
    for i in range(20):
        cut, all_of_it = ids[offsets[i] : offsets[i + 1]], whole[whole_offsets[i] : whole_offsets[i + 1]]
        assert cut[-1] == 1
        assert cut[:-1].tolist() == all_of_it[: len(cut) - 1].tolist()
    same, _ = truncate_tokens(whole, whole_offsets, int(np.diff(whole_offsets).max()), 1)
    assert same is whole


def test_loaded_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = TextTokenizer.load(tmp_path)
    assert loaded.files() == tokenizer.files()
    for one, other in zip(loaded.encode_batch(HARD), tokenizer.encode_batch(HARD), strict=True):
        assert np.array_equal(one, other)
    assert (loaded.vocab_size, loaded.pad_id, loaded.eos_id, loaded.unk_id) == (tokenizer.vocab_size, 0, 1, 2)
    rows = [encode(tokenizer, text) for text in TEXTS[:3]]
    assert loaded.decode_batch(rows) == [loaded.decode(row) for row in rows]


@pytest.mark.parametrize("with_config", [False, True], ids=["alone", "beside a T5 model"])
def test_transformers_encodes_the_same(tokenizer, tmp_path, with_config):
    from transformers import AutoTokenizer, T5Config

    tokenizer.save(tmp_path)
    if with_config:
        T5Config(vocab_size=tokenizer.vocab_size).save_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == tokenizer.vocab_size
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id) == (0, 1, 2)
    assert theirs.convert_tokens_to_ids("<extra_id_7>") == encode(tokenizer, "<extra_id_7>")[-2]
    for text in HARD:
        ids = theirs(text)["input_ids"]
        assert ids == encode(tokenizer, text)
        assert theirs.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)


def test_bytes_are_those_of_transformers():
    from transformers import ByT5Tokenizer

    theirs = ByT5Tokenizer()
    for text in HARD:
        assert theirs(text)["input_ids"] == encode(bytes_tokenizer(), text)


def test_training_gives_the_same_files_in_every_process():
    script = (
        "import hashlib; from tests.data.test_tokenizer import TEXTS; from recipes.data.tokenizer import train_unigram;"
        "print(hashlib.sha256(train_unigram(TEXTS, 400).files()['tokenizer.json']).hexdigest())"
    )
    here = hashlib.sha256(train_unigram(TEXTS, 400).files()["tokenizer.json"]).hexdigest()
    there = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert here == there


def test_vocabulary_without_room_for_the_characters():
    texts = ["".join(chr(0x4E00 + i) for i in range(start, start + 50)) for start in range(0, 500, 50)]
    with pytest.raises(
        UserError, match=r"data\.tokenizer\.vocab_size: 300 leaves no room for the 5\d\d .* give 6\d\d and"
    ):
        train_unigram(texts, 300)


def test_folder_of_a_saved_tokenizer(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = saved_tokenizer(TokenizerBlock(kind="folder", path=str(tmp_path)))
    for one, other in zip(again.encode_batch(HARD), tokenizer.encode_batch(HARD), strict=True):
        assert np.array_equal(one, other)


def test_folders_of_transformers_own_t5_and_byt5(tmp_path):
    from transformers import AutoTokenizer, ByT5Tokenizer, T5Tokenizer

    vocabulary = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -2.0),
        ("▁the", -3.0),
        ("cat", -4.0),
        ("s", -4.5),
    ]
    T5Tokenizer(vocab=vocabulary, extra_ids=0, additional_special_tokens=["<extra_id_0>"]).save_pretrained(
        tmp_path / "t5"
    )
    ours = saved_tokenizer(TokenizerBlock(kind="folder", path=str(tmp_path / "t5")))
    theirs = AutoTokenizer.from_pretrained(tmp_path / "t5")
    assert (ours.pad_id, ours.eos_id, ours.vocab_size) == (0, 1, len(theirs))
    for text in ("the cats", "the  dog\n", ""):
        assert encode(ours, text) == theirs(text)["input_ids"]
    ByT5Tokenizer().save_pretrained(tmp_path / "byt5")
    assert saved_tokenizer(TokenizerBlock(kind="folder", path=str(tmp_path / "byt5"))).vocab_size == 384


def test_folders_that_do_not_fit(tmp_path):
    from transformers import PreTrainedTokenizerFast

    def refusal(path):
        with pytest.raises(UserError) as caught:
            saved_tokenizer(TokenizerBlock(kind="folder", path=str(path)))
        assert str(caught.value).startswith(f"data.tokenizer.path: {path}: ")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "a": 2}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>").save_pretrained(tmp_path / "no_pad")
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="<pad>").save_pretrained(
        tmp_path / "open"
    )
    (tmp_path / "bare").mkdir()
    assert "there is no such folder" in refusal(tmp_path / "nowhere")
    assert "no tokenizer could be read" in refusal(tmp_path / "bare")
    assert "has no pad_token, which T5 needs" in refusal(tmp_path / "no_pad")
    assert "does not close a text with its end token '</s>'" in refusal(tmp_path / "open")
