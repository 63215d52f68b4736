r"""Where length and correlation end when activations are dropped (Schoenholz et al., 2017, section 5)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxgain.activations import Activation, activation
from jaxgain.theory.critical import root
from jaxgain.theory.fixed_points import FixedPoint, depth, fixed_point
from jaxgain.theory.meanfield import Init, one_init
from jaxgain.theory.pairs import slope_of
from jaxgain.theory.panels import resolve
from jaxgain.theory.quadrature import moments, separation


def dropout_fixed_point(
    phi: "str | Activation | Callable[..., Any]", init: Init, *, dropout: float, q0: float = 1.0
) -> FixedPoint:
    r"""Return the fixed point that a plain network reaches whose activations are dropped with probability `dropout`.

    Those that are kept are divided by $1 - p$, so the length is that of $\sigma_w/\sqrt{1-p}$, and so is
    $\chi_\perp$, by which the mean squared gradient grows. Two inputs, or one input twice, lose different
    activations: their correlation ends at the $c^* < 1$ with $q\,(1 - c) = \sigma_w^2[E(\phi(u) - \phi(v))^2/2 +
    \frac{p}{1-p} E\phi^2]$, whatever the initialization, at the rate `slope` $= \sigma_w^2 E\,\phi'(u)\phi'(v)$, so
    `xi_c` is finite: there is no edge of chaos. `phase` is told by $\chi_\perp$ alone.

    Raises `ValueError` on a probability that is none, an initialization of arrays, a length that vanishes or
    diverges, and as `fixed_point`.

    >>> point = dropout_fixed_point("relu", Init(1.0), dropout=0.5)
    >>> round(point.chi_perp, 12), point.c < 0.5
    (1.0, True)
    """
    if isinstance(dropout, bool) or not isinstance(dropout, int | float | np.number) or not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, a probability, got {dropout!r}")
    sigma_w, _ = one_init(init, "a fixed point with dropout is that")
    phi = resolve(activation(phi))
    point = fixed_point(phi, Init(sigma_w / math.sqrt(1 - dropout), init.sigma_b), q0)
    if dropout == 0 or sigma_w == 0:
        return point
    q = point.q
    if not 0 < q < math.inf:
        raise ValueError(f"with dropout {dropout} and {init!r} the length ends at {q:g}, where there is no correlation")
    m = moments(phi, q)
    least = sigma_w**2 * dropout / (1 - dropout) * m.second.value / q

    def excess(log_x: float) -> float:
        x = math.exp(log_x)
        return math.log((sigma_w**2 * separation(phi, x, q).value / q + least) / x)

    # The correlation map is convex, at least 0 at c = 0 and below 1 at c = 1: it has one fixed point between.
    log_x = 0.0 if excess(0.0) > -1e-12 else root(excess, math.log(least) - 1e-12, 0.0)
    one_minus_c = math.exp(log_x)
    slope = math.nan
    if not phi.jumps:
        slope = sigma_w**2 * (m.slope_second.value - separation(slope_of(phi), one_minus_c, q).value)
    return point._replace(one_minus_c=one_minus_c, slope=slope, xi_c=depth(slope))
