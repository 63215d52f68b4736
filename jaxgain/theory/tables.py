r"""Chebyshev tables of an activation's expectations, so that a whole phase diagram costs a few hundred of them.

Expectations under a normal density are analytic in $\ln q$, and in $\ln(1 - c)$, in a strip of half width
$\pi/2$, whatever the kinks of phi: on panels of width 5/4 a polynomial of degree 15 is right to 1e-12.
Correlations are to 1e-11 for tanh, and to a few 1e-9 for sin, which oscillates within a standard deviation at q = 25.
"""

import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgain.activations import Activation
from jaxgain.theory.panels import mesh, tabulate
from jaxgain.theory.quadrature import Moments, NotFinite, moments


def _chebyshev(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the Chebyshev points, ascending, and the matrix from values at them to coefficients."""
    angles = math.pi * (np.arange(order)[::-1] + 0.5) / order
    matrix = 2 / order * np.cos(np.arange(order)[:, None] * angles[None, :])
    matrix[0] /= 2
    return np.cos(angles), matrix


_POINTS, _MATRIX = _chebyshev(16)  # in ln q
_POINTS_T, _MATRIX_T = _chebyshev(20)  # in t, on panels twice as long as the one before

_WIDTH = 1.25  # of a panel in ln q
_LOWEST, _HIGHEST = 1e-12, 1e6


class LengthTable(NamedTuple):
    r"""$\ln E\phi^2$, $q\,(dE\phi^2/dq)/E\phi^2$ and $q\,E\phi'^2/E\phi^2$ as functions of $u = \ln q$.

    The last is infinite where phi `jumps`, and 0 in the table then. `low` is where the first panel begins,
    `coefficients` has shape (panels, 16, 3), and `nodes` are the u at which
    the `values`, (nodes, 3), were computed.
    """

    low: float
    coefficients: np.ndarray
    nodes: np.ndarray
    values: np.ndarray
    jumps: bool

    def at(self, u: Array) -> Array:
        """Return the three functions at a scalar u inside the table: shape (3,)."""
        place = (u - self.low) / _WIDTH
        panel = jnp.clip(jnp.floor(place), 0, len(self.coefficients) - 1)
        return (
            _polynomials(2 * (place - panel) - 1, _POINTS.size)
            @ jnp.asarray(self.coefficients, u.dtype)[panel.astype(int)]
        )


def _polynomials(x: Array, order: int) -> Array:
    return jnp.cos(jnp.arange(order) * jnp.arccos(jnp.clip(x, -1.0, 1.0)))


@functools.lru_cache(maxsize=64)
def length_table(phi: Activation) -> LengthTable:
    """Return the table from q = 1e-12 up to 1e6, or as far as the moments are known.

    Raises `NotFinite` where they are known nowhere above q = 1.
    """
    low, panels, nodes = math.log(_LOWEST), [], []
    for i in range(math.ceil((math.log(_HIGHEST) - low) / _WIDTH)):
        u = low + _WIDTH * (i + (1 + _POINTS) / 2)
        try:
            found = [(moments(phi, q), q) for q in np.exp(u).tolist()]
        except NotFinite:
            break
        if any(m.second.error > 1e-9 * m.second.value for m, _ in found):
            break
        panels.append([_logarithmic(m, q) for m, q in found])
        nodes.append(u)
    if not nodes or nodes[-1].max() < 0:
        raise NotFinite(f"E phi^2 of {phi.name} is not known to 1e-9 at any length above 1")
    values = np.array(panels)
    jumps = bool(np.isinf(values[..., 2]).any())
    values[..., 2] = 0.0 if jumps else values[..., 2]
    coefficients = np.einsum("kj,pjf->pkf", _MATRIX, values)
    return LengthTable(low, coefficients, np.concatenate(nodes), values.reshape(-1, 3), jumps)


def _logarithmic(m: Moments, q: float) -> tuple[float, float, float]:
    second = m.second.value
    return math.log(second), q * m.length_slope.value / second, q * m.slope_second.value / second


class CorrelationTable(NamedTuple):
    r"""$\ln\frac{E(\phi(u) - \phi(v))^2}{2 q t^p}$ as a function of $\ln q$ and $t = \sqrt{1 - c}$.

    p is 2, or 1 where phi jumps. `coefficients` has shape (panels in ln q, 16, panels in t, 20, 2), the last axis
    for the function and its derivative in t. The panels' edges in t are `edges`,
    (panels in ln q, panels in t + 1).
    """

    low: float
    edges: np.ndarray
    coefficients: np.ndarray
    power: int

    def row(self, u: Array) -> tuple[Array, Array]:
        """Return the edges in t and the coefficients in t, (panels in t, 20, 2), at a scalar u = ln q."""
        place = (u - self.low) / _WIDTH
        panel = jnp.clip(jnp.floor(place), 0, len(self.coefficients) - 1)
        coefficients = jnp.asarray(self.coefficients, u.dtype)[panel.astype(int)]
        edges = jnp.asarray(self.edges, u.dtype)[panel.astype(int)]
        return edges, jnp.tensordot(_polynomials(2 * (place - panel) - 1, _POINTS.size), coefficients, 1)

    def at(self, row: tuple[Array, Array], t: Array) -> tuple[Array, Array]:
        r"""Return $\ln\frac{E(\phi(u) - \phi(v))^2}{2 q t^2}$ and its derivative in t at a scalar t > 0."""
        edges, coefficients = row
        panel = jnp.sum(t >= edges[1:-1])
        low, high = edges[panel], edges[panel + 1]
        value, slope = _polynomials((2 * t - low - high) / (high - low), _POINTS_T.size) @ coefficients[panel]
        return value + (self.power - 2) * jnp.log(t), slope + (self.power - 2) / t


def correlation_table(phi: Activation, lowest: float, highest: float) -> CorrelationTable:
    """Return the table for lengths from `lowest` to `highest`."""
    low = math.log(lowest) - 1e-9
    panels = max(1, math.ceil((math.log(highest) + 1e-9 - low) / _WIDTH))
    power = 1 if phi.jumps else 2
    rows = [_row(phi, low + _WIDTH * panel, power) for panel in range(panels)]
    most = max(len(edges) for edges, _ in rows)
    # Panels of no width at 0, where no t is, make all rows one array.
    edges = np.stack([np.pad(edges, (most - len(edges), 0)) for edges, _ in rows])
    coefficients = [np.pad(part, ((0, 0), (most - len(e), 0), (0, 0), (0, 0))) for e, part in rows]
    return CorrelationTable(low, edges, np.stack(coefficients), power)


def _row(phi: Activation, low: float, power: int) -> tuple[np.ndarray, np.ndarray]:
    """Return edges in t and coefficients, (16, panels in t, 20, 2), of the panel in ln q that begins at `low`."""
    q, highest = np.exp(low + _WIDTH * (1 + _POINTS) / 2), math.exp(low + _WIDTH)
    # In t, phi has its own scale 1/sqrt(q).
    inner = 2.0 ** np.arange(math.ceil(math.log2(min(0.5, highest**-0.5))), 0)
    edges = np.concatenate([[0.0], inner, [1.0]])
    # Few shapes are compiled; edges at infinity cut nothing.
    own, spans = (np.pad(x, (0, -x.size % 8), constant_values=np.inf) for x in own_edges(phi, 10 * highest**0.5))
    values = []
    for left, right in itertools.pairwise(edges):
        t = (left + right + (right - left) * _POINTS_T) / 2
        with jax.enable_x64(True):
            ratio = np.asarray(_compiled(phi)(t, q, own, spans))
        values.append(np.log(ratio) + (2 - power) * np.log(t))
    coefficients = np.einsum("kj,tjm,nm->ktn", _MATRIX, np.array(values), _MATRIX_T)
    slopes = np.zeros_like(coefficients)
    slopes[..., :-1] = np.polynomial.chebyshev.chebder(coefficients, axis=-1) * (2 / np.diff(edges))[:, None]
    return edges, np.stack([coefficients, slopes], axis=-1)


@functools.lru_cache(maxsize=64)
def _compiled(phi: Activation) -> Any:
    def rows(t: Array, q: Array, own: Array, spans: Array) -> Array:
        return jax.lax.map(lambda q: jax.vmap(lambda t: separation_ratio(phi, own, spans, t, q))(t), q)

    return jax.jit(rows)


_x_sum, _w_sum = np.polynomial.legendre.leggauss(10)
_x_difference, _w_difference = np.polynomial.legendre.leggauss(8)
_SUM_EDGES = np.array([0.0, 2.0, 4.0, 6.0, 9.0])
_DIFFERENCE_EDGES = np.array([0.0, 0.75, 1.75, 3.0, 4.5, 6.5, 9.0])


def own_edges(phi: Activation, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges at which to cut integrals over (u + v)/2 and over (u - v)/2, up to `reach`."""
    own = np.array([edge for edge in mesh(phi) if abs(edge) < reach])
    kinks = np.array(phi.kinks or ())
    meetings = np.abs(kinks[:, None] - kinks[None, :]).ravel() / 2
    spans = np.unique(np.concatenate([[0.5], np.abs(own), meetings]))[1:]
    spans = spans[spans < 0.65 * reach]  # nine standard deviations
    return (own[own >= 0] if is_symmetric(phi) else own), spans


def separation_ratio(phi: Activation, own: Array, spans: Array, t: Array, q: Array) -> Array:
    r"""Return $E(\phi(u) - \phi(v))^2/(2 q t^2)$ for u, v of length q and correlation $1 - t^2$, $0 < t \le 1$.

    u = a + b, v = a - b with a and b independent: $E a^2 = q(1 - t^2/2)$, $E b^2 = q t^2/2$. For every b the
    integral over a is cut where a + b or a - b is one of the edges `own` of phi, and is smooth in b but where two
    kinks meet, which is among the `spans`; both are those of `own_edges`.
    """
    symmetric = is_symmetric(phi)
    scale_a, scale_b = jnp.sqrt(q * (1 - t * t / 2)), jnp.sqrt(q / 2) * t
    fixed = _SUM_EDGES if symmetric else np.concatenate([-_SUM_EDGES[:0:-1], _SUM_EDGES])

    def given(w: Array) -> Array:
        b = scale_b * w
        cuts = jnp.concatenate([jnp.abs(own - b) if symmetric else own - b, own + b])
        cuts = jnp.clip(cuts / scale_a, float(fixed[0]), float(fixed[-1]))
        z, weight = _rule(jnp.sort(jnp.concatenate([jnp.asarray(fixed, q.dtype), cuts])), _x_sum, _w_sum)
        return jnp.sum(weight * jnp.square(phi(scale_a * z + b) - phi(scale_a * z - b)))

    cuts = jnp.clip(spans / scale_b, 0.0, float(_DIFFERENCE_EDGES[-1]))
    edges = jnp.sort(jnp.concatenate([jnp.asarray(_DIFFERENCE_EDGES, q.dtype), cuts]))
    w, weight = _rule(edges, _x_difference, _w_difference)
    sides = 2 if symmetric else 1
    return sides * jnp.sum(weight.ravel() * jax.vmap(given)(w.ravel())) / (q * t * t)


@functools.lru_cache(maxsize=512)
def is_symmetric(phi: Activation) -> bool:
    """Return whether phi is odd or even, seen at 4097 points: then half of a symmetric integral is enough."""
    x = np.linspace(0.0, 16.0, 4097)[1:]
    right, left = tabulate(phi, x)[0], tabulate(phi, -x)[0]
    return bool((right == left).all() or (right == -left).all())


def _rule(edges: Array, x: Any, w: Any) -> tuple[Array, Array]:
    """Return the nodes and weights, (panels, order), of integrals over the normal density."""
    x, w = jnp.asarray(x, edges.dtype), jnp.asarray(w, edges.dtype)
    half = (edges[1:] - edges[:-1])[:, None] / 2
    z = (edges[1:] + edges[:-1])[:, None] / 2 + half * x[None, :]
    return z, half * w[None, :] * jnp.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
