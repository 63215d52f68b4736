r"""The edge of chaos at traced scales, from a table of it along the length: compiled, batched, differentiable.

Along u = ln q both $\sigma_w$ and $\sigma_b^2$ of the edge are monotonic between their extrema, which are known
before: a scale is met at most once between two of them.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgain.activations import Activation
from jaxgain.theory.chebyshev import polynomials
from jaxgain.theory.critical import Edge, edge_at, is_scale_invariant, sigma_w_at_zero
from jaxgain.theory.crossings import changes, crossing, sign_beyond
from jaxgain.theory.increments import MATRIX, POINTS, WIDTH
from jaxgain.theory.lengths import extrema, fixed_lengths
from jaxgain.theory.panels import Expectation
from jaxgain.theory.phases import STABILITIES
from jaxgain.theory.quadrature import NotFinite
from jaxgain.theory.reached import noise_of
from jaxgain.theory.tables import length_table

_HALF_STABLE = 1e-9  # |chi_par - 1| below which a length found from a table is called half-stable
_ROUNDING = 1e-14  # of sigma_b^2/q


class EdgeTable(NamedTuple):
    r"""$\ln\sigma_w$, $\sigma_b^2/q$ and $\chi_\parallel$ along the edge, in Chebyshev panels of u = ln q.

    `low` is where the first panel begins; `coefficients` has shape (panels, 16, 3). `nodes` are the u at which
    `values`, (nodes, 3), were computed.
    """

    low: float
    coefficients: np.ndarray
    nodes: np.ndarray
    values: np.ndarray

    def at(self, u: Array) -> Array:
        """Return the three functions at a scalar u inside the table: shape (3,)."""
        place = (u - self.low) / WIDTH
        panel = jnp.clip(jnp.floor(place), 0, len(self.coefficients) - 1)
        coefficients = jnp.asarray(self.coefficients, u.dtype)[panel.astype(int)]
        return polynomials(jnp, 2 * (place - panel) - 1, POINTS.size) @ coefficients


class Pieces(NamedTuple):
    """The ends in u of the pieces on which a scale of the edge is monotonic, with its value and error there."""

    u: np.ndarray
    value: np.ndarray
    error: np.ndarray


class EdgePoint(NamedTuple):
    """Points of the edge: an initialization, its length, chi_par, and the place of the stability, -1 for no point."""

    sigma_w: Array
    sigma_b: Array
    q: Array
    chi_par: Array
    stability: Array


@functools.lru_cache(maxsize=64)
def _edges(phi: Activation) -> tuple[float, tuple[tuple[Edge, ...], ...]]:
    """Return where the first panel begins, and the edge at the points of consecutive panels; as far as it is known."""
    lengths, panels = length_table(phi), []
    low = lengths.low
    for u in lengths.nodes.reshape(-1, POINTS.size):
        try:
            panels.append(tuple(edge_at(phi, q) for q in np.exp(u).tolist()))
        except (NotFinite, ZeroDivisionError, OverflowError):
            if panels:
                break
            low += WIDTH
    return low, tuple(panels)


@functools.lru_cache(maxsize=64)
def edge_table(phi: Activation) -> EdgeTable | None:
    """Return the table of the edge, None where there is none: phi jumps, or is constant."""
    if length_table(phi).jumps:
        return None
    low, panels = _edges(phi)
    if not panels:
        return None
    values = np.array([[(math.log(e.sigma_w.value), e.bias.value, e.chi_par.value) for e in row] for row in panels])
    nodes = (low + WIDTH * (np.arange(len(panels))[:, None] + (1 + POINTS) / 2)).ravel()
    return EdgeTable(low, np.einsum("kj,pjf->pkf", MATRIX, values), nodes, values.reshape(-1, 3))


def _square(edge: Edge) -> Expectation:
    return Expectation(edge.q * edge.bias.value, edge.q * edge.bias.error)


@functools.lru_cache(maxsize=128)
def _pieces(phi: Activation, by_bias: bool) -> Pieces:
    """Return the monotonic pieces of sigma_b^2, or of sigma_w."""
    scale: Callable[[Edge], Expectation] = _square if by_bias else lambda edge: edge.sigma_w
    edges = [edge for panel in _edges(phi)[1] for edge in panel]
    turns = extrema([(edge.q, scale(edge)) for edge in edges], lambda q: scale(edge_at(phi, q)).value)
    ends = [edges[0], *(edge_at(phi, q) for q in turns), edges[-1]]
    values, errors = zip(*map(scale, ends), strict=True)
    return Pieces(np.log([edge.q for edge in ends]), np.array(values), np.array(errors))


def places(phi: Activation, *, by_bias: bool) -> int:
    """Return how many points of the edge there can be with one sigma_b, or sigma_w; at least 1, which may be empty."""
    zero = edge_table(phi) is not None and sigma_w_at_zero(phi) is not None
    along = 0 if edge_table(phi) is None or is_scale_invariant(phi) else len(_pieces(phi, by_bias).u) - 1
    return max(zero + along, 1)


def traced_edges(phi: Activation, scale: Array, *, by_bias: bool) -> EdgePoint:
    """Return every point of the edge with this scalar sigma_b, or sigma_w, by increasing length: fields (places,)."""
    zero, table = _at_zero(phi, scale, by_bias), edge_table(phi)
    parts = [] if zero is None else [zero]
    if table is not None and not is_scale_invariant(phi):
        parts.append(_along(phi, table, scale, by_bias))
    if not parts:
        return _nothing(jnp.full(1, jnp.nan, scale.dtype))
    points = EdgePoint(*(jnp.concatenate(fields) for fields in zip(*parts, strict=True)))
    order = jnp.argsort(jnp.isnan(points.q), stable=True)  # those that are there first, in their order
    return EdgePoint(*(field[order] for field in points))


def preferred(points: EdgePoint) -> EdgePoint:
    """Return the first stable point, or else the first one."""
    return EdgePoint(*(field[jnp.argmax(points.stability == STABILITIES.index("stable"))] for field in points))


def _at_zero(phi: Activation, scale: Array, by_bias: bool) -> EdgePoint | None:
    end = sigma_w_at_zero(phi)
    if end is None or edge_table(phi) is None:
        return None
    rounding = max(1e-13, 4 * float(jnp.finfo(scale.dtype).eps))
    there = (scale == 0) if by_bias else jnp.abs(scale / end - 1) < rounding
    invariant = is_scale_invariant(phi)
    stability = "neutral" if invariant else fixed_lengths(phi, end, 0.0)[0].stability
    found = [jnp.where(there, value, jnp.nan)[None] for value in (end, 0.0, float(invariant), 1.0)]
    given = jnp.where(there, scale, jnp.nan)[None]
    found[1 if by_bias else 0] = given.astype(scale.dtype)
    stabilities = jnp.where(there, STABILITIES.index(stability), -1).astype(jnp.int32)[None]
    sigma_w, sigma_b, q, chi_par = (part.astype(scale.dtype) for part in found)
    return EdgePoint(sigma_w, sigma_b, q, chi_par, stabilities)


def _along(phi: Activation, table: EdgeTable, scale: Array, by_bias: bool) -> EdgePoint:
    """Return the points on every monotonic piece at which it has this scale."""
    pieces, dtype = _pieces(phi, by_bias), scale.dtype
    wanted = scale**2 if by_bias else scale
    nodes, values = jnp.asarray(table.nodes, dtype), jnp.asarray(table.values, dtype)
    u, ends = jnp.asarray(pieces.u, dtype), jnp.asarray(pieces.value, dtype)
    noise = noise_of(scale) * jnp.abs(ends) + 10 * jnp.asarray(pieces.error, dtype)
    signs = sign_beyond(ends - wanted, noise)
    along = (jnp.exp(nodes) * values[:, 1] if by_bias else jnp.exp(values[:, 0])) - wanted

    def excess(u: Array) -> Array:
        log_sigma_w, bias, _ = table.at(u)
        return (jnp.exp(u) * bias if by_bias else jnp.exp(log_sigma_w)) - wanted

    def point(k: Array, before: Array, crosses: Array, _: Array) -> EdgePoint:
        low, high = u[before], u[k]

        def function(u: Array) -> Any:
            value, slope = jax.jvp(excess, (u,), (jnp.ones_like(u),))
            # Where nothing is, something that has a root, so that no derivative there is NaN.
            return jnp.where(crosses, value, high - u), jnp.where(crosses, slope, -1.0)

        at = crossing(function, nodes, along, low, high, jnp.where(crosses, signs[before], 1))
        found = edge_at_length(table, at)
        if by_bias:
            return _where(crosses, found._replace(sigma_b=scale, stability=_stability(found.chi_par, False)))
        return _where(crosses & (found.stability >= 0), found._replace(sigma_w=scale))

    return jax.vmap(point)(jnp.arange(1, u.size), *changes(signs))


def traced_edge_at(phi: Activation, q: Array) -> EdgePoint:
    """Return the point of the edge at a scalar length, NaN where there is none, and outside the table."""
    table = edge_table(phi)
    if table is None:
        return _nothing(jnp.full_like(q, jnp.nan))
    inside = (q >= math.exp(table.nodes[0])) & (q <= math.exp(table.nodes[-1]))
    found = edge_at_length(table, jnp.log(jnp.where(inside, q, 1.0)))._replace(q=q)
    return _where(inside & (found.stability >= 0), found)


def edge_at_length(table: EdgeTable, u: Array) -> EdgePoint:
    """Return the point of the edge at a scalar u = ln q in the table; stability -1 where sigma_b^2 is negative."""
    log_sigma_w, bias, chi_par = table.at(u)
    rounding = max(_ROUNDING, 4 * float(jnp.finfo(u.dtype).eps))
    positive = bias > rounding
    square: Any = jnp.where(positive, bias, 1.0)  # a root whose derivative is a number, also where it is not taken
    sigma_b = jnp.where(positive, jnp.exp(u / 2) * jnp.sqrt(square), 0.0)
    stability = jnp.where(bias < -rounding, -1, _stability(chi_par, ~positive)).astype(jnp.int32)
    return EdgePoint(jnp.exp(log_sigma_w), sigma_b, jnp.exp(u), chi_par, stability)


def _stability(chi_par: Array, without_bias: Array | bool) -> Array:
    """Return the place of the stability; without bias, chi_par is 1 only where phi is linear on either side of 0."""
    level = max(_HALF_STABLE, 32 * float(jnp.finfo(chi_par.dtype).eps))
    flat = jnp.where(without_bias, STABILITIES.index("neutral"), STABILITIES.index("half-stable"))
    away = jnp.where(chi_par < 1, STABILITIES.index("stable"), STABILITIES.index("unstable"))
    return jnp.where(jnp.abs(chi_par - 1) <= level, flat, away).astype(jnp.int32)


def _nothing(nan: Array) -> EdgePoint:
    return EdgePoint(nan, nan, nan, nan, jnp.full_like(nan, -1, jnp.int32))


def _where(there: Array, point: EdgePoint) -> EdgePoint:
    nan = jnp.full_like(point.q, jnp.nan)
    return jax.tree.map(functools.partial(jnp.where, there), point, _nothing(nan))
