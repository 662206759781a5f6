"""Arithmetic that is the same, to the last bit, for one number and for a NumPy array.

``+ - * /`` and comparisons are exact IEEE operations in both worlds. cos, log and powers are
not: NumPy's vectorised ones may differ from the C library's in the last bit. So arrays go
through ``math`` element by element here (0.1 s for a million), and ``lr(array)[i]`` equals
``lr(k)`` exactly. NumPy is imported only when an array turns up: it costs more time to import
than all the rest of this library.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Union

from lrsched.errors import ScheduleError

if TYPE_CHECKING:
    import numpy as np

Steps = Union[int, "np.ndarray"]  # numbers of updates, never negative
Values = Union[float, "np.ndarray"]

# Beyond 2**53 whole numbers are no longer exact as floats.
LARGEST_LENGTH = 2**53


def as_steps(k: Any) -> Steps:
    """``k`` as a Python int or an int64 array; ScheduleError for anything else or below 0."""
    if type(k) is int:
        if k < 0:
            raise ScheduleError("k", f"{k} is negative", "k counts the updates already made, from 0")
        return k
    dtype = getattr(k, "dtype", None)
    if getattr(k, "ndim", 0) > 0 or (dtype is not None and type(k).__name__ == "ndarray"):
        return _as_step_array(k)
    if isinstance(k, bool) or (dtype is not None and dtype.kind == "b"):
        raise ScheduleError("k", f"{k!r} is not a number of updates", "give an int")
    try:
        return as_steps(operator.index(k))
    except TypeError:
        raise ScheduleError(
            "k", f"{k!r} is not a whole number of updates", "give an int or an integer NumPy array"
        ) from None


def _as_step_array(k: Any) -> np.ndarray:
    import numpy as np

    if not isinstance(k, np.ndarray) or k.dtype.kind not in "iu":
        raise ScheduleError(
            "k",
            f"an array of {getattr(k, 'dtype', type(k).__name__)} is not a number of updates",
            "give an integer NumPy array",
        )
    if k.size and (k.dtype.kind == "i" and int(k.min()) < 0):
        raise ScheduleError("k", f"{int(k.min())} is negative", "k counts the updates already made, from 0")
    if k.size and int(k.max()) > np.iinfo(np.int64).max:
        raise ScheduleError("k", f"{int(k.max())} does not fit int64", "give such a k as an int")
    # One wide type: k - W in int8 or uint64 would wrap around.
    return k.astype(np.int64)


def _elementwise(function: Callable[[Any], float], x: Any) -> np.ndarray:
    import numpy as np

    values = np.fromiter(map(function, x.ravel().tolist()), dtype=np.float64, count=x.size)
    return values.reshape(x.shape)


def cos_pi(x: Values) -> Values:
    """cos(pi x); exactly 1 at x=0 and exactly -1 at x=1."""
    if isinstance(x, float):
        return math.cos(math.pi * x)
    return _elementwise(math.cos, math.pi * x)


def log(x: Steps) -> Values:
    """The natural logarithm of a whole number >= 1."""
    return math.log(x) if isinstance(x, int) else _elementwise(math.log, x)


def power(base: float, exponent: Steps) -> Values:
    """``base ** exponent`` for 0 < base <= 1 and a whole exponent >= 0."""
    if isinstance(exponent, int):
        # 0.9999999999999999 ** 2**64 is already 0.0; larger ints would not fit a float.
        return base ** min(exponent, 2**64)
    return _elementwise(lambda n: base**n, exponent)


def at_most(x: Any, limit: Any) -> Any:
    """The smaller of the two."""
    if isinstance(x, (int, float)):
        return min(x, limit)
    import numpy as np

    return np.minimum(x, limit)


def at_least(x: Any, limit: Any) -> Any:
    """The larger of the two."""
    if isinstance(x, (int, float)):
        return max(x, limit)
    import numpy as np

    return np.maximum(x, limit)


def between(low: float, high: float, part: Values) -> Values:
    """``low + (high - low) * part``, exactly ``low`` at part 0 and ``high`` at part 1.

    Needs low <= high and 0 <= part <= 1. The result never leaves [low, high] and never falls
    as ``part`` grows; the plain formula may miss ``high`` by one rounding.
    """
    if isinstance(part, float):
        return high if part >= 1.0 else min(low + (high - low) * part, high)
    import numpy as np

    return np.where(part >= 1.0, high, np.minimum(low + (high - low) * part, high))
