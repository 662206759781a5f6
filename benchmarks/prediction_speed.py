"""Texts per second of `recipes.predict` beside the same model in input order and beside plain `generate`, as a Markdown table.

    python benchmarks/prediction_speed.py RUN FILE.parquet --column COLUMN [--num 1000] [--rounds 3] [--workers 2]

The ways take turns in one process, so that a busy machine slows all of them alike; each row is the fastest round, and the
answers of all ways are compared. Then the command itself is started: time to its first answer, and the whole file by one
process and by workers of Ray Data. Compare numbers of one run only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from recipes.evaluation.generation import generate
from recipes.evaluation.saved_model import model_folder
from recipes.prediction.predictor import Predictor
from recipes.prediction.settings import read_request

_PLAIN_ROWS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run's folder")
    parser.add_argument("file", help="Parquet with texts")
    parser.add_argument("--column", required=True)
    parser.add_argument("--num", type=int, default=1000, help="texts to answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="of Ray Data; 0: not measured")
    parser.add_argument("--threads", type=int, default=0, help="of torch in the ways that take turns; 0: as torch says")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    texts = pq.read_table(options.file, columns=[options.column])[options.column].to_pylist()[: options.num]
    request = read_request(options.run, [])
    predictor = Predictor.load(request.folder, request.settings)
    ways: dict[str, Callable[[], list[str]]] = {
        "sorted by length (recipes.predict)": lambda: predictor.answers(texts),
        "same token budget, in input order": lambda: in_order(predictor, texts),
        f"transformers' generate, {_PLAIN_ROWS} rows, in input order": plain(options.run, predictor, texts),
    }
    seconds, answers = take_turns(ways, options.rounds)
    first = next(iter(ways))
    print(f"{len(texts):,} texts, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| way | texts/s | beside the last | other answers |\n|---|---:|---:|---:|")
    slowest = seconds[list(ways)[-1]]
    for name, needed in seconds.items():
        others = sum(a != b for a, b in zip(answers[name], answers[first], strict=True))
        print(f"| {name} | {len(texts) / needed:.1f} | {slowest / needed:.2f} | {others} |")
    commands(options, texts)


def take_turns(ways: dict[str, Callable[[], list[str]]], rounds: int) -> tuple[dict[str, float], dict[str, list[str]]]:
    best, answers = dict.fromkeys(ways, float("inf")), {}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            answers[name] = way()
            best[name] = min(best[name], time.perf_counter() - began)
    return best, answers


def in_order(predictor: Predictor, texts: list[str]) -> list[str]:
    """Neighbours in the input, as many as the token budget takes."""
    settings, decoding = predictor.settings, predictor.settings.decoding
    ids, offsets = predictor.tokenizer.encode_batch(
        [settings.prefix + text for text in texts], settings.max_source_tokens
    )
    lengths = np.diff(offsets)
    batches: list[np.ndarray] = []
    begin = 0
    for end in range(1, len(texts) + 1):
        most = int(lengths[begin : min(end + 1, len(texts))].max()) + decoding.max_new_tokens
        if end == len(texts) or (end + 1 - begin) * most * decoding.num_beams > decoding.batch_tokens:
            batches.append(np.arange(begin, end))
            begin = end
    found = generate(predictor.model, lambda i: ids[offsets[i] : offsets[i + 1]], batches, decoding)
    return predictor.tokenizer.decode_batch(found[i] for i in range(len(texts)))


def plain(run: str, predictor: Predictor, texts: list[str]) -> Callable[[], list[str]]:
    """What people write with transformers alone."""
    from transformers import AutoTokenizer

    from recipes.storage import Storage

    settings = predictor.settings
    with model_folder(Storage(run)) as folder:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    own = settings.decoding.for_transformers(predictor.model)

    def answers() -> list[str]:
        found: list[str] = []
        for begin in range(0, len(texts), _PLAIN_ROWS):
            rows = [settings.prefix + text for text in texts[begin : begin + _PLAIN_ROWS]]
            batch = tokenizer(
                rows, return_tensors="pt", padding=True, truncation=True, max_length=settings.max_source_tokens
            )
            ids = predictor.model.generate(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, generation_config=own
            )
            found += tokenizer.batch_decode(ids, skip_special_tokens=True)
        return found

    return answers


def commands(options: argparse.Namespace, texts: list[str]) -> None:
    """The command's own times."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "recipes.predict", options.run]
    firsts = []
    for _ in range(options.rounds):
        began = time.perf_counter()
        subprocess.run([*command, texts[0]], env=environment, check=True, capture_output=True)
        firsts.append(time.perf_counter() - began)
    print(f"\nCommand to first answer: {min(firsts):.1f} s (of {', '.join(f'{each:.1f}' for each in firsts)})")
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "texts.parquet"
        pq.write_table(pa.table({"text": texts}), source)
        files = ["--input", str(source), "--source-column", "text"]
        ways = {"one process": [*files, "--output", f"{temporary}/one.parquet"]}
        if options.workers:
            ways[f"{options.workers} workers of Ray Data"] = [
                *(*files, "--output", f"{temporary}/many", "--num-workers", str(options.workers))
            ]
        for name, arguments in ways.items():
            began = time.perf_counter()
            subprocess.run([*command, *arguments], env=environment, check=True, capture_output=True)
            print(f"Whole command, {name}: {time.perf_counter() - began:.1f} s")
        if options.workers:
            one, many = pq.read_table(f"{temporary}/one.parquet"), pq.read_table(f"{temporary}/many")
            print(f"Equal files: {one.equals(many)}")
            print((Path(temporary) / "many" / "_predictions.json").read_text())


if __name__ == "__main__":
    main()
