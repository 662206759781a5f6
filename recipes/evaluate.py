"""Evaluate a T5: ``python -m recipes.evaluate RUN|FOLDER DATA [key=value ...]``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.command import exit_code

if TYPE_CHECKING:
    from recipes.evaluation.request import Request
    from recipes.evaluation.scoring import PairScores


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 a fault (a metric of one's own), 2 a wrong input, 130 Ctrl-C."""
    options = _parser().parse_intermixed_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.evaluate",
        description="Loss and metrics of a model on text pairs, in one process on this machine.",
    )
    parser.add_argument("model", metavar="RUN|FOLDER", help="a run's folder (its export counts) or a saved T5")
    parser.add_argument("data", metavar="DATA", help="file or folder as data.source takes it")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="of data, evaluation, training; such as data.prefix='sum: '"
    )
    parser.add_argument("--metrics", help="names with commas between them, such as bleu,chrf")
    parser.add_argument("--num-beams", help="1: greedy; more: beam search")
    parser.add_argument("--task", help="of a run with several tasks: whose prefix and columns count")
    parser.add_argument("--source-column", help="column of the input text")
    parser.add_argument("--target-column", help="column of the reference")
    parser.add_argument("--device", default="auto", help="auto (cuda where there is one), cpu, cuda")
    parser.add_argument("--out", metavar="FILE", help="write the numbers as JSON")
    parser.add_argument("--predictions", metavar="FILE", help="write source, reference and prediction as JSON lines")
    return parser


def _run(options: argparse.Namespace) -> int:
    from recipes.errors import RunFailed
    from recipes.evaluation.metrics import MetricFailed
    from recipes.evaluation.request import Flag, number, read_request
    from recipes.reporting.metrics import finite

    metrics = [name.strip() for name in options.metrics.split(",") if name.strip()] if options.metrics else None
    flags = [
        Flag("--metrics", "evaluation.metrics", metrics),
        Flag("--num-beams", "evaluation.generation.num_beams", number(options.num_beams)),
        Flag("--source-column", "data.source_column", options.source_column),
        Flag("--target-column", "data.target_column", options.target_column),
    ]
    request = read_request(options.model, options.data, options.overrides, flags, options.task)
    for name in ("out", "predictions"):
        _check_file(f"--{name}", getattr(options, name))
    try:
        scores, about = _scored(request, options.device, always_generate=options.predictions is not None)
    except MetricFailed as error:
        raise RunFailed(str(error)) from None
    signatures = {f"{name}_signature": words for name, words in scores.signatures.items()}
    print(_table(scores.fields | signatures | about))
    if options.predictions is not None:
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in scores.predictions)
        Path(options.predictions).write_text("".join(lines), encoding="utf-8")
    if options.out is not None:
        Path(options.out).write_text(json.dumps(finite(_as_json(request, scores, about)), indent=1) + "\n")
    return 0


def _check_file(flag: str, name: str | None) -> None:
    from recipes.errors import UserError

    if name is None:
        return
    if Path(name).is_dir():
        raise UserError(f"{flag} {name}: is a folder; give a file")
    if not Path(name).absolute().parent.is_dir():
        raise UserError(f"{flag} {name}: there is no folder {Path(name).absolute().parent}")


def _scored(request: Request, device: str, always_generate: bool) -> tuple[PairScores, dict[str, Any]]:
    from recipes.data.sources import read_examples
    from recipes.evaluation.pairs import TextPairs
    from recipes.evaluation.saved_model import load_saved, model_folder
    from recipes.evaluation.scoring import score_pairs

    began = time.monotonic()
    with model_folder(request.folder) as folder:
        examples = read_examples(request.config.data)
        model, tokenizer = load_saved(folder, device)
    pairs = TextPairs(examples, tokenizer, request.config.data)
    scores = score_pairs(
        model,
        tokenizer,
        pairs,
        request.config.evaluation,
        request.decoding,
        micro_batch_tokens=request.config.training.micro_batch_tokens,
        always_generate=always_generate,
        progress=_bar,
    )
    about = {
        "examples": len(pairs),
        "skipped_rows": sum(examples.skipped.values()),
        "truncated_texts": pairs.num_truncated,
        "device": str(model.device),
        "precision": str(model.dtype).removeprefix("torch."),
        "seconds": round(time.monotonic() - began, 3),
    }
    return scores, about


def _bar(name: str, batches: list[Any]) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(batches, desc=name, unit="batch", leave=False, disable=None)


def _table(fields: dict[str, Any]) -> str:
    names = {name: name.removeprefix("eval_").replace("_", " ") for name in fields}
    width = max(map(len, names.values()))
    shown = {name: f"{value:.4f}" if type(value) is float else str(value) for name, value in fields.items()}
    return "\n".join(f"{names[name]:<{width}}  {value}" for name, value in shown.items())


def _as_json(request: Request, scores: PairScores, about: dict[str, Any]) -> dict[str, Any]:
    from recipes.launching.environment import installed_version

    packages = ("torch", "transformers", "sacrebleu", "rouge-score")
    data = request.config.data
    return {
        "model": str(request.folder),
        "data": data.source,
        "metrics": {name.removeprefix("eval_"): value for name, value in scores.fields.items()},
        "signatures": scores.signatures,
        "generation": vars(request.decoding) if scores.predictions else None,
        "prefix": data.prefix,
        **about,
        "versions": {name: installed_version(name) for name in packages},
    }


if __name__ == "__main__":
    sys.exit(main())
