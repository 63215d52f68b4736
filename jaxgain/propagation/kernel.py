"""What the kernels of plain networks share: their arguments, and the way back from several final depths."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxgain.propagation.statistics import Record


class Network(NamedTuple):
    """What all layers have in common."""

    value_and_slope: Callable[[Array], tuple[Array, Array]]
    """z -> φ(z), φ'(z), elementwise."""
    steepest: Array | float
    """sup |φ'|."""
    sigma_w: Array
    sigma_b: Array | None
    """None means no bias, which is cheaper than a bias of 0."""


class Ends(NamedTuple):
    """The vectors that enter a network of n neurons per layer from either side."""

    inputs: Array
    """(B, n)."""
    directions: Array
    """(k B, n), the tangents of the inputs: k for each, input by input, direction by direction; k may be 0."""
    cotangents: Array | None
    """(B, n of the last layer), ∂loss/∂h there; None for no way back."""


def at_each(depths: tuple[int, ...], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of one returning cotangent, mapped over those of all final depths if there are several."""
    return jax.vmap(function) if depths else function


def arriving(depths: tuple[int, ...], carry: Any) -> Any:
    """What starts its way back, once per final depth."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*[len(depths)] * bool(depths), *x.shape)), carry)


def turn_back(
    step: Callable[[Any, Array], tuple[Any, Record]], carry: Any, layer: Array, depth: int, depths: tuple[int, ...]
) -> tuple[Any, Record]:
    """One layer of the way back: `step(carry, whether this layer is the last)` for each final depth.

    Beyond its final depth a network has no layers: its carry stays, its records are NaN.
    """

    def from_final(carry: Any, final: Array | int) -> tuple[Any, Record]:
        sent, record = step(carry, layer == final)
        beyond = partial(jnp.where, layer > final)
        return jax.tree.map(beyond, carry, sent), {name: beyond(jnp.nan, x) for name, x in record.items()}

    return jax.vmap(from_final)(carry, jnp.array(depths)) if depths else from_final(carry, depth)


def layer_before(first: Any, later: Any) -> Any:
    """Of each of the layers 1 … depth (leading axis of `later`) what the layer before it left; `first` is layer 0's."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b[:-1]]), first, later)
