"""Look at the cluster a run would use: ``python -m recipes.doctor [CONFIG] [key=value ...]``."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from recipes.command import exit_code


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 a run can rely on it, 1 something is wrong with it, 2 a wrong input, 130 Ctrl-C."""
    options = _parser().parse_intermixed_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.doctor",
        description="What is right and what is wrong with the cluster that RAY_ADDRESS names, or with this machine.",
    )
    parser.add_argument("config", nargs="?", help="YAML file of a run: also checks its storage, workers and GPUs")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as scaling.num_workers=16")
    return parser


def _run(options: argparse.Namespace) -> int:
    from recipes.clusters.examination import examine
    from recipes.config import ScalingBlock
    from recipes.config_file import load_config
    from recipes.launching.chatter import chatter
    from recipes.launching.ray_cluster import ray_cluster
    from recipes.launching.signals import signals_raise
    from recipes.storage import Storage

    scaling, place = ScalingBlock(), None
    if options.config is not None:
        config = load_config(options.config, options.overrides)
        scaling, place = config.scaling, Storage(config.run.storage_path)
    # Kept from before Ray's chatter is led away.
    say = partial(print, file=sys.stderr, flush=True)
    with chatter(), signals_raise(), ray_cluster(scaling, say, check_room=False):
        found = examine(scaling, place)
    width = max(len(each.subject) for each in found)
    for each in found:
        print(f"{each.level:4}  {each.subject:{width}}  {each.found}")
        if each.remedy:
            print(f"{'':{width + 6}}  -> {each.remedy}")
    bad = sum(each.level == "bad" for each in found)
    print(f"{bad} of {len(found)} checks failed" if bad else f"all {len(found)} checks passed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
