"""Train a T5: ``python -m recipes.train CONFIG [key=value ...] [--dry-run]``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from functools import partial
from typing import TYPE_CHECKING

from recipes.command import exit_code

if TYPE_CHECKING:
    from recipes.storage import Storage
    from recipes.training.job import Job

_STARTED_AT = time.time()


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 a fault while training, 2 a wrong input, 130 Ctrl-C, 143 SIGTERM."""
    options = _parser().parse_intermixed_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m recipes.train", description="Train a T5 with DeepSpeed on Ray.")
    parser.add_argument("config", help="YAML file, such as recipes/configs/local.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as schedule.peak_lr=3e-4")
    parser.add_argument("--dry-run", action="store_true", help="check everything and print the plan; start nothing")
    return parser


def _run(options: argparse.Namespace) -> int:
    from recipes.config_file import load_config
    from recipes.launching.claim import claimed
    from recipes.launching.preflight import check_resume, check_storage, prepare
    from recipes.launching.tokenizing import tokenizing_pool
    from recipes.storage import Storage

    config = load_config(options.config, options.overrides)
    check_storage(Storage(config.run.storage_path), dry_run=options.dry_run)
    if options.dry_run:
        from recipes.launching.dry_run import describe_run

        with tempfile.TemporaryDirectory(prefix="dry_run_") as temporary:
            job, data, plan = prepare(config, _say, started_at=_STARTED_AT, data_storage=Storage(temporary))
            print(describe_run(job, data, plan, check_resume(job)))
        return 0
    with claimed(Storage(config.run.storage_path) / config.run.name):
        say = partial(print, file=sys.stderr, flush=True)
        job, _, _ = prepare(config, say, started_at=_STARTED_AT, pool_of=tokenizing_pool(config.scaling, say))
        start = check_resume(job)
        if start.finished:
            _say(f"{job.run_folder} is finished ({start.step} updates): see {job.run_folder}/report.html")
            return 0
        return _train(job)


def _train(job: Job) -> int:
    from recipes.errors import RunFailed
    from recipes.launching.environment import environment_json
    from recipes.launching.followers import Followers
    from recipes.launching.launch import launch
    from recipes.launching.preflight import write_description
    from recipes.launching.signals import Interrupted
    from recipes.launching.terminal import Terminal

    folder = job.run_folder
    terminal = Terminal(job.schedule.total_steps)
    followers = Followers(job, terminal.say)
    way_on, end = None, ""
    try:
        launch(
            job,
            terminal,
            before_training=lambda: write_description(job, environment_json()),
            hear=followers.hear,
        )
        code, last_words = 0, f"{_early_end(folder)}model: {folder}/export"
    except RunFailed as failure:
        code, last_words = (2 if failure.user else 1), str(failure)
        end = last_words
        way_on = None if failure.user else _way_on(folder)
    except Interrupted as stop:
        code, end = 128 + stop.signum, f"stopped by {stop}"
        last_words = f"stopped; the same command with run.resume=auto goes on from the last checkpoint in {folder}"
    terminal.close()
    if followers.end(code, end):
        _say(f"report: {folder}/report.html")
    if way_on is not None:
        _say(way_on)
    _say(last_words)
    return code


def _early_end(folder: Storage) -> str:
    """Why the run ended before its schedule, if it did."""
    import json

    summary = json.loads(folder.read_text("summary.json"))
    if not summary["stopped_early"]:
        return ""
    return f"{summary['stopped_early']}; exported: update {summary['exported_update']}; "


def _way_on(folder: Storage) -> str:
    from recipes.training.manifest import newest_manifest

    manifest = newest_manifest(folder)
    if manifest is None:
        return "no checkpoint was written yet: the same command with run.resume=auto starts from update 0"
    return f"the same command with run.resume=auto goes on from the checkpoint at update {manifest.step}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
