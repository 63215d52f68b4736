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
    """(B,): the same for the bias column."""


def layer_key(key: Array, layer: Array | int, part: int) -> Array:
    """The key of one layer (0 … depth) for one kind of number."""
    return jax.random.fold_in(jax.random.fold_in(key, layer), part)


def draw_noise(key: Array, layer: Array, *, inputs: int, tangents: int, width: int) -> Noise:
    """Noise of one layer, float32: shapes (inputs + tangents, width), (inputs, width) and (inputs,)."""
    normal = lambda part, shape: jax.random.normal(layer_key(key, layer, part), shape, jnp.float32)
    signal, tangent = normal(0, (inputs, width)), normal(1, (tangents, width))
    return Noise([*signal, *tangent], list(normal(2, (inputs, width))), normal(3, (inputs,)))


def draw_matrix(key: Array, layer: Array, *, width: int) -> tuple[Array, Array]:
    """Weights (width, width) with variance 1/width and biases (width,) with variance 1 of one layer, float32."""
    weights = jax.random.normal(layer_key(key, layer, 0), (width, width), jnp.float32)
    return weights / jnp.sqrt(jnp.float32(width)), jax.random.normal(layer_key(key, layer, 3), (width,), jnp.float32)


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
    blocks = -(-depth * bytes_per_layer // DRAWN_AT_ONCE)
    length = max(1, -(-depth // max(1, blocks)))
    blocks = -(-depth // length)
    pad = blocks * length - depth
    split = lambda x: jnp.pad(x, [(0, pad)] + [(0, 0)] * (x.ndim - 1)).reshape(blocks, length, *x.shape[1:])
    layers = jnp.arange(1, blocks * length + 1).reshape(blocks, length)

    def block(carry, xs):
        layers, saved = xs
        return lax.scan(step, carry, (layers, saved, jax.vmap(draw)(layers)), reverse=reverse)

    carry, out = lax.scan(block, carry, (layers, jax.tree.map(split, saved)), reverse=reverse)
    return carry, jax.tree.map(lambda x: x.reshape(blocks * length, *x.shape[2:])[:depth], out)


def _unit_rms(rows: Array) -> Array:
    return rows / jnp.sqrt(jnp.mean(rows * rows, axis=-1, keepdims=True))


def _turned(first: Array, row: Array, cosine: float) -> Array:
    """The direction at the given cosine from `first`, in the plane that it spans with `row`."""
    pair = jnp.stack([first, row])
    beside = product(factor_array(pair).inverse, pair)[1]
    turned = cosine * first + ((1 - cosine) * (1 + cosine)) ** 0.5 * beside
    return turned * reciprocal(jnp.sqrt(jnp.mean(turned * turned)))
