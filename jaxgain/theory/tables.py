r"""Chebyshev tables of an activation's expectations, so that a whole phase diagram costs a few hundred of them.

Expectations under a normal density are analytic in $\ln q$ in a strip of half width $\pi/2$, whatever the kinks of
phi: on panels of width 5/4 a polynomial of degree 15 is right to 1e-12.
"""

import functools
import itertools
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgain.activations import Activation
from jaxgain.theory.chebyshev import chebyshev, polynomials
from jaxgain.theory.increments import MATRIX, POINTS, WIDTH, power, separation_ratios
from jaxgain.theory.quadrature import Moments, NotFinite, moments

_POINTS_T, _MATRIX_T = chebyshev(20)  # in t, on panels twice as long as the one before

_LOWEST, _HIGHEST = 1e-12, 1e6
_TINY = 1e-250  # what underflows has no logarithm


class LengthTable(NamedTuple):
    r"""$\ln E\phi^2$, $q\,(dE\phi^2/dq)/E\phi^2$ and $q\,E\phi'^2/E\phi^2$ as functions of $u = \ln q$.

    The last is infinite where phi `jumps`, and 0 in the table then. `low` is where the first panel begins,
    `coefficients` has shape (panels, 16, 3), and `nodes` are the u at which the `values`, (nodes, 3), were computed.
    """

    low: Any
    coefficients: Any
    nodes: Any
    values: Any
    jumps: Any

    def at(self, u: Array) -> Array:
        """Return the three functions at a scalar u inside the table: shape (3,)."""
        place = (u - self.low) / WIDTH
        panel = jnp.clip(jnp.floor(place), 0, len(self.coefficients) - 1)
        coefficients = jnp.asarray(self.coefficients, u.dtype)[panel.astype(int)]
        return polynomials(jnp, 2 * (place - panel) - 1, POINTS.size) @ coefficients


@functools.lru_cache(maxsize=64)
def length_table(phi: Activation) -> LengthTable:
    """Return the table from q = 1e-12 up to 1e6, or as far as the moments are known.

    Raises `NotFinite` where they are known nowhere above q = 1.
    """
    low, panels, nodes = math.log(_LOWEST), [], []
    for i in range(math.ceil((math.log(_HIGHEST) - low) / WIDTH)):
        u = math.log(_LOWEST) + WIDTH * (i + (1 + POINTS) / 2)
        try:
            found = [(moments(phi, q), q) for q in np.exp(u).tolist()]
        except NotFinite:
            found = []
        known = bool(found) and all(m.second.error <= 1e-9 * m.second.value for m, _ in found)
        if not nodes and not (known and all(m.second.value >= _TINY for m, _ in found)):
            low += WIDTH  # phi is 0 around 0
            continue
        if not known:
            break
        panels.append([_logarithmic(m, q) for m, q in found])
        nodes.append(u)
    if not nodes or nodes[-1].max() < 0:
        raise NotFinite(f"E phi^2 of {phi.name} is not known to 1e-9 at any length above 1")
    values = np.array(panels)
    jumps = bool(np.isinf(values[..., 2]).any())
    values[..., 2] = 0.0 if jumps else values[..., 2]
    coefficients = np.einsum("kj,pjf->pkf", MATRIX, values)
    return LengthTable(low, coefficients, np.concatenate(nodes), values.reshape(-1, 3), jumps)


def _logarithmic(m: Moments, q: float) -> tuple[float, float, float]:
    second = m.second.value
    return math.log(second), q * m.length_slope.value / second, q * m.slope_second.value / second


class CorrelationTable(NamedTuple):
    r"""$\ln\frac{E(\phi(u) - \phi(v))^2}{2 q t^p}$ as a function of $\ln q$ and $t = \sqrt{1 - c}$.

    p is 2, or 1 where phi jumps. The panels begin at `low` in ln q; their edges in t are `edges`, (panels in ln q,
    panels in t + 1). `ends`, (panels in ln q, 16, panels in t), is the function at the upper edges of the panels in
    t, and `coefficients`, (panels in ln q, 16, panels in t, 20, 2), the function and its derivative in t.
    """

    low: Any
    edges: Any
    ends: Any
    coefficients: Any
    power: Any


def correlation_table(phi: Activation, lowest: float, highest: float) -> CorrelationTable:
    """Return the table for lengths from `lowest` to `highest`."""
    first, last = (math.floor(math.log(q) / WIDTH) for q in (lowest * (1 - 1e-9), highest * (1 + 1e-9)))
    rows = [_row(phi, panel) for panel in range(first, last + 1)]
    most = max(len(edges) for edges, _ in rows)
    # Panels of no width at 0, where no t is, make all rows one array.
    edges = np.stack([np.pad(edges, (most - len(edges), 0)) for edges, _ in rows])
    padded = [np.pad(part, ((0, 0), (most - len(e), 0), (0, 0), (0, 0))) for e, part in rows]
    coefficients = np.stack(padded)
    return CorrelationTable(WIDTH * first, edges, coefficients[..., 0].sum(-1), coefficients, power(phi))


@functools.lru_cache(maxsize=64)
def chaotic_correlations(phi: Activation) -> CorrelationTable | None:
    r"""Return the table for all fixed lengths up to 1e4 at which chi_perp may be above 1, if there are any.

    As a fixed length is at least $\sigma_w^2 E\phi^2$, chi_perp is at most $q\,E\phi'^2/E\phi^2$.
    """
    table = length_table(phi)
    u = table.nodes[(table.jumps | (table.values[:, 2] > 1 + 1e-9)) & (table.nodes < math.log(1e4))]
    return correlation_table(phi, math.exp(u.min() - WIDTH), math.exp(u.max() + 0.1)) if u.size else None


@functools.lru_cache(maxsize=1024)
def _row(phi: Activation, panel: int) -> tuple[np.ndarray, np.ndarray]:
    """Return edges in t and coefficients, (16, panels in t, 20, 2), for ln q from 1.25 `panel` on."""
    highest = math.exp(WIDTH * (panel + 1))
    # In t, phi has its own scale 1/sqrt(q); next to 0 a smooth function may have all derivatives 0, as hard_tanh's.
    edges = [0.0, *(2.0 ** np.arange(math.ceil(math.log2(min(0.5, highest**-0.5))), 0)).tolist(), 1.0]
    parts = [_panel(phi, panel, a, b) for a, b in itertools.pairwise(edges)]
    most = len(edges) + 8
    while np.abs(parts[0][:, -2:]).max() > 1e-13 and len(edges) < most:
        edges.insert(1, edges[1] / 2)
        parts[:1] = [_panel(phi, panel, a, b) for a, b in itertools.pairwise(edges[:3])]
    coefficients = np.stack(parts, 1)
    slopes = np.zeros_like(coefficients)
    slopes[..., :-1] = np.polynomial.chebyshev.chebder(coefficients, axis=-1) * (2 / np.diff(edges))[:, None]
    return np.array(edges), np.stack([coefficients, slopes], axis=-1)


def _panel(phi: Activation, panel: int, low: float, high: float) -> np.ndarray:
    """Return the coefficients, (16, 20), on one panel in ln q and one in t, from `low` to `high`."""
    q, t = np.exp(WIDTH * (panel + (1 + POINTS) / 2)), (low + high + (high - low) * _POINTS_T) / 2
    ratios = separation_ratios(phi, np.repeat(q, t.size), np.tile(t, q.size)).reshape(q.size, t.size)
    return MATRIX @ np.log(ratios) @ _MATRIX_T.T
