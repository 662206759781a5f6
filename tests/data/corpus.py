"""Small texts with enough words to train a vocabulary on, and the data folder beside the repository."""

import json
from pathlib import Path

import numpy as np
import pytest

from recipes.config import DataBlock

NOUNS = ["house", "river", "market", "garden", "bridge", "window", "teacher", "doctor", "village", "mountain", "letter"]
VERBS = ["opens", "crosses", "paints", "follows", "remembers", "builds", "watches", "measures", "carries", "answers"]
ADJECTIVES = ["quiet", "yellow", "narrow", "ancient", "careful", "broken", "distant", "heavy", "gentle", "hidden"]


def pairs(num: int, seed: int = 0) -> list[dict[str, str]]:
    """Rows with different sources; the target is the sentence turned round."""
    draw = np.random.default_rng(seed)
    rows = []
    for i in range(num):
        words = [
            word
            for _ in range(int(draw.integers(1, 4)))
            for word in (draw.choice(ADJECTIVES), draw.choice(NOUNS), draw.choice(VERBS))
        ]
        rows.append({"source": f"{i}: " + " ".join(words), "target": " ".join(reversed(words))})
    return rows


def write_lines(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def data_block(source, **settings) -> DataBlock:
    settings.setdefault("tokenizer", {"kind": "bytes"})
    return DataBlock(source=str(source), **settings)


def shared_data(*names: str) -> Path:
    """A path below the folder ``shared/data`` beside the repository; the test is skipped where there is none."""
    path = Path(__file__).parents[3].joinpath("shared", "data", *names)
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path
