"""What all commands of the recipe have in common: how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from recipes.errors import RunFailed, UserError
from recipes.launching.signals import Interrupted

_OURS = ("recipes", "lrsched")


def exit_code(work: Callable[[], int]) -> int:
    """Of the command, with one line where it fails: as ``work`` says, 1 a fault, 2 a wrong input, 130 Ctrl-C.

    Does not return where a call of Ray's has not: Python would wait for it, or crash in it.
    """
    code = _exit_code(work)
    launching = sys.modules.get("recipes.launching.ray_cluster")
    if launching is not None and launching.joins_cluster() and launching.waits_in_ray():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _exit_code(work: Callable[[], int]) -> int:
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
    except Interrupted as stop:
        print(f"stopped{stop.way_on}", file=sys.stderr)
        return 128 + stop.signum
