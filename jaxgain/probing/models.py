"""What a model is: a function of a flat list of arrays, each either data or something with a name."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Leaf:
    """One array that enters the model: its path, such as ("layers", 0, "kernel"), and whether it is data."""

    path: Path
    data: bool


@dataclass(frozen=True)
class Model:
    """A model as `call(arrays)`, with the arrays it was given and what each of them is."""

    call: Callable[[Sequence[Any]], Any]
    arrays: tuple[Any, ...]
    leaves: tuple[Leaf, ...]
    captured: tuple[tuple[Path, Any], ...]  # arrays that the function may have closed over, by name
    arguments: Callable[[Sequence[Any]], list[Any]]  # from arrays to what the function was given
    places: tuple[int, ...]  # which of those arguments each array is in


def as_model(model: Any, args: Sequence[Any], data: Sequence[int] | None = None, *, check: bool = True) -> Model:
    """Return `model` with its arguments as a function of a flat list of arrays.

    A Flax nnx or Equinox module is called with the arguments, which are data; a linen module is applied to variables
    and data; a Haiku transform to parameters (and state), a key if there is one, and data. Of a plain function a
    single argument is data; of several the first is the parameters and the others are data. `data` names the
    positions of the data among the arguments where that is not so.

    Raises TypeError where the model cannot be called, and ValueError where it lacks arguments.
    """
    function, args, positions = _function_of(model, list(args))
    if data is not None:
        shift = len(args) - len(positions) if is_pytree_module(model) else 0
        positions = [_position(index, len(args) - shift) + shift for index in data]
    arguments, arrays, leaves, places = _flat(function, args, positions)
    if check:
        _check_numbers(arrays, leaves)
    captured = _captured(function if function is model else model)
    call = lambda values: function(*arguments(values))
    return Model(call, tuple(arrays), tuple(leaves), captured, arguments, places)


def _position(index: int, count: int) -> int:
    if not -count <= index < count:
        raise ValueError(f"data={index} is no position of the {count} arguments; the first is 0")
    return index % count


def _function_of(model: Any, args: list[Any]) -> tuple[Callable[..., Any], list[Any], list[int]]:
    """Return a function, its arguments, and which of them are data."""
    kind = _kind(model)
    if kind == "linen":
        _need(args, 2, "a linen module is probed with its variables and its input: probe(module, variables, x)")
        return model.apply, args, list(range(1, len(args)))
    if kind == "haiku":
        return _haiku(model, args)
    if not callable(model):
        raise TypeError(f"a model must be a module or a function, got {type(model).__name__}")
    _need(args, 1, "a model is probed with an example of its input: probe(model, x)")
    if is_pytree_module(model):
        return lambda module, *rest: module(*rest), [model, *args], list(range(1, len(args) + 1))
    return model, args, [0] if len(args) == 1 else list(range(1, len(args)))


def _need(args: list[Any], count: int, advice: str) -> None:
    if len(args) < count:
        raise ValueError(f"got {len(args)} argument{'s' * (len(args) != 1)} beside the model; {advice}")


def _kind(model: Any) -> str:
    """Say whose model it is, by the classes it inherits from: none of these libraries is imported for it."""
    names = {f"{base.__module__.split('.')[0]}.{base.__name__}" for base in type(model).__mro__}
    if {"haiku.Transformed", "haiku.TransformedWithState"} & names:
        return "haiku"
    modules = [base.__module__ for base in type(model).__mro__ if base.__name__ == "Module"]
    return "linen" if any(name.startswith("flax.linen") for name in modules) else ""


def is_pytree_module(model: Any) -> bool:
    """Whether a callable holds its own arrays, as nnx and Equinox modules do; functions and methods are leaves."""
    if not callable(model) or inspect.isroutine(model) or isinstance(model, type):
        return False
    return any(_is_array(leaf) for leaf in jax.tree.leaves(model))


def _haiku(model: Any, args: list[Any]) -> tuple[Callable[..., Any], list[Any], list[int]]:
    stateful = "State" in type(model).__name__
    held = 2 if stateful else 1
    wanted = "transform, params, state, x" if stateful else "transform, params, x"
    _need(args, held + 1, f"a Haiku transform is probed as probe({wanted}), with a key before x if it draws")
    keyed = len(args) > held + 1 and (args[held] is None or _is_key(args[held]))
    takes_key = "rng" in inspect.signature(model.apply).parameters  # not after haiku.without_apply_rng

    def apply(*args: Any) -> Any:
        key, inputs = (args[held], args[held + 1 :]) if keyed else (None, args[held:])
        output = model.apply(*args[:held], *([key] if takes_key else []), *inputs)
        return output[0] if stateful else output

    return apply, args, list(range(held + keyed, len(args)))


def _is_key(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return False
    return jnp.issubdtype(dtype, jax.dtypes.prng_key) or (dtype == jnp.uint32 and value.shape == (2,))


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, jax.ShapeDtypeStruct))


def _flat(
    function: Callable[..., Any], args: list[Any], data: Sequence[int]
) -> tuple[Callable[[Sequence[Any]], list[Any]], list[Any], list[Leaf], tuple[int, ...]]:
    """Take the arrays out of the arguments; return what puts others in, and which argument each array is in."""
    arrays, leaves, places = [], [], []
    parts, trees = [], []
    names = _argument_names(function, len(args))
    for position, argument in enumerate(args):
        found, tree = jax.tree_util.tree_flatten_with_path(argument)
        trees.append(tree)
        parts.append([leaf for _, leaf in found])
        for index, (path, leaf) in enumerate(found):
            is_data = position in data
            if is_data and isinstance(leaf, (float, int)) and not isinstance(leaf, bool):
                leaf = jnp.asarray(leaf)
            if _is_array(leaf):
                arrays.append(leaf)
                leaves.append(Leaf(_path(path, names[position]), is_data and not _is_key(leaf)))
                places.append((position, index))

    def arguments(values: Sequence[Any]) -> list[Any]:
        filled = [list(part) for part in parts]
        for (position, index), value in zip(places, values, strict=True):
            filled[position][index] = value
        return [tree.unflatten(part) for tree, part in zip(trees, filled, strict=True)]

    return arguments, arrays, leaves, tuple(position for position, _ in places)


def _argument_names(function: Callable[..., Any], count: int) -> list[str]:
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        names = []
    return [names[index] if index < len(names) else f"argument{index}" for index in range(count)]


def _path(keys: Sequence[Any], argument: str = "") -> Path:
    """Return a key path as names and numbers, without what every parameter has: `params` first, `value` last.

    A path that does not begin with a name begins with that of the argument.
    """
    path: list[str | int] = []
    for key in keys:
        for attribute in ("key", "idx", "name"):
            if hasattr(key, attribute):
                part = getattr(key, attribute)
                path.append(part if isinstance(part, int) else str(part))
                break
    if len(path) > 1 and path[-1] in ("value", "raw_value", "_raw_value"):
        path.pop()
    if len(path) > 1 and path[0] == "params":
        path.pop(0)
    if argument and (not path or isinstance(path[0], int)):
        path.insert(0, argument)
    return tuple(path)


def _captured(function: Any) -> tuple[tuple[Path, Any], ...]:
    """Return the arrays among a function's variables from outside, by the names it has for them."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    try:
        variables = inspect.getclosurevars(function)
    except (TypeError, ValueError):
        return ()
    found = []
    for name, value in {**variables.globals, **variables.nonlocals}.items():
        if inspect.ismodule(value):
            continue
        for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
            if _is_array(leaf):
                found.append(((name, *_path(path)), leaf))
    return tuple(found)


def _check_numbers(arrays: Sequence[Any], leaves: Sequence[Leaf]) -> None:
    for array, leaf in zip(arrays, leaves, strict=True):
        if not leaf.data or isinstance(array, (Tracer, jax.ShapeDtypeStruct)):
            continue
        if jnp.issubdtype(array.dtype, jnp.inexact) and not bool(jnp.all(jnp.isfinite(array))):
            count = int(jnp.sum(~jnp.isfinite(array)))
            raise ValueError(
                f"the input of shape {array.shape} has {count} entries that are not finite: probe a model with "
                "numbers it may meet"
            )
