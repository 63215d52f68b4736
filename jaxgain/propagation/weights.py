r"""The random numbers of a network: one key per layer, and what is drawn from it.

A layer's numbers depend on the network's key and the layer's index alone: never on the gain, the activation,
the chunk or the device, and those of input 1 not on how many inputs follow. So gains and activations are
compared on the same networks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxgain.propagation.rows import Rows, factor_array, product, reciprocal

# Random numbers of this many bytes are drawn at a time: in bulk they cost a quarter of what they cost one by one.
DRAWN_AT_ONCE = 2**24


class Noise(NamedTuple):
    """What one layer of a matrix-free network draws, all standard normal."""

    forward: Rows
    """K rows: what W makes of the orthonormal directions that enter it, one per signal and tangent row."""
    reverse: Rows
    """B rows: what Wᵀ makes of the directions that come back, outside of what the forward pass revealed."""
    bias: Array
    """(B,): the same for the bias column; zeros if there is none."""


def draw_noise(key: Array, layer: Array, *, inputs: int, tangents: int, width: int, reverse: bool, bias: bool) -> Noise:
    """Noise of one layer (0 … depth), float32; without `reverse` only the forward part."""
    parts = jnp.array([0] + [1] * (tangents > 0) + [2] * reverse)
    keys = jax.vmap(lambda part: jax.random.fold_in(jax.random.fold_in(key, part), layer))(parts)
    rows = jax.vmap(lambda key: jax.random.normal(key, (inputs, width), jnp.float32))(keys)
    column = jnp.zeros(inputs, jnp.float32)
    if bias and reverse:
        column = jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, 3), layer), (inputs,), jnp.float32)
    forward = rows[:-1] if reverse else rows
    return Noise([row for part in forward for row in part], list(rows[-1]) if reverse else [], column)


def draw_matrix(key: Array, layer: Array, *, width: int) -> tuple[Array, Array]:
    """Weights (width, width) with variance 1/width and biases (width,) with variance 1 of one layer, float32."""
    weight_key, bias_key = jax.random.split(jax.random.fold_in(key, layer))
    weights = jax.random.normal(weight_key, (width, width), jnp.float32)
    return weights / jnp.sqrt(jnp.float32(width)), jax.random.normal(bias_key, (width,), jnp.float32)


def draw_inputs(key: Array, *, inputs: int, width: int, scale: float, cosine: float | None) -> Array:
    """Random inputs (inputs, width), each with an rms of exactly `scale`.

    Independent normal, or with a `cosine` in [−1, 1] of exactly that much between the first and each other one.
    """
    rows = _unit_rms(jax.random.normal(jax.random.fold_in(key, 0), (inputs, width), jnp.float32))
    if cosine is not None and inputs > 1:
        others = [_turned(rows[0], row, cosine) for row in rows[1:]]
        rows = jnp.stack([rows[0], *others])
    return scale * rows


def draw_directions(key: Array, *, tangents: int, width: int) -> Array:
    """Random directions of the input, (tangents, width), each with an rms of 1."""
    return _unit_rms(jax.random.normal(jax.random.fold_in(key, 1), (tangents, width), jnp.float32))


def draw_cotangents(key: Array, kind: str, *, inputs: int, width: int) -> Array:
    """∂loss/∂h of the last layer, (inputs, width): all ones (`sum`) or standard normal (`random`)."""
    if kind == "sum":
        return jnp.ones((inputs, width), jnp.float32)
    return jax.random.normal(jax.random.fold_in(key, 2), (inputs, width), jnp.float32)


def tabulated(draw: Callable[[Array], Any], depth: int, bytes_per_layer: int) -> Callable[[Array], Any] | None:
    """A look-up of what `draw` yields for layers 0 … depth, all drawn now; None where that would not be little."""
    if (depth + 1) * bytes_per_layer > DRAWN_AT_ONCE:
        return None
    drawn = jax.vmap(draw)(jnp.arange(depth + 1))
    return lambda layer: jax.tree.map(lambda x: x[layer], drawn)


def scan_layers(
    step: Callable[..., tuple[Any, Any]],
    carry: Any,
    depth: int,
    saved: Any,
    draw: Callable[[Array], Any],
    *,
    bytes_per_layer: int,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Scan layers 1 … depth with `step(carry, (layer, saved, drawn))`, numbers drawn for many layers at a time.

    The layers run in blocks of equal length; the last block may run past `depth`, and what it yields there is
    dropped, so `step` must ignore layers beyond the depth when it scans in reverse.
    """
    unpack: list[Callable[[Array], Any]] = []

    def packed_step(carry, xs):
        # What leaves a layer is many small arrays: as one they cost one write per layer, and far less compilation.
        carry, out = step(carry, xs)
        flat, back = ravel_pytree(out)
        unpack.append(back)
        return carry, flat

    blocks = -(-depth * bytes_per_layer // DRAWN_AT_ONCE)
    length = max(1, -(-depth // max(1, blocks)))
    blocks = -(-depth // length)
    pad = blocks * length - depth
    split = lambda x: jnp.pad(x, [(0, pad)] + [(0, 0)] * (x.ndim - 1)).reshape(blocks, length, *x.shape[1:])
    layers = jnp.arange(1, blocks * length + 1).reshape(blocks, length)

    def block(carry, xs):
        layers, saved = xs
        return lax.scan(packed_step, carry, (layers, saved, jax.vmap(draw)(layers)), reverse=reverse)

    carry, out = lax.scan(block, carry, (layers, jax.tree.map(split, saved)), reverse=reverse)
    return carry, jax.vmap(unpack[-1])(out.reshape(blocks * length, -1)[:depth])


def _unit_rms(rows: Array) -> Array:
    return rows / jnp.sqrt(jnp.mean(rows * rows, axis=-1, keepdims=True))


def _turned(first: Array, row: Array, cosine: float) -> Array:
    """The direction at the given cosine from `first`, in the plane that it spans with `row`."""
    pair = jnp.stack([first, row])
    beside = product(factor_array(pair).inverse, pair)[1]
    turned = cosine * first + ((1 - cosine) * (1 + cosine)) ** 0.5 * beside
    return turned * reciprocal(jnp.sqrt(jnp.mean(turned * turned)))
