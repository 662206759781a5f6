"""Text in, text out: ``python -m recipes.predict RUN|FOLDER [TEXT ...]``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from recipes.command import exit_code

if TYPE_CHECKING:
    from recipes.evaluation.request import Flag
    from recipes.prediction.predictor import Predictor
    from recipes.prediction.rows import TextRows
    from recipes.prediction.settings import Request

# Texts that are sorted by length together.
_WINDOW_LINES = 256


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done (also when the reader of a pipe had enough), 1 a fault, 2 a wrong input, 130 Ctrl-C."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        return exit_code(lambda: _run(options))
    except BrokenPipeError:
        # Python would write what is left, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.predict",
        description="What a model makes of texts: from arguments, from standard input (one a line), or from files.",
    )
    parser.add_argument("model", metavar="RUN|FOLDER", help="a run's folder (its export counts) or a saved T5")
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="none: standard input, one text a line")
    parser.add_argument("--prefix", help="task prefix put in front of every text (default: the run's)")
    parser.add_argument("--task", help="of a run with several tasks: whose prefix and columns count")
    parser.add_argument("--num-beams", help="1: greedy; more: beam search (default: the run's)")
    parser.add_argument("--max-new-tokens", help="longest answer in tokens, the end token included")
    parser.add_argument("--max-source-tokens", help="longest text in tokens, prefix and end token included")
    parser.add_argument("--on-too-long", help="refuse or truncate longer texts (default: the run's, or refuse)")
    parser.add_argument("--on-bad-row", default="refuse", help="refuse or skip (prediction null) empty and null texts")
    parser.add_argument("--batch-tokens", help="most tokens (text + longest answer, times beams) in a batch")
    parser.add_argument("--device", default="auto", help="auto (cuda where there is one), cpu, cuda")
    parser.add_argument("--precision", default="auto", help="auto (as saved where the device can), bf16, fp32")
    files = parser.add_argument_group("files")
    files.add_argument("--input", metavar="FILE", help=".parquet, .jsonl, .csv, .tsv, .arrow, .txt, or a folder or URI")
    files.add_argument("--source-column", help="column of the texts (default: the run's)")
    files.add_argument(
        "--output",
        metavar="FILE",
        help=".parquet or .jsonl: the input's columns and the predictions; by workers a folder of .parquet",
    )
    files.add_argument("--output-column", default="prediction", help="column of the predictions")
    files.add_argument("--num-workers", metavar="N", help="answer a Parquet input by N workers of Ray (Ray Data)")
    files.add_argument(
        "--cpus-per-worker", metavar="N", help="CPUs of each worker, also its torch threads (default: 1)"
    )
    files.add_argument("--overwrite", action="store_true", help="replace an output that is there already")
    return parser


def _run(options: argparse.Namespace) -> int:
    from recipes.errors import UserError
    from recipes.prediction.settings import read_request

    _check_combination(options)
    request = read_request(
        options.model,
        _flags(options),
        task=options.task,
        device=options.device,
        precision=options.precision,
        on_bad_row=options.on_bad_row,
    )
    if options.input is not None:
        return _on_workers(options, request) if _wants_workers(options) else _file(options, request)
    from recipes.prediction.rows import TextRows

    if options.texts:
        return _print_answers(request, [TextRows(options.texts, "argument", range(1, len(options.texts) + 1))])
    from recipes.prediction.standard_input import line_windows

    if sys.stdin is None:
        raise UserError("no text: give one as an argument, on standard input, or a file with --input")
    if sys.stdin.isatty():
        _say("one text a line; Ctrl-D ends")
    return _print_answers(request, line_windows(sys.stdin.fileno(), _WINDOW_LINES))


def _check_combination(options: argparse.Namespace) -> None:
    from recipes.errors import UserError

    if options.input is None:
        for name in ("output", "source_column", "num_workers", "cpus_per_worker"):
            if getattr(options, name) is not None:
                raise UserError(
                    f"--{name.replace('_', '-')} needs --input; answers to other texts go to standard output"
                )
        return
    if options.texts:
        raise UserError(f"--input {options.input}: give texts as arguments or a file, not both")
    if options.output is None:
        raise UserError(f"--input {options.input}: give --output, a .parquet or .jsonl file for the predictions")


def _flags(options: argparse.Namespace) -> list[Flag]:
    from recipes.evaluation.request import Flag, number

    return [
        Flag("--prefix", "data.prefix", options.prefix),
        Flag("--source-column", "data.source_column", options.source_column),
        Flag("--on-too-long", "data.on_too_long", options.on_too_long),
        Flag("--max-source-tokens", "data.max_source_tokens", number(options.max_source_tokens)),
        Flag("--num-beams", "evaluation.generation.num_beams", number(options.num_beams)),
        Flag("--max-new-tokens", "evaluation.generation.max_new_tokens", number(options.max_new_tokens)),
        Flag("--batch-tokens", "evaluation.generation.batch_tokens", number(options.batch_tokens)),
    ]


def _print_answers(request: Request, windows: Iterable[TextRows]) -> int:
    from recipes.prediction.predictor import Predictor
    from recipes.prediction.screening import Screening

    predictor = Predictor.load(request.folder, request.settings)
    for rows in windows:
        screening = Screening()
        screening.look(rows, predictor.tokenizer, request.settings)
        screening.refuse(request.settings)
        for answer in predictor.answers(rows.usable()):
            # A line break in an answer would look like the next answer.
            print("" if answer is None else answer.replace("\n", "\\n"))
        sys.stdout.flush()
    _tell_truncated(predictor)
    return 0


def _wants_workers(options: argparse.Namespace) -> bool:
    """Where asked for, and in a cluster for the kind of input they take."""
    from recipes.data.readers import READERS, suffix_of

    if options.num_workers is not None:
        return True
    return bool(os.environ.get("RAY_ADDRESS")) and suffix_of(options.input) not in ({*READERS, ".txt"} - {".parquet"})


def _on_workers(options: argparse.Namespace, request: Request) -> int:
    from recipes.config import ScalingBlock
    from recipes.config_file import parse_as
    from recipes.errors import UserError
    from recipes.evaluation.request import number
    from recipes.prediction.ray_job import predict_on_workers

    given = {"num_workers": number(options.num_workers), "cpus_per_worker": _decimal(options.cpus_per_worker)}
    try:
        scaling = parse_as(ScalingBlock, {key: value for key, value in given.items() if value is not None}, "")
    except UserError as error:
        raise UserError(_as_flags(str(error), given)) from None
    return predict_on_workers(
        request,
        options.input,
        options.output,
        options.output_column,
        num_workers=None if options.num_workers is None else scaling.num_workers,
        cpus_per_worker=scaling.cpus_per_worker,
        overwrite=options.overwrite,
        say=_say,
    )


def _decimal(text: str | None) -> float | str | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _as_flags(message: str, keys: Iterable[str]) -> str:
    for key in keys:
        message = message.replace(f": {key} is", f"--{key.replace('_', '-')} is")
    return message


def _file(options: argparse.Namespace, request: Request) -> int:
    from tqdm import tqdm

    from recipes.prediction.files import predict_files
    from recipes.prediction.predictor import Predictor
    from recipes.prediction.reading import input_files
    from recipes.prediction.writing import check_output

    check_output(options.output, options.overwrite)
    files = input_files(options.input, request.source_column)
    predictor = Predictor.load(request.folder, request.settings)
    with tqdm(desc="prediction", unit="text", leave=False, disable=None) as bar:
        num = predict_files(predictor, files, options.output, options.output_column, bar.update, bar.reset)
    _tell_truncated(predictor)
    _say(f"{num:,} predictions: {options.output}")
    return 0


def _tell_truncated(predictor: Predictor) -> None:
    if predictor.num_truncated:
        _say(f"{predictor.num_truncated:,} texts cut off at {predictor.settings.max_source_tokens} tokens")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
