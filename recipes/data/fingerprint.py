"""What a token cache is called.

Its name is a hash of everything that decides its content: the texts themselves, their places, the tokenizer, the
settings. Hashing the texts needs reading them; a stamp of the files (size and times of change) lets a second start find
the name without that.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from pyarrow import fs

from recipes.config import DataBlock, TaskBlock
from recipes.data import pydoc
from recipes.data.sources import list_files
from recipes.data.split import Split
from recipes.data.tokenizer import TextTokenizer

FORMAT = 3  # raise it when the content of a cache changes for the same input
# A file changed this short a time ago could change again within the clock's grain and keep its times.
_SETTLED_SECONDS = 2.0


def content_fingerprint(
    config: DataBlock, parts: Sequence[tuple[TaskBlock, Split]], tokenizer: TextTokenizer | None
) -> str:
    """The cache's name.

    Args:
        parts: tasks with their training and held-out examples.
        tokenizer: None where it will be trained on the training texts.
    """
    if tokenizer is None:
        made_by: Any = ["unigram", config.tokenizer.vocab_size]
    else:
        made_by = {name: sha256(content).hexdigest() for name, content in sorted(tokenizer.files().items())}
    settings = [config.max_source_tokens, config.max_target_tokens, config.on_too_long]
    texts = [
        [task.name, task.prefix, task.objective.model_dump(mode="json"), train.digest, held_out.digest]
        for task, (train, held_out, _) in parts
    ]
    return _hash([FORMAT, texts, made_by, settings])[:24]


def stamp(config: DataBlock, marks: list[Any]) -> str | None:
    """A hash of the config and of what `file_marks` found, or None where that cannot be trusted."""
    now = time.time_ns()
    times = [value for group in marks for mark in group if isinstance(mark, list) for value in mark[2:]]
    if None in times or max(times, default=0) > now - int(_SETTLED_SECONDS * 1e9):
        return None
    return _hash([FORMAT, config.model_dump(mode="json", exclude={"mixing"}), marks])


def file_marks(config: DataBlock) -> list[Any]:
    """Names, sizes and times of change of all files that the config names.

    Locally the time of the last change of the inode counts too, which copying and restoring tools cannot set.
    """
    marks: list[Any] = []
    named = [(task, part, getattr(task, part)) for task in config.texts for part in ("source", "eval_source")]
    for task, part, uri in named:
        if uri == "pydoc":
            marks.append([sys.version, *(_local_mark(path) for path in pydoc.files())])
        elif uri is not None:
            filesystem, files = list_files(uri, f"{task.at}.{part}", task.objective.of_text_alone)
            if isinstance(filesystem, fs.LocalFileSystem):
                marks.append([_local_mark(path) for path, _ in files])
            else:
                infos = filesystem.get_file_info([path for path, _ in files])
                marks.append([[info.path, info.size, info.mtime_ns] for info in infos])
    folder = Path(str(config.tokenizer.path))
    if config.tokenizer.kind == "folder" and folder.is_dir():
        marks.append([_local_mark(path) for path in sorted(folder.iterdir()) if path.is_file()])
    return marks


def _local_mark(path: str | Path) -> list[Any]:
    status = Path(path).stat()
    return [str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _hash(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode("utf-8")).hexdigest()
