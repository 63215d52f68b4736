r"""A plain network with Gaussian weights, exactly, without its weights and without its activations.

$z^l = W^l h^{l-1} + b^l$, $h^l = \phi(z^l)$ with B signals and, beside each, a tangent $t^l = \phi'(z^l) \odot W^l
t^{l-1}$. Let $V$ hold these K rows and $A = [V \sigma_w/\sqrt n,\ \sigma_b]$ (no bias for tangents). With
$A = R Q$, $Q$ orthonormal, $Q \hat W = E$ is standard normal, so $A \hat W = R E$: **all that a layer keeps of the
layer before it is the K × K triangle R**. In reverse $\hat W = Q^\top E + (I - Q^\top Q)\tilde W$ with fresh
$\tilde W$, so the cotangents of layer l are $\alpha V + r e$ with fresh normal e and small matrices α, r. This is
the exact joint law of activations, tangents and gradients at any finite width, the alignment between them
included. `vmap` over the gain with the key unbatched shares E and e between gains.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxgain.propagation.kernel import Ends, Network, arriving, at_each, layer_before, turn_back
from jaxgain.propagation.means import EXTREMES, guessed_sizes, settled
from jaxgain.propagation.rows import (
    NARROW,
    Rows,
    combine,
    combine_lower,
    factor,
    factor_array,
    mean,
    norm,
    orthonormalized,
    projections,
    reciprocal,
    scaled,
    sizes_of,
    small_product,
    stack,
)
from jaxgain.propagation.statistics import (
    Record,
    directions_of,
    log_weight_gradient,
    observe_activations,
    observe_gradients,
    observe_preactivations,
    observe_slopes,
)
from jaxgain.propagation.weights import draw_noise, scan_layers, tabulated


class Triangle(NamedTuple):
    """What a layer's K rows V leave to the next one, and what the way back needs of it."""

    forward: Array
    """R (K, K): the next layer's rows are R E. Signal rows in their own units, tangent rows of norm 1."""
    unit: Array
    """(K,): the reciprocal of the size of each row of V."""
    basis: Array
    """(K, K): the part of Q on the neurons, as combinations of the rows unit[:, None] * V."""
    column: Array
    """(K,): the part of Q on the bias column."""
    explicit: Rows | None
    """In a narrow layer the part of Q on the neurons itself, in the place of V: `unit` is 1, `basis` the identity."""
    log_rms: Array
    """(B,) of the signal rows."""
    directions: Array
    """(B, B) coordinates of the signal rows in an orthonormal basis, each divided by its length."""


class Returning(NamedTuple):
    """Cotangents on their way back through W: D = exp(log_scale)[:, None] * (lower @ orthonormal rows)."""

    onto_forward: Array
    """(B, K) mean over the neurons of D̂ E."""
    lower: Array
    """r (B, B)."""
    log_scale: Array
    """(B,), σ_w of the map included."""


def propagate_plain(
    key: Array, network: Network, ends: Ends, *, depth: int, depths: tuple[int, ...] = ()
) -> tuple[Record, Record]:
    """Records of layer 0 and of layers 1 … depth (leading axis)."""
    value_and_slope, steepest, sigma_w, sigma_b = network
    inputs, directions, cotangents = ends
    (signals, width), tangents = inputs.shape, directions.shape[0]
    sizes = {"inputs": signals, "tangents": tangents, "width": width, "bias": sigma_b is not None}
    bytes_per_layer = 4 * width * (2 * signals + tangents)
    draw = partial(draw_noise, key, **sizes)
    known = tabulated(partial(draw, reverse=cotangents is not None), depth, bytes_per_layer)
    scan = partial(scan_layers, bytes_per_layer=bytes_per_layer)
    rows = [*inputs, *directions]
    at_input = jnp.zeros(tangents, inputs.dtype)
    start, first = _leave(rows, sizes_of(rows, whole_range=signals), at_input, sigma_w, sigma_b, signals)

    def forward(carry, xs):
        (triangle, log_jacobian), (layer, _, noise) = carry, xs
        lower, noise = settled(lambda: (triangle.forward, noise), layer)
        rows, slopes = _arrive(value_and_slope, lower, noise.forward, signals)
        extremes = [value_and_slope(norm(row) * jnp.array(EXTREMES))[0] for row in lower[:signals]]
        bounds = jnp.stack([*(jnp.max(jnp.abs(h)) for h in extremes), *[jnp.asarray(steepest, lower.dtype)] * tangents])
        after, record = _leave(rows, guessed_sizes(rows, bounds), log_jacobian, sigma_w, sigma_b, signals)
        record |= observe_slopes(slopes, steepest)
        record |= _observe_preactivations(triangle.forward, noise.forward, signals)
        return (after, record["log_jacobian_rms"]), (after, record)

    _, (triangles, records) = scan(forward, (start, at_input), depth, None, known or partial(draw, reverse=False))
    first["log_jacobian_rms"] = at_input
    if cotangents is None:
        return first, records

    def reverse(returning, xs):
        layer, (before, after), noise = xs
        lower, noise = settled(lambda: (before.forward, noise), layer)
        rows, slopes = _arrive(value_and_slope, lower, noise.forward, signals)
        step = partial(turn, before=before, after=after, noise=noise, rows=rows, slopes=slopes)
        return turn_back(step, returning, layer, depth, depths)

    def turn(returning, last, *, before, after, noise, rows, slopes):
        fresh = [jnp.where(last, u, e) for u, e in zip(cotangents, noise.reverse, strict=True)]
        gradients, squares = _return(returning, after, rows, fresh, noise.bias, last)
        record = observe_gradients(gradients, squares, returning.log_scale)
        deltas = [slope * g for slope, g in zip(slopes, gradients, strict=True)]
        size = guessed_sizes(deltas, steepest * jnp.sqrt(squares))
        delta = factor(scaled(deltas, reciprocal(size)), careful=signals)
        log_scale = returning.log_scale + jnp.log(size)
        record["log_weight_grad_rms"] = log_weight_gradient(delta, log_scale, before.log_rms, before.directions)
        onto = reciprocal(size)[:, None] * projections(deltas, noise.forward)
        sent = Returning(onto, delta.lower, log_scale + jnp.log(sigma_w))
        return sent, record

    zeros = jnp.zeros((signals, signals + tangents), inputs.dtype)
    arrived = arriving(depths, Returning(zeros, jnp.eye(signals, dtype=inputs.dtype), zeros[:, 0]))
    saved = (layer_before(start, triangles), triangles)
    with_reverse = known or partial(draw, reverse=True)
    returning, gradients = scan(reverse, arrived, depth, saved, with_reverse, reverse=True)
    noise = with_reverse(jnp.zeros((), jnp.int32))

    def observe_input(returning):
        at_input, squares = _return(returning, start, rows, noise.reverse, noise.bias, False)
        return observe_gradients(at_input, squares, returning.log_scale)

    return first | at_each(depths, observe_input)(returning), records | gradients


def _arrive(value_and_slope: Callable, lower: Array, noise: Rows, signals: int) -> tuple[Rows, Rows]:
    """The K rows of a layer and the B rows φ'(z), from the triangle of the layer before it and fresh noise."""
    preactivations = combine_lower(lower, noise)
    values, slopes = zip(*map(value_and_slope, preactivations[:signals]), strict=True)
    tangents = [slope * moved for slope, moved in zip(slopes, preactivations[signals:], strict=False)]
    return [*values, *tangents], list(slopes)


def _leave(
    rows: Rows, peak: Array, log_jacobian: Array, sigma_w: Array, sigma_b: Array | None, signals: int
) -> tuple[Triangle, Record]:
    """The triangle that a layer's rows of size `peak` leave, and what is observed of them."""
    units = scaled(rows, reciprocal(peak))
    lower, inverse = factor(units, careful=signals)
    record = observe_activations(units[:signals], peak[:signals], lower[:signals, :signals])
    lengths = norm(lower[signals:])
    record["log_jacobian_rms"] = log_jacobian + jnp.log(sigma_w) + jnp.log(peak[signals:]) + jnp.log(lengths)
    signal_size = sigma_w * peak[:signals]
    if rows[0].shape[0] <= NARROW:
        left = _leave_narrow(units, lengths, signal_size, sigma_b)
    else:
        left = _leave_wide(lower, inverse, lengths, peak, signal_size, sigma_b)
    own = directions_of(lower[:signals, :signals])
    return Triangle(*left, jnp.log(record["rms_h"]), own), record


def _leave_narrow(
    units: Rows, lengths: Array, signal_size: Array, sigma_b: Array | None
) -> tuple[Array, Array, Array, Array, Rows]:
    """`forward` to `explicit` of a triangle, R and Q from one Gram–Schmidt over neurons and bias column.

    The few neurons of a narrow layer are often all saturated, and its rows so nearly parallel that small
    combinations of them are no longer orthonormal.
    """
    width = units[0].shape[0]
    sigma_b = jnp.zeros_like(signal_size) if sigma_b is None else sigma_b
    size = jnp.maximum(signal_size, sigma_b)
    factors = jnp.concatenate([signal_size * reciprocal(size), reciprocal(lengths)])
    bias = jnp.concatenate([sigma_b * reciprocal(size), jnp.zeros_like(lengths)])
    augmented = jnp.concatenate([jnp.stack(scaled(units, factors)), width**0.5 * bias[:, None]], axis=1)
    orthonormal, lower, _ = orthonormalized(augmented, width)
    forward = jnp.concatenate([size, jnp.ones_like(lengths)])[:, None] * lower
    ones = jnp.ones_like(bias)
    return forward, ones, jnp.diag(ones), orthonormal[:, -1] / width**0.5, list(orthonormal[:, :-1])


def _leave_wide(
    lower: Array, inverse: Array, lengths: Array, peak: Array, signal_size: Array, sigma_b: Array | None
) -> tuple[Array, Array, Array, Array, None]:
    """The same from the small factors of the rows alone, without another pass over the neurons."""
    signals = signal_size.shape[0]
    tangent = lower[signals:] * reciprocal(lengths)[:, None]
    if sigma_b is None:
        forward = jnp.concatenate([lower[:signals] * signal_size[:, None], tangent])
        return forward, reciprocal(peak), inverse, jnp.zeros_like(peak), None
    # Each augmented row is divided by its own size, so that a tiny signal beside a bias keeps its digits.
    size = jnp.maximum(signal_size, sigma_b)
    signal = lower[:signals] * (signal_size * reciprocal(size))[:, None]
    bias = jnp.concatenate([sigma_b * reciprocal(size), jnp.zeros_like(lengths)])
    augmented = jnp.concatenate([jnp.concatenate([signal, tangent]), bias[:, None]], axis=1)
    small = factor_array(augmented * augmented.shape[1] ** 0.5)
    forward = jnp.concatenate([size, jnp.ones_like(lengths)])[:, None] * small.lower
    mix = small_product(small.inverse, augmented)
    return forward, reciprocal(peak), small_product(mix[:, :-1], inverse), mix[:, -1], None


def _return(
    returning: Returning, triangle: Triangle, rows: Rows, fresh: Rows, bias: Array, last: Array | bool
) -> tuple[Rows, Array]:
    """The B cotangents of the layer whose rows are given, and their mean squares (B,).

    The cotangents of the last layer are `fresh` itself.
    """
    width = rows[0].shape[0]
    rows = rows if triangle.explicit is None else triangle.explicit
    on_neurons = small_product((triangle.unit[:, None] * projections(rows, fresh)).T, triangle.basis.T)
    seen = on_neurons + bias[:, None] * triangle.column[None, :] / width**0.5
    along = returning.onto_forward - small_product(returning.lower, seen)
    along = jnp.where(last, 0, along)

    def sum_up():
        parts = combine(small_product(along, triangle.basis), scaled(rows, triangle.unit))
        beside = combine_lower(returning.lower, fresh)
        return [a + b for a, b in zip(parts, beside, strict=True)]

    # What a branch returns is computed once; otherwise XLA computes it again inside everything that reads it.
    gradients = lax.cond(last, lambda: list(fresh), sum_up)
    if width <= NARROW:
        return gradients, stack([mean(g * g) for g in gradients])
    # The same from what is known of the rows' products, without another pass over the neurons. The rows of Q are
    # orthonormal together with their bias column; dead ones are zero.
    live = jnp.any(triangle.basis != 0, axis=1) | (triangle.column != 0)
    lower, own = returning.lower, jnp.sum(jnp.where(live, along**2, 0), axis=1)
    own = own - jnp.sum(along * triangle.column[None, :], axis=1) ** 2
    cross = jnp.sum(lower * small_product(along, on_neurons.T), axis=1)
    outside = jnp.sum(lower * small_product(lower, projections(fresh, fresh)), axis=1)
    return gradients, own + 2 * cross + outside


def _observe_preactivations(lower: Array, noise: Rows, signals: int) -> Record:
    """Rms and correlation of z = R E from the small factor of E, which all gains share."""
    own = lower[:signals, :signals]
    peak = jnp.max(jnp.abs(own), axis=-1)
    return observe_preactivations(
        small_product(own * reciprocal(peak)[:, None], factor(noise[:signals], careful=signals).lower), peak
    )
