r"""Fixed points with their correlation, depth scales and phase at traced $(\sigma_w, \sigma_b)$, from tables."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxgain.activations import Activation
from jaxgain.theory.lengths import TINY, scan
from jaxgain.theory.phases import EDGE, NOISE, PHASES, STABILITIES, FixedPoint
from jaxgain.theory.quadrature import moments
from jaxgain.theory.reached import noise_of, reached_correlation, reached_length
from jaxgain.theory.tables import chaotic_correlations, length_table
from jaxgain.theory.traced_lengths import traced_lengths


def traced_fixed_point(phi: Activation, sigma_w: Array, sigma_b: Array, q0: Array) -> FixedPoint:
    """Return the fixed point reached from q0, at scalars."""
    limit, top, noise = moments(phi, 0.0), scan(phi)[-1][1], noise_of(q0)
    ends = reached_length(length_table(phi), sigma_w, sigma_b, q0)
    dead = (
        ends.falls & (sigma_b == 0) & (sigma_w**2 * limit.slope_second.value <= 1 + noise) & (limit.second.value < TINY)
    )

    def choose(there: Any, dead_value: Any, infinite: Any) -> Array:
        return jnp.where(dead, dead_value, jnp.where(ends.rises, infinite, there))

    chi_par, chi_perp = (
        choose(there, _times(sigma_w, low.value), _times(sigma_w, high.value))
        for there, low, high in (
            (ends.chi_par, limit.length_slope, top.length_slope),
            (ends.chi_perp, limit.slope_second, top.slope_second),
        )
    )
    chaotic = ends.known & (chi_perp > 1 + noise)
    below_one = _correlation(phi, sigma_w, ends.q)
    one_minus_c = jnp.where(chaotic, below_one.one_minus_c, choose(0.0, 0.0, jnp.nan))
    slope = jnp.where(chaotic, below_one.slope, choose(chi_perp, 1.0, jnp.nan))
    neutral = ~(ends.known | ends.falls | ends.rises) & (sigma_b == 0) & (jnp.abs(chi_par - 1) <= noise)
    phase = jnp.where(chi_perp < 1, PHASES.index("ordered"), PHASES.index("chaotic"))
    phase = choose(phase, PHASES.index("collapsing"), PHASES.index("diverging"))
    edge = ~ends.rises & (jnp.abs(chi_perp - 1) <= max(EDGE, noise))
    phase = jnp.where(edge, PHASES.index("edge"), phase)
    return FixedPoint(
        q=choose(ends.q, 0.0, jnp.inf),
        one_minus_c=one_minus_c,
        chi_par=chi_par,
        chi_perp=chi_perp,
        slope=slope,
        xi_q=_depth(jnp.abs(chi_par)),
        xi_c=_depth(slope),
        xi_grad=_depth(chi_perp),
        stability=jnp.where(neutral, STABILITIES.index("neutral"), choose(2, 2, 0)).astype(jnp.int32),
        basin=jnp.full_like(q0, jnp.nan),
        phase=jnp.where(neutral, PHASES.index("scale-invariant"), phase).astype(jnp.int32),
        residual=choose(ends.residual, 0.0, jnp.inf),
        converged=(ends.known & ~(chaotic & jnp.isnan(one_minus_c))) | dead | neutral,
    )


def traced_fixed_points(phi: Activation, sigma_w: Array, sigma_b: Array) -> FixedPoint:
    """Return all fixed points at scalars: fields of shape (places,), `basin` (places, 2)."""
    lengths = traced_lengths(phi, sigma_w, sigma_b)
    return jax.vmap(lambda *length: _at(phi, sigma_w, sigma_b, lengths.neutral, *length))(
        lengths.q, lengths.below, lengths.above, *_neighbours(lengths.q)
    )


def _neighbours(q: Array) -> tuple[Array, Array]:
    """Return the fixed lengths below and above each one, 0 and infinity where there is none."""
    above = jnp.append(q[1:], jnp.nan)
    return jnp.append(0.0, q[:-1]).astype(q.dtype), jnp.where(jnp.isnan(above), jnp.inf, above)


def _at(
    phi: Activation,
    sigma_w: Array,
    sigma_b: Array,
    neutral: Array,
    q: Array,
    below: Array,
    above: Array,
    low: Array,
    high: Array,
) -> FixedPoint:
    """Return the fixed point at one length, q NaN where there is none."""
    limit, table, noise = moments(phi, 0.0), length_table(phi), noise_of(q)
    there, dead = ~jnp.isnan(q), q == 0
    positive = jnp.where(there & ~dead, q, 1.0)  # where nothing is, so that derivatives are numbers
    log_second, slope, slope_second = table.at(jnp.log(positive))
    weights = sigma_w**2 * jnp.exp(log_second) / positive
    chi_par: Any = jnp.where(dead, _times(sigma_w, limit.length_slope.value), weights * slope)
    chi_perp = _times(sigma_w, jnp.inf) if table.jumps else weights * slope_second
    chi_perp = jnp.where(dead, _times(sigma_w, limit.slope_second.value), chi_perp)
    chaotic = ~dead & (chi_perp > 1 + noise)
    below_one = _correlation(phi, sigma_w, positive)
    one_minus_c = jnp.where(chaotic, below_one.one_minus_c, 0.0)
    slope = jnp.where(chaotic, below_one.slope, jnp.where(dead, 1.0, chi_perp))
    stability = jnp.where(dead, jnp.where(above < 0, 2, 0), (below > 0).astype(jnp.int32) + (above < 0))
    phase = jnp.where(chi_perp < 1, PHASES.index("ordered"), PHASES.index("chaotic"))
    phase = jnp.where(dead & (stability == 2), PHASES.index("collapsing"), phase)
    phase = jnp.where(jnp.abs(chi_perp - 1) <= max(EDGE, noise), PHASES.index("edge"), phase)
    basin = jnp.stack([jnp.where(below > 0, low, q), jnp.where(above < 0, high, q)])

    def filled(value: Any) -> Any:
        return jnp.where(there, value, jnp.nan)

    def place(value: Any, if_neutral: int) -> Any:
        chosen: Any = jnp.where(neutral, if_neutral, value)
        return jnp.asarray(jnp.where(there, chosen, -1), jnp.int32)

    return FixedPoint(
        q=q,
        one_minus_c=filled(one_minus_c),
        chi_par=filled(chi_par),
        chi_perp=filled(chi_perp),
        slope=filled(slope),
        xi_q=filled(_depth(jnp.abs(chi_par))),
        xi_c=filled(_depth(slope)),
        xi_grad=filled(_depth(chi_perp)),
        stability=place(stability, STABILITIES.index("neutral")),
        basin=jnp.where(neutral | ~there, q, basin),
        phase=place(phase, PHASES.index("scale-invariant")),
        residual=filled(jnp.where(dead, 0.0, jnp.abs(weights + sigma_b**2 / positive - 1))),
        converged=there & ~(chaotic & jnp.isnan(one_minus_c)),
    )


class _BelowOne(NamedTuple):
    one_minus_c: Array
    slope: Array


def _correlation(phi: Activation, sigma_w: Array, q: Array) -> _BelowOne:
    """Return the attracting correlation below 1, which is there where chi_perp > 1, NaN outside its table."""
    correlations = chaotic_correlations(phi)
    if correlations is None:
        return _BelowOne(jnp.full_like(q, jnp.nan), jnp.full_like(q, jnp.nan))
    return _BelowOne(*reached_correlation(correlations, jnp.log(q), 2 * jnp.log(sigma_w)))


def _times(sigma_w: Array, moment: float) -> Array:
    return jnp.where(sigma_w == 0, 0.0, sigma_w**2 * (moment if abs(moment) > TINY else 0.0))


def _depth(factor: Array) -> Array:
    depth = jnp.where(jnp.isinf(factor), 0.0, -1 / jnp.log(factor))
    return jnp.where(jnp.abs(factor - 1) <= max(NOISE, float(jnp.finfo(factor.dtype).eps)), jnp.inf, depth)
