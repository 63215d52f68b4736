"""Means over very many neurons: in blocks that fit into the cache, several at a time, as the device likes it."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

from jaxgain.propagation.rows import (
    NARROW,
    PARTS,
    Rows,
    mean,
    mean_of_parts,
    parts_of,
    product,
    products_are_faster,
    sizes_of,
    sum_of,
)

T = TypeVar("T")

# Neurons from which the size of all of them is guessed, and how small the guess may be beside what is possible before
# it is measured instead: float32 must hold squares of quotients of the two, and sums of them.
SAMPLE = 62
TRUSTED = 2.0**-40

# Beyond what z / rms reaches in any of a million neurons, nearly: where an activation is taken for as large as it gets.
EXTREMES = (-5.0, 5.0)

# float32 counts to 2**24, so two counts up to 2**12 − 1 are exact as one number.
COUNTED = 2**12


def means(
    terms: Callable[..., dict[str, Array]],
    rows: Rows,
    *,
    at_once: int,
    index: Array,
) -> dict[str, Array]:
    """Means over the neurons of each of the `terms(*rows)`, elementwise functions of rows (n,) -> scalars.

    The mean of a condition is the fraction of neurons that meet it. No array is longer than `at_once` neurons.
    `index` is as in `settled`.

    >>> x = jnp.arange(10.0)
    >>> found = means(lambda x: {"square": x * x, "large": x > 6}, [x], at_once=4, index=jnp.array(0))
    >>> round(float(found["square"]), 4), round(float(found["large"]), 4)
    (28.5, 0.3)
    """

    def of_block(block: list[Array]) -> dict[str, Array]:
        return _means(terms, settled(lambda: block, index))

    width = rows[0].shape[0]
    blocks = _blocks(width, at_once)
    length = width // blocks
    if blocks == 1:
        return of_block(rows)

    def add(total: dict[str, Array], block: list[Array]) -> tuple[dict[str, Array], None]:
        return jax.tree.map(jnp.add, total, of_block(block)), None

    whole = [row[: blocks * length].reshape(blocks, length) for row in rows]
    names = jax.eval_shape(of_block, [row[0] for row in whole])
    total, _ = lax.scan(add, {name: jnp.zeros((), rows[0].dtype) for name in names}, whole)
    found = {name: x * (length / width) for name, x in total.items()}
    left = width - blocks * length
    if left:
        rest = of_block([row[blocks * length :] for row in rows])
        found = {name: x + rest[name] * (left / width) for name, x in found.items()}
    return found


def _blocks(width: int, at_once: int) -> int:
    """Into how many blocks to divide the neurons: the fewest, or up to twice as many if they leave no neuron over."""
    fewest = -(-width // at_once)
    return next((blocks for blocks in range(fewest, 2 * fewest) if width % (blocks * PARTS) == 0), fewest)


def _means(terms: Callable[..., dict[str, Array]], rows: Rows) -> dict[str, Array]:
    pieces = [terms(*parts) for parts in zip(*map(parts_of, rows), strict=True)]
    numbers = {name for name, x in pieces[0].items() if x.dtype != jnp.bool}
    found = {name: mean_of_parts([piece[name] for piece in pieces]) for name in sorted(numbers)}
    conditions = sorted(set(pieces[0]) - numbers)
    counted = fractions([[piece[name] for piece in pieces] for name in conditions])
    return found | dict(zip(conditions, counted, strict=True))


def fractions(conditions: list[list[Array]]) -> list[Array]:
    """Fraction of the neurons that meet each condition, given in parts of equal length (n / parts,), exactly.

    >>> x = jnp.arange(8)
    >>> [float(fraction) for fraction in fractions([[x[:4] > 1, x[4:] > 1], [x[:4] > 6, x[4:] > 6]])]
    [0.75, 0.125]
    """
    if not conditions:
        return []
    (one, *others), width = conditions, len(conditions[0]) * conditions[0][0].shape[0]
    if width >= COUNTED or not others:
        return [_count(one) / width, *fractions(others)]
    both = _count(one, others[0])
    return [both % COUNTED / width, both // COUNTED / width, *fractions(others[1:])]


def _count(*conditions: list[Array]) -> Array:
    """How many neurons meet the first condition, plus `COUNTED` times how many meet the second."""
    parts = [[condition.astype(jnp.float32) for condition in same] for same in zip(*conditions, strict=True)]
    number = sum_of(part[0] + COUNTED * part[1] if len(part) == 2 else part[0] for part in parts)
    # A sum of whole numbers is exact, which a mean would not be.
    return product(number, jnp.ones_like(number)) if products_are_faster() else jnp.sum(number)


def is_trusted(guess: Array, bounds: Array) -> Array:
    """Whether sizes guessed from a few neurons serve for all, whose entries are at most `bounds`."""
    return (guess >= TRUSTED * bounds) & (guess > 0)


def guessed_sizes(rows: Rows, bounds: Array) -> Array:
    """A size of each of K rows (n,), 0 only for zeros, such that squares of quotients neither overflow nor underflow.

    From a few neurons, unless in some network of the batch those may be too far from the others: `bounds` (K,) says
    how large the entries may be.
    """
    if rows[0].shape[0] <= NARROW or not products_are_faster():
        return sizes_of(rows, whole_range=len(rows))
    guess = jnp.stack([mean(jnp.abs(row[:SAMPLE])) for row in rows])
    trusted = is_trusted(guess, bounds)
    measured = partial(sizes_of, rows, whole_range=len(rows))
    return lax.cond(any_of_batch(~jnp.all(trusted)), measured, lambda: guess)


def settled(make: Callable[[], T], index: Array) -> T:
    """What `make()` returns, computed once: otherwise XLA computes it again in every loop over neurons that reads it.

    What a branch returns is stored, so on a CPU this is a branch on whether `index`, a whole number that the compiler
    does not know, is at least 0; below 0 it yields zeros. Elsewhere a branch would wait for the host.
    """
    if not products_are_faster():
        return make()
    nothing: Any = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(make))
    return lax.cond(index >= 0, make, lambda: nothing)


@custom_vmap
def any_of_batch(condition: Array) -> Array:
    """The condition itself, and under `vmap` whether it holds anywhere: one answer for the whole batch.

    So a `lax.cond` on it stays a branch where on the condition itself it would become a selection.

    >>> jax.vmap(any_of_batch)(jnp.array([False, True])).tolist()
    [True, True]
    """
    return condition


@any_of_batch.def_vmap
def _any_of_batch(size: int, batched: list[bool], condition: Array) -> tuple[Array, bool]:
    del size, batched
    return any_of_batch(jnp.any(condition)), False
