r"""Fixed points of the length and correlation maps, their depth scales and their phase.

Poole et al., *Exponential expressivity in deep neural networks through transient chaos* (2016); Schoenholz et
al., *Deep information propagation* (2017). Per layer, a deviation of the length shrinks by $\chi_\parallel$, one
of the correlation by the slope of its map, and the mean squared gradient, going back, changes by
$\chi_\perp$.

A root scan over a piecewise linear activation meets rounding noise where a length is preserved exactly: only
values beyond their own error have a sign here.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgain.activations import Activation, activation
from jaxgain.theory.critical import root
from jaxgain.theory.meanfield import Init
from jaxgain.theory.panels import Expectation, resolve, tabulate
from jaxgain.theory.quadrature import Moments, NotFinite, moments, separation

PHASES = ("ordered", "chaotic", "edge", "collapsing", "diverging", "scale-invariant")
STABILITIES = ("unstable", "half-stable", "stable", "neutral")

# Lengths a factor of 2 apart: as functions of ln q the moments are averages over ln(z^2), whose width is above 2.
_LENGTHS = tuple((2.0 ** np.arange(-100, 51)).tolist())
_LARGE = 1e5  # above it a scan ends where the moments are not known to 1e-9
_NOISE = 1e-13  # relative to q, besides the estimated errors
_TINY = 1e-90  # moments at q = 0 are taken at 1e-100: what is below is 0
_EDGE = 1e-9  # |chi_perp - 1| below which the phase is called the edge


class FixedPoint(NamedTuple):
    r"""A fixed point q of the length map, with the fixed correlation that it has.

    `one_minus_c` is $1 - c^*$ to all its digits, and `slope` that of the correlation map at $c^*$, which is the
    attracting one in [0, 1]. `xi_q` $= -1/\ln|\chi_\parallel|$, `xi_c` $= -1/\ln$ `slope` and `xi_grad` $=
    -1/\ln\chi_\perp$ are depths in layers: negative where the deviation, or the gradient going back, grows by e
    over so many layers, infinite where it does so slower than exponentially. `stability` is one of `STABILITIES`,
    `basin` the interval of lengths around q that are attracted to it, and `phase` one of `PHASES`.
    `residual` is $|q' - q|/q$.

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
        return self.stability == "stable"


def fixed_points(phi: "str | Activation | Callable[..., Any]", init: Init) -> tuple[FixedPoint, ...]:
    r"""Return every fixed point $q^* \ge 0$ of the length map, from small to large (Poole et al., 2016).

    $q^* = \sigma_w^2 E\phi(\sqrt{q^*} z)^2 + \sigma_b^2$. Zero is one where $\sigma_b = 0$ and $\phi(0) = 0$. A
    point where the map touches the diagonal is one point, "half-stable". Where every length is preserved, q = 1
    stands for all of them, "neutral". None at all: every length diverges.

    Raises `ValueError` where `init` holds arrays, and where phi is not finite or has no finite expectation.

    >>> [(round(point.q, 9), point.stability) for point in fixed_points("tanh", Init(2**0.5))]
    [(0.0, 'unstable'), (0.61796477, 'stable')]
    """
    phi, sigma_w, sigma_b = _numbers(phi, init)
    return tuple(_fixed_point(phi, sigma_w, sigma_b, found) for found in _found(phi, sigma_w, sigma_b))


def fixed_point(phi: "str | Activation | Callable[..., Any]", init: Init, q0: float = 1.0) -> FixedPoint:
    r"""Return the fixed point that the length reaches from q0, layer by layer (Poole et al., 2016).

    It has an infinite q where the length diverges, and `converged` is false there and where the length neither
    diverges nor settles.

    Raises `ValueError` on a q0 that is negative or not finite, and as `fixed_points`.

    >>> point = fixed_point("tanh", Init(2.5, 0.3))
    >>> round(point.q, 9), round(point.c, 10), round(point.xi_c, 4), point.phase
    (4.079123875, 0.1221037473, 5.1089, 'chaotic')
    """
    phi, sigma_w, sigma_b = _numbers(phi, init)
    if not (isinstance(q0, int | float | np.number) and math.isfinite(q0) and q0 >= 0):
        raise ValueError(f"the first length q0 must be a finite number, not negative, got {q0!r}")
    found, converged = _reached(phi, sigma_w, sigma_b, float(q0))
    if found is None:
        return _diverging(phi, sigma_w)
    return _fixed_point(phi, sigma_w, sigma_b, found)._replace(converged=converged)


def _numbers(phi: Any, init: Init) -> tuple[Activation, float, float]:
    phi = resolve(activation(phi))
    if np.ndim(init.sigma_w) or np.ndim(init.sigma_b):
        raise ValueError(
            f"fixed points are found for one initialization, got {init!r}; for many use phase_diagram, or jax.vmap"
        )
    check_finite(phi)
    return phi, float(init.sigma_w), float(init.sigma_b)


@functools.lru_cache(maxsize=512)
def check_finite(phi: Activation) -> None:
    """Raise `ValueError` unless phi is finite, and its second moment is, at length 1."""
    x = np.linspace(-8.0, 8.0, 4097)
    values = tabulate(phi, x)[0]
    if not np.isfinite(values).all():
        at = x[~np.isfinite(values)]
        raise NotFinite(
            f"{phi.name} must be finite on the real line, but phi({at[np.argmin(abs(at))]:g}) is "
            f"{values[~np.isfinite(values)][np.argmin(abs(at))]:g}; a signal has every sign and size"
        )
    second = moments(phi, 1.0).second
    if second.error > 1e-6 * second.value:
        raise NotFinite(f"E phi^2 of {phi.name} does not converge at q = 1: it may be infinite")


# --- the length ---


class _Found(NamedTuple):
    """A root of the length map, its stability, and the roots on either side of it."""

    q: float
    stability: str
    basin: tuple[float, float]


class _At(NamedTuple):
    """The growth q'/q - 1 at q, and chi_par - 1; the signs are 0 where rounding decides."""

    q: float
    growth: float
    sign: int
    tilt: int


@functools.lru_cache(maxsize=512)
def scan(phi: Activation) -> tuple[tuple[float, Moments], ...]:
    """Return the moments at lengths a factor of 2 apart, and at every extremum of dE phi^2/dq between them.

    As far up as they are known. Between two of these lengths chi_par is monotonic, so that q' - q has no more
    extrema than chi_par - 1 changes its sign: GELU's critical point is missed otherwise.
    """
    found = []
    for q in _LENGTHS:
        try:
            m = moments(phi, q)
        except NotFinite:
            break  # what grows faster than every power: infinite from here on
        if q > _LARGE and m.second.error > 1e-9 * m.second.value:
            break
        found.append((q, m))
    slopes = [(q, m.length_slope) for q, m in found]
    bends = extrema(slopes, lambda q: moments(phi, q).length_slope.value)
    return tuple(sorted([*found, *((q, moments(phi, q)) for q in bends)]))


def extrema(points: Sequence[tuple[float, Expectation]], function: Callable[[float], float]) -> list[float]:
    """Return where `function`, known at the `points`, is larger or smaller than on either side, beyond its errors.

    Golden sections of ln q between the neighbours of every point that is above, or below, both of them.

    >>> points = [(q, Expectation(q * math.exp(-q), 0.0)) for q in (0.25, 0.5, 1.5, 3.0)]
    >>> [round(q, 6) for q in extrema(points, lambda q: q * math.exp(-q))]
    [1.0]
    """
    found = []
    for (low, before), (_, middle), (high, after) in zip(points, points[1:], points[2:], strict=False):
        left, right = middle.value - before.value, middle.value - after.value
        if left * right > 0 and min(abs(left), abs(right)) > 1e-12 * abs(middle.value) + 10 * middle.error:
            found.append(_highest(lambda q, sign=left: math.copysign(1, sign) * function(q), low, high))
    return found


def _highest(function: Callable[[float], float], low: float, high: float) -> float:
    golden = (math.sqrt(5) - 1) / 2
    a, b = math.log(low), math.log(high)
    left, right = b - golden * (b - a), a + golden * (b - a)
    at_left, at_right = function(math.exp(left)), function(math.exp(right))
    while b - a > 1e-8:  # the height is then right to the last digits
        if at_left > at_right:
            b, right, at_right = right, left, at_left
            left = b - golden * (b - a)
            at_left = function(math.exp(left))
        else:
            a, left, at_left = left, right, at_right
            right = a + golden * (b - a)
            at_right = function(math.exp(right))
    return math.exp((a + b) / 2)


def _at(m: Moments, q: float, sigma_w: float, sigma_b: float) -> _At:
    ratio = sigma_w**2 * m.second.value / q
    noise = _NOISE + 10 * sigma_w**2 * m.second.error / q
    growth = ratio - 1 + sigma_b**2 / q
    if abs(ratio - 1) <= noise:
        # Preserved up to rounding: any bias decides.
        sign = 1 if sigma_b else 0
    else:
        sign = 0 if abs(growth) <= noise * max(1.0, ratio) else int(math.copysign(1, growth))
    tilt = sigma_w**2 * m.length_slope.value - 1
    tilt_noise = _NOISE + 10 * sigma_w**2 * m.length_slope.error
    return _At(q, growth, sign, 0 if not abs(tilt) > tilt_noise else int(math.copysign(1, tilt)))


def _profile(phi: Activation, sigma_w: float, sigma_b: float) -> list[_At]:
    """Return the growth along the scan and at every extremum of q' - q, where it may touch 0."""
    profile = [_at(m, q, sigma_w, sigma_b) for q, m in scan(phi)]
    first = sigma_b**2
    if 0 < first < profile[0].q:  # below it no length is fixed
        profile.insert(0, _at(moments(phi, first / 2), first / 2, sigma_w, sigma_b))
    bends = []
    for a, b in itertools.pairwise([point for point in profile if point.tilt]):
        if a.tilt != b.tilt:
            q = root(lambda q: sigma_w**2 * moments(phi, q).length_slope.value - 1, a.q, b.q)
            bends.append(_at(moments(phi, q), q, sigma_w, sigma_b))
    return sorted(profile + bends)


@functools.lru_cache(maxsize=1024)
def _found(phi: Activation, sigma_w: float, sigma_b: float) -> tuple[_Found, ...]:
    """Return the roots with their stability and basins, q = 0 among them where it is one."""
    profile = _profile(phi, sigma_w, sigma_b)
    sure = [point for point in profile if point.sign]
    zero = sigma_b == 0 and not phi.jumps and sigma_w**2 * moments(phi, 0.0).second.value < _TINY
    if not sure:
        every = _Found(1.0, "neutral", (1.0, 1.0))
        return (_Found(0.0, "neutral", (0.0, 0.0)), every) if zero else (every,)
    roots = [(0.0, (0, sure[0].sign))] if zero else []
    for a, b in itertools.pairwise(sure):
        between = [point for point in profile if a.q < point.q < b.q]
        if a.sign != b.sign:
            roots.append((_crossing(phi, sigma_w, sigma_b, a.q, b.q), (a.sign, b.sign)))
        elif between:
            roots.append((min(between, key=lambda point: abs(point.growth)).q, (a.sign, b.sign)))
    return tuple(_labelled(roots))


def _crossing(phi: Activation, sigma_w: float, sigma_b: float, a: float, b: float) -> float:
    def growth(q: float) -> float:
        return _at(moments(phi, q), q, sigma_w, sigma_b).growth

    if b > 4 * a:  # first in the logarithm, where so wide a bracket is short
        near = math.exp(root(lambda u: growth(math.exp(u)), math.log(a), math.log(b)))
        below, above = near * (1 - 1e-12), near * (1 + 1e-12)
        return root(growth, below, above) if growth(below) * growth(above) < 0 else near
    return root(growth, a, b)


def _labelled(roots: list[tuple[float, tuple[int, int]]]) -> list[_Found]:
    """Label roots by the signs of the growth below and above: attracted from below where +, from above where -."""
    labelled = []
    for i, (q, (below, above)) in enumerate(roots):
        low = (roots[i - 1][0] if i else 0.0) if below > 0 else q
        high = (roots[i + 1][0] if i + 1 < len(roots) else math.inf) if above < 0 else q
        sides = (below >= 0 if q == 0 else below > 0) + (above < 0)
        stability = ("unstable", "half-stable", "stable")[sides]
        if q == 0:  # lengths have one side only
            stability = "stable" if above < 0 else "unstable"
        labelled.append(_Found(q, stability, (low, high)))
    return labelled


def _reached(phi: Activation, sigma_w: float, sigma_b: float, q0: float) -> tuple[_Found | None, bool]:
    """Return the root that the recursion reaches from q0, None at infinity, and whether it does reach it.

    d ln E phi^2 / d ln q = E[phi^2 (z^2 - 1)/2] / E phi^2 is at least -1/2. Where the map falls the recursion may
    step over a root, then, but only half as far beyond as it was before: it converges unless there is another root.
    """
    roots = _found(phi, sigma_w, sigma_b)
    q = q0
    for _ in range(1000):
        if roots and roots[0].stability == "neutral":
            return _Found(q, "neutral", (q, q)), True
        here = [found for found in roots if abs(q - found.q) <= 1e-12 * found.q]
        if here:
            return here[0], True
        image = _next(phi, sigma_w, sigma_b, q)
        ahead = sorted((f for f in roots if (f.q - q) * (image - q) > 0), key=lambda found: abs(found.q - q))
        if not ahead:
            return None, False
        low, high = sorted((q, ahead[0].q))
        steps = [sigma_w**2 * m.second.value + sigma_b**2 for at, m in scan(phi) if low <= at <= high]
        if not any((step - found.q) * (image - q) >= 0 for step in [image, *steps] for found in ahead[1:2]):
            return ahead[0], True
        q = image
    return min(roots, key=lambda found: abs(found.q - q)), False


def _next(phi: Activation, sigma_w: float, sigma_b: float, q: float) -> float:
    try:
        return sigma_w**2 * moments(phi, q).second.value + sigma_b**2
    except NotFinite:
        return math.inf


# --- the correlation, and what follows ---


def _fixed_point(phi: Activation, sigma_w: float, sigma_b: float, found: _Found) -> FixedPoint:
    q, m = found.q, moments(phi, found.q)
    chi_par, chi_perp = _chis(m, sigma_w)
    if q == 0:
        chi_par, chi_perp = (0.0 if chi < _TINY else chi for chi in (chi_par, chi_perp))
    one_minus_c, slope = _correlation(phi, sigma_w, q, chi_perp)
    return FixedPoint(
        q=q,
        one_minus_c=one_minus_c,
        chi_par=chi_par,
        chi_perp=chi_perp,
        slope=slope,
        xi_q=depth(abs(chi_par)),
        xi_c=depth(slope),
        xi_grad=depth(chi_perp),
        stability=found.stability,
        basin=found.basin,
        phase=_phase(q, chi_perp, found.stability),
        residual=abs(_next(phi, sigma_w, sigma_b, q) / q - 1) if q else 0.0,
        converged=True,
    )


def _diverging(phi: Activation, sigma_w: float) -> FixedPoint:
    m = scan(phi)[-1][1]
    chi_par, chi_perp = _chis(m, sigma_w)
    depths = {"xi_q": depth(chi_par), "xi_c": math.nan, "xi_grad": depth(chi_perp)}
    return FixedPoint(
        q=math.inf,
        one_minus_c=math.nan,
        chi_par=chi_par,
        chi_perp=chi_perp,
        slope=math.nan,
        **depths,
        stability="unstable",
        basin=(math.inf, math.inf),
        phase="diverging",
        residual=math.inf,
        converged=False,
    )


def _chis(m: Moments, sigma_w: float) -> tuple[float, float]:
    if sigma_w == 0:
        return 0.0, 0.0
    return sigma_w**2 * m.length_slope.value, sigma_w**2 * m.slope_second.value


def _phase(q: float, chi_perp: float, stability: str) -> str:
    if stability == "neutral":
        return "scale-invariant"
    if abs(chi_perp - 1) <= _EDGE:
        return "edge"
    if q == 0 and stability == "stable":
        return "collapsing"
    return "ordered" if chi_perp < 1 else "chaotic"


def depth(factor: float) -> float:
    r"""Return $-1/\ln$ `factor`: over so many layers it multiplies to 1/e; infinite at 1 up to rounding.

    >>> depth(1.0), depth(0.0), round(depth(2.718281828459045), 12)
    (inf, 0.0, -1.0)
    """
    if abs(factor - 1) <= _NOISE:
        return math.inf
    return 0.0 if factor == 0 or math.isinf(factor) else -1 / math.log(factor)


def _correlation(phi: Activation, sigma_w: float, q: float, chi_perp: float) -> tuple[float, float]:
    """Return 1 - c at the attracting fixed correlation in [0, 1], and the slope of the correlation map there.

    The map is convex in c on [0, 1] (its series in c has no negative coefficient), at least 0 at 0 and 1 at 1:
    below 1 it has one fixed point where chi_perp > 1, and none otherwise.
    """
    if q == 0:
        return 0.0, 1.0  # the limit of chi_perp q/q', where phi is linear on either side of 0
    if not chi_perp > 1 + _NOISE:
        return 0.0, chi_perp

    def excess(log_x: float) -> float:
        x = math.exp(log_x)
        return math.log(sigma_w**2 * separation(phi, x, q).value / (q * x))

    if excess(0.0) > -1e-12:
        log_x = 0.0  # phi is odd and there is no bias
    else:
        high, low = 0.0, -math.log(16)
        while excess(low) <= 0:
            high, low = low, 2 * low
            if low < -80:  # chi_perp - 1 is rounding
                return 0.0, chi_perp
        log_x = root(excess, low, high)
    return math.exp(log_x), 1 + _derivative(excess, log_x)


# Chebyshev nodes, and the weights that differentiate there the polynomial through values at them, at 0.
_NODES = np.cos(np.pi * (np.arange(13) + 0.5) / 13)
_WEIGHTS = np.linalg.solve(_NODES[None, :] ** np.arange(13)[:, None], np.eye(13)[1])
_WIDTH = 0.2


def _derivative(function: Callable[[float], float], x: float) -> float:
    """Return the derivative at x of a function that is analytic well beyond 0.2 on either side of it."""
    values = [function(x + _WIDTH * node) for node in _NODES.tolist()]
    return float(_WEIGHTS @ (np.array(values) - np.mean(values))) / _WIDTH
