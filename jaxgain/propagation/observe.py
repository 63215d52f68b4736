"""What is observed of the vectors that a network carries, whatever type they have, in float32.

`asked` are the names of the statistics that were asked for; those that are cheap are there in any case.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgain.propagation.kernel import Network
from jaxgain.propagation.rows import mean, mean_squares, norm, reciprocal, stack, unit_rows, unit_size, units_and_lower
from jaxgain.propagation.settings import OF_PAIRS, OF_SPECTRUM
from jaxgain.propagation.statistics import (
    Record,
    directions_of,
    observe_activations,
    observe_gradients,
    observe_preactivations,
    observe_slopes,
)

# Singular values below this share of the largest are rounding.
RESOLVED = 1e-6


def observe_z(network: Network, inputs: int, preactivations: list[Array], asked: Sequence[str]) -> Record:
    """Of all calls of φ in a layer: rms and fractions over all of their neurons, the cosines of the last."""
    if not preactivations:
        nothing = jnp.full(inputs, jnp.nan)
        pairs = {name: jnp.full((inputs, inputs), jnp.nan) for name in OF_PAIRS if name in asked}
        return {"rms_z": nothing, "saturated": nothing, "correlation": nothing[0], "dead": nothing[0], **pairs}
    records = [_observe_preactivation(network, z, asked) for z in preactivations]
    record = records[-1]
    if len(records) > 1:
        shares = np.array([z.shape[1] for z in preactivations], np.float32)
        shares = shares / shares.sum()
        for name in ("saturated", "dead"):
            record[name] = sum(share * each[name] for share, each in zip(shares, records, strict=True))
        each = jnp.stack([share**0.5 * each["rms_z"] for share, each in zip(shares, records, strict=True)])
        record["rms_z"] = norm(each.T)
    return record


def _observe_preactivation(network: Network, z: Array, asked: Sequence[str]) -> Record:
    _, peak, lower = units_and_lower(z)
    _, slope = network.value_and_slope(z)
    record = observe_preactivations(lower, peak) | observe_slopes(list(slope.astype(jnp.float32)), network.steepest)
    return record | _observe_angles(lower, asked)


def _observe_angles(lower: Array, asked: Sequence[str]) -> Record:
    """Cosines of all pairs of rows, and log(1 − cosine) without loss where rows are close."""
    directions = directions_of(lower)
    record: Record = {}
    if "correlations" in asked:
        record["correlations"] = jnp.sum(directions[:, None] * directions[None], axis=-1)
    if "log_one_minus_correlations" in asked:
        apart = directions[:, None] - directions[None]
        same = np.eye(len(lower), dtype=bool)
        record["log_one_minus_correlations"] = jnp.log(jnp.where(same, 0, 0.5 * jnp.sum(apart * apart, axis=-1)))
    return record


def observe_h(h: Array, asked: Sequence[str]) -> Record:
    """Of a layer's output (B, n)."""
    scaled, peak, lower = units_and_lower(h)
    record = observe_activations(scaled, peak, lower)
    record["peak"] = jnp.max(jnp.abs(h.astype(jnp.float32)))  # in low precision it is not far from where numbers end
    if "effective_rank" in asked:
        record["effective_rank"] = _effective_rank(peak[:, None] * reciprocal(jnp.max(peak)) * lower)
    return record


def _effective_rank(rows: Array) -> Array:
    """The exponential of the entropy of the singular values' shares (Roy and Vetterli, EUSIPCO 2007)."""
    values = _singular_values(rows)
    shares = values * reciprocal(jnp.sum(values))
    entropy = -jnp.sum(jnp.where(shares > 0, shares * jnp.log(jnp.where(shares > 0, shares, 1)), 0))
    return jnp.where(jnp.sum(values) > 0, jnp.exp(entropy), jnp.nan)


def _singular_values(rows: Array) -> Array:
    """Falling; NaN where a number is not finite, on which the decomposition would not end."""
    usable = jnp.all(jnp.isfinite(rows))
    return jnp.where(usable, jnp.linalg.svd(jnp.where(usable, rows, 0), compute_uv=False), jnp.nan)


def observe_tangents(tangents: Array, divided: Array, asked: Sequence[str], *, together: bool) -> Record:
    """The Jacobian's stretch of the first direction, and its singular values on the span of all.

    Tangents (k, B, n) are those divided by exp(`divided`) (k, B); `together` says that their rms is not 1.
    """
    lengths = divided + renormalized(tangents, together=False)[1] if together else divided
    record: Record = {"log_jacobian_rms": lengths[0] if len(tangents) else jnp.zeros(0)}
    wanted = set(asked) & set(OF_SPECTRUM)
    if not wanted:
        return record
    moment = jax.scipy.special.logsumexp(2 * lengths, axis=0) - jnp.log(len(lengths))
    values = jax.vmap(_log_singular_values, in_axes=1, out_axes=-1)(tangents, divided)
    spectrum = {
        "log_jacobian_second_moment": moment,
        "log_largest_singular_value": values[0],
        "log_singular_values": values,
    }
    return record | {name: spectrum[name] for name in wanted}


def _log_singular_values(tangents: Array, logs: Array) -> Array:
    """Of J on k orthonormal directions, falling: tangents (k, n) of rms 1 times exp(logs) (k,) -> (k,)."""
    largest = jnp.max(logs)
    shift = jnp.where(jnp.isfinite(largest), largest, 0)
    scaled = jnp.exp(logs - shift)[:, None] * tangents.astype(jnp.float32) * tangents.shape[1] ** -0.5
    values = _singular_values(scaled)
    return jnp.where(values > RESOLVED * values[0], jnp.log(values) + shift, jnp.nan)


def observe_gradient(h: Array, gradient: Array, log_scale: Array, asked: Sequence[str]) -> Record:
    """Of the cotangents exp(log_scale) `gradient` of a layer's output h, (B, n), (B,)."""
    units, peak = unit_size(list(gradient.astype(jnp.float32)))
    record = observe_gradients(units, stack([mean(g * g) for g in units]), log_scale + jnp.log(peak))
    if "grad_correlation" in asked:
        record["grad_correlation"] = _cosine(*units[:2]) if len(units) > 1 else jnp.full((), jnp.nan)
    if "grad_alignment" in asked:
        activations, _ = unit_size(list(h.astype(jnp.float32)))
        record["grad_alignment"] = stack([_cosine(g, x) for g, x in zip(units, activations, strict=True)])
    return record


def _cosine(a: Array, b: Array) -> Array:
    lengths = jnp.sqrt(mean(a * a) * mean(b * b))
    return jnp.where(lengths > 0, mean(a * b) * reciprocal(lengths), jnp.nan)


def renormalized(rows: Array, together: bool) -> tuple[Array, Array]:
    """Rows (…, B, n) of rms 1, and the logarithm of what they were divided by (…, B); one number where rows mix."""
    if not rows.size:
        return rows, jnp.zeros(rows.shape[:-1])
    units, sizes = unit_rows(rows.astype(jnp.float32).reshape(-1, rows.shape[-1]))
    lengths = jnp.sqrt(mean_squares(units))
    log_sizes = (jnp.log(sizes) + jnp.log(lengths)).reshape(rows.shape[:-1])
    if together:
        log_sizes = jnp.broadcast_to(jnp.max(log_sizes, axis=-1, keepdims=True), log_sizes.shape)
        scale = jnp.exp(jnp.where(jnp.isneginf(log_sizes), 0, -log_sizes))
        return (rows * scale[..., None]).astype(rows.dtype), log_sizes
    unit = units * reciprocal(lengths)[:, None]
    return unit.reshape(rows.shape).astype(rows.dtype), log_sizes
