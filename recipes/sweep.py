"""Sweep over schedules: ``python -m recipes.sweep CONFIG [key=value ...] [--dry-run]``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from typing import TYPE_CHECKING

from recipes.command import exit_code

if TYPE_CHECKING:
    from recipes.sweeping.conduct import Sweep


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 a fault or no trial finished, 2 a wrong input, 130 Ctrl-C, 143 SIGTERM."""
    options = _parser().parse_intermixed_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.sweep", description="Find the best learning-rate schedule."
    )
    parser.add_argument("config", help="YAML file, such as recipes/configs/sweep_local.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as sweep.num_trials=8 base.run.seed=3")
    parser.add_argument("--dry-run", action="store_true", help="check everything and print the trials; start nothing")
    return parser


def _run(options: argparse.Namespace) -> int:
    from recipes.launching.claim import claimed
    from recipes.launching.preflight import check_storage
    from recipes.launching.tokenizing import tokenizing_pool
    from recipes.storage import Storage
    from recipes.sweeping.conduct import prepare_sweep
    from recipes.sweeping.sweep_config import load_sweep

    config = load_sweep(options.config, options.overrides)
    check_storage(Storage(config.sweep.storage_path), dry_run=options.dry_run)
    if options.dry_run:
        from recipes.sweeping.dry_run import describe_sweep

        with tempfile.TemporaryDirectory(prefix="dry_run_") as temporary:
            print(describe_sweep(prepare_sweep(config, _say, data_storage=Storage(temporary))))
        return 0
    with claimed(Storage(config.sweep.storage_path) / config.sweep.name):
        say = partial(print, file=sys.stderr, flush=True)
        return _sweep(prepare_sweep(config, say, pool_of=tokenizing_pool(config.base.scaling, say)))


def _sweep(sweep: Sweep) -> int:
    from recipes.errors import RunFailed
    from recipes.launching.signals import Interrupted
    from recipes.sweeping.conduct import conduct
    from recipes.sweeping.results import say_answer, write_results

    code, last_words, answer = 0, "", None
    try:
        if sweep.is_over:
            _say(f"{sweep.folder} is finished: nothing left to run")
        else:
            answer = conduct(sweep, sys.stderr)
    except RunFailed as failure:
        code, last_words = (2 if failure.user else 1), str(failure)
    except Interrupted as stop:
        code = 128 + stop.signum
        last_words = f"stopped; the same command with sweep.resume=auto goes on with {sweep.folder}"
    answer = answer or sweep.answer()
    if answer.trials:
        write_results(sweep, answer)
        _say(f"report: {sweep.folder}/report.html")
    if not code and answer.winner is None:
        failed = next((run for run in answer.trials if run.state == "failed"), None)
        code, last_words = 1, "no trial finished" + (f"; {failed.name} failed: {failed.message}" if failed else "")
    _say(last_words or say_answer(sweep, answer))
    return code


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
