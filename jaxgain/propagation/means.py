"""Means over very many neurons: in blocks that fit into the cache, several at a time, as the device likes it."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

from jaxgain.propagation.rows import Rows, mean, product, products_are_faster, sum_of

T = TypeVar("T")

# Parts of a row that are added to one another before they are summed up: fewer and longer sums per pass.
PARTS = 4

# float32 counts to 2**24, so two counts up to 2**12 − 1 are exact as one number.
COUNTED = 2**12


def means(
    terms: Callable[..., dict[str, Array]],
    rows: Rows,
    *,
    at_once: int,
    index: Array,
    stored: Callable[..., Rows] | None = None,
) -> dict[str, Array]:
    """Means over the neurons of each of the `terms(*rows)`, elementwise functions of rows (n,) -> scalars.

    The mean of a condition is the fraction of neurons that meet it. No array is longer than `at_once` neurons. What
    `stored(*rows)` returns follows the rows as arguments of `terms`; it is computed once and not again in each term.
    `index` is as in `settled`.

    >>> x = jnp.arange(10.0)
    >>> found = means(lambda x: {"square": x * x, "large": x > 6}, [x], at_once=4, index=jnp.array(0))
    >>> {name: round(float(value), 6) for name, value in found.items()}
    {'large': 0.3, 'square': 28.5}
    """

    def of_block(block: list[Array]) -> dict[str, Array]:
        given = settled(lambda: block, index)
        made = settled(lambda: stored(*given), index) if stored else []
        return _means(terms, [*given, *made])

    width = rows[0].shape[0]
    blocks = -(-width // at_once)
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


def _means(terms: Callable[..., dict[str, Array]], rows: Rows) -> dict[str, Array]:
    width = rows[0].shape[0]
    parts = PARTS if products_are_faster() and width % PARTS == 0 else 1
    pieces = [terms(*(row.reshape(parts, -1)[i] for row in rows)) for i in range(parts)]
    numbers = {name for name, x in pieces[0].items() if x.dtype != jnp.bool}
    found = {name: mean(sum_of(piece[name] for piece in pieces)) / parts for name in sorted(numbers)}
    conditions = sorted(set(pieces[0]) - numbers)
    while conditions:
        two, conditions = conditions[:2], conditions[2:]
        if width >= COUNTED:
            two, conditions = two[:1], [*two[1:], *conditions]
        weights = [1, COUNTED][: len(two)]
        both = sum_of(
            sum_of(jnp.where(piece[name], jnp.float32(w), 0) for name, w in zip(two, weights, strict=True))
            for piece in pieces
        )
        # Sums of whole numbers are exact, which means would not be.
        count = product(both, jnp.ones_like(both)) if products_are_faster() else jnp.sum(both)
        found[two[0]] = (count % COUNTED if len(two) == 2 else count) / width
        if len(two) == 2:
            found[two[1]] = count // COUNTED / width
    return found


def settled(make: Callable[[], T], index: Array) -> T:
    """What `make()` returns, computed once: otherwise XLA computes it again in every loop over neurons that reads it.

    What a branch returns is stored, so this is a branch on whether `index`, a whole number that the compiler does
    not know, is at least 0; below 0 it yields zeros.
    """
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
