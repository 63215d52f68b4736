"""What a compiled program records of an array: a few sums in one pass, from which every statistic follows later.

Sums are at least float32 whatever the type of the array, and none of them overflows or underflows before the numbers
themselves do: squares are added in three ranges, each with a scale of its own (Blue, *ACM Transactions on Mathematical
Software* 4, 1978). They are added in two stages of about equal length, so that rounding grows with the fourth root of
the size. Few operations per site matter more than fast ones: the compiler's time is what a probe waits for.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

ROWS = 16  # inputs of the batch that the effective rank is taken of
SMALL, LARGE = 2.0**-50, 2.0**50  # where the ranges end
UP, DOWN = 2.0**70, 2.0**-80  # what numbers below and above them are multiplied by before they are squared
SUMS = 6  # the numbers of `Sums`


class Sums(NamedTuple):
    """Of the entries of an array: their sum, their squares' by range, how many are not finite, and the largest."""

    total: Any
    small: Any
    medium: Any
    large: Any
    nonfinite: Any
    largest: Any


class Forward(NamedTuple):
    """What is recorded of one site going forward; arrays have axes in front for the loops around the site."""

    entering: Array  # of Sums
    leaving: Array
    weights: Array  # of the weights less `shift`, one of them, so that the variance keeps its digits
    shift: Array
    gram: Array  # of the first inputs' outputs, divided by the largest
    flat: Array  # entries where the following activation is flat, and units where it is for every input
    executed: Array


def working(dtype: Any) -> Any:
    """Return the type that statistics of a type are taken in: float32, or float64 of float64.

    >>> working(jnp.bfloat16), working(np.complex64), working(np.float64)
    (dtype('float32'), dtype('float32'), dtype('float64'))
    """
    wide = jnp.dtype(dtype) in (np.dtype(np.float64), np.dtype(np.complex128))
    return np.dtype(np.float64 if wide else np.float32)


def real(x: Array) -> Array:
    """Return numbers in their working type; of complex ones the magnitude."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        x = jnp.abs(x)
    return x.astype(working(x.dtype))


@functools.partial(jax.jit, static_argnames="kept")
def sums(x: Array, kept: int = 0) -> Array:
    """Return `Sums` of an array as one array, over all but its first `kept` axes.

    >>> found = Sums(*sums(jnp.asarray([3.0, -4.0, jnp.inf])))
    >>> float(found.nonfinite), float(found.largest)
    (1.0, inf)
    """
    x = real(x)
    front, size = x.shape[:kept], math.prod(x.shape[kept:])
    if size == 0:
        return jnp.zeros((*front, SUMS), x.dtype)
    rows = _near_root(size)
    x = x.reshape(*front, rows, size // rows)
    magnitude = jnp.abs(x)
    small, large = magnitude < SMALL, magnitude > LARGE
    lifted, lowered = x * UP, x * DOWN
    finite = magnitude < jnp.inf
    zero = jnp.zeros((), x.dtype)
    terms = (
        x,
        jnp.where(small, lifted * lifted, zero),
        jnp.where(small | large, zero, x * x),
        jnp.where(large, lowered * lowered, zero),
        jnp.where(finite, zero, jnp.ones((), x.dtype)),
        magnitude,
    )

    def combine(a: Sequence[Array], b: Sequence[Array]) -> tuple[Array, ...]:
        return (*(u + v for u, v in zip(a[:-1], b[:-1], strict=True)), lax.max(a[-1], b[-1]))

    start = (zero,) * SUMS
    for axis in (kept + 1, kept):
        terms = lax.reduce(terms, start, combine, (axis,))
    return jnp.stack(terms, axis=-1)


@functools.cache
def _near_root(size: int) -> int:
    """Return the divisor of a size that is nearest to its square root from below."""
    return next(rows for rows in range(math.isqrt(size), 0, -1) if size % rows == 0)


@jax.custom_vjp
def tap(y: Array, token: Array) -> Array:
    """Return `y`; the derivative with respect to `token` is `sums` of that with respect to `y`, and a 1."""
    return y


def _tap_forward(y: Array, token: Array) -> tuple[Array, None]:
    return y, None


def _tap_backward(_: None, ct: Array) -> tuple[Array, Array]:
    found = sums(ct)
    return ct, jnp.concatenate([found, jnp.ones(1, found.dtype)])


tap.defvjp(_tap_forward, _tap_backward)


@functools.partial(jax.jit, static_argnames=("axis", "size"))
def gram(y: Array, largest: Array, axis: int, size: int) -> Array:
    """Return the inner products of the first `ROWS` of the batch's `size` inputs, divided by `largest` before.

    Inputs are along `axis`, whose length is a multiple of `size`, with the inputs outermost.
    """
    count = min(size, ROWS)
    length = y.shape[axis] // size * count
    first = real(jnp.moveaxis(lax.slice_in_dim(y, 0, length, axis=axis), axis, 0)).reshape(count, -1)
    first = first / jnp.where((largest > 0) & (largest < jnp.inf), largest, 1)
    return jnp.matmul(first, first.T, precision=lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnames=("low", "high", "units"))
def flat(z: Array, low: float, high: float, units: tuple[int, ...]) -> Array:
    """Return the fraction of entries outside of (low, high), and of units of which all are.

    `units` are the axes that count units; over all others the unit has to be outside.
    """
    outside = jnp.zeros(z.shape, bool)
    if low > -math.inf:
        outside |= z <= low
    if high < math.inf:
        outside |= z >= high
    others = tuple(axis for axis in range(z.ndim) if axis not in units)
    fractions = jnp.mean(outside.astype(working(z.dtype)), axis=others)
    return jnp.stack([jnp.mean(fractions), jnp.mean((fractions == 1).astype(fractions.dtype))])


class Moments(NamedTuple):
    """Of the entries of an array; `log_rms` also where the rms is beyond the type."""

    mean: Any
    rms: Any
    log_rms: Any
    largest: Any
    nonfinite: Any


def moments(found: Any, size: Any, xp: Any = jnp) -> Moments:
    """Return the moments of arrays from their `Sums` (..., 6) and sizes, in the type of the sums.

    `xp` is NumPy or jax.numpy.

    >>> found = moments(sums(jnp.asarray([3e-30, -4e-30])), 2)
    >>> round(float(found.rms) * 1e30, 4), round(float(found.log_rms), 4)
    (3.5355, -67.8147)
    """
    parts = Sums(*(found[..., number] for number in range(SUMS)))
    with np.errstate(all="ignore"):
        # Each mean square is of numbers times its own scale; the ranges below add to the highest that is not empty.
        medium = parts.medium + parts.small / UP / UP
        large = parts.large + parts.medium * DOWN * DOWN
        square = xp.where(parts.large > 0, large, xp.where(parts.medium > 0, medium, parts.small))
        scale = xp.where(parts.large > 0, 1 / DOWN, xp.where(parts.medium > 0, 1.0, 1 / UP))
        root = xp.sqrt(square / size)
        poisoned = parts.nonfinite > 0
        rms = xp.where(poisoned, math.nan, root * scale)
        log_rms = xp.where(poisoned, math.nan, xp.log(root) + xp.log(scale))
        return Moments(parts.total / size, rms, log_rms, parts.largest, parts.nonfinite / size)


def correlation_and_rank(grams: Any, xp: Any = jnp) -> tuple[Any, Any]:
    r"""Return the correlation of the first two inputs and the effective rank, uncentred, from Gram matrices G.

    The correlation is $G_{01}/\sqrt{G_{00} G_{11}}$, and the rank the participation ratio
    $(\operatorname{tr} G)^2 / \operatorname{tr} G^2$ of the eigenvalues: 1 where all inputs are parallel, their number
    where they are orthogonal and equally long.

    >>> correlation, rank = correlation_and_rank(jnp.asarray([[1.0, 0.0], [0.0, 1.0]]))
    >>> float(correlation), float(rank)
    (0.0, 2.0)
    """
    diagonal = xp.diagonal(grams, axis1=-2, axis2=-1)
    with np.errstate(all="ignore"):
        rank = diagonal.sum(-1) ** 2 / (grams * grams).sum((-2, -1))
        if grams.shape[-1] < 2:
            return xp.full(rank.shape, math.nan, rank.dtype), rank
        return grams[..., 0, 1] / xp.sqrt(diagonal[..., 0]) / xp.sqrt(diagonal[..., 1]), rank
