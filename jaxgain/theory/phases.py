"""A fixed point of the length and correlation maps with its phase, as data, and depth scales."""

import math
from typing import Any, NamedTuple

import numpy as np

PHASES = ("ordered", "chaotic", "edge", "collapsing", "diverging", "scale-invariant")
STABILITIES = ("unstable", "half-stable", "stable", "neutral")

NOISE = 1e-13  # of chi, relative
EDGE = 1e-9  # |chi_perp - 1| below which the phase is called the edge


def is_stable(stability: Any) -> Any:
    """Return whether a stability, in words or as a place in `STABILITIES`, or an array of them, is "stable".

    >>> is_stable("stable"), is_stable(np.array([0, 2])).tolist()
    (True, [False, True])
    """
    is_place = np.issubdtype(getattr(stability, "dtype", np.str_), np.integer)
    return stability == (STABILITIES.index("stable") if is_place else "stable")


class FixedPoint(NamedTuple):
    r"""A fixed point q of the length map, with the fixed correlation that it has.

    `one_minus_c` is $1 - c^*$ to all its digits, and `slope` that of the correlation map at $c^*$, which is the
    attracting one in [0, 1]. `xi_q` $= -1/\ln|\chi_\parallel|$, `xi_c` $= -1/\ln$ `slope` and `xi_grad` $=
    -1/\ln\chi_\perp$ are depths in layers: negative where the deviation, or the gradient going back, grows by e
    over so many layers, infinite where it does so slower than exponentially. `stability` is one of `STABILITIES`,
    `basin` the interval of lengths around q that are attracted to it, and `phase` one of `PHASES`.
    `residual` is $|q' - q|/q$.

    For arrays of initializations every field is an array; in traced code `stability` and `phase` are places in
    `STABILITIES` and `PHASES`, and `basin` is NaN.

    At q = 0 every number is the limit from above. Where the length diverges, q is infinite, c is NaN and both chi
    are those of the largest length at which they are known. A jump has infinite $\chi_\perp$ and `xi_grad` = 0.
    """

    q: Any
    one_minus_c: Any
    chi_par: Any
    chi_perp: Any
    slope: Any
    xi_q: Any
    xi_c: Any
    xi_grad: Any
    stability: Any
    basin: Any
    phase: Any
    residual: Any
    converged: Any

    @property
    def c(self) -> Any:
        """The fixed correlation; near 1 its distance from 1 is in `one_minus_c`."""
        return 1 - self.one_minus_c

    @property
    def stable(self) -> Any:
        """Whether the lengths on both sides of q are attracted to it."""
        return is_stable(self.stability)


def depth(factor: float) -> float:
    r"""Return $-1/\ln$ `factor`: over so many layers it multiplies to 1/e; infinite at 1 up to rounding.

    >>> depth(1.0), depth(0.0), round(depth(2.718281828459045), 12)
    (inf, 0.0, -1.0)
    """
    if abs(factor - 1) <= NOISE:
        return math.inf
    return 0.0 if factor == 0 or math.isinf(factor) else -1 / math.log(factor)
