r"""The random numbers of a network, from the network's key and their position in it: what is drawn, and when.

A layer's numbers depend on the key and the layer's index alone: never on the gain, the activation, the chunk or
the device, and those of input 1 not on how many inputs follow. So gains and activations are compared on the same
networks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from jaxgain.propagation.kernel import Ends
from jaxgain.propagation.normals import standard_normal
from jaxgain.propagation.rows import Rows, factor_array, mean, product, reciprocal, stack

# Random numbers of this many bytes are drawn at a time: in bulk they cost less than layer by layer.
DRAWN_AT_ONCE = 2**22

# Random numbers of this many bytes are kept for the way back, more are drawn again.
KEPT = 2**24

# What a layer draws: what W makes of signals (or W itself) and of tangents, what Wᵀ makes of cotangents, and biases.
PARTS_OF_LAYER = range(4)

# The layer whose numbers are the ends of the network: inputs, their directions, cotangents.
BEFORE_THE_FIRST = -1

# Arrays of up to this many numbers leave a layer together.
PACKED = 2**8


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
    drawn = _draw(key, layer, [0] + [1] * (tangents > 0) + [2] * reverse, rows=inputs, width=width)
    rows = lax.optimization_barrier([list(part) for part in drawn])  # or they are drawn again by all who read them
    column = _draw(key, layer, [3], rows=inputs, width=1)[0, :, 0] if bias and reverse else jnp.zeros(inputs)
    forward = [row for part in rows[: 1 + (tangents > 0)] for row in part]
    return Noise(forward, rows[-1] if reverse else [], column)


def draw_matrix(key: Array, layer: Array, *, width: int) -> tuple[Array, Array]:
    """Weights (width, width) and biases (width,) of one layer, all with variance 1, float32."""
    (weights,) = _draw(key, layer, [0], rows=width, width=width)
    ((biases,),) = _draw(key, layer, [3], rows=1, width=width)
    return weights, biases


def draw_ends(
    key: Array,
    inputs: int | Array,
    *,
    width: int,
    scale: float,
    cosine: float | None,
    tangents: bool,
    cotangent: str | None,
) -> Ends:
    """The vectors that enter a network of some width from either side, float32.

    `inputs` are given, or a number of random ones, of rms exactly `scale`: independent normal, or with a `cosine` in
    [−1, 1] of exactly that much between the first and each other one. The directions of the tangents, one per input,
    have an rms of 1. The `cotangent` is all ones (`sum`) or standard normal (`random`), or None for no way back.
    """
    are_random = isinstance(inputs, (int, np.integer))
    count = int(inputs) if are_random else inputs.shape[0]
    parts = [0] * are_random + [1] * tangents + [2] * (cotangent == "random")
    drawn = dict(zip(parts, _draw(key, BEFORE_THE_FIRST, parts, rows=count, width=width), strict=True)) if parts else {}
    rows = scale * _turned(_unit_rms(drawn[0]), cosine) if are_random else jnp.asarray(inputs, jnp.float32)
    directions = _unit_rms(drawn[1]) if tangents else jnp.zeros((0, width))
    ones = None if cotangent is None else jnp.ones((count, width))
    return Ends(rows, directions, drawn.get(2, ones))


def _draw(key: Array, layer: Array | int, parts: list[int], *, rows: int, width: int) -> Array:
    """What the layers' four parts draw, each by itself, (parts, rows, width), standard normal.

    One call of the generator for several parts: its code is the longest of a layer.
    """
    streams = len(PARTS_OF_LAYER) * (layer - BEFORE_THE_FIRST) + np.array(parts)
    return jax.vmap(lambda stream: standard_normal(key, stream, rows, width))(streams)


def tabulated(draw: Callable[[Array], Any], depth: int, bytes_per_layer: int) -> Callable[[Array], Any] | None:
    """A look-up of what `draw` yields for layers 0 … depth, all drawn now; None where that would not be little."""
    if (depth + 1) * bytes_per_layer > KEPT:
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
    """Scan layers 1 … depth with `step(carry, (layer, saved, drawn))`, numbers drawn for many narrow layers at a time.

    These run in blocks of equal length; the last block may run past `depth`, and what it yields there is dropped, so
    `step` must ignore layers beyond the depth when it scans in reverse.
    """
    unpack: list[Callable[[Array, list[Array]], Any]] = []

    def packed_step(carry, xs):
        # What leaves a layer is many small arrays: as one they cost one write per layer, and far less compilation.
        carry, out = step(carry, xs)
        leaves, structure = jax.tree.flatten(out)
        is_large = [x.size > PACKED for x in leaves]
        small, restore = ravel_pytree([x for x, large in zip(leaves, is_large, strict=True) if not large])

        def back(small: Array, large: list[Array]) -> Any:
            rest, whole = iter(restore(small)), iter(large)
            return structure.unflatten([next(whole if one else rest) for one in is_large])

        unpack.append(back)
        return carry, (small, [x for x, large in zip(leaves, is_large, strict=True) if large])

    if bytes_per_layer >= DRAWN_AT_ONCE:
        draw_and_step = lambda carry, xs: packed_step(carry, (*xs, draw(xs[0])))
        carry, out = lax.scan(draw_and_step, carry, (jnp.arange(1, depth + 1), saved), reverse=reverse)
        return carry, jax.vmap(unpack[-1])(*out)

    blocks = -(-depth * bytes_per_layer // DRAWN_AT_ONCE)
    length = -(-depth // blocks)
    blocks = -(-depth // length)
    pad = blocks * length - depth
    split = lambda x: jnp.pad(x, [(0, pad)] + [(0, 0)] * (x.ndim - 1)).reshape(blocks, length, *x.shape[1:])
    layers = jnp.arange(1, blocks * length + 1).reshape(blocks, length)

    def block(carry, xs):
        layers, saved = xs
        return lax.scan(packed_step, carry, (layers, saved, jax.vmap(draw)(layers)), reverse=reverse)

    carry, out = lax.scan(block, carry, (layers, jax.tree.map(split, saved)), reverse=reverse)
    joined = jax.tree.map(lambda x: x.reshape(blocks * length, *x.shape[2:])[:depth], out)
    return carry, jax.vmap(unpack[-1])(*joined)


def _unit_rms(rows: Array) -> Array:
    return rows * reciprocal(jnp.sqrt(stack([mean(row * row) for row in rows])))[:, None]


def _turned(rows: Array, cosine: float | None) -> Array:
    """Rows of rms 1, all but the first turned to the given cosine from it, in the plane that they span with it."""
    if cosine is None or len(rows) == 1:
        return rows
    first, *others = rows
    return jnp.stack([first, *(_at_cosine(first, row, cosine) for row in others)])


def _at_cosine(first: Array, row: Array, cosine: float) -> Array:
    pair = jnp.stack([first, row])
    beside = product(factor_array(pair).inverse, pair)[1]
    turned = cosine * first + ((1 - cosine) * (1 + cosine)) ** 0.5 * beside
    return turned * reciprocal(jnp.sqrt(mean(turned * turned)))
