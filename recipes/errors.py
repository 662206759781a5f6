"""Errors told in one clear line, without a traceback: the user's to mend (exit code 2), or a fault (1)."""


class UserError(Exception):
    """A wrong input. The message names the field or file, the value and the way out.

    Several problems found together are joined by line breaks, one line each.
    """


class StorageError(UserError):
    """A path that cannot be read or written."""


class RunFailed(Exception):
    """Ray or its workers failed. user: whether the cause is a wrong input (exit code 2) rather than a fault (1)."""

    def __init__(self, message: str, user: bool = False):
        super().__init__(message)
        self.user = user


def first_line(error: BaseException | None) -> str:
    """Of an error's message."""
    return (str(error).strip() or "no message").splitlines()[0]


def nearest(name: str, known: list[str]) -> str:
    """``", did you mean 'x'?"`` for the known name closest to ``name``, else the known names."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f", did you mean '{close[0]}'?"
    return f" (known: {', '.join(sorted(known))})"
