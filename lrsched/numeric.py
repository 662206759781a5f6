"""Arithmetic that is the same, to the last bit, for one number and for a NumPy array.

``+ - * /``, square roots and comparisons are exact IEEE operations in both worlds. cos, log and
powers are not: NumPy's vectorised ones may differ from the C library's in the last bit, and C
libraries differ among themselves. So the half cosine is a polynomial here, evaluated in the same
order in both worlds; powers of gamma are products of two that ``math`` gives; logarithms, which
only a warm-up needs, go through ``math`` one by one. ``lr(array)[i]`` therefore equals ``lr(k)``
exactly. NumPy is imported only when an array turns up: it costs more time to import than all the
rest of this library.
"""

from __future__ import annotations

import functools
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
# The largest k of an array.
LARGEST_K = 2**63 - 1
# What a whole number may be at most and still be turned into a float.
_LARGEST_FLOAT = 2**1000


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


# sin(pi q / 2) = q * (S[0] + S[1] u + S[2] u**2 + ...) with u = q**2: the Taylor series, whose first
# term left out is below 1e-19 for q <= 1/2.
_S0, _S1, _S2, _S3, _S4, _S5, _S6, _S7, _S8 = (
    (-1) ** n * (math.pi / 2) ** (2 * n + 1) / math.factorial(2 * n + 1) for n in range(9)
)


def half_cosine(p: Values) -> Values:
    """(1 + cos(pi p)) / 2 for 0 <= p <= 1; exactly 1 at p=0 and exactly 0 at p=1.

    Within 2.3e-16 of the true value, and within a few roundings of it relatively near p=1, where
    the textbook formula loses all its digits.
    """
    if isinstance(p, float):
        q = p if p <= 0.5 else 1.0 - p
        u = q * q
        s = q * (_S0 + u * (_S1 + u * (_S2 + u * (_S3 + u * (_S4 + u * (_S5 + u * (_S6 + u * (_S7 + u * _S8))))))))
        return 1.0 - s * s if p <= 0.5 else s * s
    import numpy as np

    q = np.minimum(p, 1.0 - p)
    u = q * q
    s = u * _S8
    for coefficient in (_S7, _S6, _S5, _S4, _S3, _S2, _S1):
        s += coefficient
        s *= u
    s += _S0
    s *= q
    s *= s
    return np.where(p <= 0.5, 1.0 - s, s)


def log(x: Steps) -> Values:
    """The natural logarithm of a whole number >= 1."""
    return math.log(x) if isinstance(x, int) else _elementwise(math.log, x)


def sqrt(x: Values) -> Values:
    """The square root, correctly rounded in both worlds."""
    if isinstance(x, float):
        return math.sqrt(x)
    import numpy as np

    return np.sqrt(x)


# Exponents are split at this power of two.
_LOW_BITS = 12


def power(base: float, exponent: Steps) -> Values:
    """``base ** exponent`` for 0 < base <= 1 and a whole exponent >= 0."""
    if isinstance(exponent, int):
        # 0.9999999999999999 ** 2**64 is already 0.0; larger ints would not fit a float.
        exponent = min(exponent, 2**64)
        low = exponent & ((1 << _LOW_BITS) - 1)
        return base**low * base ** (exponent - low)
    import numpy as np

    if not exponent.size:
        return np.ones(exponent.shape)
    high = exponent >> _LOW_BITS
    first, last = int(high.min()), int(high.max())
    if last - first < 1 << _LOW_BITS:
        highs = np.array([base ** (n << _LOW_BITS) for n in range(first, last + 1)])[high - first]
    else:
        highs = _elementwise(lambda n: base ** (n << _LOW_BITS), high)
    return _low_powers(base)[exponent & ((1 << _LOW_BITS) - 1)] * highs


@functools.lru_cache(maxsize=8)
def _low_powers(base: float) -> np.ndarray:
    import numpy as np

    return np.array([base**n for n in range(1 << _LOW_BITS)])


def part_power(part: Values, exponent: float) -> Values:
    """``part ** exponent`` for 0 <= part <= 1; quick for arrays at 0.5, 1, 1.5, 2 and so on to 4."""
    if exponent <= 4.0 and exponent * 2.0 == int(exponent * 2.0):
        product = sqrt(part) if exponent % 1.0 else part
        for _ in range(math.ceil(exponent) - 1):
            product = product * part
        return product
    return part**exponent if isinstance(part, float) else _elementwise(lambda x: x**exponent, part)


def as_float(x: Steps, more: int) -> Values:
    """``x + more`` as a float."""
    if isinstance(x, int):
        return float(min(x, _LARGEST_FLOAT)) + more
    return x.astype("float64") + more


def joined(k: Steps, boundary: int, before: Callable[[Steps], Values], after: Callable[[Steps], Values]) -> Values:
    """``before(k)`` where k < boundary, ``after(k - boundary)`` from there on."""
    if isinstance(k, int):
        return before(k) if k < boundary else after(k - boundary)
    import numpy as np

    early = k < boundary
    if not early.any():
        return after(k - boundary)
    if early.all():
        return before(k)
    values = np.empty(k.shape, np.float64)
    values[early] = before(k[early])
    late = ~early
    values[late] = after(k[late] - boundary)
    return values


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
