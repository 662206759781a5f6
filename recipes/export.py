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
    parser.add_argument("--push", metavar="NAME", help="upload it to the Hugging Face Hub (HF_ENDPOINT), as user/name")
    parser.add_argument("--private", action="store_true", help="a repository that --push makes is private")
    return parser


def _run(options: argparse.Namespace) -> int:
    from recipes.errors import UserError
    from recipes.evaluation.saved_model import EXPORT
    from recipes.hub import check_push
    from recipes.storage import Storage
    from recipes.training.reexport import read_run_config

    # Or DeepSpeed, which transformers imports, warns where there is no GPU.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if options.private and options.push is None:
        raise UserError("--private needs --push")
    run_folder = Storage(options.run)
    if not run_folder.exists():
        raise UserError(f"{options.run}: there is no such folder")
    config = read_run_config(run_folder)
    if options.push is not None:
        check_push(options.push)
    target = Storage(options.to) if options.to is not None else run_folder / EXPORT
    if _to_be_made(options, target):
        _make(options, run_folder, config, target)
    if options.push is not None:
        _push(target, options.push, options.private)
    return 0


def _to_be_made(options: argparse.Namespace, target: Storage) -> bool:
    """Not where the run's export is there and only to be pushed."""
    asked = (options.checkpoint, options.precision, options.to, options.overwrite or None)
    return options.push is None or asked != (None, None, None, None) or not target.exists("config.json")


def _make(options: argparse.Namespace, run_folder: Storage, config: RunConfig, target: Storage) -> None:
    from recipes.errors import UserError, nearest
    from recipes.reporting.model_card import write_card
    from recipes.training.reexport import export_checkpoint

    if options.precision is not None and options.precision not in ("bf16", "fp32"):
        raise UserError(f"--precision is '{options.precision}'{nearest(options.precision, ['bf16', 'fp32'])}")
    if target.names() and not options.overwrite:
        raise UserError(f"{target} is there already: give another folder with --to, or --overwrite")
    done = export_checkpoint(
        run_folder, config, options.checkpoint, options.precision, target.parent, target.name, _say
    )
    write_card(run_folder, target, done.step, done.precision)
    _say(f"model of update {done.step} in {done.precision}: {target}")


def _push(target: Storage, name: str, private: bool) -> None:
    from recipes.hub import push

    with target.on_this_machine() as folder:
        _say(f"pushed: {push(folder, name, private)}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
