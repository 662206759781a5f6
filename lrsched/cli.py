"""The command ``lrsched``: look at a schedule without training.

    lrsched table SPEC [--steps A:B:C]      CSV "step,lr", every digit
    lrsched plot SPEC [SPEC ...] [-o FILE]  in the terminal, or as a PNG
    lrsched compare SPEC                    beside what other libraries give for the same request
    lrsched verify [SPEC]                   the proof, on the installed libraries
    lrsched convert SPEC --to LIBRARY       the scheduler block, arguments or code of a library
    lrsched import --from LIBRARY FILE      the schedule that a library's config really applies

SPEC is a YAML or JSON file that holds a schedule, or a config with a ``schedule:`` block; ``-``
is standard input. Exit code 2 and one line on stderr for bad input, 1 when ``verify`` finds a
library that applies something else.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from lrsched.errors import ScheduleError
from lrsched.schedule import Schedule


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    args = _parser().parse_args(argv)
    try:
        code = args.run(args) or 0
        sys.stdout.flush()
        return code
    except ScheduleError as error:
        print(f"lrsched: {str(error).replace(chr(10), ' | ')}", file=sys.stderr)
        return 2
    except UnicodeEncodeError:
        print("lrsched: this terminal's encoding has no Braille dots; write a PNG with -o", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would complain once more when it
        # flushes stdout at exit; so stdout leads nowhere from here.
        _forget_stdout()
    except OSError as error:
        _forget_stdout()
        print(f"lrsched: cannot write the output: {error.strerror}", file=sys.stderr)
        return 2
    return 0


def _forget_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lrsched", description="Look at a learning-rate schedule.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    table = commands.add_parser("table", help='CSV "step,lr" of every update of the run')
    table.add_argument("spec", metavar="SPEC")
    table.add_argument("--steps", metavar="A:B:C", default="::", help="updates A to B-1, every C-th")
    table.set_defaults(run=_table)
    plot = commands.add_parser("plot", help="draw curves in the terminal, or as a PNG")
    plot.add_argument("spec", metavar="SPEC", nargs="+")
    plot.add_argument("-o", "--output", metavar="FILE", help="write this PNG instead")
    plot.set_defaults(run=_plot)
    compare = commands.add_parser("compare", help="beside what other libraries give for the same request")
    compare.add_argument("spec", metavar="SPEC")
    compare.set_defaults(run=_compare)
    verify = commands.add_parser("verify", help="hold the schedules against the installed libraries")
    verify.add_argument("spec", metavar="SPEC", nargs="?")
    verify.set_defaults(run=_verify)
    convert = commands.add_parser("convert", help="what to write for another library, where it is exact")
    convert.add_argument("spec", metavar="SPEC")
    convert.add_argument("--to", required=True, choices=("deepspeed", "transformers", "torch"), dest="library")
    convert.set_defaults(run=_convert)
    reading = commands.add_parser("import", help="the schedule that another library's config really applies")
    reading.add_argument("file", metavar="FILE", help="a DeepSpeed config, or TrainingArguments as JSON or YAML")
    reading.add_argument("--from", required=True, choices=("deepspeed", "transformers"), dest="library")
    reading.add_argument("--peak-lr", type=float, metavar="LR", help="the optimizer's learning rate")
    reading.add_argument("--total-steps", type=int, metavar="N", help="optimizer updates of the run")
    reading.set_defaults(run=_import)
    for command in (table, plot, compare, verify, convert):
        command.add_argument("--steps-per-epoch", type=float, metavar="N", help="for lengths in epochs")
    return parser


def load(spec: str, steps_per_epoch: float | None) -> Schedule:
    if spec == "-":
        if sys.stdin is None:
            raise ScheduleError("", "standard input is closed", "give a file")
        return Schedule.from_yaml(sys.stdin.read(), steps_per_epoch)
    return Schedule.from_file(spec, steps_per_epoch)


def _table(args: argparse.Namespace) -> None:
    import numpy as np

    schedule = load(args.spec, args.steps_per_epoch)
    start, stop, stride = _range(args.steps, schedule.total_steps)
    print("step,lr")
    # In pieces, so that a long table starts at once.
    for first in range(start, stop, 4096 * stride):
        k = np.arange(first, min(first + 4096 * stride, stop), stride)
        rows = zip(k.tolist(), schedule.lr(k).tolist(), strict=True)
        sys.stdout.write("".join(f"{step},{lr!r}\n" for step, lr in rows))


def _range(text: str, total_steps: int) -> tuple[int, int, int]:
    """A, B and C of "A:B:C"; each may be left out. B may lie past the end of the run."""
    try:
        a, b, c = (int(part) if part else None for part in f"{text}::".split(":")[: max(3, text.count(":") + 1)])
        if ":" not in text:
            raise ValueError(text)
    except ValueError:
        raise ScheduleError("--steps", f"{text!r} is not A:B:C", "write one such as 0:1000:10") from None
    start, stop, stride = a or 0, total_steps if b is None else b, 1 if c is None else c
    if start < 0 or stop < 0 or stride < 1:
        raise ScheduleError("--steps", f"{text!r} is out of range", "A and B from 0, C from 1")
    return start, stop, stride


def _plot(args: argparse.Namespace) -> None:
    from lrsched.plot import save_png, text_plot

    schedules = {spec: load(spec, args.steps_per_epoch) for spec in args.spec}
    if args.output is None:
        print(text_plot(schedules))
    else:
        save_png(schedules, args.output)
        print(f"wrote {args.output}")


def _compare(args: argparse.Namespace) -> None:
    from lrsched.comparison import comparison

    print(comparison(load(args.spec, args.steps_per_epoch)))


def _verify(args: argparse.Namespace) -> int:
    from lrsched.proof.report import verify

    return verify(None if args.spec is None else load(args.spec, args.steps_per_epoch))


def _convert(args: argparse.Namespace) -> None:
    from lrsched.conversion import converted

    print(converted(load(args.spec, args.steps_per_epoch), args.library))


def _import(args: argparse.Namespace) -> None:
    from lrsched.conversion import imported

    print(imported(args.file, args.library, args.peak_lr, args.total_steps), end="")
