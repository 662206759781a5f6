"""Compare runs: ``python -m recipes.compare RUN RUN ... [--out page.html]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from recipes.command import exit_code


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 a wrong input."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.compare",
        description="Curves, differing settings, final numbers and the best of several runs, finished or not. Reads only.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder or URI of a run, or a pattern such as 'runs/*'")
    parser.add_argument("--out", metavar="FILE", help="write a page with all curves, such as comparison.html")
    parser.add_argument("--json", action="store_true", help="print everything but the curves as JSON")
    return parser


def _run(options: argparse.Namespace) -> int:
    from recipes.comparing.findings import compare
    from recipes.comparing.page import as_json, render
    from recipes.comparing.runs import find_runs
    from recipes.comparing.words import as_text
    from recipes.errors import StorageError, UserError

    if options.out is not None and Path(options.out).is_dir():
        raise UserError(
            f"--out {options.out}: is a folder; give a file, such as {options.out.rstrip('/')}/comparison.html"
        )
    runs, left_out = find_runs(options.runs)
    for line in left_out:
        print(line, file=sys.stderr)
    findings = compare(runs)
    print(as_json(findings) if options.json else as_text(findings))
    if options.out is not None:
        try:
            Path(options.out).write_text(render(runs, findings), encoding="utf-8")
        except OSError as error:
            raise StorageError(f"--out {options.out}: cannot be written: {error.strerror}") from None
        print(f"page: {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
