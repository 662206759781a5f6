"""What all commands of the recipe have in common: how they end."""

from __future__ import annotations

import sys
from collections.abc import Callable

from recipes.errors import RunFailed, UserError

_OURS = ("recipes", "lrsched")


def exit_code(work: Callable[[], int]) -> int:
    """Of the command, with one line where it fails: as ``work`` says, 1 a fault, 2 a wrong input, 130 Ctrl-C."""
    try:
        return work()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except RunFailed as error:
        print(error, file=sys.stderr)
        return 2 if error.user else 1
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in _OURS:
            raise
        print(
            f"{sys.executable} has no {missing}: pip install -c requirements.lock '.[train]' there, or use the Python that has it",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
