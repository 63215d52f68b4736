"""What is known of a value of a traced program before it runs: does it depend on data, which parameter is it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend.core import Literal

Place = tuple[int, ...]  # of an equation: its number in the program, and in each of the bodies it is nested in
SAME_SHAPE = {"convert_element_type", "copy", "copy_p", "reduce_precision", "stop_gradient", "sharding_constraint"}
SAME_NUMBERS = SAME_SHAPE | {"reshape", "transpose", "squeeze", "broadcast_in_dim", "expand_dims", "slice", "rev"}


class Pick(NamedTuple):
    """A part of a parameter along one of its axes: that of each turn of a loop, or from start to stop."""

    axis: int
    loop: Place | None
    start: int = 0
    stop: int = 0


@dataclass(frozen=True)
class Source:
    """The parameter that a value is a view of; `axes` says which of its axes the value's are, where that is known."""

    leaf: int
    axes: tuple[int | None, ...] | None
    picks: tuple[Pick, ...] = ()


@dataclass(eq=False)
class Value:
    """A value of the program; two are equal when they are the same one."""

    shape: tuple[int, ...]
    dtype: Any
    data: bool = False
    source: Source | None = None
    raw: bool = False  # integers of the data, perhaps converted, with nothing computed of them
    origins: frozenset[int] = frozenset()  # the sites that it was last computed from
    constant: float | None = None
    users: list[Any] = field(default_factory=list)  # the equations that take it, None where it leaves its body
    around: list[Any] = field(default_factory=list)  # the loops and the like that it enters, each as one equation

    def entering(self, shape: Sequence[int] | None = None) -> "Value":
        """Return the value as it is known inside of a body, perhaps of another shape there."""
        shape = self.shape if shape is None else tuple(shape)
        return replace(self, shape=shape, users=[], around=[])


def of_literal(literal: Literal) -> Value:
    """Return a number that is written into the program."""
    constant = float(literal.val) if jnp.ndim(literal.val) == 0 and _is_real(literal.val) else None
    return Value(tuple(jnp.shape(literal.val)), jnp.result_type(literal.val), constant=constant)


def _is_real(number: Any) -> bool:
    dtype = jnp.result_type(number)
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer) or dtype == jnp.bool_


def joined(values: Iterable[Value]) -> Value:
    """Return what is known of a value that may be any of these, which have one shape."""
    first, *others = values
    result = first.entering()
    for other in others:
        result.data |= other.data
        result.raw &= other.raw
        result.origins |= other.origins
        if other.source != result.source:
            result.source = None
        if other.constant != result.constant:
            result.constant = None
    return result


def outputs_of(equation: Any, values: Sequence[Value]) -> list[Value]:
    """Return what is known of the outputs of an equation that is no linear operation and has no body to walk."""
    name = equation.primitive.name
    data = any(value.data for value in values)
    origins = frozenset().union(*(value.origins for value in values)) if data else frozenset()
    raw = name in SAME_NUMBERS and values[0].raw
    first = values[0] if values else None
    found = []
    for position, variable in enumerate(equation.outvars):
        shape, dtype = tuple(getattr(variable.aval, "shape", ())), getattr(variable.aval, "dtype", None)
        source = None if data else _source(equation, values, shape, position)
        constant = first.constant if first is not None and name in SAME_NUMBERS else None
        found.append(Value(shape, dtype, data, source, raw, origins, constant))
    return found


def _source(equation: Any, values: Sequence[Value], shape: tuple[int, ...], position: int) -> Source | None:
    """Return the parameter that the output mostly is: of several, the largest."""
    named = [(value, value.source) for value in values if value.source is not None]
    if not named:
        return None
    value, source = max(named, key=lambda pair: math.prod(pair[0].shape))
    parameters, name = equation.params, equation.primitive.name
    if source.axes is None:
        return source
    axes: tuple[int | None, ...] | None = None
    if name == "transpose":
        axes = tuple(source.axes[axis] for axis in parameters["permutation"])
    elif name == "squeeze":
        axes = tuple(axis for index, axis in enumerate(source.axes) if index not in parameters["dimensions"])
    elif name == "broadcast_in_dim":
        places = {int(out): source.axes[index] for index, out in enumerate(parameters["broadcast_dimensions"])}
        axes = tuple(places.get(index) for index in range(len(shape)))
    elif name == "reshape":
        axes = _reshaped(value.shape, shape, source.axes)
    elif name == "slice" and parameters["strides"] in (None, (1,) * len(shape)):
        return _sliced(source, value.shape, parameters["start_indices"], parameters["limit_indices"])
    elif name == "unstack":
        return taken(source, parameters["axis"], start=position)
    elif shape == value.shape:
        axes = source.axes
    return replace(source, axes=axes)


def _reshaped(
    before: tuple[int, ...], after: tuple[int, ...], axes: tuple[int | None, ...]
) -> tuple[int | None, ...] | None:
    """Return the axes after a reshape that adds or removes axes of length 1 and does nothing else."""
    kept = [(size, axis) for size, axis in zip(before, axes, strict=True) if size != 1]
    if [size for size, _ in kept] != [size for size in after if size != 1]:
        return None
    left = iter(kept)
    return tuple(None if size == 1 else next(left)[1] for size in after)


def _sliced(source: Source, shape: tuple[int, ...], start: Sequence[int], stop: Sequence[int]) -> Source:
    picks = list(source.picks)
    for size, axis, a, b in zip(shape, source.axes or (), start, stop, strict=True):
        if axis is not None and b - a < size:
            picks.append(Pick(axis, None, int(a), int(b)))
    return replace(source, picks=tuple(picks))


def taken(source: Source | None, axis: int, *, loop: Place | None = None, start: int = 0) -> Source | None:
    """Return one slice of a parameter along an axis of the value, which loses that axis."""
    if source is None or source.axes is None:
        return source
    rest, of_leaf = source.axes[:axis] + source.axes[axis + 1 :], source.axes[axis]
    if of_leaf is None:
        return replace(source, axes=rest)
    return Source(source.leaf, rest, (*source.picks, Pick(of_leaf, loop, start, start + 1)))
