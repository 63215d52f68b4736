"""A model as a traced program: its sites in order, their names, and which axis of each is the batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxgain.probing.following import Following, Tails, following, tails
from jaxgain.probing.models import Leaf, Model
from jaxgain.probing.sites import Body, Site, Walk
from jaxgain.probing.values import Source, Value

ADVICE = (
    "jaxgain.probe traces the model as jax.jit does: it must be a function of arrays without side effects; pass what "
    "it changes or needs besides its input as arguments, and fix flags with functools.partial or a lambda"
)


class Batch(NamedTuple):
    """Where the inputs of the batch are in a site's output: the axis, and how many there are."""

    axis: int
    size: int


@dataclass(frozen=True)
class Traced:
    """A model's program and its sites; `arrays` are its inputs followed by the constants it has closed over."""

    body: Body
    output: Any  # the tree of jax.ShapeDtypeStruct that the model returns
    arrays: tuple[Any, ...]
    leaves: tuple[Leaf, ...]
    constants: dict[int, int]  # id of a constant in the program -> its number among the arrays
    kept: tuple[Any, ...]  # the constants themselves, so that their ids stay theirs
    sites: tuple[Site, ...]
    batches: tuple[Batch | None, ...]
    activations: tuple[Following | None, ...]
    flat: tuple[Tails | None, ...]
    opaque: tuple[str, ...]  # operations with linear operations inside that were not looked into


def trace(model: Model) -> Traced:
    """Trace a model and find its sites. Raises what the model raises, with advice, and ValueError without sites."""
    specs = [jax.ShapeDtypeStruct(jnp.shape(array), array.dtype) for array in model.arrays]
    closed, output = _program(model, specs)
    walk = _walk(closed, model.leaves)
    if not walk.sites:
        inside = f"; there may be some inside of {', '.join(sorted(set(walk.opaque)))}" if walk.opaque else ""
        raise ValueError(
            "no linear operation (matmul, einsum or convolution) touches the data"
            f"{inside}; if the data is not the last argument, say which with data="
        )
    found = tuple(walk.sites)
    activations = tuple(following(site) for site in found)
    extra = sorted(walk.constants.values(), key=lambda item: item[0])
    names = {id(array): path for path, array in model.captured}
    leaves = [Leaf(_constant_name(array, names, model.captured), False) for _, array in extra]
    return Traced(
        body=_closed(closed),
        output=output,
        arrays=(*model.arrays, *(array for _, array in extra)),
        leaves=(*model.leaves, *leaves),
        constants={key: number for key, (number, _) in walk.constants.items()},
        kept=tuple(array for _, array in extra),
        sites=found,
        batches=_batches(model, specs, found),
        activations=activations,
        flat=tuple(None if activation is None else tails(activation.name) for activation in activations),
        opaque=tuple(sorted(set(walk.opaque))),
    )


def _program(model: Model, specs: Sequence[jax.ShapeDtypeStruct]) -> tuple[Any, Any]:
    try:
        return jax.make_jaxpr(lambda *arrays: model.call(arrays), return_shape=True)(*specs)
    except Exception as error:
        error.add_note(ADVICE)
        raise


def _closed(closed: Any) -> Body:
    return Body(closed.jaxpr, tuple(closed.consts))


def _walk(closed: Any, leaves: Sequence[Leaf]) -> Walk:
    walk = Walk(len(leaves))
    inputs = []
    for number, (variable, leaf) in enumerate(zip(closed.jaxpr.invars, leaves, strict=True)):
        shape, dtype = tuple(variable.aval.shape), variable.aval.dtype
        source = None if leaf.data else Source(number, tuple(range(len(shape))))
        raw = leaf.data and jnp.issubdtype(dtype, jnp.integer)
        inputs.append(Value(shape, dtype, leaf.data, source, raw))
    for value in walk.body(_closed(closed), inputs):
        value.users.append(None)
    return walk


def _constant_name(array: Any, names: dict[int, Any], captured: Sequence[tuple[Any, Any]]) -> tuple[str | int, ...]:
    """Return a constant's name in the function that closed over it: the same array, or else the one equal to it."""
    if id(array) in names:
        return names[id(array)]
    for path, other in captured:
        same_kind = jnp.shape(other) == jnp.shape(array) and jnp.result_type(other) == jnp.result_type(array)
        if same_kind and not isinstance(array, Tracer) and np.array_equal(np.asarray(other), np.asarray(array)):
            return path
    return ("constant",)


def _batches(model: Model, specs: Sequence[jax.ShapeDtypeStruct], sites: Sequence[Site]) -> tuple[Batch | None, ...]:
    """Find the batch in each site's output by tracing the model once more with a batch that is one longer.

    The batch is the leading axis of the first data argument, and of all data arguments that are as long. Where the
    model does not take another batch, or the sites are not the same then, nothing is known.
    """
    unknown: tuple[Batch | None, ...] = (None,) * len(sites)
    lengths = [spec.shape[0] for spec, leaf in zip(specs, model.leaves, strict=True) if leaf.data and spec.shape]
    if not lengths:
        return unknown
    size = lengths[0]
    longer = [
        jax.ShapeDtypeStruct((size + 1, *spec.shape[1:]), spec.dtype)
        if leaf.data and spec.shape and spec.shape[0] == size
        else spec
        for spec, leaf in zip(specs, model.leaves, strict=True)
    ]
    try:
        closed = jax.make_jaxpr(lambda *arrays: model.call(arrays))(*longer)
        others = _walk(closed, model.leaves).sites
    except Exception:  # whatever a model raises for a batch it was not made for
        return unknown
    if [(site.place, site.operation) for site in others] != [(site.place, site.operation) for site in sites]:
        return unknown
    return tuple(_batch(site.output.shape, other.output.shape, size) for site, other in zip(sites, others, strict=True))


def _batch(shape: tuple[int, ...], other: tuple[int, ...], size: int) -> Batch | None:
    changed = [axis for axis, (a, b) in enumerate(zip(shape, other, strict=True)) if a != b]
    if len(changed) != 1:
        return None
    a, b = shape[changed[0]], other[changed[0]]
    return Batch(changed[0], size) if a * (size + 1) == b * size else None
