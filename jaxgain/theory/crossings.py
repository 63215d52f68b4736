"""Where a tabulated function of u = ln q, monotonic between some points, changes its sign: compiled and batched."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxgain.theory.reached import bracketed_root


class Changes(NamedTuple):
    """What happens between each point and the last one before it that has a sign; all (points - 1,)."""

    before: Array  # the place of the latter
    crosses: Array
    touches: Array  # the same sign again, after points without one


def sign_beyond(value: Array, noise: Array | float) -> Array:
    """Return the sign, 0 where the value is within its noise."""
    return jnp.where(jnp.abs(value) <= noise, 0, jnp.sign(value)).astype(jnp.int32)


def changes(signs: Array) -> Changes:
    """Return where the signs, (points,), of a function that is monotonic between the points change.

    >>> found = changes(jnp.array([1, 0, -1, -1, 0, -1]))
    >>> found.crosses.tolist(), found.touches.tolist()
    ([False, True, False, False, False], [False, False, False, False, True])
    """
    last, places = jnp.where(signs[0] != 0, 0, -1), []
    for k in range(1, signs.shape[0]):
        places.append(last)
        last = jnp.where(signs[k] != 0, k, last)
    before, here = jnp.stack(places), jnp.arange(1, signs.shape[0])
    both = (before >= 0) & (signs[1:] != 0)
    same = signs[1:] == signs[before]
    return Changes(before, both & ~same, both & same & (before < here - 1))


def crossing(
    function: Callable[[Array], tuple[Array, Array]], nodes: Array, values: Array, low: Array, high: Array, sign: Array
) -> Array:
    """Return the zero between `low`, where the function has this `sign`, and `high`, where it has the other.

    `function` returns value and slope; at the `nodes` it has the sign of the `values`. The last step of Newton is the
    one that derivatives pass through.
    """
    inside = (nodes > low) & (nodes < high)
    left = jnp.maximum(low, jnp.max(jnp.where(inside & (sign * values > 0), nodes, -jnp.inf)))
    right = jnp.minimum(high, jnp.min(jnp.where(inside & (nodes > left), nodes, jnp.inf)))

    def positive_first(u: Array) -> tuple[Array, Array]:
        value, slope = function(u)
        return sign * value, sign * slope

    at, _ = bracketed_root(positive_first, left, right, steps=14)
    at = jax.lax.stop_gradient(at)
    value, slope = function(at)
    step = value / jax.lax.stop_gradient(jnp.where(slope == 0, 1.0, slope))
    # Next to a touching point rounding decides the slope; what is beyond the bracket is no root.
    return jnp.where(jnp.abs(step) <= right - left, at - step, at)
