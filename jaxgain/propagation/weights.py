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
from jaxgain.propagation.rows import Rows, factor_array, mean, orthonormalized, product, reciprocal, stack

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


class Matrices(NamedTuple):
    """How weight matrices are drawn."""

    distribution: str | Callable[..., Array] = "normal"
    """A name of `DISTRIBUTIONS`, or an initializer (key, shape (fan_in, fan_out), dtype) with a scale of its own."""
    sparsity: float = 0.0
    """The probability of a weight to be zero, in `sparse`."""
    tied: bool = False
    """One matrix and one bias for all layers."""
    draw_dtype: Any = jnp.float32
    """The type that they are drawn in."""
    dtype: Any = jnp.float32
    """The type that they are used in."""


UNIT_NORMAL = Matrices()


def draw_matrix(key: Array, layer: Array, matrices: Matrices, *, fan_in: int, fan_out: int) -> tuple[Array, Array]:
    """Weights (fan_out, fan_in), times √fan_in, and biases (fan_out,) of one layer, float32.

    All have variance 1, but for the weights of an initializer, which have its own times fan_in.
    """
    layer = jnp.ones_like(layer) if matrices.tied else layer
    distribution = matrices.distribution
    if distribution == "normal" and matrices.draw_dtype == jnp.float32:
        weights = draw_part(key, layer, 0, fan_out, fan_in)
    else:
        draw = distribution if callable(distribution) else DISTRIBUTIONS[distribution]
        own = jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), layer)
        if callable(distribution):
            weights = draw(own, (fan_in, fan_out), matrices.draw_dtype).T.astype(jnp.float32) * fan_in**0.5
        else:
            weights = draw(own, (fan_out, fan_in), matrices).astype(jnp.float32)
    return weights, draw_part(key, layer, 3, 1, fan_out)[0]


def _normal(key: Array, shape: tuple[int, int], matrices: Matrices) -> Array:
    return jax.random.normal(key, shape, matrices.draw_dtype)


def _uniform(key: Array, shape: tuple[int, int], matrices: Matrices) -> Array:
    return jax.random.uniform(key, shape, matrices.draw_dtype, -(3**0.5), 3**0.5)


def _truncated_normal(key: Array, shape: tuple[int, int], matrices: Matrices) -> Array:
    """Cut at two standard deviations, then brought to variance 1."""
    return jax.random.truncated_normal(key, -2, 2, shape, matrices.draw_dtype) / TRUNCATED_STD


def _orthogonal(key: Array, shape: tuple[int, int], matrices: Matrices) -> Array:
    """Haar; of unequal sides the rows or columns, whichever are fewer, are orthonormal up to a factor."""
    fan_out, fan_in = shape
    normal = jax.random.normal(key, (max(shape), min(shape)), matrices.draw_dtype).astype(jnp.float32)
    frame, triangle = jnp.linalg.qr(normal)  # in float32, as no lower precision has it
    frame = frame * jnp.sign(jnp.diagonal(triangle))[None]
    return (frame if fan_out >= fan_in else frame.T) * max(shape) ** 0.5


def _sparse(key: Array, shape: tuple[int, int], matrices: Matrices) -> Array:
    of_weights, of_places = jax.random.split(key)
    there = jax.random.bernoulli(of_places, 1 - matrices.sparsity, shape)
    return there * _normal(of_weights, shape, matrices) * (1 - matrices.sparsity) ** -0.5


DISTRIBUTIONS: dict[str, Callable[..., Array]] = {
    "normal": _normal,
    "uniform": _uniform,
    "truncated_normal": _truncated_normal,
    "orthogonal": _orthogonal,
    "sparse": _sparse,
}

# Standard deviation of a standard normal number between −2 and 2: √(1 − 4 φ(2)/(2 Φ(2) − 1)).
TRUNCATED_STD = 0.8796256610342398


def draw_ends(
    key: Array,
    inputs: int | Array,
    *,
    widths: tuple[int, int],
    scale: float,
    distance: Array | float | None,
    directions: int,
    cotangent: str | None,
) -> Ends:
    """The vectors that enter a network from either side, of its first and its last width, float32.

    `inputs` are given, or a number of random ones, of rms exactly `scale`: independent normal, or at a `distance` in
    [0, 2], which is 1 minus the cosine between the first and each other one, exactly. So many orthonormal `directions`
    per input, the tangents, have an rms of 1. The `cotangent` is all ones (`sum`) or standard normal (`random`), or
    None for no way back.
    """
    are_random = isinstance(inputs, (int, np.integer))
    count = int(inputs) if are_random else inputs.shape[0]
    first, last = widths
    parts = [0] * are_random + [1] * (directions == 1) + [2] * (cotangent == "random" and first == last)
    drawn = dict(zip(parts, _draw(key, BEFORE_THE_FIRST, parts, rows=count, width=first), strict=True)) if parts else {}
    rows = scale * _turned(_unit_rms(drawn[0]), distance) if are_random else jnp.asarray(inputs, jnp.float32)
    tangents = _unit_rms(drawn[1]) if directions == 1 else _orthonormal(key, count, directions, first)
    if cotangent == "random" and first != last:
        drawn[2] = draw_part(key, BEFORE_THE_FIRST, 2, count, last)
    ones = None if cotangent is None else jnp.ones((count, last))
    return Ends(rows, tangents, drawn.get(2, ones))


def _orthonormal(key: Array, inputs: int, directions: int, width: int) -> Array:
    """Directions of each input (directions × inputs, width), the first ones those of a single direction."""
    if not directions:
        return jnp.zeros((0, width))
    drawn = draw_part(key, BEFORE_THE_FIRST, 1, directions * inputs, width).reshape(directions, inputs, width)
    basis = jax.vmap(lambda rows: orthonormalized(rows, width)[0], in_axes=1, out_axes=1)(drawn)
    return basis.reshape(-1, width)


def draw_part(key: Array, layer: Array | int, part: int, rows: int, width: int) -> Array:
    """One of the `PARTS_OF_LAYER`, (rows, width), standard normal."""
    return _draw(key, layer, [part], rows=rows, width=width)[0]


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

    fewest = -(-depth * bytes_per_layer // DRAWN_AT_ONCE)
    # Up to twice as many blocks if they leave no layer over, which would copy all that is saved.
    blocks = next((blocks for blocks in range(fewest, 2 * fewest + 1) if depth % blocks == 0), fewest)
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


def _turned(rows: Array, distance: Array | float | None) -> Array:
    """Rows of rms 1, all but the first turned to a cosine of 1 − `distance` from it, in the plane that they span."""
    if distance is None or len(rows) == 1:
        return rows
    first, *others = rows
    return jnp.stack([first, *(_at_distance(first, row, distance) for row in others)])


def _at_distance(first: Array, row: Array, distance: Array | float) -> Array:
    pair = jnp.stack([first, row])
    beside = product(factor_array(pair).inverse, pair)[1]
    turned = (1 - distance) * first + (distance * (2 - distance)) ** 0.5 * beside
    return turned * reciprocal(jnp.sqrt(mean(turned * turned)))
