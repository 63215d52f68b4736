"""Panels of the real line, halved until two Gauss-Legendre rules agree on each; an activation's kinks."""

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgain.activations import Activation, value_and_slope

_LOW, _HIGH = 16, 32
_x_low, _w_low = np.polynomial.legendre.leggauss(_LOW)
_x_high, _w_high = np.polynomial.legendre.leggauss(_HIGH)
# Both rules side by side: every panel has 48 nodes, and each rule's weights are zero on the other's nodes.
_NODES = np.concatenate([_x_low, _x_high])
WEIGHTS_LOW = np.concatenate([_w_low, np.zeros(_HIGH)])
WEIGHTS_HIGH = np.concatenate([np.zeros(_LOW), _w_high])


def _antiderivative(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the matrix from values at the nodes `x` to integrals from -1 to each node, exact for polynomials."""
    p = np.polynomial.legendre.legvander(x, x.size)
    integrals = (p[:, 1:] - np.concatenate([-np.ones((x.size, 1)), p[:, :-2]], axis=1)) / 2
    return integrals @ (p[:, :-1] * w[:, None]).T


_INTEGRALS = np.block(
    [
        [_antiderivative(_x_low, _w_low), np.zeros((_LOW, _HIGH))],
        [np.zeros((_HIGH, _LOW)), _antiderivative(_x_high, _w_high)],
    ]
)

# The activation's own panels cover |x| <= 1024: ten standard deviations at q = 1e4.
_X_EDGES = 2.0 ** np.arange(11)

_CHUNK = 4096  # phi is compiled for this many points, and called again for more
_TOLERANCE = 1e-14  # of E|f|, allowed to each panel
EPS = float(np.finfo(np.float64).eps)
_PANELS = 4096  # an integrand that wants more is not going to converge


class Expectation(NamedTuple):
    """A value and an estimate of its absolute error: Python floats on the host, arrays in traced code."""

    value: Any
    error: Any


class Grid(NamedTuple):
    """Nodes of all panels with the weights of both rules, and the values of functions; (panels, 48) each."""

    z: np.ndarray
    half: np.ndarray  # half widths, (panels, 1)
    low: np.ndarray
    high: np.ndarray
    values: np.ndarray  # (functions, panels, 48)

    def integral(self, integrand: np.ndarray) -> Expectation:
        """Return the high-order sum; its error is the difference of the rules and the rounding of the sum."""
        high = math.fsum((self.high * integrand).sum(1))
        difference = np.abs((self.high - self.low) * integrand @ np.ones(integrand.shape[1])).sum()
        rounding = 4 * EPS * float((self.high * np.abs(integrand)).sum())
        return Expectation(high, float(difference) + rounding)


def integrated(slope: np.ndarray, half: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return the integral of `slope` from 0 to every node of consecutive panels that have an edge at 0.

    So phi - phi(0) keeps its digits where phi is nearly constant, as cos is near 0.
    """
    inside = half * (slope @ _INTEGRALS.T)
    across = half[:, 0] * (slope @ WEIGHTS_HIGH)
    left = np.empty_like(across)
    negative = z.mean(1) < 0
    # Summed outwards from 0 on either side.
    left[~negative] = np.cumsum(np.concatenate([[0.0], across[~negative][:-1]]))
    left[negative] = -np.cumsum(across[negative][::-1])[::-1]
    return left[:, None] + inside


def nodes(lo: Any, hi: Any) -> tuple[Any, Any]:
    """Return nodes, (panels, 48), and half widths, (panels, 1), of the panels [lo, hi], NumPy or jax."""
    half = ((hi - lo) / 2)[:, None]
    return ((hi + lo) / 2)[:, None] + half * _NODES[None, :], half


def refine(
    evaluate: Callable[[np.ndarray], np.ndarray],
    integrands: Callable[[np.ndarray, np.ndarray], np.ndarray],
    edges: np.ndarray,
    weight: Callable[[np.ndarray], Any],
    narrowest: tuple[float, float] = (8 * EPS, 1e-3),
    panels: int = _PANELS,
    absolute: float = 0.0,
    noise: int | None = None,
) -> tuple[np.ndarray, np.ndarray, Grid]:
    """Halve the panels between `edges` until both rules agree on every integrand; one evaluation per level.

    A panel is allowed a difference of 1e-14 of the integral of |f|, or of `absolute` where that is given,
    besides rounding. Panels narrower than `narrowest = (relative, size)`, relative to the larger of `size`
    and where they are, are kept as they are: their difference stays in the error estimate. `values[noise]`
    is how far rounding may move the integrand at each node.
    """
    lo, hi = edges[:-1], edges[1:]
    done: list[tuple[np.ndarray, np.ndarray, Grid]] = []
    settled = 0.0  # integrals of |f| over the panels that are done
    while lo.size:
        z, half = nodes(lo, hi)
        values = evaluate(z.ravel()).reshape(-1, *z.shape)
        density = half * weight(z)
        grid = Grid(z, half, density * WEIGHTS_LOW, density * WEIGHTS_HIGH, values)
        f = integrands(z, values)
        size = (grid.high * np.abs(f)).sum(2)
        total = settled + size.sum(1)
        difference = np.abs(((grid.high - grid.low) * f).sum(2))
        allowed = (absolute or _TOLERANCE * total[:, None]) + 8 * EPS * size
        if noise is not None:
            allowed = allowed + (grid.high * values[noise]).sum(1)
        rough = (difference > allowed).any(0)
        rough &= (hi - lo) > narrowest[0] * np.maximum(narrowest[1], np.maximum(np.abs(lo), np.abs(hi)))
        if sum(part[0].size for part in done) + lo.size > panels:
            rough[:] = False
        settled = settled + size[:, ~rough].sum(1)
        keep = ~rough
        kept = Grid(z[keep], half[keep], grid.low[keep], grid.high[keep], values[:, keep])
        done.append((lo[keep], hi[keep], kept))
        middle = (lo[rough] + hi[rough]) / 2
        lo, hi = np.concatenate([lo[rough], middle]), np.concatenate([middle, hi[rough]])
    los, his, grids = zip(*done, strict=True)
    lo, hi = np.concatenate(los), np.concatenate(his)
    order = np.argsort(lo)
    merged = Grid(*(np.concatenate(part, axis=-2)[..., order, :] for part in zip(*grids, strict=True)))
    return lo[order], hi[order], merged


@functools.lru_cache(maxsize=512)
def _compiled(phi: Activation) -> Callable[[np.ndarray], tuple[Array, Array]]:
    return jax.jit(functools.partial(value_and_slope, phi))


def tabulate(phi: Activation, x: np.ndarray) -> np.ndarray:
    """Return phi and phi' at the points `x` in float64, (2, points), whatever surrounds the call."""
    padded = np.resize(x, -(-x.size // _CHUNK) * _CHUNK).reshape(-1, _CHUNK)
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        parts = [_compiled(phi)(row) for row in padded]
        values = np.concatenate([np.asarray(part, np.float64) for part in parts], axis=1)
    return values[:, : x.size]


def _resolved(phi: Activation, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the panels, halved from those between `edges`, on which phi, phi' and squares are smooth."""
    middle = np.linspace(-8.0, 8.0, _CHUNK)
    central = np.nanmax(np.abs(np.where(np.isfinite(values := tabulate(phi, middle)), values, 0.0)), axis=1)

    def integrands(x: np.ndarray, values: np.ndarray) -> np.ndarray:
        # Relative to the largest value on the panel or in the middle, whichever is larger: a growing phi is
        # resolved relative to itself, the rounding noise of a saturated one is not resolved at all. Where
        # phi is not finite the expectations will say so; here such places count as smooth.
        clean = np.where(np.isfinite(values), values, 0.0)
        clean /= np.maximum(np.maximum(np.abs(clean).max(2, keepdims=True), central[:, None, None]), 1e-300)
        return np.concatenate([clean, np.square(clean)])

    lo, hi, _ = refine(
        lambda x: tabulate(phi, x),
        integrands,
        edges,
        lambda x: 1 / np.hypot(1, x),
        narrowest=(1e-12, 1.0),
        absolute=1e-14,
    )
    return lo, hi


@functools.lru_cache(maxsize=512)
def resolve(phi: Activation) -> Activation:
    """Return `phi` with its kinks and jumps; a user's callable has them found by bisection over |x| <= 1024.

    A place where the rules still differ on a panel of width 1e-4 is a kink. Its position is then bisected
    to the last digit on whichever of phi, phi' and phi'' jumps there.

    >>> from jaxgain.activations import activation
    >>> resolve(activation(lambda x: jnp.maximum(x, 0.25))).kinks
    (0.25,)
    """
    if phi.kinks is not None:
        return phi
    found: dict[float, bool] = {}
    # Two sets of panels, as no rule sees a kink next to a panel's end; neither has an edge at 0 or 1 or 1/4.
    for scale, shift in ((1.0137, 0.0123), (1.3717, -0.0877)):
        lo, hi = _resolved(phi, scale * np.concatenate([-_X_EDGES[::-1], _X_EDGES]) + shift)
        narrow = np.flatnonzero(hi - lo < 1e-4 * np.maximum(1.0, np.abs(lo)))
        clusters = np.split(narrow, np.flatnonzero(np.diff(narrow) > 1) + 1) if narrow.size else []
        for cluster in clusters:
            kink, jumps = _kink(phi, *_core(lo[cluster], hi[cluster]))
            if not any(abs(kink - other) < 1e-7 * max(1.0, abs(kink)) for other in found):
                found[kink] = jumps
    return replace(phi, kinks=tuple(sorted(found)), jumps=tuple(sorted(x for x in found if found[x])))


def _core(lo: np.ndarray, hi: np.ndarray) -> tuple[float, float]:
    """Return a bracket of the kink in a cluster of halved panels: the narrowest and its neighbours."""
    i = int(np.argmin(hi - lo))
    return float(lo[max(i - 1, 0)]), float(hi[min(i + 1, hi.size - 1)])


def _kink(phi: Activation, a: float, b: float) -> tuple[float, bool]:
    """Return the kink between `a` and `b`, and whether phi itself jumps there."""

    @jax.jit
    def three(x: Array) -> tuple[Array, Array, Array]:
        (value, slope), (_, curvature) = jax.jvp(functools.partial(value_and_slope, phi), (x,), (jnp.ones_like(x),))
        return value, slope, curvature

    def derivatives(x: float) -> np.ndarray:
        with jax.enable_x64(True), jax.ensure_compile_time_eval():
            return np.array([np.asarray(part) for part in three(np.float64(x))], np.float64)

    with np.errstate(all="ignore"):
        return _bisect(derivatives, a, b)


def _bisect(derivatives: Callable[[float], np.ndarray], a: float, b: float) -> tuple[float, bool]:
    left, right = derivatives(a), derivatives(b)
    change = np.abs(right - left)
    # What each derivative may change by if the next one stays bounded by what it is at both ends.
    smooth = 10 * (b - a) * np.maximum(np.abs(left), np.abs(right))[1:] + 1e-12 * np.abs(left)[:2]
    jumped = [k for k in range(2) if change[k] > smooth[k]]
    k = jumped[0] if jumped else 2
    while (middle := (a + b) / 2) not in (a, b):
        at = derivatives(middle)[k]
        a, b = (middle, b) if abs(at - left[k]) < abs(at - right[k]) else (a, middle)
        if b - a < 1e-30:
            break
    # The kink is the simplest of the numbers that rounding cannot tell apart.
    candidates = [0.0] + [float(f"{(a + b) / 2:.{digits}g}") for digits in (1, 2, 4, 6, 8, 12)]
    width = 4 * EPS * max(abs(a), abs(b), 1e-3) if jumped else 1e-9
    simple = [c for c in candidates if abs(c - (a + b) / 2) <= width]
    return (simple[0] if simple else b) + 0.0, k == 0


@functools.lru_cache(maxsize=512)
def mesh(phi: Activation) -> tuple[float, ...]:
    """Return the edges, in x, of the panels that resolve phi and phi' over |x| <= 1024, kinks among them."""
    phi = resolve(phi)
    assert phi.kinks is not None
    inside = [kink for kink in phi.kinks if abs(kink) < _X_EDGES[-1]]
    own = _X_EDGES / abs(phi.input_scale)
    own = own[own <= _X_EDGES[-1]]
    lo, hi = _resolved(phi, np.unique(np.concatenate([-_X_EDGES, -own, [0.0], own, _X_EDGES, inside])))
    # Halvings that a blurred kink has left behind resolve nothing.
    wide = hi - lo > 1e-11 * np.maximum(1.0, np.abs(lo))
    edges = {*lo[wide].tolist(), *hi[wide].tolist(), *phi.kinks}
    return tuple(sorted(edges | {0.0}))
