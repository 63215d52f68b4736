"""The activation that follows a linear operation, recognized by what it does to numbers and not by its name."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgain.activations import ACTIVATIONS, activation, slope
from jaxgain.probing.sites import CUSTOM, INLINE, Site, Use, called
from jaxgain.probing.values import SAME_NUMBERS, SAME_SHAPE, Place, Value

GRID = np.linspace(-6.0, 6.0, 121, dtype=np.float32)
FAR = 30.0  # beyond it a slope is taken to stay what it is
# fmt: off
ELEMENTWISE = {
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt",
    "ceil", "clamp", "cos", "cosh", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor",
    "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min",
    "mul", "ne", "neg", "not", "or", "pow", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh",
    "sqrt", "square", "sub", "tan", "tanh", "xor",
}
# fmt: on


class Following(NamedTuple):
    """An activation behind a site: where its input is computed, its name, and `scale` times which it is."""

    place: Place
    name: str
    scale: float


class Tails(NamedTuple):
    """Where an activation is flat: below `low` and above `high`, infinite where it is not flat on that side."""

    low: float
    high: float


def following(site: Site) -> Following | None:
    """Return the activation that follows a site behind its bias, if it is one of `jaxgain.ACTIVATIONS`."""
    place, value = site.place, site.output
    while len(value.users) == 1 and _is_affine(value.users[0], value):
        use = value.users[0]
        place, value = use.place, use.outputs[0]
    outcome = _elementwise_outcome(value)
    if outcome is None:
        return None
    tolerance = 1e-5 if jnp.finfo(site.dtype).bits >= 32 else 0.02
    found = _match(outcome, tolerance)
    return Following(place, *found) if found else None


def _is_affine(use: Use | None, value: Value) -> bool:
    """Whether a use adds a bias, scales by a parameter, or moves entries: part of the linear operation."""
    if use is None:
        return False
    name = use.equation.primitive.name
    if name in SAME_NUMBERS - {"slice", "broadcast_in_dim"}:
        return True
    others = [other for other in use.inputs if other is not value]
    parameter = len(others) == 1 and not others[0].data and others[0].constant is None
    return parameter and (name in ("add", "add_any", "mul") or (name == "sub" and use.inputs[0] is value))


def _elementwise_outcome(start: Value) -> np.ndarray | None:
    """Return the values on the grid of the one elementwise function of `start` that everything else sees."""
    values: dict[int, Any] = {id(start): jnp.asarray(GRID)}
    known: dict[int, Value] = {id(start): start}
    done: set[Place] = set()
    queue, leaving = [start], set()
    while queue:
        uses = [(value, use) for value in queue for use in value.users]
        queue = []
        for value, use in sorted(uses, key=lambda pair: pair[1].place if pair[1] else ()):
            if use is None:
                leaving.add(id(value))
            elif use.place in done:
                continue
            elif all(id(other) in values or other.constant is not None for other in use.inputs) and _elementwise(
                use.equation
            ):
                done.add(use.place)
                inputs = [values.get(id(other), other.constant) for other in use.inputs]
                for output, number in zip(use.outputs, _apply(use.equation, inputs), strict=True):
                    values[id(output)], known[id(output)] = number, output
                    queue.append(output)
            else:
                leaving.add(id(value))
    # An equation that was met before all of its inputs were known was taken for an end of the region.
    leaving = {key for key in leaving if any(use is None or use.place not in done for use in known[key].users)}
    if len(leaving) != 1 or id(start) in leaving:
        return None
    return np.asarray(values[leaving.pop()], np.float32)


def _elementwise(equation: Any) -> bool:
    name = equation.primitive.name
    if name in CUSTOM or name in INLINE:
        body = called(equation)
        return body is not None and all(_elementwise(inner) for inner in body.program.eqns)
    return name in ELEMENTWISE or name in SAME_SHAPE or name == "broadcast_in_dim"


def _apply(equation: Any, inputs: Sequence[Any]) -> list[Array]:
    """Evaluate an elementwise equation on arrays of the grid's length."""
    name, parameters = equation.primitive.name, equation.params
    if name in CUSTOM or name in INLINE:
        return _evaluate(called(equation), inputs)
    arrays = [jnp.broadcast_to(jnp.asarray(value, _working(value)), GRID.shape) for value in inputs]
    if name == "convert_element_type":
        to = parameters["new_dtype"]
        return [arrays[0].astype(jnp.float32 if jnp.issubdtype(to, jnp.inexact) else to)]
    if name in SAME_SHAPE or name == "broadcast_in_dim":
        return [arrays[0]]
    return [equation.primitive.bind(*arrays, **parameters)]


def _working(value: Any) -> Any:
    dtype = jnp.result_type(value)
    return jnp.float32 if jnp.issubdtype(dtype, jnp.inexact) else dtype


def _evaluate(body: Any, inputs: Sequence[Any]) -> list[Array]:
    known = dict(zip(body.program.constvars, body.constants, strict=True))
    known.update(zip(body.program.invars, inputs, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else known[atom]

    for equation in body.program.eqns:
        known.update(zip(equation.outvars, _apply(equation, [read(atom) for atom in equation.invars]), strict=True))
    return [read(atom) for atom in body.program.outvars]


@functools.cache
def _named() -> dict[str, np.ndarray]:
    """Return every activation but the identity on the grid, in float32."""
    names = [name for name in ACTIVATIONS if name != "identity"]
    values = jax.jit(lambda x: [ACTIVATIONS[name](x) for name in names])(GRID)
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def _match(outcome: np.ndarray, tolerance: float) -> tuple[str, float] | None:
    """Return the activation's name and its scale, if a multiple of one of them has these values."""
    if not np.all(np.isfinite(outcome)) or np.ptp(outcome) == 0:
        return None
    best, error = None, tolerance
    for name, values in _named().items():
        scale = float(outcome @ values / (values @ values))
        scale = 1.0 if abs(scale - 1) < tolerance else scale
        if scale <= 0:
            continue
        off = float(np.max(np.abs(outcome - scale * values)) / np.max(np.abs(outcome)))
        if off < error:
            best, error = (name, scale), off
    return best


@functools.cache
def tails(name: str) -> Tails:
    r"""Return where $|\phi'| < 0.01 \sup_{|z| \le 10} |\phi'|$ on either side.

    >>> low, high = tails("tanh")
    >>> round(low, 2), round(high, 2), tails("relu")
    (-2.99, 2.99, Tails(low=0.0, high=inf))
    """
    z = np.linspace(-FAR, FAR, 60001, dtype=np.float32)
    slopes = np.abs(np.asarray(jax.jit(lambda z: slope(activation(name), z))(z), np.float64))
    steep = np.flatnonzero(~(slopes < 0.01 * np.max(slopes[np.abs(z) <= 10])))
    low = -np.inf if steep[0] == 0 else float(np.round(z[steep[0] - 1], 4))
    high = np.inf if steep[-1] == len(z) - 1 else float(np.round(z[steep[-1] + 1], 4))
    return Tails(low, high)
