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
from jax.core import get_opaque_trace_state
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero

from jaxgain.propagation.blocks import Block
from jaxgain.propagation.kernel import Ends, Network, arriving, at_each, turn_back
from jaxgain.propagation.maps import RandomMap, Sizes
from jaxgain.propagation.rows import UNROLLED, factor, mean, norm, reciprocal, stack, unit_rows, unit_size
from jaxgain.propagation.settings import OF_SPECTRUM
from jaxgain.propagation.statistics import (
    Record,
    directions_of,
    log_weight_gradient,
    observe_activations,
    observe_gradients,
    observe_preactivations,
    observe_slopes,
)
from jaxgain.propagation.weights import scan_layers


class Call(NamedTuple):
    """One call of `linear` in a block."""

    sizes: Sizes
    order: int
    """Which of the layer's calls it is."""


class Layers(NamedTuple):
    """What the layers of a network are made of."""

    block: Block
    mixes_inputs: bool
    random_map: RandomMap
    fan: Callable[[int, int], float]
    """fan_in and fan_out of a map -> the number by which the variance of its weights is divided."""
    dropout: float
    """The probability of an output of φ to be zero in one layer, for one input."""
    dtype: Any
    """The type of activations and cotangents."""
    sigma_w: Array | None
    """(depth,), of each layer; None for that of the network."""


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
    first = _observe_h(state.h, observe) | _observe_tangents(state, observe, together=False)
    stretches = _stretches(widths)
    records, saved = [], []
    for start, stop in stretches:
        layer = Layer(key, network, layers, count, len(tangents), widths[start - 1], widths[start])
        # Whole blocks of layers may run past the end of a stretch, where the next one needs what was there.
        ends_at = stop if stop < depth else None
        forward = partial(_forward, layer, steepest=network.steepest, observe=observe, keep=reverse, ends_at=ends_at)
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
    at_input = partial(_observe_gradient, ends.inputs.astype(dtype), observe=observe)
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
    layer: "Layer", step: Callable, carry: Any, start: int, stop: int, *, reverse: bool, saved: Any = None
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


# One layer


class Layer:
    """A layer between two widths: its maps are known by the order in which the block calls them."""

    def __init__(
        self, key: Array, network: Network, layers: Layers, inputs: int, directions: int, fan_in: int, fan_out: int
    ) -> None:
        """Find the calls of `linear` in the block, by its shapes alone."""
        self.key, self.network, self.layers = key, network, layers
        self.inputs, self.tangents, self.widths = inputs, directions * inputs, (fan_in, fan_out)
        self.calls = self._calls()

    @property
    def keeps_width(self) -> bool:
        """Whether what leaves has the width of what enters."""
        return self.widths[0] == self.widths[1]

    def _calls(self) -> list[Call]:
        calls: list[Call] = []

        def linear(h: Array, features: int | None = None, **settings: Any) -> Array:
            if h.ndim != 2 or h.shape[0] != self.inputs:
                raise ValueError(f"linear takes signals of shape ({self.inputs}, width), got {h.shape}")
            bias = self._biases(**settings) is not None
            sizes = Sizes(self.inputs, self.tangents, h.shape[-1], features or self.widths[1], bias)
            calls.append(Call(sizes, len(calls)))
            return jnp.zeros((*h.shape[:-1], sizes.fan_out), h.dtype)

        h = jax.ShapeDtypeStruct((self.inputs, self.widths[0]), self.layers.dtype)
        found = jax.eval_shape(lambda h: self.layers.block(linear, lambda z: self.network.value_and_slope(z)[0], h), h)
        expected = (self.inputs, self.widths[1])
        if getattr(found, "shape", None) != expected or found.dtype != h.dtype:
            came = f"{found.dtype} {found.shape}" if hasattr(found, "shape") else repr(found)
            raise ValueError(
                f"a block must turn {h.dtype} {h.shape} into {h.dtype} {expected}, got {came}; "
                "what it adds to its input must have the input's width"
            )
        return calls

    def _biases(self, sigma_w: Any = None, sigma_b: Any = None) -> Array | None:
        del sigma_w
        if sigma_b is None:
            return self.network.sigma_b
        nothing = isinstance(sigma_b, (int, float)) and sigma_b == 0
        return None if nothing else _constant(jnp.asarray(sigma_b, jnp.float32))

    def draw(self, index: Array, *, reverse: bool) -> tuple[list[Any], Array | None]:
        """All random numbers of a layer: those of its maps, and a key for dropout."""
        keys = [_own_key(self.key, call.order) for call in self.calls]
        draw = self.layers.random_map.draw
        maps = [draw(key, index, call.sizes, reverse=reverse) for key, call in zip(keys, self.calls, strict=True)]
        if not self.layers.dropout:
            return maps, None
        return maps, jax.random.key_data(jax.random.fold_in(_typed(_own_key(self.key, DROPOUT)), index))

    def run(self, linear: Callable[[int, Array, Array, Array | None], Array], index: Array, drawn: Any, h: Array):
        """The layer's output, with the z that meet φ and the signals that enter its maps, in the order of the calls.

        `linear(order, signals, scale, sigma_b)` is one of its maps.
        """
        _, of_dropout = drawn
        entering: list[Array] = []
        preactivations: list[Array] = []
        check_trace = _same_trace()
        of_layer = self.network.sigma_w if self.layers.sigma_w is None else self.layers.sigma_w[index - 1]

        def one(x: Array, features: int | None = None, sigma_w: Any = None, sigma_b: Any = None) -> Array:
            del features
            sizes = self.calls[len(entering)].sizes
            stretch = (sizes.fan_in / self.layers.fan(sizes.fan_in, sizes.fan_out)) ** 0.5
            sigma_w = of_layer if sigma_w is None else _constant(jnp.asarray(sigma_w, jnp.float32))
            check_trace()
            entering.append(x)
            return linear(len(entering) - 1, x, sigma_w * np.float32(stretch), self._biases(sigma_b=sigma_b))

        def phi(z: Array) -> Array:
            check_trace()
            preactivations.append(z)
            return self._dropped(_phi(self.network.value_and_slope, z), of_dropout, len(preactivations))

        out = self.layers.block(one, phi, h)
        return out, preactivations, entering

    def _dropped(self, h: Array, key: Array | None, place: int) -> Array:
        if key is None:
            return h
        kept = 1 - self.layers.dropout
        mask = jax.random.bernoulli(jax.random.fold_in(_typed(key), place), kept, h.shape)
        return jnp.where(mask, h / kept, 0).astype(h.dtype)


# Of the keys of a layer's maps, which count from 0, the one of its dropout.
DROPOUT = 2**31


def _own_key(key: Array, order: int) -> Array:
    """Two words of its own for each call of `linear`; the first one has those of a plain network."""
    return key if order == 0 else jax.random.key_data(jax.random.fold_in(_typed(key), order)).astype(jnp.uint32)


def _typed(words: Array) -> Array:
    return jax.random.wrap_key_data(words, impl="threefry2x32")


def _same_trace() -> Callable[[], None]:
    """A function that refuses to be called in another transformation than this one was."""
    here = get_opaque_trace_state(convention="nnx")

    def check() -> None:
        if get_opaque_trace_state(convention="nnx") != here:
            raise ValueError(
                "a block must call linear and phi itself, not inside jit, vmap, scan or checkpoint: each call is a "
                "map and an observation of its own"
            )

    return check


@jax.custom_jvp
def _constant(x: Array) -> Array:
    """A number that no signal changes."""
    return x


@partial(_constant.defjvp, symbolic_zeros=True)
def _constant_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Any]:
    if type(tangents[0]) is not SymbolicZero:
        raise ValueError("sigma_w and sigma_b of linear must not depend on the signals; multiply what it returns")
    return primals[0], tangents[0]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _phi(value_and_slope: Callable[[Array], tuple[Array, Array]], z: Array) -> Array:
    return value_and_slope(z)[0]


@_phi.defjvp
def _phi_jvp(value_and_slope: Callable, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    value, slope = value_and_slope(*primals)
    # The slope of what is no number may be one, and means nothing.
    return value, jnp.where(jnp.isnan(value), value, slope) * tangents[0]


# Forward


def _forward(
    layer: Layer,
    state: State,
    xs: Any,
    *,
    steepest: Array | float,
    observe: Sequence[str],
    keep: bool,
    ends_at: int | None,
) -> tuple[State, tuple[Record, State | None]]:
    index, _, drawn = xs
    (out, preactivations, _), tangents = _with_tangents(layer, index, drawn, state)
    record = _observe_z(layer, preactivations, steepest, observe) | _observe_h(out, observe)
    moved, log_size = _renormalized(tangents[0], layer.layers.mixes_inputs)
    after = State(out, moved, state.log_jacobian + log_size)
    record |= _observe_tangents(after, observe, together=layer.layers.mixes_inputs)
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


def _renormalized(rows: Array, together: bool) -> tuple[Array, Array]:
    """Rows (…, B, n) of rms 1, and the logarithm of what they were divided by (…, B); one number where rows mix."""
    if not rows.size:
        return rows, jnp.zeros(rows.shape[:-1])
    units, sizes = unit_rows(rows.astype(jnp.float32).reshape(-1, rows.shape[-1]))
    lengths = jnp.sqrt(_mean_squares(units))
    log_sizes = (jnp.log(sizes) + jnp.log(lengths)).reshape(rows.shape[:-1])
    if together:
        log_sizes = jnp.broadcast_to(jnp.max(log_sizes, axis=-1, keepdims=True), log_sizes.shape)
        scale = jnp.exp(jnp.where(jnp.isneginf(log_sizes), 0, -log_sizes))
        return (rows * scale[..., None]).astype(rows.dtype), log_sizes
    unit = units * reciprocal(lengths)[:, None]
    return unit.reshape(rows.shape).astype(rows.dtype), log_sizes


def _mean_squares(rows: Array) -> Array:
    """(K, n) -> (K,)."""
    return stack([mean(row * row) for row in rows]) if len(rows) <= UNROLLED else jnp.mean(rows * rows, axis=1)


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
        record = _observe_gradient(out, returning, observe=observe)
        log_weight_gradients, gradient = back(returning.gradient)
        record["log_weight_grad_rms"] = _over_calls(layer.calls, log_weight_gradients)
        if layer.layers.dtype != jnp.float32:  # the real thing, with all that it loses
            return Returning(gradient, returning.log_scale), record
        unit, log_size = _renormalized(gradient, layer.layers.mixes_inputs)
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
    units, lengths = unit_size(list(h.astype(jnp.float32)))
    of_h = factor(units, careful=len(units)).lower
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


# Observe


def _observe_z(layer: Layer, preactivations: list[Array], steepest: Array | float, observe: Sequence[str]) -> Record:
    """Of all calls of φ in the layer: rms and fractions over all of their neurons, the cosine of the last."""
    if not preactivations:
        nothing = jnp.full(layer.inputs, jnp.nan)
        return {"rms_z": nothing, "saturated": nothing, "correlation": nothing[0], "dead": nothing[0]}
    records = [_observe_preactivation(layer, z, steepest, observe) for z in preactivations]
    record = records[-1]
    if len(records) > 1:
        shares = np.array([z.shape[1] for z in preactivations], np.float32)
        shares = shares / shares.sum()
        for name in ("saturated", "dead"):
            record[name] = sum(share * each[name] for share, each in zip(shares, records, strict=True))
        each = jnp.stack([share**0.5 * each["rms_z"] for share, each in zip(shares, records, strict=True)])
        record["rms_z"] = norm(each.T)
    return record


def _observe_preactivation(layer: Layer, z: Array, steepest: Array | float, observe: Sequence[str]) -> Record:
    scaled, peak = unit_size(list(z.astype(jnp.float32)))
    lower = factor(scaled, careful=len(scaled)).lower
    _, slope = layer.network.value_and_slope(z)
    record = observe_preactivations(lower, peak) | observe_slopes(list(slope.astype(jnp.float32)), steepest)
    return record | _observe_angles(lower, observe)


def _observe_angles(lower: Array, observe: Sequence[str]) -> Record:
    """Cosines of all pairs of rows, and log(1 − cosine) without loss where rows are close."""
    directions = directions_of(lower)
    record: Record = {}
    if "correlations" in observe:
        record["correlations"] = jnp.sum(directions[:, None] * directions[None], axis=-1)
    if "log_one_minus_correlations" in observe:
        apart = directions[:, None] - directions[None]
        same = np.eye(len(lower), dtype=bool)
        record["log_one_minus_correlations"] = jnp.log(jnp.where(same, 0, 0.5 * jnp.sum(apart * apart, axis=-1)))
    return record


def _observe_h(h: Array, observe: Sequence[str]) -> Record:
    scaled, peak = unit_size(list(h.astype(jnp.float32)))
    lower = factor(scaled, careful=len(scaled)).lower
    record = observe_activations(scaled, peak, lower)
    record["peak"] = jnp.max(jnp.abs(h.astype(jnp.float32)))  # in low precision it is not far from where numbers end
    if "effective_rank" in observe:
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


def _observe_tangents(state: State, observe: Sequence[str], *, together: bool) -> Record:
    """The Jacobian's stretch of the first direction, and its singular values on the span of all."""
    tangents, divided = state.tangents, state.log_jacobian
    lengths = divided + _renormalized(tangents, together=False)[1] if together else divided
    record: Record = {"log_jacobian_rms": lengths[0] if len(tangents) else jnp.zeros(0)}
    wanted = set(observe) & set(OF_SPECTRUM)
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


# Singular values below this share of the largest are rounding.
RESOLVED = 1e-6


def _observe_gradient(h: Array, returning: Returning, *, observe: Sequence[str]) -> Record:
    """Of the cotangents of a layer's output h."""
    gradient = returning.gradient.astype(jnp.float32)
    units, peak = unit_size(list(gradient))
    record = observe_gradients(units, stack([mean(g * g) for g in units]), returning.log_scale + jnp.log(peak))
    if "grad_correlation" in observe:
        record["grad_correlation"] = _cosine(*units[:2]) if len(units) > 1 else jnp.full((), jnp.nan)
    if "grad_alignment" in observe:
        activations, _ = unit_size(list(h.astype(jnp.float32)))
        record["grad_alignment"] = stack([_cosine(g, x) for g, x in zip(units, activations, strict=True)])
    return record


def _cosine(a: Array, b: Array) -> Array:
    lengths = jnp.sqrt(mean(a * a) * mean(b * b))
    return jnp.where(lengths > 0, mean(a * b) * reciprocal(lengths), jnp.nan)
