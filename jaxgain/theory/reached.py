r"""Where the recursion ends, at traced scalars: compiled and batched over $(\sigma_w, \sigma_b, q_0)$."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxgain.theory.chebyshev import polynomials
from jaxgain.theory.increments import POINTS, WIDTH
from jaxgain.theory.tables import CorrelationTable, LengthTable


def noise_of(x: Array) -> float:
    """Return how far, relatively, a table is off in the precision of `x`."""
    return max(1e-12, 32 * float(jnp.finfo(x.dtype).eps))


class Reached(NamedTuple):
    """Where the length ends, both chi there, and what the table can tell of it; scalars or arrays of one shape."""

    q: Any
    chi_par: Any
    chi_perp: Any
    known: Any  # it ends at q
    falls: Any  # it falls below the table
    rises: Any  # it rises above the table, and exponentially
    residual: Any  # |q'/q - 1|


def reached_length(table: LengthTable, sigma_w: Array, sigma_b: Array, q0: Array) -> Reached:
    """Return the length reached from q0, at scalars: compiles and batches.

    The growth q'/q is looked at at every node of the table; the change of its sign next to q0, on the side where
    the length goes, is then solved for. None of `known`, `falls` and `rises` is true where rounding decides.
    """
    noise = noise_of(q0)
    u0, log_square, ends = jnp.log(q0), 2 * jnp.log(sigma_w), len(table.nodes) - 1
    u, values = jnp.asarray(table.nodes, q0.dtype), jnp.asarray(table.values, q0.dtype)
    along = sigma_w**2 * jnp.exp(values[:, 0] - u) + sigma_b**2 * jnp.exp(-u) - 1

    def excess(u: Array) -> tuple[Array, Array]:
        log_second, slope, _ = table.at(u)
        weights = jnp.exp(log_square + log_second)
        image = weights + sigma_b**2
        return jnp.log(image) - u, weights * slope / image - 1

    first, _ = excess(u0)
    up = first > 0
    turns_up, turns_down = (u > u0) & (along < -noise), (u < u0) & (along > noise)
    i, j = jnp.argmax(turns_up), ends - jnp.argmax(turns_down[::-1])
    there = jnp.where(up, turns_up.any(), turns_down.any())
    low = jnp.where(up, jnp.maximum(u0, u[i - 1]), u[j])
    high = jnp.where(up, u[i], jnp.minimum(u0, u[jnp.minimum(j + 1, ends)]))
    end = jnp.where(there, bracketed_root(excess, low, high, steps=12)[0], u0)
    log_second, slope, slope_second = table.at(end)
    weights = jnp.exp(log_square + log_second - end)
    chi_perp = jnp.where(table.jumps, jnp.where(sigma_w > 0, jnp.inf, 0.0), weights * slope_second)
    inside = (u0 >= u[0]) & (u0 <= u[-1])
    sure = inside & (jnp.abs(first) > noise)
    top = sigma_w**2 * jnp.exp(values[-1, 0] - u[-1]) * values[-1, 1]
    return Reached(
        jnp.exp(end),
        weights * slope,
        chi_perp,
        known=sure & there & (jnp.abs(weights * slope - 1) > 1e-7),
        falls=sure & ~there & ~up,
        rises=sure & ~there & up & (top > 1.01),
        residual=jnp.abs(excess(end)[0]),
    )


def bracketed_root(
    function: Callable[[Array], tuple[Array, Array]], low: Array, high: Array, steps: int
) -> tuple[Array, Array]:
    """Return the zero of a function that is positive at `low` and not at `high`, by Newton or bisection.

    `function` returns its value and its slope; the slope where it was computed last comes with the zero.
    """

    def step(_: int, state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        low, high, at, _slope = state
        value, slope = function(at)
        low, high = jnp.where(value > 0, at, low), jnp.where(value > 0, high, at)
        newton = at - value / slope
        return low, high, jnp.where((newton >= low) & (newton <= high), newton, (low + high) / 2), slope

    middle = (low + high) / 2
    return jax.lax.fori_loop(0, steps, step, (low, high, middle, jnp.zeros_like(middle)))[2:]


def reached_correlation(table: CorrelationTable, log_q: Array, log_square: Array) -> tuple[Array, Array]:
    r"""Return 1 - c at the attracting fixed correlation in [0, 1), and the slope of its map, where chi_perp > 1.

    From `log_q` and `log_square` $= \ln\sigma_w^2$, at scalars: compiles and batches. NaN outside the table.
    """
    place = (log_q - table.low) / WIDTH
    panel = jnp.clip(jnp.floor(place), 0, len(table.edges) - 1).astype(int)
    inside = (place >= 0) & (place <= len(table.edges))
    in_q = polynomials(jnp, 2 * (place - panel) - 1, POINTS.size)
    edges, ends, coefficients = (
        jnp.asarray(part, log_q.dtype)[panel] for part in (table.edges, table.ends, table.coefficients)
    )
    # ln of sigma_w^2 E(phi(u) - phi(v))^2/(2 q t^2), which falls with t, is 0 at the fixed correlation.
    padding = edges[1:] == 0
    ends = in_q @ ends + (table.power - 2) * jnp.log(jnp.where(padding, 1.0, edges[1:])) + log_square
    k = jnp.sum((ends[:-1] > 0) | padding[:-1])
    low, high, coefficients = edges[k], edges[k + 1], jnp.tensordot(in_q, coefficients[:, k], 1)

    def excess(t: Array) -> tuple[Array, Array]:
        value, slope = polynomials(jnp, (2 * t - low - high) / (high - low), coefficients.shape[0]) @ coefficients
        return value + (table.power - 2) * jnp.log(t) + log_square, slope + (table.power - 2) / t

    t, _ = bracketed_root(excess, jnp.maximum(low, 1e-16), high, steps=25)
    t = jnp.where(ends[-1] > -noise_of(log_q), 1.0, t)  # phi is odd and there is no bias
    one_minus_c, slope = t * t, 1 + t / 2 * excess(t)[1]
    return jnp.where(inside, one_minus_c, jnp.nan), jnp.where(inside, slope, jnp.nan)
