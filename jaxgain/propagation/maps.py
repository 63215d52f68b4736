r"""Random linear maps: what a matrix W does to the few rows that meet it and, given that, what Wᵀ does to cotangents.

A map is three functions. Rows are the B signals and, below them, tangents, which no bias reaches. W has entries of
variance $\sigma_w^2/\mathrm{fan}$; a map's `scale` is $\sigma_w\sqrt{n/\mathrm{fan}}$ for n inputs, which is what it
multiplies an rms by. Without matrices the law of images and returned cotangents together is that of a real matrix.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxgain.propagation.rows import orthonormal, product, reciprocal, unit_rows
from jaxgain.propagation.weights import Matrices, draw_matrix, draw_part


class Sizes(NamedTuple):
    """What meets a map."""

    signals: int
    """B, of which each has a bias, and a cotangent on the way back."""
    tangents: int
    """T rows below the signals."""
    fan_in: int
    """n."""
    fan_out: int
    """m."""
    bias: bool


class RandomMap(NamedTuple):
    """One kind of random matrix."""

    draw: Callable[..., Any]
    """(key, layer, sizes, reverse=whether it will be asked to send cotangents back) -> all its random numbers."""
    meet: Callable[..., tuple[Array, Any]]
    """(drawn, rows (B + T, n), sizes, scale, sigma_b) -> images (B + T, m), what the way back needs."""
    send_back: Callable[..., Array]
    """(drawn, seen, cotangents (B, m), sizes, scale) -> (B, n)."""
    numbers: Callable[[Sizes], int]
    """How many numbers are drawn."""


class MapNoise(NamedTuple):
    """Standard normal numbers of a map without its matrix."""

    forward: Array
    """(B + T, m): what it makes of the orthonormal directions that enter it, one per row; the first ones of fewer."""
    reverse: Array
    """(B, n): what its transpose makes of the directions that come back, outside of what entered."""
    bias: Array
    """Gaussian: (B,), the same for the bias column. Orthogonal: the biases (m,)."""


# Gaussian


def _draw_gaussian(key: Array, layer: Array, sizes: Sizes, *, reverse: bool) -> MapNoise:
    # As in networks that keep no vectors: the way back through W is drawn with the layer that it leads to.
    forward = _draw_forward(key, layer, sizes, sizes.fan_out)
    bias = draw_part(key, layer - 1, 3, sizes.signals, 1)[:, 0] if reverse and sizes.bias else jnp.zeros(sizes.signals)
    return MapNoise(forward, _draw_reverse(key, layer, sizes, sizes.fan_in, reverse), bias)


def _meet_gaussian(
    drawn: MapNoise, rows: Array, sizes: Sizes, scale: Array, sigma_b: Array | None
) -> tuple[Array, Array]:
    r"""With $A = [X\,\mathrm{scale}/\sqrt n,\ \sigma_b] = R Q$ the images are R E; seen is Q, of rms 1 per row."""
    width = sizes.fan_in
    units, lengths = unit_rows(rows)
    lengths = scale * lengths
    if sigma_b is not None:
        biases = jnp.where(jnp.arange(len(rows)) < sizes.signals, sigma_b, 0)
        # Each row is divided by its own size, so that a tiny signal beside a bias keeps its digits.
        larger = jnp.maximum(lengths, biases)
        over = reciprocal(larger)
        column = (width + 1) ** 0.5 * biases * over
        units = jnp.concatenate([units * ((1 + 1 / width) ** 0.5 * lengths * over)[:, None], column[:, None]], axis=1)
        lengths = larger
    basis, lower = orthonormal(units, careful=sizes.signals)
    return product(lengths[:, None] * lower, drawn.forward[: len(rows)]), basis


def _send_back_gaussian(drawn: MapNoise, seen: Array, cotangents: Array, sizes: Sizes, scale: Array) -> Array:
    r"""$D \hat W^\top = (D E^\top) Q + F (I - Q^\top Q)$ with $F = R_D e$, $D = R_D Q_D$."""
    width, columns = sizes.fan_in, seen.shape[1]
    units, lengths = unit_rows(cotangents)
    _, lower = orthonormal(units, careful=len(units))
    fresh = drawn.reverse
    if columns > width:
        fresh = jnp.concatenate([fresh, drawn.bias[:, None]], axis=1)
    fresh = product(sizes.fan_out**0.5 * lower, fresh)
    known = product(units, drawn.forward[: len(seen)].T) * columns**-0.5 - product(fresh, seen.T) / columns
    return (lengths * scale * width**-0.5)[:, None] * (fresh + product(known, seen))[:, :width]


# Orthogonal, Haar: the largest n × n frame that holds W, of which a rectangular W shows some rows or columns


def _draw_orthogonal(key: Array, layer: Array, sizes: Sizes, *, reverse: bool) -> MapNoise:
    side = max(sizes.fan_in, sizes.fan_out)
    biases = draw_part(key, layer, 3, 1, sizes.fan_out)[0] if sizes.bias else jnp.zeros(sizes.fan_out)
    return MapNoise(_draw_forward(key, layer, sizes, side), _draw_reverse(key, layer, sizes, side, reverse), biases)


def _meet_orthogonal(
    drawn: MapNoise, rows: Array, sizes: Sizes, scale: Array, sigma_b: Array | None
) -> tuple[Array, tuple[Array, Array]]:
    """Orthonormal directions go to random orthonormal ones; seen are both, zero where a row had none of its own."""
    side = max(sizes.fan_in, sizes.fan_out)
    units, lengths = unit_rows(_padded(rows, side))
    entered, lower = orthonormal(units, careful=len(units))
    left, _ = orthonormal(drawn.forward[: len(rows)] * _is_live(lower)[:, None], careful=len(units))
    stretched = scale * (side / sizes.fan_in) ** 0.5 * lengths
    images = product(stretched[:, None] * lower, left)[:, : sizes.fan_out]
    if sigma_b is not None:
        images = images.at[: sizes.signals].add(sigma_b * drawn.bias)
    return images, (entered, left)


def _send_back_orthogonal(
    drawn: MapNoise, seen: tuple[Array, Array], cotangents: Array, sizes: Sizes, scale: Array
) -> Array:
    """Inside the frame that is known cotangents go back through it, their rest to a random frame outside of it."""
    (entered, left), side = seen, max(sizes.fan_in, sizes.fan_out)
    known, count = len(entered), len(entered) + len(cotangents)
    units, lengths = unit_rows(_padded(cotangents, side))
    _, lower = orthonormal(jnp.concatenate([left, units]), careful=count)
    inside, outside = lower[known:, :known], lower[known:, known:]
    basis, _ = orthonormal(jnp.concatenate([entered, drawn.reverse * _is_live(outside)[:, None]]), careful=count)
    returned = product(inside, entered) + product(outside, basis[known:])
    return (scale * (side / sizes.fan_in) ** 0.5 * lengths)[:, None] * returned[:, : sizes.fan_in]


def _is_live(lower: Array) -> Array:
    """Which rows have a direction of their own."""
    return jnp.diagonal(lower) > 0


# Dense


def _draw_dense(matrices: Matrices, key: Array, layer: Array, sizes: Sizes, *, reverse: bool) -> tuple[Array, Array]:
    del reverse
    weights, biases = draw_matrix(key, layer, matrices, fan_in=sizes.fan_in, fan_out=sizes.fan_out)
    return (weights * sizes.fan_in**-0.5).astype(matrices.dtype), biases


def _meet_dense(
    drawn: tuple[Array, Array], rows: Array, sizes: Sizes, scale: Array, sigma_b: Array | None
) -> tuple[Array, None]:
    weights, biases = drawn
    images = scale * _product_in(rows, weights.T)
    if sigma_b is not None:
        images = images.at[: sizes.signals].add(sigma_b * biases)
    return images.astype(rows.dtype), None


def _send_back_dense(drawn: tuple[Array, Array], seen: None, cotangents: Array, sizes: Sizes, scale: Array) -> Array:
    del seen, sizes
    return (scale * _product_in(cotangents, drawn[0])).astype(cotangents.dtype)


def _product_in(rows: Array, matrix: Array) -> Array:
    """A product of numbers in a low precision, summed in float32 as accelerators do."""
    return jnp.matmul(rows, matrix, precision="highest", preferred_element_type=jnp.float32)


GAUSSIAN = RandomMap(_draw_gaussian, _meet_gaussian, _send_back_gaussian, lambda sizes: _numbers(sizes, False))
ORTHOGONAL = RandomMap(_draw_orthogonal, _meet_orthogonal, _send_back_orthogonal, lambda sizes: _numbers(sizes, True))


def dense(matrices: Matrices) -> RandomMap:
    """A map that draws its matrix."""
    draw = partial(_draw_dense, matrices)
    return RandomMap(draw, _meet_dense, _send_back_dense, lambda sizes: sizes.fan_in * sizes.fan_out)


def _numbers(sizes: Sizes, square: bool) -> int:
    side = max(sizes.fan_in, sizes.fan_out)
    entering, leaving = (side, side) if square else (sizes.fan_in, sizes.fan_out)
    return (sizes.signals + sizes.tangents) * leaving + sizes.signals * entering


def _draw_forward(key: Array, layer: Array, sizes: Sizes, width: int) -> Array:
    parts = [draw_part(key, layer, 0, sizes.signals, width)]
    parts += [draw_part(key, layer, 1, sizes.tangents, width)] if sizes.tangents else []
    return jnp.concatenate(parts)


def _draw_reverse(key: Array, layer: Array, sizes: Sizes, width: int, reverse: bool) -> Array:
    count = sizes.signals if reverse else 0
    return draw_part(key, layer - 1, 2, count, width) if count else jnp.zeros((0, width))


def _padded(rows: Array, width: int) -> Array:
    return jnp.pad(rows, [(0, 0), (0, width - rows.shape[1])])
