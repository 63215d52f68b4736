r"""A wide plain network with Gaussian weights and one input: it carries no vectors, only means over its neurons.

The same network, from the same noise, as `plain` makes of one signal h and one tangent t, with the K × K algebra
written out for K = 2. With $\hat h, \hat t$ of rms 1 and $k = \langle\hat h, \hat t\rangle$ the next layer is

$$z = r E, \qquad w = s_h k E + \sqrt{1 - s_h^2 k^2}\; T, \qquad r^2 = \sigma_w^2 |h|^2 + \sigma_b^2, \quad
s_h = \sigma_w |h| / r, \quad s_b = \sigma_b / r,$$

with fresh normal E, T, then $h = \phi(z)$ and $t = \phi'(z) \odot w$. On the way back the cotangent of a layer is
$a\,\hat h + b\,\hat t + e$ up to a number whose logarithm is carried, e fresh and normal. So every statistic is a
mean over the neurons of a function of (E, T, e) and a few numbers, and the neurons are met in blocks that fit
into the cache: nothing of size gains × width is ever stored.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxgain.propagation.kernel import Ends, Network, arriving, at_each, layer_before, turn_back
from jaxgain.propagation.means import EXTREMES, SAMPLE, any_of_batch, is_trusted, means, settled
from jaxgain.propagation.rows import (
    RAISED,
    Rows,
    lowered,
    mean,
    products_are_faster,
    reciprocal,
    sum_of,
)
from jaxgain.propagation.statistics import OF_ALL_INPUTS, Record
from jaxgain.propagation.weights import Noise, draw_noise, scan_layers, tabulated

# 1 − (s_h k)² below which a tangent counts as parallel to the signal: its own direction is then mostly rounding, and
# the gradient is drawn without regard to it, which leaves its own law exact. So it is for a tangent smaller than
# `SMALLEST`, whose reciprocal times a few would not be a number.
PARALLEL = 1e-5
SMALLEST = 1e-36


class Layer(NamedTuple):
    """What a layer leaves behind: means over its neurons, all scalars; h is its signal and t its tangent."""

    signal: Array
    """|h|, the rms of h."""
    tangent: Array
    """|t|."""
    cosine: Array
    """k = ⟨ĥ, t̂⟩; 0 where either is zero."""
    fresh_signal: Array
    """⟨ĥ, e⟩ with the layer's reverse noise e."""
    fresh_tangent: Array
    """⟨t̂, e⟩."""
    over_slope: Array
    """1/size of φ'(z), such that squares of slopes times it neither overflow nor underflow."""


class Onward(NamedTuple):
    """The first two rows of R and Q, scalars: how h and t enter the weights."""

    length: Array
    """r, the rms that z has in law."""
    signal: Array
    """s_h."""
    bias: Array
    """s_b."""
    along: Array
    """s_h k, what E contributes to w."""
    across: Array
    """√(1 − s_h² k²), what T contributes to w; 0 for a tangent that is zero."""


class Returning(NamedTuple):
    """A cotangent δ = ∂loss/∂z on its way back through the weights, scalars."""

    onto_signal: Array
    """⟨δ̂, E⟩."""
    onto_tangent: Array
    """⟨δ̂, T⟩."""
    log_scale: Array
    """log(σ_w |δ|)."""


def propagate_single(
    key: Array, network: Network, ends: Ends, *, depth: int, depths: tuple[int, ...] = (), neurons_at_once: int
) -> tuple[Record, Record]:
    """`propagate_plain` for inputs (1, n), directions (0 or 1, n) and more neurons than `NARROW`."""
    (inputs, directions, cotangents), average = ends, partial(means, at_once=neurons_at_once)
    width, tangents = inputs.shape[1], directions.shape[0]
    bytes_per_layer = 4 * width * (2 + tangents)
    sizes = {"inputs": 1, "tangents": tangents, "width": width, "bias": network.sigma_b is not None}
    draw = partial(draw_noise, key, reverse=cotangents is not None, **sizes)
    draw = tabulated(draw, depth, bytes_per_layer) or draw
    scan = partial(scan_layers, draw=draw, bytes_per_layer=bytes_per_layer)
    rows, zero = [*inputs, *directions], jnp.zeros((), jnp.float32)
    noise = draw(jnp.zeros((), jnp.int32))
    start, first = _observe_input(rows, noise, average)

    def forward(carry, xs):
        (layer, log_jacobian), (index, _, noise) = carry, xs
        after, record = _forward(network, layer, noise, index, average)
        log_jacobian = log_jacobian + jnp.log(network.sigma_w) + jnp.log(after.tangent)
        return (after, log_jacobian), (
            jnp.stack(after),
            record | ({"log_jacobian_rms": log_jacobian} if tangents else {}),
        )

    _, (layers, records) = scan(forward, (start, zero), depth, None)
    first |= {"log_jacobian_rms": zero} if tangents else {}
    if cotangents is None:
        return _per_input(first), _per_input(records)

    def backward(returning, xs):
        index, saved, noise = xs
        before, layer = (Layer(*numbers) for numbers in saved)

        def step(returning, last):
            return _backward(network, before, layer, returning, noise, cotangents[0], index, last, average)

        return turn_back(step, returning, index, depth, depths)

    saved = (layer_before(jnp.stack(start), layers), layers)
    returning, gradients = scan(backward, arriving(depths, Returning(zero, zero, zero)), depth, saved, reverse=True)
    observe = partial(_observe_input_gradient, network, start, rows=rows, noise=noise, average=average)
    first |= at_each(depths, observe)(returning)
    return _per_input(first), _per_input(records | gradients)


def _onward(network: Network, layer: Layer) -> Onward:
    """How a layer's signal and tangent enter the weights that follow."""
    entering = network.sigma_w * layer.signal
    if network.sigma_b is None:
        length, bias = entering, jnp.zeros_like(entering)
        signal = (entering > 0).astype(entering.dtype)
    else:
        length = jnp.hypot(entering, network.sigma_b)
        signal, bias = entering * reciprocal(length), network.sigma_b * reciprocal(length)
    along = signal * layer.cosine
    across = jnp.where(layer.tangent > 0, jnp.sqrt(jnp.maximum((1 - along) * (1 + along), 0)), 0)
    return Onward(length, signal, bias, along, across)


def _forward(network: Network, before: Layer, noise: Noise, index: Array, average: Callable) -> tuple[Layer, Record]:
    """What a layer leaves behind, and what is observed of it."""
    tangents = len(noise.forward) - 1
    onward = settled(lambda: _onward(network, before), index)
    over_h, over_slope, centre = _scales(network, onward, noise.forward[0], index, average)
    along, across = _moved(onward, over_slope)

    def terms(*rows: Array) -> dict[str, Array]:
        h, slope = network.value_and_slope(onward.length * rows[0])
        found = {"saturated": jnp.abs(slope) < 0.01 * network.steepest, "dead": slope == 0}
        tangent = [slope * (along * rows[0] + across * rows[1])] if tangents else []
        return found | _products(h * over_h, tangent, [*rows[1 + tangents :]], centre)

    found: dict[str, Array] = average(terms, [*noise.forward, *noise.reverse], index=index)
    layer, record = _layer(found, over_h, over_slope, centre)
    rms_e = jnp.sqrt(_square(noise.forward[0]))
    counted = {name: found[name] for name in ("saturated", "dead")}
    return layer, record | counted | {"rms_z": onward.length * rms_e}


def _products(signal: Array, tangents: Rows, fresh: Rows, centre: Array) -> dict[str, Array]:
    """What a layer keeps the means of: signal and, if there are any, tangent and fresh noise of its neurons."""
    shifted = signal - centre
    found = {"shift": shifted, "spread": shifted * shifted}
    if fresh:
        found["fresh_signal"] = signal * fresh[0]
    if tangents:
        found |= {"both": signal * tangents[0], "tangent": tangents[0] * tangents[0]}
    if tangents and fresh:
        found["fresh_tangent"] = tangents[0] * fresh[0]
    return found


def _layer(found: dict[str, Array], over_h: Array, over_slope: Array, centre: Array) -> tuple[Layer, Record]:
    """A layer from the means of its `_products`, in which h came times `over_h` and t times `over_slope`."""
    zero = jnp.zeros_like(centre)
    mean, variance = centre + found["shift"], jnp.maximum(found["spread"] - found["shift"] ** 2, 0)
    # A sum of squares, where the mean of squares would need a pass of its own.
    size_h, size_t = jnp.sqrt(variance + mean * mean), jnp.sqrt(found.get("tangent", zero))
    unit_h, unit_t, size = reciprocal(size_h), reciprocal(size_t), reciprocal(over_h)
    layer = Layer(
        signal=size_h * size,
        # Slopes at activations that are no numbers may be, and mean nothing.
        tangent=jnp.where(jnp.isfinite(size_h * size), size_t * reciprocal(over_slope), jnp.nan),
        cosine=jnp.clip(found.get("both", zero) * unit_h * unit_t, -1, 1),
        fresh_signal=found.get("fresh_signal", zero) * unit_h,
        fresh_tangent=found.get("fresh_tangent", zero) * unit_t,
        over_slope=over_slope,
    )
    return layer, {"mean": mean * size, "std": jnp.sqrt(variance) * size, "rms_h": layer.signal, "peak": layer.signal}


def _moved(onward: Onward, factor: Array) -> tuple[Array, Array]:
    """What E and T contribute to the tangent behind the weights, w = W t̂, times a factor.

    Here the factor meets two numbers, where it would meet all neurons in a product with their slopes.
    """
    return onward.along * factor, onward.across * factor


def _scales(
    network: Network, onward: Onward, noise: Array, index: Array, average: Callable
) -> tuple[Array, Array, Array]:
    """1/size of h and of φ'(z), such that squares neither overflow nor underflow, and a centre near mean(h)/size.

    From a few neurons, unless in some network of the batch those may be too far from the others.
    """
    few = settled(lambda: jnp.concatenate([noise[:SAMPLE], jnp.array(EXTREMES)]), index)
    h, slope = network.value_and_slope(onward.length * few)
    guess = jnp.stack([mean(jnp.abs(x[:SAMPLE])) for x in (h, slope)])
    bounds = jnp.stack([jnp.max(jnp.abs(h[SAMPLE:])), jnp.asarray(network.steepest, h.dtype)])
    trusted = is_trusted(guess, bounds) | (onward.length == 0)

    measured = partial(_sizes, lambda e: network.value_and_slope(onward.length * e), [noise], index, average)

    def scales(sizes: Sequence[Array]) -> tuple[Array, Array, Array]:
        over_h, over_slope = reciprocal(sizes[0]), reciprocal(jnp.maximum(sizes[1], SMALLEST))
        return over_h, over_slope, mean(h[:SAMPLE] * over_h)

    if not products_are_faster():  # and a branch would wait for the host
        return scales(measured())
    return lax.cond(any_of_batch(~jnp.all(trusted)), lambda: scales(measured()), lambda: scales(list(guess)))


def _sizes(values: Callable[..., Sequence[Array]], rows: Rows, index: Array, average: Callable) -> list[Array]:
    """The `magnitude` of each of `values(*rows)` over the whole range of float32, from all neurons."""

    def terms(*rows: Array) -> dict[str, Array]:
        sizes = [jnp.abs(x) for x in values(*rows)]
        return {f"{name}{i}": x * by for i, x in enumerate(sizes) for name, by in (("plain", 1), ("raised", RAISED))}

    found: dict[str, Array] = average(terms, rows, index=index)
    width, count = rows[0].shape[0], len(found) // 2
    return [lowered(found[f"plain{i}"], found[f"raised{i}"], width) for i in range(count)]


def _coefficients(onward: Onward, layer: Layer, returning: Returning, fresh_bias: Array) -> tuple[Array, Array]:
    """(a, b) of a layer's cotangent a ĥ + b t̂ + e, from what came back through the weights above it.

    With the rows of Q, q₁ = (s_h ĥ, s_b) and q₂ = (t̂ − s_h k s_h ĥ, −s_h k s_b)/√(1 − s_h² k²): what W is known to do
    to them replaces what fresh weights would.
    """
    signal = onward.signal * layer.fresh_signal + onward.bias * fresh_bias
    first = jnp.where(onward.length > 0, returning.onto_signal - signal, 0)
    apart = (onward.across**2 > PARALLEL) & (layer.tangent > SMALLEST)
    over = jnp.where(apart, 1 / jnp.where(apart, onward.across, 1), 0)
    second = jnp.where(apart, returning.onto_tangent - (layer.fresh_tangent - onward.along * signal) * over, 0)
    return (first - second * over * onward.along) * onward.signal, second * over


def _mean_square(a: Array, b: Array, layer: Layer, fresh: Array) -> Array:
    """|a ĥ + b t̂ + e|² from the inner products of its parts; `fresh` is e."""
    cross = a * layer.fresh_signal + b * layer.fresh_tangent + a * b * layer.cosine
    return jnp.maximum(a * a + b * b + 2 * cross + _square(fresh), 0)


def _backward(
    network: Network,
    before: Layer,
    layer: Layer,
    returning: Returning,
    noise: Noise,
    cotangent: Array,
    index: Array,
    last: Array,
    average: Callable,
) -> tuple[Returning, Record]:
    """What the cotangent of a layer sends back to the layer before, and what is observed of it."""
    tangents = len(noise.forward) - 1
    fresh = jnp.where(last, cotangent, noise.reverse[0])
    a, b = _coefficients(_onward(network, layer), layer, returning, noise.bias[0] / fresh.shape[0] ** 0.5)
    a, b = jnp.where(last, 0, a), jnp.where(last, 0, b)

    def entering() -> tuple[Array, ...]:
        onward = _onward(network, before)
        return onward.length, a * reciprocal(layer.signal), *_moved(onward, b * reciprocal(layer.tangent))

    length, on_h, along, across = settled(entering, index)

    def terms(*rows: Array) -> dict[str, Array]:
        h, slope = network.value_and_slope(length * rows[0])
        gradient = on_h * h + rows[-1]
        if tangents:
            gradient = gradient + slope * (along * rows[0] + across * rows[1])
        delta = slope * layer.over_slope * gradient
        onto = {f"onto{i}": delta * row for i, row in enumerate(rows[:-1])}
        return {"size": jnp.abs(gradient), "delta": delta * delta, **onto}

    found: dict[str, Array] = average(terms, [*noise.forward, fresh], index=index)
    # The last layer's gradient is the cotangent, also where its activations are no numbers.
    squared = jnp.where(last, _square(cotangent), _mean_square(a, b, layer, fresh))
    gradient = jnp.where(last, mean(jnp.abs(cotangent)), found["size"])
    size = jnp.sqrt(found["delta"])
    log_delta = returning.log_scale + jnp.log(size) + jnp.log(reciprocal(layer.over_slope))
    sent = Returning(
        onto_signal=found["onto0"] * reciprocal(size),
        onto_tangent=found.get("onto1", jnp.zeros_like(size)) * reciprocal(size),
        log_scale=log_delta + jnp.log(network.sigma_w),
    )
    record = {
        "log_grad_rms": returning.log_scale + 0.5 * jnp.log(squared),
        "log_grad_mean_abs": returning.log_scale + jnp.log(gradient),
        "log_weight_grad_rms": log_delta + jnp.log(before.signal),
    }
    return sent, record


def _observe_input(rows: Rows, noise: Noise, average: Callable) -> tuple[Layer, Record]:
    """Layer 0: its rows are given, the signal and the tangent if there is one."""
    index = jnp.zeros((), jnp.int32)
    size = _sizes(lambda *rows: rows, rows, index, average)
    over_h, over_t = reciprocal(size[0]), reciprocal(size[-1])
    centre = mean(rows[0][:SAMPLE] * over_h)

    def terms(h: Array, *others: Array) -> dict[str, Array]:
        tangents = [others[0] * over_t] if len(rows) > 1 else []
        return _products(h * over_h, tangents, [*others[len(tangents) :]], centre)

    return _layer(average(terms, [*rows, *noise.reverse], index=index), over_h, over_t, centre)


def _observe_input_gradient(
    network: Network, layer: Layer, returning: Returning, rows: Rows, noise: Noise, average: Callable
) -> Record:
    """Statistics of the cotangent of layer 0."""
    a, b = _coefficients(_onward(network, layer), layer, returning, noise.bias[0] / rows[0].shape[0] ** 0.5)
    on_rows = [a * reciprocal(layer.signal), b * reciprocal(layer.tangent)]

    def terms(e: Array, *rows: Array) -> dict[str, Array]:
        return {"size": jnp.abs(sum_of([e, *(c * row for c, row in zip(on_rows, rows, strict=False))]))}

    found: dict[str, Array] = average(terms, [*noise.reverse, *rows], index=jnp.zeros((), jnp.int32))
    log_rms = 0.5 * jnp.log(_mean_square(a, b, layer, noise.reverse[0]))
    return {
        "log_grad_rms": returning.log_scale + log_rms,
        "log_grad_mean_abs": returning.log_scale + jnp.log(found["size"]),
    }


def _per_input(record: Record) -> Record:
    """Records with their axis for the inputs, and no correlation, as there is one input."""
    record = {name: x if name in OF_ALL_INPUTS else x[..., None] for name, x in record.items()}
    nothing = jnp.full_like(record["peak"], jnp.nan)
    return record | {"correlation": nothing, "correlation_h": nothing}


def _square(x: Array) -> Array:
    """Mean of x² over the neurons, (n,) -> ()."""
    return mean(x * x)
