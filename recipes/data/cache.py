"""The token cache: texts are tokenised once, kept as Arrow files, and memory-mapped by every rank.

``prepare_data`` makes ``<storage>/token_cache/<fingerprint>/`` or finds it there; ``open_data`` maps it. A folder
counts only with its ``meta.json``, written last, and with every file in the size that it names.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from recipes.config import DataBlock
from recipes.data.build import TaskTexts, build_cache
from recipes.data.denoising import Denoiser
from recipes.data.encoding import PoolOf, in_threads
from recipes.data.fingerprint import FORMAT, content_fingerprint, file_marks, stamp
from recipes.data.split import split_examples
from recipes.data.staging import staging_folder
from recipes.data.token_files import TokenSplit
from recipes.data.tokenizer import TextTokenizer, bytes_tokenizer, saved_tokenizer
from recipes.errors import UserError
from recipes.storage import Storage

FOLDER = "token_cache"


@dataclass(frozen=True)
class PreparedData:
    """A finished cache: where it is, and its ``meta.json`` (numbers of rows, tokens, baselines, tokenizer)."""

    uri: str
    meta: dict[str, Any]


class TokenData:
    """An open cache.

    Attributes:
        train, held_out: the two splits.
        meta: the content of ``meta.json``.
    """

    def __init__(self, folder: Path, meta: dict[str, Any]):
        self._folder = folder
        self.meta = meta
        kinds = [Denoiser.of_dict(content) for content in meta["denoisers"]]
        names = meta["tokenizer"]
        self.train, self.held_out = (
            TokenSplit(
                folder / f"{split}.arrow", meta[split]["file_names"], kinds, names["sentinel_ids"], names["eos_id"]
            )
            for split in ("train", "held_out")
        )

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        return TextTokenizer.load(self._folder / "tokenizer")

    def numbers(self) -> dict[str, int]:
        """Counts of both splits together or apart, as a report shows them."""
        train, held_out = self.meta["train"], self.meta["held_out"]
        return {
            "training_examples": train["examples"],
            "held_out_examples": held_out["examples"],
            "skipped_rows": sum(train["rows_skipped"].values()),
            "truncated_texts": sum(
                split[f"truncated_{side}s"] for split in (train, held_out) for side in ("source", "target")
            ),
            "training_source_tokens": train["source_tokens"],
            "training_target_tokens": train["target_tokens"],
            "held_out_target_tokens": held_out["target_tokens"],
            "unknown_tokens": train["source_unknown_tokens"] + train["target_unknown_tokens"],
        }

    @property
    def task_names(self) -> list[str]:
        """Of ``data.tasks``, in order; one empty name where there are none."""
        return [task["name"] for task in self.meta["tasks"]]

    @property
    def vocab_size(self) -> int:
        return self.meta["tokenizer"]["vocab_size"]

    @property
    def pad_id(self) -> int:
        return self.meta["tokenizer"]["pad_id"]

    @property
    def eos_id(self) -> int:
        return self.meta["tokenizer"]["eos_id"]


def prepare_data(
    config: DataBlock, storage: Storage, say: Callable[[str], None] = print, pool_of: PoolOf = in_threads
) -> PreparedData:
    """Tokenise the data, or find it tokenised already.

    Args:
        config: the run's ``data`` block.
        storage: the run's ``storage_path``.
        say: takes one line for each thing worth telling.
        pool_of: where texts are tokenised; not asked for where they are already.

    Raises:
        UserError: anything wrong with sources, tokenizer or lengths, one line each.
    """
    cache = storage / FOLDER
    marks = file_marks(config)
    mark = stamp(config, marks)
    known = _recall(cache, mark)
    if known is not None:
        return _found(cache, known, say)
    parts = [TaskTexts(task, split_examples(config, say, task)) for task in config.texts]
    tokenizer = None
    if config.tokenizer.kind != "unigram":
        tokenizer = bytes_tokenizer() if config.tokenizer.kind == "bytes" else saved_tokenizer(config.tokenizer)
    fingerprint = content_fingerprint(config, parts, tokenizer)
    if _read_meta(cache / fingerprint) is None:
        base = cache.local or _local_base()
        with staging_folder(base, fingerprint, lambda: _read_meta(cache / fingerprint) is not None, say) as staging:
            if staging is not None:
                meta = build_cache(staging, config, parts, tokenizer, pool_of, say)
                meta |= {"format": FORMAT, "fingerprint": fingerprint}
                if file_marks(config) != marks:
                    raise UserError("data: a file of the texts was changed while they were tokenised; start again")
                _publish(cache, fingerprint, staging, meta)
                shutil.rmtree(staging, ignore_errors=True)
    if mark is not None:
        cache.write_text(f"index/{mark}.json", json.dumps({"fingerprint": fingerprint}))
    return _found(cache, fingerprint, say)


def open_data(prepared: PreparedData | Storage | str) -> TokenData:
    """Map a finished cache; from an object store, after one download per node.

    Raises:
        UserError: there is no whole cache at this place.
    """
    place = prepared if isinstance(prepared, Storage) else Storage(getattr(prepared, "uri", prepared))
    meta = _read_meta(place)
    if meta is None:
        raise UserError(f"{place}: holds no whole token cache; it is made at the start of a run")
    return TokenData(place.local or _download(place, meta), meta)


def known_tokenizer(config: DataBlock, storage: Storage) -> TextTokenizer | None:
    """The tokenizer of these settings by what the caches hold, without a look at the data.

    None where no whole cache has these settings, or several have and their tokenizers differ (the data has changed).
    """
    cache, found = storage / FOLDER, {}
    for name in cache.names():
        meta = _read_meta(cache / name)
        if meta is not None and meta["settings"] == config.model_dump(mode="json"):
            with (cache / name / "tokenizer").on_this_machine() as folder:
                tokenizer = TextTokenizer.load(folder)
            found[tuple(sorted(tokenizer.files().items()))] = tokenizer
    return next(iter(found.values())) if len(found) == 1 else None


def _found(cache: Storage, fingerprint: str, say: Callable[[str], None]) -> PreparedData:
    place = cache / fingerprint
    meta = _read_meta(place)
    if meta is None:
        raise UserError(f"{place}: the token cache was removed while it was being prepared; start again")
    train, held_out = meta["train"], meta["held_out"]
    say(
        f"data: {train['examples']:,} training and {held_out['examples']:,} held-out examples, "
        f"{train['source_tokens']:,} + {train['target_tokens']:,} tokens, "
        f"{meta['tokenizer']['vocab_size']:,} token ids ({place})"
    )
    return PreparedData(str(place.local or place), meta)


def _recall(cache: Storage, mark: str | None) -> str | None:
    """The fingerprint that an earlier start found for the same stamp, if its cache is still whole."""
    if mark is None or not cache.exists(f"index/{mark}.json"):
        return None
    try:
        fingerprint = str(json.loads(cache.read_text(f"index/{mark}.json"))["fingerprint"])
    except (ValueError, KeyError, TypeError, OSError):
        return None
    return fingerprint if _read_meta(cache / fingerprint) is not None else None


def _read_meta(place: Storage) -> dict[str, Any] | None:
    """The meta data of a whole cache; None where a file is missing or has another size than it names."""
    if not place.exists("meta.json"):
        return None
    try:
        meta = json.loads(place.read_text("meta.json"))
    except (ValueError, OSError):
        return None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        return None
    sizes = place.files()
    return meta if all(sizes.get(name) == size for name, size in meta["files"].items()) else None


def _publish(cache: Storage, fingerprint: str, staging: Path, meta: dict[str, Any]) -> None:
    paths = sorted(path for path in staging.rglob("*") if path.is_file())
    meta["files"] = {path.relative_to(staging).as_posix(): path.stat().st_size for path in paths}
    text = json.dumps(meta, indent=2)
    if cache.local is None:  # no rename there: the meta data makes it whole
        cache.upload_folder(staging, fingerprint)
        cache.write_text(f"{fingerprint}/meta.json", text)
        return
    (staging / "meta.json").write_text(text, encoding="utf-8")
    if cache.exists(fingerprint) and _read_meta(cache / fingerprint) is None:
        cache.delete_folder(fingerprint)  # a damaged one would else stay for ever
    cache.publish_folder(staging, fingerprint)


def _download(place: Storage, meta: dict[str, Any]) -> Path:
    """This node's copy of a cache in an object store; the first rank fetches it, the others wait for that."""
    base = _local_base()
    target = base / meta["fingerprint"]
    with (base / f"{meta['fingerprint']}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _read_meta(Storage(target)) is None:
            shutil.rmtree(target, ignore_errors=True)
            partial = Path(tempfile.mkdtemp(dir=base))
            place.download_folder("", partial)
            partial.rename(target)
    return target


def _local_base() -> Path:
    """Where this machine keeps caches of object stores."""
    base = Path(tempfile.gettempdir()) / f"token_cache_{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    return base
