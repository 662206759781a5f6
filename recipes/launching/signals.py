"""Ctrl-C and SIGTERM as an exception, so that all that was started is stopped in order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM; signum says which. way_on: told behind "stopped" where nobody else tells."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum, self.way_on = signum, ""


@contextmanager
def signals_raise() -> Iterator[None]:
    """While the block runs, SIGINT and SIGTERM raise Interrupted once; later ones wait for the clean-up.

    A `ray.wait` or `ray.get` with a timeout raises SystemError instead, because of it; at the end of the block that too is
    Interrupted.
    """
    watched = (signal.SIGINT, signal.SIGTERM)

    def handle(signum: int, frame: Any) -> None:
        for each in watched:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(signum)

    before = {each: signal.signal(each, handle) for each in watched}
    try:
        yield
    except SystemError as error:
        if isinstance(error.__cause__, Interrupted):
            raise error.__cause__ from None
        raise
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
