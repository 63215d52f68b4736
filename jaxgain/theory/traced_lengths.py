r"""All fixed lengths at traced $(\sigma_w, \sigma_b)$, compiled and batched: how many there can be is known before.

$q' - q$ has an extremum only where $\sigma_w^2\,dE\phi^2/dq = 1$, at most once between two extrema of
$dE\phi^2/dq$, and between its own extrema at most one zero.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgain.activations import Activation
from jaxgain.theory.crossings import changes, crossing, sign_beyond
from jaxgain.theory.lengths import TINY, bends
from jaxgain.theory.quadrature import moments
from jaxgain.theory.reached import noise_of
from jaxgain.theory.tables import LengthTable, length_table


class Lengths(NamedTuple):
    """Fixed lengths by increasing q, (places,), NaN in the places that are left over."""

    q: Array
    below: Array  # sign of q' - q below q, and above it
    above: Array
    neutral: Array  # scalar: every length is fixed


def places(phi: Activation) -> int:
    """Return how many fixed lengths there can be, 0 among them: two more than dE phi^2/dq has extrema."""
    return len(bends(phi)) + 2


def vanishes_at_zero(phi: Activation) -> bool:
    """Return whether q = 0 is a fixed length without bias."""
    return not phi.jumps and moments(phi, 0.0).second.value < TINY


def traced_lengths(phi: Activation, sigma_w: Array, sigma_b: Array) -> Lengths:
    """Return the fixed lengths at scalars: 0, and those on the activation's table."""
    table, dtype = length_table(phi), sigma_w.dtype
    u, values = jnp.asarray(table.nodes, dtype), jnp.asarray(table.values, dtype)
    ends = np.concatenate([table.nodes[:1], _inside(table, bends(phi)), table.nodes[-1:]])
    along = _growth(sigma_w, sigma_b, values[:, 0], u)
    points = jnp.concatenate([u[:1], _extrema(table, sigma_w, jnp.asarray(ends, dtype)), u[-1:]])
    at_points = jax.vmap(table.at)(points)
    growth = _growth(sigma_w, sigma_b, at_points[:, 0], points)
    signs = _signs(sigma_w, sigma_b, at_points[:, 0], points, noise_of(u))
    found = changes(signs)

    def log_growth(u: Array) -> tuple[Array, Array]:
        log_second, slope, _ = table.at(u)
        weights = sigma_w**2 * jnp.exp(log_second)
        image = weights + sigma_b**2
        return jnp.log(image) - u, weights * slope / image - 1

    def root(k: Array, before: Array, crosses: Array, touches: Array) -> Array:
        low, high, sign = points[before], points[k], signs[before]
        # A root of a constant function elsewhere, so that no derivative of what is not there is NaN.
        crossed = crossing(
            lambda u: jax.tree.map(lambda x, y: jnp.where(crosses, x, y), log_growth(u), (high - u, -1.0)),
            u,
            along,
            low,
            high,
            jnp.where(crosses, sign, 1),
        )
        place = jnp.arange(points.size)
        between = (place > before) & (place < k)
        touched = points[jnp.argmin(jnp.where(between, jnp.abs(growth), jnp.inf))]
        return jnp.where(crosses, crossed, jnp.where(touches, touched, jnp.nan))

    k = jnp.arange(1, points.size)
    roots = jnp.exp(jax.vmap(root)(k, *found))
    first = signs[jnp.argmax(signs != 0)]  # 0 where there is none
    zero = (sigma_b == 0) & (vanishes_at_zero(phi) | ((sigma_w == 0) & (not phi.jumps)))
    neutral = (signs == 0).all()
    q = jnp.concatenate([jnp.where(zero, 0.0, jnp.nan)[None], roots])
    below = jnp.concatenate([jnp.zeros(1, jnp.int32), signs[found.before]])
    above = jnp.concatenate([first[None], signs[1:]])
    # Those that are there first; they are in order already.
    order = jnp.argsort(jnp.isnan(q), stable=True)[: points.size - 1]
    q = jnp.where(neutral, _neutral(zero, order.size, dtype), q[order])
    return Lengths(q, below[order], above[order], neutral)


def _inside(table: LengthTable, lengths: tuple[float, ...]) -> np.ndarray:
    u = np.log(np.array(lengths))
    return np.clip(u, table.nodes[0], table.nodes[-1])  # as many as there are, so that the number of places is


def _growth(sigma_w: Array, sigma_b: Array, log_second: Array, u: Array) -> Array:
    return sigma_w**2 * jnp.exp(log_second - u) + sigma_b**2 * jnp.exp(-u) - 1


def _signs(sigma_w: Array, sigma_b: Array, log_second: Array, u: Array, noise: float) -> Array:
    ratio = sigma_w**2 * jnp.exp(log_second - u)
    signs = sign_beyond(_growth(sigma_w, sigma_b, log_second, u), noise * jnp.maximum(1.0, ratio))
    # Preserved up to rounding: any bias decides.
    return jnp.where(jnp.abs(ratio - 1) <= noise, (sigma_b > 0).astype(jnp.int32), signs)


def _extrema(table: LengthTable, sigma_w: Array, ends: Array) -> Array:
    """Return where q' - q has its extremum between each two of the `ends`, the upper one where it has none."""
    u, values = jnp.asarray(table.nodes, ends.dtype), jnp.asarray(table.values, ends.dtype)

    def tilt(u: Array) -> Array:
        log_second, slope, _ = table.at(u)
        return sigma_w**2 * jnp.exp(log_second - u) * slope - 1

    along = sigma_w**2 * jnp.exp(values[:, 0] - u) * values[:, 1] - 1
    at_ends = jax.vmap(tilt)(ends)

    def extremum(low: Array, high: Array, before: Array, after: Array) -> Array:
        there = (before > 0) != (after > 0)

        def function(u: Array) -> Any:
            value, slope = jax.jvp(tilt, (u,), (jnp.ones_like(u),))
            return jnp.where(there, value, high - u), jnp.where(there, slope, -1.0)

        return crossing(function, u, along, low, high, jnp.where(there & (before <= 0), -1, 1))

    # To second order the growth at an extremum does not depend on where it is.
    return jax.lax.stop_gradient(jax.vmap(extremum)(ends[:-1], ends[1:], at_ends[:-1], at_ends[1:]))


def _neutral(zero: Array, size: int, dtype: jnp.dtype) -> Array:
    """Return 0, if it is fixed, and 1, which stands for all other lengths."""
    place = jnp.arange(size)
    return jnp.where(place == 0, jnp.where(zero, 0.0, 1.0), jnp.where((place == 1) & zero, 1.0, jnp.nan)).astype(dtype)
