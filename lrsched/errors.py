"""The errors of this library: one line each, naming the field, the value and the way out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


class ScheduleError(ValueError):
    """A schedule, or a use of one, that makes no sense.

    ``str(error)`` is ``"<field>: <problem>; <way out>"``, one line, with the field as a
    dotted path (``schedule.warmup.steps``).
    """

    def __init__(self, field: str, problem: str, way_out: str = "") -> None:
        # All three go to args so that the error survives pickling between processes.
        super().__init__(field, problem, way_out)
        self.field = field
        self.problem = problem
        self.way_out = way_out

    def __str__(self) -> str:
        head = f"{self.field}: {self.problem}" if self.field else self.problem
        return f"{head}; {self.way_out}" if self.way_out else head

    def under(self, where: str) -> ScheduleError:
        """The same error with ``where`` in front of its dotted path."""
        return ScheduleError(dotted(where, self.field), self.problem, self.way_out)

    def renamed(self, old: str, new: str) -> ScheduleError:
        """The same error with one part of its dotted path, ``old``, called ``new``."""
        parts = [new if part == old else part for part in self.field.split(".")]
        return ScheduleError(".".join(parts), self.problem, self.way_out)


class NotExpressible(ScheduleError):
    """No scheduler of a library applies this schedule exactly.

    ``k`` is the first update where the closest one differs, ``wanted`` is lr(k), ``native`` what
    the library would train with, ``block`` that closest one: a DeepSpeed scheduler block, or
    transformers' TrainingArguments fields. ``library``: "DeepSpeed" or "transformers".
    """

    def __init__(self, k: int, wanted: float, native: float, block: dict[str, Any], library: str = "DeepSpeed") -> None:
        if library == "transformers":
            nothing, closest = "no scheduler of transformers", f"the closest ({block['lr_scheduler_type']})"
            way_out = "hand the torch form to Trainer(optimizers=(optimizer, schedule.to_torch(optimizer)))"
        else:
            nothing, closest = f"no native {library} scheduler", f"the closest native form ({block['type']})"
            way_out = "use backend: torch (or auto), which applies the schedule exactly"
        problem = f"{nothing} applies this schedule: at update k={k} it asks for {wanted!r}, {closest} would train"
        ScheduleError.__init__(self, "", f"{problem} with {native!r}", way_out)
        self.args = (k, wanted, native, block, library)
        self.k = k
        self.wanted = wanted
        self.native = native
        self.block = block
        self.library = library


def dotted(where: str, field: str) -> str:
    """``where`` and ``field`` joined by a dot; either may be empty."""
    return f"{where}.{field}" if where and field else where or field


class ScheduleErrors(ScheduleError):
    """Several errors found together; its text has one line for each."""

    def __init__(self, errors: Sequence[ScheduleError]) -> None:
        ScheduleError.__init__(self, errors[0].field, errors[0].problem, errors[0].way_out)
        self.args = (tuple(errors),)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)

    def under(self, where: str) -> ScheduleError:
        return ScheduleErrors([error.under(where) for error in self.errors])

    def renamed(self, old: str, new: str) -> ScheduleError:
        return ScheduleErrors([error.renamed(old, new) for error in self.errors])


def joined(errors: Sequence[ScheduleError]) -> ScheduleError:
    """One error out of several."""
    flat = [one for error in errors for one in getattr(error, "errors", (error,))]
    return flat[0] if len(flat) == 1 else ScheduleErrors(flat)


def need(module: str, what: str) -> None:
    """ScheduleError unless a library that ``what`` needs is installed."""
    import importlib

    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ScheduleError(what, f"needs {module}, which is not installed", f"pip install {module}") from None


def unknown(what: str, word: Any, known: Iterable[str]) -> tuple[str, str]:
    """Problem and way out for a word that is not among the known ones."""
    import difflib  # needed only once something is wrong

    known = list(known)
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {word!r}", f"{hint}known: {', '.join(known)}"
