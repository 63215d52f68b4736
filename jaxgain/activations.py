"""Activations: a name, or a callable, to a function that knows its parameters and where it is not smooth.

Importing this module imports neither jax nor numpy, so that a command line can list the names at once.
"""

import difflib
import functools
import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxgain.grammar import split_call

if TYPE_CHECKING:
    import jax
    import jax.core as jax_core
    import jax.numpy as jnp
    from jax import Array
    from jax.typing import ArrayLike
else:

    class _Lazy:
        """A module that is imported when it is first used."""

        def __init__(self, module: str):
            self._module = module

        def __getattr__(self, attribute: str) -> Any:
            return getattr(importlib.import_module(self._module), attribute)

    jax, jax_core, jnp = _Lazy("jax"), _Lazy("jax.core"), _Lazy("jax.numpy")


@dataclass(frozen=True)
class Activation:
    r"""An elementwise function $\phi$, callable on arrays, with the places where it is not smooth.

    Two activations are equal when they are the same function with the same parameters and input scale.
    `kinks` are the points where $\phi$ or a derivative of it is not smooth, `jumps` those where $\phi$ itself
    jumps, which are kinks too; both are `None` for a user's callable until the quadrature has found them.

    >>> activation("leaky_relu(0.2)")(-1.0).item()
    -0.20000000298023224
    >>> activation("relu6").kinks, activation("step").jumps
    ((0.0, 6.0), (0.0,))
    """

    name: str
    function: Callable[..., Any]
    parameters: tuple[float, ...] = ()
    input_scale: float = 1.0
    kinks: tuple[float, ...] | None = ()
    jumps: tuple[float, ...] | None = ()

    def __call__(self, x: "ArrayLike") -> "Array":
        """Return phi at every entry of `x`: same shape, and the same dtype where that is a floating one."""
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(jnp.result_type(float))
        if self.input_scale != 1.0:
            x = self.input_scale * x
        return self.function(x, *self.parameters)

    def __repr__(self) -> str:
        """Show the name by which `activation` finds it again."""
        return f"Activation({self.name})"


class _Formula(NamedTuple):
    function: Callable[..., Any]
    defaults: tuple[float, ...] = ()
    kinks: tuple[float, ...] = ()
    jumps: tuple[float, ...] = ()
    positive: bool = False  # the parameters must be positive


def _relu6(x):
    return jnp.minimum(jax.nn.relu(x), 6.0)


# The normal tail P(Z > a) = exp(−a²/2) R(a), a ≥ 0: R as a polynomial in 1/(1 + a/4), fitted for the smallest relative
# error on 0 ≤ a ≤ 14, where the tail leaves float32; that error is 1.5e-8, a quarter of a unit in the last place.
_TAIL = (
    -2.16002656e-05,
    0.100229002,
    0.0948202131,
    0.121568144,
    -0.020384729,
    0.304488292,
    -0.333471152,
    0.395003013,
    -0.196178062,
    0.0339468714,
)


def _gelu(x):
    # One exponential serves the value and the slope in float32, where erfc and its slope cost three times as much.
    return _gelu_in_float32()(x) if x.dtype == jnp.float32 else jax.nn.gelu(x, approximate=False)


@functools.cache
def _gelu_in_float32():
    gelu = jax.custom_jvp(lambda x: x * _normal_below(x)[0])

    @gelu.defjvp
    def _(primals, tangents):
        (x,), (moved,) = primals, tangents
        below, density = _normal_below(x)
        return x * below, moved * (below + x * density)

    return gelu


def _normal_below(x):
    """P(Z < x) and the density at x of a standard normal Z."""
    # Beyond 20 the density is 0; without the minimum 0 times an infinite x has no value.
    a = jnp.minimum(jnp.abs(x), 20.0)
    exponential = jnp.exp(-0.5 * a * a)
    t = 1 / (1 + 0.25 * a)
    tail = jnp.full_like(t, _TAIL[-1])
    for coefficient in _TAIL[-2::-1]:
        tail = tail * t + coefficient
    tail = tail * exponential
    return jnp.where(x < 0, tail, 1 - tail), exponential * (2 * math.pi) ** -0.5


def _gelu_tanh(x):
    # tanh is 1 to the last digit beyond 30; without the clip its argument, a cube, overflows at 1e13 in
    # float32.
    y = jnp.clip(x, -30.0, 30.0)
    return 0.5 * x * (1.0 + jnp.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y * y * y)))


def _squareplus(x, b):
    # (x + sqrt(x^2 + b))/2 cancels for x < 0, where b / (2 (|x| + sqrt(x^2 + b))) is the same number. |x|
    # is written with `where` so that the derivative at 0 is one-sided, and so 1/2, instead of jnp.abs's 0.
    t = jnp.where(x > 0, x, -x) + jnp.hypot(x, jnp.asarray(math.sqrt(b), x.dtype))
    return jnp.where(x > 0, t / 2, (b / 2) / t)


def _isru(x, alpha):
    return x / jnp.hypot(math.sqrt(alpha) * x, jnp.asarray(1.0, x.dtype))


def _telu(x):
    # tanh(exp(4)) is 1 to the last digit; without the minimum the derivative is 0 * inf where exp overflows.
    return x * jnp.tanh(jnp.exp(jnp.minimum(x, 4.0)))


def _lisht(x):
    # jax's reverse derivative of tanh adds and subtracts 2x where tanh is -1, and drops what is small beside
    # it; the clip keeps that sum apart from the other one.
    return x * jnp.tanh(jnp.clip(x, -30.0, 30.0))


def _snake(x, a):
    return x + jnp.square(jnp.sin(a * x)) / a


_FORMULAS: dict[str, _Formula] = {
    "identity": _Formula(lambda x: x),
    "relu": _Formula(lambda x: jax.nn.relu(x), kinks=(0.0,)),
    "relu6": _Formula(_relu6, kinks=(0.0, 6.0)),
    "leaky_relu": _Formula(lambda x, slope: jax.nn.leaky_relu(x, slope), (0.01,), kinks=(0.0,)),
    "prelu": _Formula(lambda x, slope: jax.nn.leaky_relu(x, slope), (0.25,), kinks=(0.0,)),
    "elu": _Formula(lambda x, alpha: jax.nn.elu(x, alpha), (1.0,), kinks=(0.0,)),
    "celu": _Formula(lambda x, alpha: jax.nn.celu(x, alpha), (1.0,), kinks=(0.0,), positive=True),
    "selu": _Formula(lambda x: jax.nn.selu(x), kinks=(0.0,)),
    "gelu": _Formula(_gelu),
    "gelu_tanh": _Formula(_gelu_tanh),
    "quick_gelu": _Formula(lambda x: x * jax.nn.sigmoid(1.702 * x)),
    "silu": _Formula(lambda x: jax.nn.silu(x)),
    "mish": _Formula(lambda x: jax.nn.mish(x)),
    "telu": _Formula(_telu),
    "lisht": _Formula(_lisht),
    "tanh": _Formula(lambda x: jnp.tanh(x)),
    "lecun_tanh": _Formula(lambda x: 1.7159 * jnp.tanh((2 / 3) * x)),
    "sigmoid": _Formula(lambda x: jax.nn.sigmoid(x)),
    "log_sigmoid": _Formula(lambda x: jax.nn.log_sigmoid(x)),
    "softplus": _Formula(lambda x: jax.nn.softplus(x)),
    "squareplus": _Formula(_squareplus, (4.0,), positive=True),
    "sparse_plus": _Formula(lambda x: jax.nn.sparse_plus(x), kinks=(-1.0, 1.0)),
    "sparse_sigmoid": _Formula(lambda x: jax.nn.sparse_sigmoid(x), kinks=(-1.0, 1.0)),
    "soft_sign": _Formula(lambda x: jax.nn.soft_sign(x), kinks=(0.0,)),
    "isru": _Formula(_isru, (1.0,), positive=True),
    "arctan": _Formula(lambda x: jnp.arctan(x)),
    "asinh": _Formula(lambda x: jnp.arcsinh(x)),
    "erf": _Formula(lambda x: jax.lax.erf(x)),
    "hard_tanh": _Formula(lambda x: jax.nn.hard_tanh(x), kinks=(-1.0, 1.0)),
    "hard_sigmoid": _Formula(lambda x: jax.nn.hard_sigmoid(x), kinks=(-3.0, 3.0)),
    "hard_silu": _Formula(lambda x: jax.nn.hard_silu(x), kinks=(-3.0, 3.0)),
    "sin": _Formula(lambda x: jnp.sin(x)),
    "cos": _Formula(lambda x: jnp.cos(x)),
    "snake": _Formula(_snake, (1.0,), positive=True),
    "abs": _Formula(lambda x: jnp.abs(x), kinks=(0.0,)),
    "relu_squared": _Formula(lambda x: jnp.square(jax.nn.relu(x)), kinks=(0.0,)),
    "step": _Formula(lambda x: (x > 0).astype(x.dtype), kinks=(0.0,), jumps=(0.0,)),
    "sign": _Formula(lambda x: jnp.sign(x), kinks=(0.0,), jumps=(0.0,)),
}

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "absolute": "abs",
        "arcsinh": "asinh",
        "atan": "arctan",
        "conv1d": "identity",
        "conv2d": "identity",
        "conv3d": "identity",
        "conv_transpose1d": "identity",
        "conv_transpose2d": "identity",
        "conv_transpose3d": "identity",
        "gelu_approximate": "gelu_tanh",
        "gelu_new": "gelu_tanh",
        "hard_swish": "hard_silu",
        "hardsigmoid": "hard_sigmoid",
        "hardswish": "hard_silu",
        "hardtanh": "hard_tanh",
        "heaviside": "step",
        "leakyrelu": "leaky_relu",
        "linear": "identity",
        "logistic": "sigmoid",
        "logsigmoid": "log_sigmoid",
        "relu2": "relu_squared",
        "sgn": "sign",
        "softsign": "soft_sign",
        "squared_relu": "relu_squared",
        "swish": "silu",
    }
)


def _build(name: str, parameters: tuple[float, ...] = (), input_scale: float = 1.0) -> Activation:
    formula = _FORMULAS[name]
    allowed = len(formula.defaults)
    if len(parameters) > allowed:
        takes = "no parameter" if allowed == 0 else "one parameter"
        raise ValueError(f"{name} takes {takes}, got {parameters}; scale the input by writing {name}(2x)")
    if formula.positive and any(parameter <= 0 for parameter in parameters):
        raise ValueError(f"the parameter of {name} must be positive, got {parameters[0]!r}")
    parameters = parameters or formula.defaults
    shown = [f"{p:.17g}" if float(f"{p:g}") != p else f"{p:g}" for p in parameters if parameters != formula.defaults]
    if input_scale != 1.0:
        scale = f"{input_scale:g}" if float(f"{input_scale:g}") == input_scale else repr(input_scale)
        shown.append("-x" if scale == "-1" else f"{scale}x")
    return Activation(
        name=f"{name}({', '.join(shown)})" if shown else name,
        function=formula.function,
        parameters=parameters,
        input_scale=input_scale,
        kinks=tuple(sorted(kink / input_scale + 0.0 for kink in formula.kinks)),
        jumps=tuple(sorted(jump / input_scale + 0.0 for jump in formula.jumps)),
    )


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType({name: _build(name) for name in _FORMULAS})


def activation(phi: "str | Activation | Callable[[Array], Array]") -> Activation:
    r"""Return the activation that `phi` means.

    A name (`"gelu"`, also an alias such as `"swish"`), a name with its parameter (`"leaky_relu(0.2)"`),
    with the scale of its input (`"tanh(2x)"` is $\tanh(2x)$), with both (`"leaky_relu(0.2, 2x)"`), an
    `Activation`, or any elementwise jax.numpy callable. A callable is evaluated on a few numbers to see
    that it is elementwise.

    Raises `ValueError` for a name that is not known, naming the nearest ones, and for parameters it does
    not take;
    `TypeError` for a callable that is not elementwise or does not return floating point.

    >>> activation("swish").name, activation("tanh(2x)").input_scale
    ('silu', 2.0)
    >>> activation("LeakyReLU(0.2)") == activation("leaky_relu(1/5)")
    True
    """
    if isinstance(phi, Activation):
        return phi
    if isinstance(phi, str):
        return _named(phi)
    if callable(phi):
        try:
            return _checked(phi)
        except TypeError as error:
            if "unhashable" not in str(error):
                raise
            # A partial is hashed by identity, whatever it wraps; no cache then knows it from one call to the next.
            return _check(functools.partial(phi))
    raise TypeError(f"an activation is a name, an Activation or an elementwise jax.numpy callable, got {phi!r}")


@functools.lru_cache(maxsize=512)
def _named(text: str) -> Activation:
    call = split_call(text)
    name = _canonical(call.name)
    if name not in _FORMULAS:
        near = difflib.get_close_matches(name, [*_FORMULAS, *ALIASES], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(_FORMULAS))}"
        raise ValueError(f"unknown activation {call.name!r}; {hint}")
    return _build(name, call.parameters, call.input_scale)


def _canonical(name: str) -> str:
    name = name.strip().lower().replace("-", "_").replace(" ", "_")
    return ALIASES.get(name, name)


# The library's own functions are known, kinks and all. jax.nn.gelu is by default the tanh approximation.
_LIBRARY: tuple[tuple[str, Callable[[], Any]], ...] = (
    ("relu", lambda: jax.nn.relu),
    ("relu6", lambda: jax.nn.relu6),
    ("leaky_relu", lambda: jax.nn.leaky_relu),
    ("elu", lambda: jax.nn.elu),
    ("selu", lambda: jax.nn.selu),
    ("gelu_tanh", lambda: jax.nn.gelu),
    ("silu", lambda: jax.nn.silu),
    ("sigmoid", lambda: jax.nn.sigmoid),
    ("softplus", lambda: jax.nn.softplus),
    ("soft_sign", lambda: jax.nn.soft_sign),
    ("tanh", lambda: jnp.tanh),
    ("tanh", lambda: jax.nn.tanh),
)


@functools.lru_cache(maxsize=256)
def _checked(function: Callable[..., Any]) -> Activation:
    return _check(function)


def _check(function: Callable[..., Any]) -> Activation:
    """Return `function` as an activation, once it has been seen to be elementwise on concrete numbers."""
    name = _name_of(function)
    for shipped, its in _LIBRARY:
        if function is its():
            return ACTIVATIONS[shipped]
    # Concrete numbers, whatever trace surrounds this call.
    with jax.ensure_compile_time_eval():
        x = jnp.asarray([-2.5, 0.75, 1.5, -0.25, 4.0, 0.125], jnp.float32)
        y = _call(function, name, x)
        if not isinstance(y, jax.Array) or y.shape != x.shape:
            got = f"shape {y.shape}" if isinstance(y, jax.Array) else f"a {type(y).__name__}"
            raise TypeError(f"an activation must keep its input's shape {x.shape}, but {name} returned {got}")
        if not jnp.issubdtype(y.dtype, jnp.floating):
            raise TypeError(f"an activation must return floating point, but {name} returned {y.dtype}; cast it")
        elsewhere = _call(function, name, x.at[0].set(-37.0))
        backwards, square = _call(function, name, x[::-1]), _call(function, name, x.reshape(2, 3))
        if not (_close(elsewhere[1:], y[1:]) and _close(backwards[::-1], y) and _close(square.ravel(), y)):
            raise TypeError(
                f"an activation must be elementwise, but the result of {name} at one entry depends on others "
                "or on its place; pass the elementwise part alone"
            )
    return Activation(name=name, function=function, kinks=None, jumps=None)


def _call(function: Callable[..., Any], name: str, x: "Array") -> "Array":
    try:
        y = jax.jvp(jax.jit(function), (x,), (jnp.ones_like(x),))[0]
        if any(isinstance(leaf, jax_core.Tracer) for leaf in jax.tree.leaves(y)):
            raise ValueError("it depends on a traced value")
        return y
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise TypeError(
            f"{name} could not be evaluated and differentiated on an array of shape {x.shape} "
            f"({type(error).__name__}: {first}); write it with jax.numpy, with where instead of if"
        ) from error


def _close(a: "Array", b: "Array") -> bool:
    # The same number up to float32 rounding: a vector unit and its remainder loop may differ in the last
    # bits.
    return a.shape == b.shape and bool(jnp.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True))


def _name_of(function: Callable[..., Any]) -> str:
    if isinstance(function, functools.partial):
        return f"partial({_name_of(function.func)})"
    return getattr(function, "__name__", None) or type(function).__name__


def value_and_slope(phi: Callable[..., Any], z: "Array") -> "tuple[Array, Array]":
    r"""Return $\phi(z)$ and $\phi'(z)$ at every entry of the floating array `z`; at a kink as jax has it.

    >>> import jax.numpy as jnp
    >>> [v.tolist() for v in value_and_slope(activation("relu"), jnp.asarray([-1.0, 2.0]))]
    [[0.0, 2.0], [0.0, 1.0]]
    """
    return jax.jvp(phi, (z,), (jnp.ones_like(z),))


def slope(phi: Callable[..., Any], z: "Array") -> "Array":
    r"""Return $\phi'(z)$ at every entry of the floating-point array `z`, by one forward derivative.

    >>> import jax.numpy as jnp
    >>> slope(activation("tanh(2x)"), jnp.asarray([0.0])).tolist()
    [2.0]
    """
    return value_and_slope(phi, z)[1]
