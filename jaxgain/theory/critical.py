r"""Critical initializations: $\chi_\parallel = \chi_\perp = 1$ at a fixed point of the length map.

The classes are those of Roberts, Yaida and Hanin, *The Principles of Deep Learning Theory* (2022), chapter 5.
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxgain.activations import Activation, activation
from jaxgain.theory.finite import check_finite
from jaxgain.theory.meanfield import Init
from jaxgain.theory.panels import Expectation, resolve, tabulate
from jaxgain.theory.quadrature import NotFinite, moments

# Lengths at which a sign change is looked for. As functions of ln q the moments are averages over ln(z^2),
# whose width is above 2, so that nothing happens between two lengths a factor of 4 apart.
LENGTHS = tuple((4.0 ** np.arange(-10, 11)).tolist())


@dataclass(frozen=True)
class Critical:
    r"""A critical initialization, with its class and the reason for it.

    `init` and the length `q` it preserves. "scale-invariant": every length is preserved, and q is 1. "K*=0":
    $\sigma_b = 0$, and the length falls to 0 slower than any exponential, so q is 0. "half-stable":
    $\sigma_b > 0$, and lengths near q are attracted to it on one side, and leave it on the other. "none":
    `init` and q are the best substitute, which `reason` names, or None and NaN where there is not even that.
    `error` estimates the absolute error of `init.sigma_w`.
    """

    init: Init | None
    q: float
    kind: str
    reason: str
    error: float


def critical_init(phi: "str | Activation | Callable[..., Any]") -> Critical:
    r"""Return the initialization at which neither signals nor gradients change exponentially with depth.

    $q = \sigma_w^2 E\phi^2 + \sigma_b^2$ and $\chi_\perp = \chi_\parallel = 1$, where $x = \sqrt q z$,
    $\chi_\perp = \sigma_w^2 E\phi'^2$, $\chi_\parallel = \sigma_w^2\, dE\phi^2/dq$ (Roberts et al., 2022).
    "scale-invariant": phi is linear on either side of 0. "K*=0": at q = 0, with
    $\sigma_w^2 = 2/(\phi'(0^+)^2 + \phi'(0^-)^2)$. "half-stable": at some q > 0; `reason` says on which side lengths
    are attracted to q, and where they go on the other: those of Mish above q diverge. "none": nowhere.

    Raises as `activation` does on what is no activation.

    >>> relu, gelu = critical_init("relu"), critical_init("gelu")
    >>> relu.kind, round(relu.init.sigma_w**2, 12), gelu.kind, round(gelu.q, 10)
    ('scale-invariant', 2.0, 'half-stable', 3.5615528128)
    """
    return _critical_init(resolve(activation(phi)))


@functools.lru_cache(maxsize=512)
def _critical_init(phi: Activation) -> Critical:
    try:
        check_finite(phi)
        return _at_jump(phi) or _at_zero(phi) or _half_stable(phi) or _substitute(phi) or _none(phi)
    except NotFinite as error:
        return _nothing(str(error))


def _nothing(reason: str) -> Critical:
    return Critical(None, math.nan, "none", reason, math.nan)


def _at_jump(phi: Activation) -> Critical | None:
    if not math.isinf(moments(phi, 1.0).slope_second.value):
        return None
    return _nothing(
        f"{phi.name} jumps, so chi_perp is infinite for every sigma_w > 0: two inputs, however near, are "
        "told apart at once; there is no substitute"
    )


# --- q = 0 ---


def sides(phi: Activation) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return (phi, phi') just below 0 and just above it, in float64."""
    values, slopes = tabulate(phi, np.array([-1e-100, 1e-100]))
    # phi(1e-100) is phi(0): what is left of it in an odd function is the length of the step.
    values = np.where(np.abs(values) < 1e-90, 0.0, values)
    return (float(values[0]), float(slopes[0])), (float(values[1]), float(slopes[1]))


def sigma_w_at_zero(phi: Activation) -> float | None:
    """Return the sigma_w with chi_perp = chi_par = 1 as q -> 0, where phi(0) = 0 and phi has a slope."""
    (value_below, slope_below), (value_above, slope_above) = sides(phi)
    norm = math.hypot(slope_below, slope_above)
    return math.sqrt(2) / norm if value_below == value_above == 0 and norm > 1e-6 else None


def _at_zero(phi: Activation) -> Critical | None:
    sigma_w = sigma_w_at_zero(phi)
    if sigma_w is None:
        return None
    if is_scale_invariant(phi):
        reason = (
            f"{phi.name} is linear on either side of 0: every length is preserved at sigma_w = "
            f"{sigma_w:.10g}, whose square is 2 over the sum of the squared slopes"
        )
        return Critical(Init(sigma_w), 1.0, "scale-invariant", reason, 4e-16 * sigma_w)
    judged, growth = _small_growth(phi, sigma_w)
    if growth < 0:
        linear = f"; {phi.name} is linear next to 0, and lengths far below {judged:.2g} do not fall visibly"
        reason = (
            f"phi(0) = 0, and at sigma_w = {sigma_w:.10g}, where chi_par = chi_perp = 1 at q = 0, every "
            f"small length falls towards 0, slower than exponentially{linear if judged > 1e-3 else ''}"
        )
        return Critical(Init(sigma_w), 0.0, "K*=0", reason, 4e-16 * sigma_w)
    return None


def is_scale_invariant(phi: Activation) -> bool:
    """Return whether phi is linear on either side of 0, seen at 161 points from 1e-6 to 1e6 on each."""
    (_, below), (_, above) = sides(phi)
    x = np.logspace(-6, 6, 161)
    right, left = tabulate(phi, x)[0], tabulate(phi, -x)[0]
    deviation = np.maximum(np.abs(right - above * x), np.abs(left + below * x)) / x
    return bool(np.all(deviation <= 1e-13 * max(abs(below), abs(above))))


def _small_growth(phi: Activation, sigma_w: float) -> tuple[float, float]:
    """Return the smallest length that changes beyond rounding, and its relative growth, or 0 and 0.

    At this `sigma_w` small lengths are preserved to first order, and by hard_tanh, which is linear between -1 and 1,
    to all digits up to q = 0.03: what is smaller than its rounding has no sign.
    """
    for q in LENGTHS:
        second = moments(phi, q).second
        growth, noise = sigma_w**2 * second.value / q - 1, sigma_w**2 * second.error / q
        if abs(growth) > 1e-9 + 10 * noise:
            return q, growth
    return 0.0, 0.0


# --- q > 0 ---


class Edge(NamedTuple):
    """The point of the edge of chaos, chi_perp = 1, at the length q, and what sigma_b keeps q fixed."""

    q: float
    sigma_w: Expectation
    chi_par: Expectation
    bias: Expectation  # sigma_b^2/q, which may come out negative: then q cannot be fixed

    def init(self) -> Init:
        """Return the initialization of this point; `bias` must not be negative."""
        # A bias within rounding of 0 is the end of the edge, where it was solved for.
        return Init(self.sigma_w.value, math.sqrt(self.q * self.bias.value) if self.bias.value > 1e-9 else 0.0)


def edge_at(phi: Activation, q: float) -> Edge:
    r"""Return the point of the edge of chaos at the length q > 0, with its errors.

    $\sigma_w^2 = 1/E\phi'^2$ and $\sigma_b^2 = q - E\phi^2/E\phi'^2$. Raises `NotFinite` where a moment is not
    finite, and `ZeroDivisionError` where $\phi'$ is 0.

    >>> from jaxgain.activations import activation
    >>> round(edge_at(activation("erf"), 2.0).sigma_w.value ** 2, 12) == round(3 * np.pi / 4, 12)
    True
    """
    m = moments(phi, q)
    slope, slope_error = m.slope_second
    relative = slope_error / slope
    chi_par, ratio = m.length_slope.value / slope, m.second.value / (q * slope)
    return Edge(
        q,
        Expectation(slope**-0.5, slope**-0.5 * relative / 2),
        Expectation(chi_par, m.length_slope.error / slope + abs(chi_par) * relative),
        Expectation(1 - ratio, m.second.error / (q * slope) + ratio * relative),
    )


def _edges(phi: Activation) -> list[Edge]:
    """Return the edge at every length of the scan where it exists."""
    edges = []
    for q in LENGTHS:
        try:
            edges.append(edge_at(phi, q))
        except (NotFinite, ZeroDivisionError):
            continue
    return edges


def _edges_where(phi: Activation, excess: Callable[[Edge], Expectation]) -> list[Edge]:
    """Return the edges at which `excess` changes sign, from small q to large.

    The scan returns rounding noise where `excess` is 0 over an interval, as chi_par - 1 may be for piecewise
    linear phi: only values beyond their errors have a sign.
    """
    values = [(edge.q, *excess(edge)) for edge in _edges(phi)]
    signed = [(q, value) for q, value, error in values if abs(value) > 1e-12 + 10 * error]
    brackets = [(a, b) for (a, fa), (b, fb) in itertools.pairwise(signed) if (fa < 0) != (fb < 0)]
    return [edge_at(phi, root(lambda q: excess(edge_at(phi, q)).value, a, b)) for a, b in brackets]


def _half_stable(phi: Activation) -> Critical | None:
    """Return the critical point at the smallest q > 0 that some sigma_b >= 0 makes fixed."""

    def excess(edge: Edge) -> Expectation:
        return Expectation(edge.chi_par.value - 1, edge.chi_par.error)

    for edge in _edges_where(phi, excess):
        if edge.bias.value < 0:
            continue
        q, init = edge.q, edge.init()
        # How far q may be off, from how well chi_par is known, and sigma_w with it.
        above, below = edge_at(phi, 1.01 * q), edge_at(phi, 0.99 * q)
        off = 4e-16 + edge.chi_par.error * 0.02 / abs(above.chi_par.value - below.chi_par.value)
        error = edge.sigma_w.error + off * abs(above.sigma_w.value - below.sigma_w.value) / 0.02
        reason = (
            f"chi_par = chi_perp = 1 at q = {q:.10g} with sigma_w = {init.sigma_w:.10g} and sigma_b = "
            f"{init.sigma_b:.10g}, which is one-sided: {_sides_of(phi, q, init)}; without that sigma_b every length "
            "near q falls"
        )
        return Critical(init, q, "half-stable", reason, error)
    return None


def _sides_of(phi: Activation, q: float, init: Init) -> str:
    """Return where lengths beside the half-stable q go, in words."""

    def growth(length: float) -> float:
        try:
            return init.sigma_w**2 * moments(phi, length).second.value + init.sigma_b**2 - length
        except NotFinite:
            return math.nan  # phi overflows in some other place than its expectation

    if growth(0.998 * q) > 0:
        ahead, stays, leaves = [length for length in LENGTHS if length > 1.002 * q], "below it rise", "above it"
    else:
        ahead, stays, leaves = [length for length in LENGTHS[::-1] if length < 0.998 * q], "above it fall", "below it"
    turned = [length for length in ahead if growth(length) * growth(1.002 * q) < 0]
    if turned:
        end = root(growth, turned[0], 1.002 * q if turned[0] > q else 0.998 * q)
        goal = f"leave it for the stable length {end:.6g}"
    else:
        goal = "diverge" if leaves == "above it" else "fall to 0"
    return f"lengths {stays} to it, slower than exponentially, and lengths {leaves} {goal}"


def _substitute(phi: Activation) -> Critical | None:
    """Return the next best: chi_perp = 1 at a stable length, with sigma_b = 0 where that can be."""

    def stable(edges: list[Edge]) -> list[Edge]:
        return [edge for edge in edges if abs(edge.chi_par.value) < 1 - 1e-9]

    edges = stable(_edges_where(phi, lambda edge: edge.bias))
    edges.sort(key=lambda edge: -edge.chi_par.value)
    if not edges:
        edges = stable([edge for edge in _edges(phi) if edge.bias.value > 1e-9])
        edges.sort(key=lambda edge: abs(math.log(edge.q)))
    if not edges:
        return None
    edge, sigma_w = edges[0], sigma_w_at_zero(phi)
    init = edge.init()
    but = (
        ""
        if sigma_w is None
        else (f" (at q = 0 with sigma_w = {sigma_w:.6g} they are, but every small length grows from there)")
    )
    reason = (
        f"chi_par and chi_perp of {phi.name} are not both 1 at any q > 0 with sigma_b >= 0{but}; the best "
        f"substitute is sigma_w = {init.sigma_w:.10g}, sigma_b = {init.sigma_b:.10g}: chi_perp = 1 at its "
        f"stable length q = {edge.q:.8g}, where chi_par = {edge.chi_par.value:.6g}"
    )
    return Critical(init, edge.q, "none", reason, edge.sigma_w.error + 1e-14 * init.sigma_w)


def _none(phi: Activation) -> Critical:
    m = moments(phi, 1.0)
    if m.second.value == 0:
        return _nothing(f"{phi.name} is 0: no signal passes")
    fixed = any(edge.bias.value > 1e-9 for edge in _edges(phi))
    why = (
        "where chi_perp = 1 the length is not stable"
        if fixed
        else "q - E phi^2/E phi'^2, which sigma_b^2 must be where chi_perp = 1, is negative for every q"
    )
    chi_perp, chi_par = m.slope_second.value / m.second.value, m.length_slope.value / m.second.value
    return _nothing(
        f"{phi.name} has no critical point: {why}; the nearest substitute is the forward gain at q = 1, "
        f"sigma_w = {m.second.value**-0.5:.10g}, where chi_perp = {chi_perp:.6g} and chi_par = {chi_par:.6g}"
    )


def root(function: Callable[[float], float], a: float, b: float) -> float:
    """Return the zero of `function` between a and b, where its signs differ, to the last digits.

    Chandrupatla, *Advances in Engineering Software* 28 (1997): bisection and inverse quadratic interpolation.
    Infinite values are allowed: they halve the bracket.

    >>> round(root(lambda x: x * x - 2, 0.0, 2.0), 14)
    1.4142135623731
    """
    fa, fb = function(a), function(b)
    if fa * fb > 0:
        raise ValueError(f"no sign change between {a!r} and {b!r}")
    c, fc, t, best = a, fa, 0.5, a
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
