r"""A network of any block, $h^l = \mathrm{block}(\mathrm{linear}, \phi, h^{l-1})$, which carries its vectors.

The block is a plain JAX function; its random maps come with rules of their own. Its tangents are those of `jax.jvp`,
where a map meets signal and tangents as rows of one product, as they meet the same weights; its cotangents are those of
`jax.vjp`, where a map sends them back given all that the forward pass has seen of its weights. So activations,
tangents and gradients have their joint law through any block, with matrices or without.

What a layer does is computed again on the way back: only what enters each layer is kept.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_batching import custom_vmap

from jaxgain.propagation.kernel import Ends, Network, arriving, at_each, turn_back
from jaxgain.propagation.layer import Call, Layer, Layers
from jaxgain.propagation.maps import RandomMap, Sizes
from jaxgain.propagation.observe import observe_gradient, observe_h, observe_tangents, observe_z, renormalized
from jaxgain.propagation.rows import factor, norm, unit_size, units_and_lower
from jaxgain.propagation.statistics import Record, directions_of, log_weight_gradient
from jaxgain.propagation.weights import scan_layers


class State(NamedTuple):
    """What enters a layer."""

    h: Array
    """(B, n)."""
    tangents: Array
    """(k, B, n) of rms about 1: k directions for each input."""
    log_jacobian: Array
    """(k, B), natural logarithms of what the tangents have been divided by."""


class Returning(NamedTuple):
    """The cotangents exp(log_scale) ∂loss/∂h of a layer's output."""

    gradient: Array
    """(B, n)."""
    log_scale: Array
    """(B,)."""


def propagate_vectors(
    key: Array,
    network: Network,
    ends: Ends,
    *,
    depth: int,
    depths: tuple[int, ...] = (),
    layers: Layers,
    widths: Sequence[int],
    observe: Sequence[str] = (),
) -> tuple[Record, Record]:
    """Records of layer 0 and of layers 1 … depth (leading axis), `widths` are those of layers 0 … depth."""
    reverse = ends.cotangents is not None
    dtype = layers.dtype
    count = len(ends.inputs)
    tangents = ends.directions.reshape(-1, count, widths[0])
    state = State(ends.inputs.astype(dtype), tangents.astype(dtype), jnp.zeros(tangents.shape[:2]))
    first = observe_h(state.h, observe)
    first |= observe_tangents(state.tangents, state.log_jacobian, observe, together=False)
    stretches = _stretches(widths)
    records, saved = [], []
    for start, stop in stretches:
        layer = Layer(key, network, layers, count, len(tangents), widths[start - 1], widths[start])
        # Whole blocks of layers may run past the end of a stretch, where the next one needs what was there.
        ends_at = stop if stop < depth else None
        forward = partial(_forward, layer, observe=observe, keep=reverse, ends_at=ends_at)
        state, (record, entering) = _scan(layer, forward, state, start, stop, reverse=False)
        records.append(record)
        saved.append(entering)
    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts), *records)
    if ends.cotangents is None:
        return first, joined

    returning = arriving(depths, Returning(ends.cotangents.astype(dtype), jnp.zeros(count)))
    gradients = []
    for (start, stop), entering in reversed(list(zip(stretches, saved, strict=True))):
        layer = Layer(key, network, layers, count, len(tangents), widths[start - 1], widths[start])
        backward = partial(_backward, layer, depth=stop, depths=depths, observe=observe)
        returning, record = _scan(layer, backward, returning, start, stop, reverse=True, saved=entering)
        gradients.insert(0, record)
    joined |= jax.tree.map(lambda *parts: jnp.concatenate(parts), *gradients)
    at_input = lambda back: observe_gradient(ends.inputs.astype(dtype), back.gradient, back.log_scale, observe)
    return first | at_each(depths, at_input)(returning), joined


def _stretches(widths: Sequence[int]) -> list[tuple[int, int]]:
    """First and last layer of each stretch of layers between equal widths; other layers stand alone.

    >>> _stretches([10, 20, 20, 20, 5])
    [(1, 1), (2, 3), (4, 4)]
    """
    stretches: list[tuple[int, int]] = []
    for layer in range(1, len(widths)):
        same = widths[layer - 1] == widths[layer]
        if same and stretches and stretches[-1][1] == layer - 1 and widths[layer - 2] == widths[layer]:
            stretches[-1] = (stretches[-1][0], layer)
        else:
            stretches.append((layer, layer))
    return stretches


def _scan(
    layer: Layer, step: Callable, carry: Any, start: int, stop: int, *, reverse: bool, saved: Any = None
) -> tuple[Any, Any]:
    """Scan `step(carry, (layer, saved, drawn))` over layers start … stop."""
    draw = partial(layer.draw, reverse=reverse)
    if start == stop:  # perhaps to another width, which no loop can carry
        index = jnp.asarray(start, jnp.int32)
        carry, out = step(carry, (index, jax.tree.map(lambda x: x[0], saved), draw(index)))
        return carry, jax.tree.map(lambda x: x[None], out)
    return scan_layers(
        lambda carry, xs: step(carry, (xs[0] + (start - 1), *xs[1:])),
        carry,
        stop - start + 1,
        saved,
        lambda index: draw(index + (start - 1)),
        # As if a layer drew more than it does: what a block of layers saves exists twice, so blocks are short.
        bytes_per_layer=32 * max(1, sum(layer.layers.random_map.numbers(call.sizes) for call in layer.calls)),
        reverse=reverse,
    )


# Forward


def _forward(
    layer: Layer,
    state: State,
    xs: Any,
    *,
    observe: Sequence[str],
    keep: bool,
    ends_at: int | None,
) -> tuple[State, tuple[Record, State | None]]:
    index, _, drawn = xs
    (out, preactivations, _), tangents = _with_tangents(layer, index, drawn, state)
    record = observe_z(layer.network, layer.inputs, preactivations, observe) | observe_h(out, observe)
    moved, log_size = renormalized(tangents[0], layer.layers.mixes_inputs)
    after = State(out, moved, state.log_jacobian + log_size)
    record |= observe_tangents(moved, after.log_jacobian, observe, together=layer.layers.mixes_inputs)
    if ends_at is not None and layer.keeps_width:
        after = jax.tree.map(partial(jnp.where, index > ends_at), state, after)
    return after, (record, state if keep else None)


def _with_tangents(layer: Layer, index: Array, drawn: Any, state: State) -> tuple[Any, Any]:
    """What `Layer.run` returns for the signals, and its tangents (k, …)."""

    def linear(order: int, x: Array, scale: Array, sigma_b: Array | None) -> Array:
        call = layer.calls[order]
        return _met(layer.layers.random_map, call.sizes, drawn[0][order], scale, sigma_b, x)

    def run(h: Array) -> Any:
        return layer.run(linear, index, drawn, h)

    if not state.tangents.size:
        out, preactivations, entering = run(state.h)
        none = lambda x: jnp.zeros((0, *x.shape), x.dtype)
        return (out, preactivations, entering), jax.tree.map(none, (out, preactivations, entering))
    one = lambda t: jax.jvp(run, (state.h,), (t,))
    return jax.vmap(one, out_axes=(None, 0))(state.tangents)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _met(random_map: RandomMap, sizes: Sizes, drawn: Any, scale: Array, sigma_b: Array | None, h: Array) -> Array:
    """The images of signals."""
    return random_map.meet(drawn, h, sizes, scale, sigma_b)[0]


@_met.defjvp
def _met_with_tangents(random_map: RandomMap, sizes: Sizes, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """The images of signals and of one tangent of each, which meet the same weights."""

    @custom_vmap
    def both(drawn: Any, scale: Array, sigma_b: Array | None, h: Array, t: Array) -> tuple[Array, Array]:
        images, _ = random_map.meet(drawn, jnp.concatenate([h, t]), sizes, scale, sigma_b)
        return images[: len(h)], images[len(h) :]

    @both.def_vmap
    def stacked(count, batched, drawn, scale, sigma_b, h, t):  # all tangents of a signal are rows of one product
        if not batched[-1]:
            t = jnp.broadcast_to(t, (count, *t.shape))
        images, _ = random_map.meet(drawn, _rows(h, t), sizes, scale, sigma_b)
        return (images[: len(h)], images[len(h) :].reshape(count, len(h), -1)), (False, True)

    drawn, scale, sigma_b, h = primals
    return both(drawn, scale, sigma_b, h, tangents[-1])


def _rows(h: Array, tangents: Array) -> Array:
    """Signals (B, n) above their tangents (k, B, n)."""
    return jnp.concatenate([h, tangents.reshape(-1, h.shape[1])])


# Back


def _backward(
    layer: Layer, returning: Returning, xs: Any, *, depth: int, depths: tuple[int, ...], observe: Sequence[str]
) -> tuple[Returning, Record]:
    index, state, drawn = xs
    _, (_, _, entering) = _with_tangents(layer, index, drawn, state)

    def step(returning: Returning, last: Array) -> tuple[Returning, Record]:
        del last

        def run(taps: Array, h: Array) -> Array:
            def linear(order: int, x: Array, scale: Array, sigma_b: Array | None) -> Array:
                call = layer.calls[order]
                arguments = (drawn[0][order], scale, sigma_b, entering[order], returning.log_scale, taps[order])
                return _sent(layer.layers.random_map, call.sizes, *arguments, x)

            return layer.run(linear, index, drawn, h)[0]

        out, back = jax.vjp(run, jnp.zeros(len(layer.calls)), state.h)
        record = observe_gradient(out, *returning, observe)
        log_weight_gradients, gradient = back(returning.gradient)
        record["log_weight_grad_rms"] = _over_calls(layer.calls, log_weight_gradients)
        if layer.layers.dtype != jnp.float32:  # the real thing, with all that it loses
            return Returning(gradient, returning.log_scale), record
        unit, log_size = renormalized(gradient, layer.layers.mixes_inputs)
        return Returning(unit, returning.log_scale + log_size), record

    if not layer.keeps_width:
        return step(returning, index == depth)
    return turn_back(step, returning, index, depth, depths)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sent(
    random_map: RandomMap,
    sizes: Sizes,
    drawn: Any,
    scale: Array,
    sigma_b: Array | None,
    tangents: Array,
    log_scale: Array,
    tap: Array,
    h: Array,
) -> Array:
    """The images of signals, whose cotangents go back given those of the tangents (k, B, n) too.

    What returns as the cotangent of `tap` is the log rms entry of ∂loss/∂W.
    """
    del tangents, log_scale, tap
    return random_map.meet(drawn, h, sizes, scale, sigma_b)[0]


def _sent_forward(random_map, sizes, drawn, scale, sigma_b, tangents, log_scale, tap, h):
    del tap
    images, seen = random_map.meet(drawn, _rows(h, tangents), sizes, scale, sigma_b)
    return images[: len(h)], (drawn, seen, scale, log_scale, h)


def _sent_back(random_map: RandomMap, sizes: Sizes, residuals: tuple, cotangents: Array) -> tuple:
    drawn, seen, scale, log_scale, h = residuals
    returned = random_map.send_back(drawn, seen, cotangents, sizes, scale)
    deltas, peak = unit_size(list(cotangents.astype(jnp.float32)))
    _, lengths, of_h = units_and_lower(h)
    log_rms = jnp.log(lengths) + jnp.log(norm(of_h))
    delta = factor(deltas, careful=len(deltas))
    tapped = log_weight_gradient(delta, log_scale + jnp.log(peak), log_rms, directions_of(of_h))
    return None, None, None, None, None, tapped, returned


_sent.defvjp(_sent_forward, _sent_back)


def _over_calls(calls: list[Call], logs: Array) -> Array:
    """Log rms entry of all weights of a layer together."""
    if not calls:
        return jnp.full((), jnp.nan)
    counts = np.array([call.sizes.fan_in * call.sizes.fan_out for call in calls], np.float32)
    return 0.5 * (jax.scipy.special.logsumexp(2 * logs, b=counts / counts.sum()))
