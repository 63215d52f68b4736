r"""The fixed points of the length map, found by a scan that knows what rounding decides.

A root scan over a piecewise linear activation meets rounding noise where a length is preserved exactly: only
values beyond their own error have a sign here.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxgain.activations import Activation
from jaxgain.theory.critical import root
from jaxgain.theory.panels import Expectation
from jaxgain.theory.quadrature import Moments, NotFinite, moments

# Lengths a factor of 2 apart: as functions of ln q the moments are averages over ln(z^2), whose width is above 2.
_LENGTHS = tuple((2.0 ** np.arange(-100, 51)).tolist())
_BEYOND = tuple((2.0 ** np.arange(60, 270, 10)).tolist())
_LARGE = 1e5  # above it a scan ends where the moments are not known to 1e-9
_NOISE = 1e-13  # relative to q, besides the estimated errors
TINY = 1e-90  # moments at q = 0 are taken at 1e-100: what is below is 0


class Length(NamedTuple):
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
    return tuple(sorted([*_along(phi), *((q, moments(phi, q)) for q in bends(phi))]))


@functools.lru_cache(maxsize=512)
def bends(phi: Activation) -> tuple[float, ...]:
    """Return the lengths at which dE phi^2/dq is largest or smallest, from small to large."""
    slopes = [(q, m.length_slope) for q, m in _along(phi)]
    return tuple(extrema(slopes, lambda q: moments(phi, q).length_slope.value))


@functools.lru_cache(maxsize=512)
def _along(phi: Activation) -> tuple[tuple[float, Moments], ...]:
    found = []
    for q in _LENGTHS:
        try:
            m = moments(phi, q)
        except NotFinite:
            break  # what grows faster than every power: infinite from here on
        if q > _LARGE and m.second.error > 1e-9 * m.second.value:
            break
        found.append((q, m))
    return tuple(found)


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
    unknown = 10 * sigma_w**2 * m.second.error / q
    growth = ratio - 1 + sigma_b**2 / q
    if abs(ratio - 1) <= _NOISE + unknown:
        # Preserved up to rounding: any bias decides.
        sign = 1 if sigma_b else 0
    else:
        sign = 0 if abs(growth) <= _NOISE * max(1.0, ratio) + unknown else int(math.copysign(1, growth))
    tilt = sigma_w**2 * m.length_slope.value - 1
    tilt_noise = _NOISE + 10 * sigma_w**2 * m.length_slope.error
    return _At(q, growth, sign, 0 if not abs(tilt) > tilt_noise else int(math.copysign(1, tilt)))


@functools.lru_cache(maxsize=4096)
def _is_known(phi: Activation, q: float) -> bool:
    try:
        second = moments(phi, q).second
    except NotFinite:
        return False
    return second.error <= 1e-9 * second.value


def _profile(phi: Activation, sigma_w: float, sigma_b: float) -> list[_At]:
    """Return the growth along the scan and at every extremum of q' - q, where it may touch 0."""
    profile = [_at(m, q, sigma_w, sigma_b) for q, m in scan(phi)]
    for q in _BEYOND:
        # Enormous scales keep even a bounded phi at an enormous length.
        if profile[-1].sign <= 0 or not _is_known(phi, q):
            break
        profile.append(_at(moments(phi, q), q, sigma_w, sigma_b))
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
def fixed_lengths(phi: Activation, sigma_w: float, sigma_b: float) -> tuple[Length, ...]:
    """Return the roots with their stability and basins, q = 0 among them where it is one."""
    profile = _profile(phi, sigma_w, sigma_b)
    sure = [point for point in profile if point.sign]
    zero = sigma_b == 0 and not phi.jumps and sigma_w**2 * moments(phi, 0.0).second.value < TINY
    if not sure:
        every = Length(1.0, "neutral", (1.0, 1.0))
        return (Length(0.0, "neutral", (0.0, 0.0)), every) if zero else (every,)
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


def _labelled(roots: list[tuple[float, tuple[int, int]]]) -> list[Length]:
    """Label roots by the signs of the growth below and above: attracted from below where +, from above where -."""
    labelled = []
    for i, (q, (below, above)) in enumerate(roots):
        low = (roots[i - 1][0] if i else 0.0) if below > 0 else q
        high = (roots[i + 1][0] if i + 1 < len(roots) else math.inf) if above < 0 else q
        sides = (below >= 0 if q == 0 else below > 0) + (above < 0)
        stability = ("unstable", "half-stable", "stable")[sides]
        if q == 0:  # lengths have one side only
            stability = "stable" if above < 0 else "unstable"
        labelled.append(Length(q, stability, (low, high)))
    return labelled


def reached(phi: Activation, sigma_w: float, sigma_b: float, q0: float) -> tuple[Length | None, bool]:
    """Return the root that the recursion reaches from q0, None at infinity, and whether it does reach it.

    d ln E phi^2 / d ln q = E[phi^2 (z^2 - 1)/2] / E phi^2 is at least -1/2. Where the map falls the recursion may
    step over a root, then, but only half as far beyond as it was before: it converges unless there is another root.
    """
    roots = fixed_lengths(phi, sigma_w, sigma_b)
    q = q0
    for _ in range(1000):
        if roots and roots[0].stability == "neutral":
            return Length(q, "neutral", (q, q)), True
        here = [found for found in roots if abs(q - found.q) <= 1e-12 * found.q]
        if here:
            return here[0], True
        image = next_length(phi, sigma_w, sigma_b, q)
        ahead = sorted((f for f in roots if (f.q - q) * (image - q) > 0), key=lambda found: abs(found.q - q))
        if not ahead:
            return None, False
        low, high = sorted((q, ahead[0].q))
        steps = [sigma_w**2 * m.second.value + sigma_b**2 for at, m in scan(phi) if low <= at <= high]
        if not any((step - found.q) * (image - q) >= 0 for step in [image, *steps] for found in ahead[1:2]):
            return ahead[0], True
        q = image
    return min(roots, key=lambda found: abs(found.q - q)), False


def next_length(phi: Activation, sigma_w: float, sigma_b: float, q: float) -> float:
    """Return the length map at q, infinite where the expectation is."""
    try:
        return sigma_w**2 * moments(phi, q).second.value + sigma_b**2
    except NotFinite:
        return math.inf
