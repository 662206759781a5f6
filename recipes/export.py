"""A run's model again, from a checkpoint, or to a Hub: ``python -m recipes.export RUN [--to FOLDER] [--checkpoint ...] [--push NAME]``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from recipes.command import exit_code

if TYPE_CHECKING:
    from recipes.config import RunConfig
    from recipes.storage import Storage


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 a Hub that did not take it, 2 a wrong input, 130 Ctrl-C."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.export",
        description="A plain model with tokenizer and model card out of a run, in one process, without Ray and GPUs.",
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--checkpoint", metavar="STEP", help="last, best or a number of updates (default: as the run exports)"
    )
    parser.add_argument("--precision", help="bf16 or fp32 weights (default: as the run computes)")
    parser.add_argument("--to", metavar="FOLDER", help="where to (default: RUN/export)")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that is there already")
    return parser


def _run(options: argparse.Namespace) -> int:
    from recipes.errors import UserError
    from recipes.evaluation.saved_model import EXPORT
    from recipes.storage import Storage
    from recipes.training.reexport import read_run_config

    # Or DeepSpeed, which transformers imports, warns where there is no GPU.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    run_folder = Storage(options.run)
    if not run_folder.exists():
        raise UserError(f"{options.run}: there is no such folder")
    config = read_run_config(run_folder)
    target = str(run_folder / EXPORT) if options.to is None else options.to
    _make(options, run_folder, config, target)
    return 0


def _make(options: argparse.Namespace, run_folder: Storage, config: RunConfig, target: str) -> None:
    from recipes.errors import UserError, nearest
    from recipes.reporting.model_card import write_card
    from recipes.training.reexport import export_checkpoint

    if options.precision is not None and options.precision not in ("bf16", "fp32"):
        raise UserError(f"--precision is '{options.precision}'{nearest(options.precision, ['bf16', 'fp32'])}")
    place, name = _parts(target)
    if place.names(name) and not options.overwrite:
        raise UserError(f"{target} is there already: give another folder with --to, or --overwrite")
    place.make_folder()
    done = export_checkpoint(run_folder, config, options.checkpoint, options.precision, place, name, _say)
    write_card(run_folder, place / name, done.step, done.precision)
    _say(f"model of update {done.step} in {done.precision}: {target}")


def _parts(target: str) -> tuple[Storage, str]:
    """The folder that a new folder goes into, and its name."""
    from pathlib import Path

    from recipes.storage import Storage

    if "://" in target:
        parent, _, name = target.rstrip("/").rpartition("/")
        return Storage(parent), name
    return Storage(Path(target).absolute().parent), Path(target).absolute().name


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
