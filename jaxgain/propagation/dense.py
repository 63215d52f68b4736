r"""A plain network with its weight matrices drawn: any distribution, and the oracle for what needs no matrices.

The matrices come from the layers' keys, so the way back draws them again instead of keeping depth × n² numbers,
and `vmap` over the gain with the key unbatched makes one matmul of all gains: $z = \sigma_w\,(W h) + \sigma_b b$.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgain.propagation.kernel import Ends, Network, arriving, at_each, layer_before, turn_back
from jaxgain.propagation.rows import factor, mean_squares, norm, product, reciprocal, unit_size, units_and_lower
from jaxgain.propagation.statistics import (
    Record,
    directions_of,
    log_weight_gradient,
    observe_activations,
    observe_gradients,
    observe_preactivations,
    observe_slopes,
)
from jaxgain.propagation.weights import UNIT_NORMAL, Matrices, draw_matrix, scan_layers


def propagate_dense(
    key: Array,
    network: Network,
    ends: Ends,
    *,
    depth: int,
    depths: tuple[int, ...] = (),
    matrices: Matrices = UNIT_NORMAL,
) -> tuple[Record, Record]:
    """Records of layer 0 and of layers 1 … depth (leading axis)."""
    value_and_slope, steepest, sigma_w, sigma_b = network
    inputs, directions, cotangents = ends
    (signals, width), tangents = inputs.shape, directions.shape[0]
    scale = sigma_w * np.float32(width**-0.5)  # of a weight: one number, where the matrix is many
    draw = partial(draw_matrix, key, matrices=matrices, fan_in=width, fan_out=width)
    scan = partial(scan_layers, draw=draw, bytes_per_layer=4 * width**2)

    def forward(carry, xs):
        (h, direction, log_jacobian), (_, _, (weights, bias)) = carry, xs
        moved = product(jnp.concatenate([h, direction]) if tangents else h, weights.T)
        z = scale * moved[:signals] + (0 if sigma_b is None else sigma_b * bias[None, :])
        h, slope = value_and_slope(z)
        record = observe_slopes(list(slope), steepest) | _observe_z(z) | _observe_h(h)
        scaled, peak = unit_size(list(slope[:tangents] * moved[signals:]))
        tangent = jnp.stack(scaled) if scaled else direction
        length = jnp.sqrt(mean_squares(tangent))
        log_jacobian = log_jacobian + jnp.log(scale) + jnp.log(peak) + jnp.log(length)
        record["log_jacobian_rms"] = log_jacobian
        return (h, tangent * reciprocal(length)[:, None], log_jacobian), (z, record)

    _, (preactivations, records) = scan(forward, (inputs, directions, jnp.zeros(tangents, inputs.dtype)), depth, None)
    first = _observe_h(inputs) | {"log_jacobian_rms": jnp.zeros(tangents, inputs.dtype)}
    if cotangents is None:
        return _observed(first), _observed(records)

    def reverse(carry, xs):
        layer, (z, log_rms, rows), (weights, _) = xs
        h, slope = value_and_slope(z)
        slope = jnp.where(jnp.isnan(h), h, slope)  # of what is no number it may be one, and means nothing

        def step(carry, last):
            del last
            gradient, log_scale = carry
            record = _observe_gradients(gradient, log_scale)
            deltas, peak = unit_size(list(slope * gradient))
            log_delta = log_scale + jnp.log(peak)
            delta = factor(deltas, careful=signals)
            record["log_weight_grad_rms"] = log_weight_gradient(delta, log_delta, log_rms, rows)
            return (product(jnp.stack(deltas), weights), log_delta + jnp.log(scale)), record

        return turn_back(step, carry, layer, depth, depths)

    before = [layer_before(first[name], records[name]) for name in ("log_rms", "directions")]
    arrived = arriving(depths, (cotangents, jnp.zeros(signals, inputs.dtype)))
    returned, gradients = scan(reverse, arrived, depth, (preactivations, *before), reverse=True)
    at_input = at_each(depths, lambda returned: _observe_gradients(*returned))(returned)
    return _observed(first) | at_input, _observed(records) | gradients


def _observe_z(z: Array) -> Record:
    _, peak, lower = units_and_lower(z)
    return observe_preactivations(lower, peak)


def _observe_h(h: Array) -> Record:
    scaled, peak, lower = units_and_lower(h)
    record = observe_activations(scaled, peak, lower)
    return record | {"log_rms": jnp.log(peak) + jnp.log(norm(lower)), "directions": directions_of(lower)}


def _observe_gradients(gradient: Array, log_scale: Array) -> Record:
    return observe_gradients(list(gradient), mean_squares(gradient), log_scale)


def _observed(record: Record) -> Record:
    """The record without what only the way back needed."""
    return {name: x for name, x in record.items() if name not in ("log_rms", "directions")}
