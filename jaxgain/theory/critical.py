r"""Critical initializations: $\chi_\parallel = \chi_\perp = 1$ at a fixed point of the length map.

The classes are those of Roberts, Yaida and Hanin, *The Principles of Deep Learning Theory* (2022), chapter 5.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..activations import Activation, activation, value_and_slope
from .meanfield import Init
from .panels import resolve
from .quadrature import NotFinite, moments

# Lengths at which a sign change is looked for. As functions of ln q the moments are averages over ln|z|, whose width is
# about 1, so that nothing happens between two lengths a factor of 2 apart.
_LENGTHS = 2.0 ** np.arange(-20, 21)


@dataclass(frozen=True)
class Critical:
    r"""A critical initialization, with its class and the reason for it.

    `init` and the length `q` it preserves: for "scale-invariant" every length is preserved, and q is 1; for "K*=0"
    $\sigma_b = 0$ and the length falls to 0 slower than any exponential, so q is 0; for "half-stable"
    $\sigma_b > 0$ and lengths below q are attracted to it, lengths above leave it, or the other way around. For "none" `init` and
    q are the best substitute that `reason` names, or None and NaN where there is not even that. `error` estimates
    the absolute error of `init.sigma_w`.
    """

    init: Init | None
    q: float
    kind: str
    reason: str
    error: float


def critical_init(phi: "str | Activation | Callable[..., Any]") -> Critical:
    r"""Return the initialization at which signals and gradients neither grow nor shrink exponentially with depth.

    $\sigma_w$, $\sigma_b$ and q with $q = \sigma_w^2 E\phi^2 + \sigma_b^2$ and $\chi_\perp = \chi_\parallel = 1$,
    where $x = \sqrt q z$, $\chi_\perp = \sigma_w^2 E\phi'^2$, $\chi_\parallel = \sigma_w^2\, dE\phi^2/dq$
    (Roberts, Yaida and Hanin, 2022). "scale-invariant": phi is linear on either side of 0. "K*=0": the fixed point is
    q = 0, where $\sigma_w^2 = 2/(\phi'(0^+)^2 + \phi'(0^-)^2)$. "half-stable": at some q > 0. "none": nowhere.

    Raises as `activation` does on what is no activation.

    >>> relu, gelu = critical_init("relu"), critical_init("gelu")
    >>> relu.kind, round(relu.init.sigma_w**2, 12), gelu.kind, round(gelu.q, 10)
    ('scale-invariant', 2.0, 'half-stable', 3.5615528128)
    """
    return _critical_init(resolve(activation(phi)))


@functools.lru_cache(maxsize=512)
def _critical_init(phi: Activation) -> Critical:
    if _jumps(phi):
        return Critical(
            None,
            math.nan,
            "none",
            f"{phi.name} jumps, so chi_perp is infinite for every sigma_w > 0: two inputs, however near, are told apart "
            "at once; there is no substitute",
            math.nan,
        )
    (value_below, slope_below), (value_above, slope_above) = sides(phi)
    mean_square = (slope_below**2 + slope_above**2) / 2
    at_zero = value_below == value_above == 0 and mean_square > 0
    if at_zero and _is_scale_invariant(phi, slope_below, slope_above):
        sigma_w = 1 / math.sqrt(mean_square)
        return Critical(
            Init(sigma_w),
            1.0,
            "scale-invariant",
            f"{phi.name} is linear on either side of 0, with slopes {slope_below:.6g} and {slope_above:.6g}: "
            "every length is preserved at sigma_w^2 = 2/(sum of the squared slopes)",
            4e-16 * sigma_w,
        )
    if at_zero and _falls(phi, 1 / mean_square):
        sigma_w = 1 / math.sqrt(mean_square)
        return Critical(
            Init(sigma_w),
            0.0,
            "K*=0",
            f"phi(0) = 0, and at sigma_w = {sigma_w:.6g}, where chi_par = chi_perp = 1 at q = 0, every small length falls "
            "towards 0, slower than exponentially",
            4e-16 * sigma_w,
        )
    return _half_stable(phi) or _none(phi)


def _jumps(phi: Activation) -> bool:
    if phi.jumps:
        return True
    try:
        return math.isinf(moments(phi, 1.0).slope_second.value)
    except NotFinite:
        return False


def sides(phi: Activation) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return (phi, phi') just below 0 and just above it, in float64."""
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        values, slopes = value_and_slope(phi, jnp.asarray([-1e-100, 1e-100], jnp.float64))
        values, slopes = np.asarray(values, np.float64), np.asarray(slopes, np.float64)
    # phi(1e-100) is phi(0): what is left of it in an odd function is the length of the step.
    values = np.where(np.abs(values) < 1e-90, 0.0, values)
    return (float(values[0]), float(slopes[0])), (float(values[1]), float(slopes[1]))


def _is_scale_invariant(phi: Activation, below: float, above: float) -> bool:
    """Return whether phi is linear on either side of 0, seen at 161 points from 1e-6 to 1e6 on each."""
    x = np.logspace(-6, 6, 161)
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        right = np.asarray(phi(jnp.asarray(x, jnp.float64)), np.float64)
        left = np.asarray(phi(jnp.asarray(-x, jnp.float64)), np.float64)
    scale = max(abs(below), abs(above))
    return bool(np.all(np.abs(right - above * x) <= 1e-13 * scale * x) and np.all(np.abs(left + below * x) <= 1e-13 * scale * x))


def _falls(phi: Activation, sigma_w2: float) -> bool:
    """Return whether small lengths fall at the sigma_w with chi_perp = 1 at q = 0.

    Judged at the smallest length where the change exceeds rounding: hard_tanh is exactly linear until q is about 0.03.
    """
    for q in 2.0 ** np.arange(-26, 11):
        second = moments(phi, q).second
        growth, noise = sigma_w2 * second.value / q - 1, sigma_w2 * second.error / q
        if abs(growth) > 1e-9 + 10 * noise:
            return growth < 0
    return False


def _half_stable(phi: Activation) -> Critical | None:
    """Return the initialization with chi_par = chi_perp = 1 at the smallest q > 0 that a sigma_b >= 0 makes fixed."""

    def excess(q: float) -> tuple[float, float]:
        m = moments(phi, q)
        ratio = m.length_slope.value / m.slope_second.value - 1
        return ratio, (m.length_slope.error + abs(1 + ratio) * m.slope_second.error) / m.slope_second.value

    for lower, upper in _sign_changes(excess):
        q = root(lambda q: excess(q)[0], lower, upper)
        m = moments(phi, q)
        sigma_w2 = 1 / m.slope_second.value
        sigma_b2 = q - m.second.value * sigma_w2
        if sigma_b2 < 0:
            continue
        init = Init(math.sqrt(sigma_w2), math.sqrt(sigma_b2))
        # How far q may be off, from how well the excess is known, and sigma_w with it.
        tilt = abs(excess(1.01 * q)[0] - excess(0.99 * q)[0]) / (0.02 * q)
        off = 4e-16 * q + excess(q)[1] / tilt
        slope = abs(moments(phi, 1.01 * q).slope_second.value - moments(phi, 0.99 * q).slope_second.value) / (0.02 * q)
        error = init.sigma_w * (slope * off + m.slope_second.error) * sigma_w2 / 2
        reason = (
            f"chi_par = chi_perp = 1 at q = {q:.10g} with sigma_w = {init.sigma_w:.10g} and sigma_b = {init.sigma_b:.10g}: "
            "lengths on one side of q are attracted to it, on the other they leave; without sigma_b the signal vanishes"
        )
        return Critical(init, q, "half-stable", reason, error)
    return None


def _none(phi: Activation) -> Critical:
    """Return the reason why there is no critical point, with the nearest thing: chi_perp = 1 at a stable length."""

    def bias(q: float) -> tuple[float, float]:
        m = moments(phi, q)  # sigma_b^2/q where chi_perp = 1 and q is a fixed point
        ratio = m.second.value / m.slope_second.value / q
        return 1 - ratio, ratio * (m.second.error / m.second.value + m.slope_second.error / m.slope_second.value)

    edges = []
    for lower, upper in _sign_changes(bias):
        q = root(lambda q: bias(q)[0], lower, upper)
        m = moments(phi, q)
        edges.append((m.length_slope.value / m.slope_second.value, q, m))
    stable = [edge for edge in edges if abs(edge[0]) < 1]
    if stable:
        chi_par, q, m = max(stable, key=lambda edge: edge[0])
        sigma_w = 1 / math.sqrt(m.slope_second.value)
        reason = (
            f"chi_par and chi_perp of {phi.name} are nowhere both 1 with sigma_b >= 0; the best substitute is sigma_w = "
            f"{sigma_w:.10g}, sigma_b = 0: chi_perp = 1 at its stable length q = {q:.8g}, where chi_par = {chi_par:.6g}"
        )
        return Critical(Init(sigma_w), q, "none", reason, sigma_w * 1e-14)
    m = moments(phi, 1.0)
    if m.second.value == 0:
        return Critical(None, math.nan, "none", f"{phi.name} is 0: no signal passes", math.nan)
    fixed = any(bias(q)[0] > 1e-9 for q in _finite_lengths(bias))
    why = (
        "where chi_perp = 1 the length is not stable"
        if fixed
        else "q - E phi^2/E phi'^2, which sigma_b^2 would have to be, is negative for every q"
    )
    return Critical(
        None,
        math.nan,
        "none",
        f"{phi.name} has no critical point: {why}; the nearest substitute is the forward gain at q = 1, "
        f"sigma_w = {1 / math.sqrt(m.second.value):.10g}, where chi_perp = {m.slope_second.value / m.second.value:.6g} "
        f"and chi_par = {m.length_slope.value / m.second.value:.6g}",
        math.nan,
    )


def _finite_lengths(function: Callable[[float], tuple[float, float]]) -> list[float]:
    """Return the lengths of the scan at which `function` has a value."""
    lengths = []
    for q in _LENGTHS.tolist():
        try:
            value, _ = function(q)
        except (NotFinite, ZeroDivisionError):
            continue
        if math.isfinite(value):
            lengths.append(q)
    return lengths


def _sign_changes(function: Callable[[float], tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the brackets between which the function's sign changes, at both ends beyond its error.

    The scan returns rounding noise where the function is 0 over an interval, as it is for piecewise linear phi.
    """
    sure = [(q, value) for q in _finite_lengths(function) for value, error in [function(q)] if abs(value) > 1e-12 + 10 * error]
    return [(a, b) for (a, fa), (b, fb) in zip(sure, sure[1:], strict=False) if fa * fb < 0]


def root(function: Callable[[float], float], a: float, b: float) -> float:
    """Return the zero of `function` between a and b, where its signs differ, to the last digits (Chandrupatla, 1997).

    Infinite values are allowed: they halve the bracket.

    >>> round(root(lambda x: x * x - 2, 0.0, 2.0), 14)
    1.4142135623731
    """
    fa, fb = function(a), function(b)
    if fa * fb > 0:
        raise ValueError(f"no sign change between {a!r} and {b!r}")
    c, fc, t = a, fa, 0.5
    for _ in range(200):
        x = a + t * (b - a)
        fx = function(x)
        if (fx > 0) == (fa > 0):
            c, fc = a, fa
        else:
            b, c, fb, fc = a, b, fa, fb
        a, fa = x, fx
        best = a if abs(fa) < abs(fb) else b
        tolerance = 2e-16 * abs(best)
        if fa == 0 or abs(b - a) <= 4 * tolerance:
            return best
        t = 0.5
        if all(map(math.isfinite, (fa, fb, fc))) and fb != fa and fb != fc and fa != fc:
            xi, eta = (a - b) / (c - b), (fa - fb) / (fc - fb)
            if eta**2 < xi and (1 - eta) ** 2 < 1 - xi:  # inverse quadratic interpolation can be trusted
                t = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        t = min(1 - tolerance / abs(b - a), max(tolerance / abs(b - a), t))
    return best
