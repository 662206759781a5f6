"""Text to token ids and back.

Four kinds (``data.tokenizer.kind``), all one `tokenizers.Tokenizer` inside, all with T5's conventions:
an end token closes every text, padding is id 0 and also starts the decoder.

- ``unigram``: trained here. Ids: ``<pad>`` 0, ``</s>`` 1, ``<unk>`` 2, pieces by falling probability, then
  ``<extra_id_99>`` ... ``<extra_id_0>`` at the very end. Unlike T5's own tokenizer it keeps line breaks and
  runs of spaces, and normalises by NFC, so that ``decode(encode(text))`` is the text again.
- ``bytes``: ByT5's ids (byte + 3; 384 ids with its 125 extra ones).
- ``folder``, ``hub``: a saved tokenizer, read by transformers.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from recipes.config import TokenizerBlock
from recipes.data.unigram import train_pieces
from recipes.data.words import OWN_WORDS, have_words, words_of
from recipes.errors import UserError

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
NUM_SENTINELS = 100
NUM_BYTE_SENTINELS = 125
# Enough text to count pieces well; more only makes the first start slower (about 2 MB/s).
MAX_TRAINING_CHARS = 20_000_000

# A slow path for so many texts is no loss where one of them needs it.
_FEW = 64

SPECIAL_TOKEN = re.compile(r"</s>|<pad>|<unk>|<extra_id_\d+>")
_WORDS = Regex(OWN_WORDS)


class TextTokenizer:
    """Encodes whole batches into flat arrays.

    Attributes:
        vocab_size: number of ids, i.e. the largest id + 1.
        pad_id: pads batches and starts the decoder.
        eos_id: last id of every encoded text.
        unk_id: stands for what the vocabulary lacks, or None.
        sentinel_ids: of ``<extra_id_0>``, ``<extra_id_1>``, ... as far as there are.
    """

    def __init__(self, backend: Tokenizer, pad: str, eos: str, unk: str | None, files: dict[str, bytes]):
        """``files`` is what :meth:`save` writes beside nothing else: a transformers tokenizer folder."""
        self._backend = backend
        self._files = files
        self.pad_id, self.eos_id = backend.token_to_id(pad), backend.token_to_id(eos)
        self.unk_id = backend.token_to_id(unk) if unk else None
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values()) + 1
        self.sentinel_ids = _sentinels(vocabulary)
        self._words = words_of(backend, self.eos_id)
        self._byte_level = vocabulary.get("<0x00>") == 3 and vocabulary.get("<0xFF>") == 258 and "a" not in vocabulary

    def encode_batch(self, texts: Sequence[str], max_tokens: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all texts, each closed by the end token.

        Args:
            texts: any number of texts.
            max_tokens: cut longer ones; the end token stays last.

        Returns:
            ``(ids, offsets)``: int32 ids of all texts in a row; text i is ``ids[offsets[i]:offsets[i + 1]]``
            (int64, one more than there are texts).
        """
        quick = self._encode_bytes if self._byte_level else None
        if self._words and have_words(texts):
            quick = self._words.encode
        found = quick(texts) if quick else None
        if found is None and quick and len(texts) > _FEW:  # what it cannot tell is in some of them
            half = len(texts) // 2
            parts = [self.encode_batch(part) for part in (texts[:half], texts[half:])]
            found = (
                np.concatenate([ids for ids, _ in parts]),
                np.append(parts[0][1], parts[1][1][1:] + len(parts[0][0])),
            )
        if found is None:
            rows = [encoding.ids for encoding in self._backend.encode_batch_fast(list(texts))]
            offsets = offsets_of(np.fromiter(map(len, rows), np.int64, len(rows)))
            found = np.fromiter(chain.from_iterable(rows), np.int32, int(offsets[-1])), offsets
        ids, offsets = found
        if max_tokens is not None:
            ids, offsets = truncate_tokens(ids, offsets, max_tokens, self.eos_id)
        return ids, offsets

    def _encode_bytes(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
        """The ids by plain arithmetic, a hundred times faster; None when a text names a special token."""
        if any("<" in text and SPECIAL_TOKEN.search(text) for text in texts):
            return None
        encoded = [text.encode("utf-8") for text in texts]
        offsets = offsets_of(np.fromiter(map(len, encoded), np.int64, len(encoded)) + 1)
        # Any byte may stand where the end token goes; it is overwritten.
        joined = np.frombuffer(b"\0".join([*encoded, b""]), np.uint8)
        ids = joined.astype(np.int32) + 3
        ids[offsets[1:] - 1] = self.eos_id
        return ids, offsets

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; padding, end and other special tokens are left out."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def decode_batch(self, rows: Iterable[Iterable[int]]) -> list[str]:
        return self._backend.decode_batch([[int(i) for i in row] for row in rows], skip_special_tokens=True)

    def show(self, ids: Iterable[int]) -> str:
        """The text of some ids with sentinels as they are."""
        plain = [int(i) for i in ids if i not in (self.pad_id, self.eos_id)]
        return self._backend.decode(plain, skip_special_tokens=False)

    def save(self, folder: str | Path) -> None:
        """Write a folder that ``transformers.AutoTokenizer.from_pretrained`` reads."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            (Path(folder) / name).write_bytes(content)

    @classmethod
    def load(cls, folder: str | Path) -> TextTokenizer:
        """Read a folder written by :meth:`save`, without importing transformers."""
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}
        if not {"tokenizer.json", "tokenizer_config.json"} <= files.keys():
            raise UserError(f"{folder}: holds no tokenizer (tokenizer.json and tokenizer_config.json)")
        return cls.of_files(files)

    @classmethod
    def of_files(cls, files: dict[str, bytes]) -> TextTokenizer:
        """From what :meth:`files` returns."""
        names = json.loads(files["tokenizer_config.json"])
        backend = Tokenizer.from_str(files["tokenizer.json"].decode("utf-8"))
        return cls(
            backend, _content(names["pad_token"]), _content(names["eos_token"]), _content(names.get("unk_token")), files
        )

    def files(self) -> dict[str, bytes]:
        """What :meth:`save` writes, by file name."""
        return dict(self._files)


def _sentinels(vocabulary: dict[str, int]) -> tuple[int, ...]:
    ids: list[int] = []
    # mT5's own vocabulary has them as pieces, with the mark of a space.
    while (found := vocabulary.get(f"<extra_id_{len(ids)}>", vocabulary.get(f"▁<extra_id_{len(ids)}>"))) is not None:
        ids.append(found)
    return tuple(ids)


def truncate_tokens(
    ids: np.ndarray, offsets: np.ndarray, max_tokens: int, eos_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut every text to ``max_tokens`` ids, of which the last stays the end token."""
    lengths = np.diff(offsets)
    if not (lengths > max_tokens).any():
        return ids, offsets
    place = np.arange(len(ids)) - np.repeat(offsets[:-1], lengths)
    kept = ids[place < max_tokens].copy()
    new_offsets = offsets_of(np.minimum(lengths, max_tokens))
    kept[new_offsets[1:] - 1] = eos_id
    return kept, new_offsets


def offsets_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where texts of these lengths begin when they stand in a row, and where the last one ends; int64."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def bytes_tokenizer() -> TextTokenizer:
    """ByT5's tokenizer: three special tokens, 256 bytes, 125 sentinels."""
    pieces = [PAD, EOS, UNK, *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token=UNK))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    sentinels = [f"<extra_id_{i}>" for i in range(NUM_BYTE_SENTINELS)]
    return _finish(backend, sentinels, sentinels)


def train_unigram(texts: Iterable[str], vocab_size: int) -> TextTokenizer:
    """Train a Unigram vocabulary of at most ``vocab_size`` ids; the same texts give the same files.

    Raises:
        UserError: the text has more different characters than the vocabulary has room for.
    """
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first", split=False), pre_tokenizers.Split(_WORDS, "isolated")]
    )
    words: Counter[str] = Counter()
    for text in texts:
        plain = backend.normalizer.normalize_str(SPECIAL_TOKEN.sub("\n", text) if "<" in text else text)
        words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(plain))
    try:
        pieces = train_pieces(words, vocab_size - 3 - NUM_SENTINELS)
    except ValueError:
        num_chars = len(set().union(*words))
        raise UserError(
            f"data.tokenizer.vocab_size: {vocab_size} leaves no room for the {num_chars} different characters of the "
            f"training text; give {num_chars + 3 + NUM_SENTINELS} and some hundreds more for words, or take kind: bytes"
        ) from None
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(NUM_SENTINELS))]
    special = [(token, 0.0) for token in (PAD, EOS, UNK)]
    # Six digits: mathematical libraries may differ in the last ones.
    rounded = sorted(((piece, round(score, 6)) for piece, score in pieces), key=lambda item: (-item[1], item[0]))
    vocabulary = special + rounded + [(token, 0.0) for token in sentinels]
    backend.model = models.Unigram(vocabulary, unk_id=2, byte_fallback=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    return _finish(backend, sentinels, sentinels[::-1])


def _finish(backend: Tokenizer, sentinels_by_id: list[str], sentinels: list[str]) -> TextTokenizer:
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (PAD, EOS, UNK)])
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in sentinels_by_id])
    backend.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[(EOS, backend.token_to_id(EOS))]
    )
    names = {
        "backend": "tokenizers",
        "clean_up_tokenization_spaces": False,
        "eos_token": EOS,
        "extra_special_tokens": sentinels,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": int(1e30),
        "pad_token": PAD,
        # Not T5Tokenizer: transformers 5 would rebuild it with T5's own whitespace rules.
        "tokenizer_class": "TokenizersBackend",
        "unk_token": UNK,
    }
    files = {
        "tokenizer.json": backend.to_str(pretty=True).encode("utf-8"),
        "tokenizer_config.json": json.dumps(names, indent=2).encode("utf-8"),
    }
    return TextTokenizer(backend, PAD, EOS, UNK, files)


def saved_tokenizer(config: TokenizerBlock) -> TextTokenizer:
    """The tokenizer of a folder or of the Hub, through transformers.

    Raises:
        UserError: it cannot be read, has no end or padding token, or exists in Python code only.
    """
    path = str(config.path)
    if config.kind == "folder" and not Path(path).is_dir():
        raise UserError(f"data.tokenizer.path: {path}: there is no such folder")
    from transformers import AutoTokenizer  # seconds; only when needed

    try:
        theirs = AutoTokenizer.from_pretrained(path, local_files_only=config.kind == "folder", trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds, with many lines
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"data.tokenizer.path: {path}: no tokenizer could be read: {reason}") from None
    if type(theirs).__name__ == "ByT5Tokenizer" and len(theirs) == 3 + 256 + NUM_BYTE_SENTINELS:
        return bytes_tokenizer()
    if not theirs.is_fast:
        raise UserError(
            f"data.tokenizer.path: {path}: a {type(theirs).__name__} runs in Python only; "
            "one with a tokenizer.json is needed"
        )
    if theirs.get_vocab().keys() - theirs.get_added_vocab().keys() <= {"▁"}:
        # transformers makes a tokenizer of special tokens alone where a T5's files are missing.
        raise UserError(f"data.tokenizer.path: {path}: holds no vocabulary (tokenizer.json or spiece.model)")
    missing = [name for name in ("pad_token", "eos_token") if getattr(theirs, name) is None]
    if missing:
        raise UserError(f"data.tokenizer.path: {path}: has no {' and no '.join(missing)}, which T5 needs")
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        tokenizer = TextTokenizer.load(folder)
    ids, _ = tokenizer.encode_batch(["a"])
    if ids[-1] != tokenizer.eos_id:
        raise UserError(
            f"data.tokenizer.path: {path}: does not close a text with its end token {theirs.eos_token!r}, "
            "which T5 needs"
        )
    return tokenizer


def _content(token: str | dict | None) -> str | None:
    return token["content"] if isinstance(token, dict) else token
