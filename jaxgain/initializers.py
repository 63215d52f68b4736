r"""Initializers that know their gain, in the protocol of Flax: `init(key, shape, dtype=None, out_sharding=None)`.

A kernel of gain $\sigma_w$ has entries of variance $\sigma_w^2/\mathrm{fan}$, so that $E z^2 = \sigma_w^2 E h^2 +
\sigma_b^2$ with `fan_in`, a bias of variance $\sigma_b^2$. Drawn and scaled in float32, and cast to a shorter type
last: numbers drawn in bfloat16 have a mean of −0.01, which a deep network does not survive.

They serve Flax's nnx and linen as they are. Equinox keeps weights as (out, in): `in_axis=1, out_axis=0`. Haiku calls
`w_init(shape, dtype)`: `lambda shape, dtype: init(hk.next_rng_key(), shape, dtype)`.
"""

import difflib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxgain.activations import Activation, activation
from jaxgain.propagation.weights import DISTRIBUTIONS, Matrices
from jaxgain.theory.critical import critical_init
from jaxgain.theory.gains import KINDS, NoSuchGain, gain_estimate

MODES = ("fan_in", "fan_out", "fan_avg")
KERNELS = (*DISTRIBUTIONS, "delta_orthogonal")
SCALINGS = ("1/sqrt(L)", "fixup", "zero")

Axes = int | Sequence[int]


class Initializer(Protocol):
    """What draws a parameter: that of `jax.nn.initializers` and of Flax."""

    def __call__(self, key: Array, shape: Sequence[int], dtype: Any = None, out_sharding: Any = None) -> Array:
        """A parameter of that shape; float32 where no dtype is given, float64 under x64."""
        ...


class Initializers(NamedTuple):
    """What a layer needs: `kernel_init, bias_init = for_activation("gelu")`."""

    kernel_init: Initializer
    bias_init: Initializer


def scaled(
    gain: Any = 1.0,
    mode: str = "fan_in",
    distribution: str = "normal",
    *,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    groups: int = 1,
    sparsity: float = 0.9,
) -> Initializer:
    r"""An initializer of kernels whose entries have variance gain²/fan (LeCun et al., 1998; He et al., 2015).

    Axes that are neither in, out nor batch are the receptive field: $\mathrm{fan\_in} = \prod\mathrm{in} \times
    \prod\mathrm{field}$, and the same for out; `fan_avg` is their mean (Glorot and Bengio, 2010).

    ======================================= ==================================================
    dense (in, out), convolution (…, in, out) the default axes, grouped and depthwise ones too
    stacked layers (layers, in, out)        `batch_axis=0`
    einsum, attention (in, heads, dim)      `in_axis=0, out_axis=(1, 2)`
    embedding (vocabulary, features)        `in_axis=(), batch_axis=0`: a look-up has a fan_in of 1
    ======================================= ==================================================

    Args:
        gain: $\sigma_w$, at least 0; it may be traced, and batched by `vmap`.
        mode: "fan_in", "fan_out" or "fan_avg".
        distribution: "normal", "uniform", "truncated_normal" (at two standard deviations, its variance corrected),
            "orthogonal" (Haar, from all in and field axes to all out axes; of unequal sides the fewer rows or columns
            are orthogonal), "delta_orthogonal" (a convolution's kernel, orthogonal in the middle of the field and 0
            beside it; Xiao et al., 2018), or "sparse" (Martens, 2010).
        in_axis: axis or axes of the inputs.
        out_axis: axis or axes of the outputs.
        batch_axis: axis or axes along which kernels are independent.
        groups: of a grouped convolution, whose kernel does not tell: an input meets only out/groups outputs.
        sparsity: the probability of an entry to be 0, for "sparse".

    Raises:
        ValueError, TypeError: at construction for a mode, distribution, gain or axis that cannot be; when called for a
            shape without these axes, or a dtype that is not floating.

    >>> kernel = scaled(2**0.5)(jax.random.key(0), (3, 3, 64, 128))
    >>> bool(abs(kernel.std() * (9 * 64) ** 0.5 - 2**0.5) < 0.01)
    True
    """
    _check_choice("mode", mode, MODES)
    _check_choice("distribution", distribution, KERNELS)
    _check_scale("gain", gain)
    axes = tuple(_axes(name, x) for name, x in (("in", in_axis), ("out", out_axis), ("batch", batch_axis)))
    named = [axis for part in axes for axis in part]
    if len(set(named)) < len(named):
        raise ValueError(f"in_axis, out_axis and batch_axis must differ, got {in_axis}, {out_axis} and {batch_axis}")
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        raise ValueError(f"groups must be a whole number of at least 1, got {groups!r}")
    if isinstance(sparsity, bool) or not isinstance(sparsity, int | float) or not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be at least 0 and below 1, a probability, got {sparsity!r}")

    def draw(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        order, sides = _sides(shape, *axes, delta=distribution == "delta_orthogonal")
        kernels = _drawn(key, distribution, sides, Matrices(distribution, sparsity, draw_dtype=dtype))
        kernels = kernels.reshape([shape[axis] for axis in order])
        # A kernel that reaches into one place of its field only has no fan beside it.
        fan_in, fan_out = sides.fans(field=1 if distribution == "delta_orthogonal" else sides.field)
        fan = {"fan_in": fan_in, "fan_out": fan_out / groups, "fan_avg": (fan_in + fan_out / groups) / 2}[mode]
        return (
            jnp.asarray(gain, dtype)
            * fan**-0.5
            * jnp.transpose(kernels, sorted(range(len(order)), key=order.__getitem__))
        )

    return _protocol(draw)


def bias(sigma_b: Any = 0.0) -> Initializer:
    r"""An initializer of biases, normal with standard deviation $\sigma_b$, which may be traced; zeros for 0.

    Raises `ValueError` where it is negative or not finite.

    >>> bias(0.0)(jax.random.key(0), (2,)).tolist()
    [0.0, 0.0]
    """
    _check_scale("sigma_b", sigma_b)
    return _protocol(lambda key, shape, dtype: jnp.asarray(sigma_b, dtype) * jax.random.normal(key, shape, dtype))


def zeros() -> Initializer:
    """An initializer of zeros.

    >>> zeros()(jax.random.key(0), (2,)).tolist()
    [0.0, 0.0]
    """
    return _protocol(lambda key, shape, dtype: jnp.zeros(shape, dtype))


def for_activation(
    phi: "str | Activation | Callable[..., Any]", kind: str = "critical", *, q: float = 1.0, **axes: Any
) -> Initializers:
    r"""The initializers of kernel and bias of the layers before an activation: of z in $h = \phi(z)$, h to z.

    `kind` is one of those of `gain`, at the length q. "critical" is that of `critical_init`, with its $\sigma_b$, or
    the best substitute where there is no critical point; every other one has no bias. `axes` are the further
    arguments of `scaled`: mode, distribution, in_axis, …

    Raises `NoSuchGain`, with the reason, where the gain does not exist, and as `gain` and `scaled`.

    >>> kernel_init, bias_init = for_activation("gelu")
    >>> b = bias_init(jax.random.key(0), (100_000,))
    >>> bool(abs(b.std() ** 2 - 0.1729) < 0.003)
    True
    """
    sigma_w, sigma_b = scales(phi, kind, q=q)
    return Initializers(scaled(sigma_w, **axes), bias(sigma_b))


def scales(
    phi: "str | Activation | Callable[..., Any]", kind: str = "critical", *, q: float = 1.0
) -> tuple[float, float]:
    r"""$(\sigma_w, \sigma_b)$ of a kind of gain, as numbers. Raises as `for_activation`.

    >>> [round(x**2, 10) for x in scales("gelu")], scales("relu", "forward")[1]
    ([1.9830582574, 0.1729223908], 0.0)
    """
    phi = activation(phi)
    if kind != "critical":
        _check_choice("kind", kind, KINDS)
        return gain_estimate(phi, kind, q=q).value, 0.0
    critical = critical_init(phi)
    if critical.init is None:
        raise NoSuchGain(critical.reason)
    return critical.init.sigma_w, critical.init.sigma_b


def branch(
    phi: "str | Activation | Callable[..., Any]",
    depth: int,
    *,
    layers: int = 2,
    scaling: str = "1/sqrt(L)",
    kind: str = "forward",
    **axes: Any,
) -> tuple[Initializer, ...]:
    r"""Initializers of the kernels of a residual branch of so many `layers`, one of `depth` branches, first to last.

    All have the gain of that kind, but for the `scaling`, which keeps the sum over the branches finite:

    =========== ====================================================================================
    1/sqrt(L)   the last kernel times $L^{-1/2}$: $E h^2$ grows by e at most (Hanin and Rolnick, 2018)
    fixup       the last 0, the others times $L^{-1/(2m-2)}$, m layers (Zhang, Dauphin and Ma, 2019)
    zero        the last 0 (Goyal et al., 2017; ReZero, Bachlechner et al., 2020)
    =========== ====================================================================================

    The gain of the last kernel is 1, as no activation follows it.

    Raises `ValueError` on an unknown scaling, fewer layers or branches than 1, and Fixup of one layer; and as
    `for_activation`.

    >>> first, last = branch("relu", depth=64, scaling="fixup")
    >>> float(jnp.abs(last(jax.random.key(0), (10, 10))).max())
    0.0
    """
    _check_choice("scaling", scaling, SCALINGS)
    for name, count, meaning in (("depth", depth, "residual branches"), ("layers", layers, "layers of a branch")):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, the {meaning}, got {count!r}")
    if scaling == "fixup" and layers == 1:
        raise ValueError("fixup scales the layers before the last of a branch, so layers must be at least 2, got 1")
    sigma_w, _ = scales(phi, kind)
    inner = sigma_w * (depth ** (-1 / (2 * layers - 2)) if scaling == "fixup" else 1)
    last = scaled(depth**-0.5, **axes) if scaling == "1/sqrt(L)" else zeros()
    return (*[scaled(inner, **axes)] * (layers - 1), last)


def torch_default(fan_in: int, **axes: Any) -> Initializers:
    r"""The initializers of `torch.nn.Linear` and `Conv`: kernel and bias uniform in $\pm 1/\sqrt{\mathrm{fan\_in}}$.

    A gain of $1/\sqrt 3$, so that $E z^2$ falls threefold in every linear layer. `fan_in` is needed for the bias,
    whose shape does not tell it. `axes` are the further arguments of `scaled`.

    Raises `ValueError` where fan_in is not at least 1.

    >>> kernel_init, bias_init = torch_default(fan_in=100)
    >>> bool(jnp.abs(bias_init(jax.random.key(0), (1000,))).max() <= 0.1)
    True
    """
    if isinstance(fan_in, bool) or not isinstance(fan_in, int) or fan_in < 1:
        raise ValueError(f"fan_in must be a whole number of at least 1, the inputs of a neuron, got {fan_in!r}")
    bound = fan_in**-0.5
    of_bias = _protocol(lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound))
    return Initializers(scaled(3**-0.5, distribution="uniform", **axes), of_bias)


# --- what they are made of ---


class _Sides(NamedTuple):
    """Numbers of entries of a kernel along the axes of each meaning."""

    batch: int
    field: tuple[int, ...]
    inputs: int
    outputs: int

    def fans(self, field: int | tuple[int, ...]) -> tuple[int, int]:
        size = math.prod(field) if isinstance(field, tuple) else field
        return self.inputs * size, self.outputs * size


def _sides(
    shape: tuple[int, ...],
    in_axis: tuple[int, ...],
    out_axis: tuple[int, ...],
    batch_axis: tuple[int, ...],
    delta: bool,
) -> tuple[list[int], _Sides]:
    """The axes in the order batch, field, in, out, and how many entries each of these has."""
    found: list[list[int]] = []
    for name, axes in (("in_axis", in_axis), ("out_axis", out_axis), ("batch_axis", batch_axis)):
        wrong = [axis for axis in axes if not -len(shape) <= axis < len(shape)]
        if wrong:
            raise ValueError(f"{name} = {wrong[0]} is no axis of a kernel of shape {shape}; give the axes of yours")
        found.append([axis % len(shape) for axis in axes])
    inputs, outputs, batch = found
    named = [*inputs, *outputs, *batch]
    if len(set(named)) < len(named):
        raise ValueError(f"in_axis, out_axis and batch_axis meet in a kernel of shape {shape}; give different axes")
    field = [axis for axis in range(len(shape)) if axis not in named]
    if delta and not field:
        raise ValueError(f"delta_orthogonal is for convolutions, whose kernels have a field, got the shape {shape}")
    size = lambda axes: math.prod(shape[axis] for axis in axes)
    return [*batch, *field, *inputs, *outputs], _Sides(
        size(batch), tuple(shape[axis] for axis in field), size(inputs), size(outputs)
    )


def _drawn(key: Array, distribution: str, sides: _Sides, matrices: Matrices) -> Array:
    """Kernels (batch, field, inputs, outputs), flat along each, of variance 1 where they are not 0 on purpose."""
    batch, field, (fan_in, _) = sides.batch, math.prod(sides.field), sides.fans(sides.field)
    if distribution not in ("orthogonal", "delta_orthogonal"):
        return DISTRIBUTIONS[distribution](key, (batch * fan_in, sides.outputs), matrices)
    rows = sides.inputs if distribution == "delta_orthogonal" else fan_in
    if 0 in (batch, rows, sides.outputs):
        return jnp.zeros((batch, field, sides.inputs, sides.outputs), matrices.draw_dtype)
    one = lambda key: DISTRIBUTIONS["orthogonal"](key, (rows, sides.outputs), matrices)
    found = jax.vmap(one)(jax.random.split(key, batch))
    if distribution == "orthogonal":
        return found
    middle = np.ravel_multi_index([(size - 1) // 2 for size in sides.field], sides.field)
    return jnp.zeros((batch, field, *found.shape[1:]), found.dtype).at[:, middle].set(found)


def _protocol(draw: Callable[[Array, tuple[int, ...], Any], Array]) -> Initializer:
    """An initializer that draws in float32, or a longer type if that is asked for, and casts last."""

    def init(key: Array, shape: Sequence[int], dtype: Any = None, out_sharding: Any = None) -> Array:
        dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(f"parameters are drawn in a floating type, got dtype {dtype.name}; use float32")
        drawn = draw(key, tuple(shape), jnp.promote_types(dtype, jnp.float32)).astype(dtype)
        if out_sharding is None:
            return drawn
        is_spec = isinstance(out_sharding, jax.sharding.PartitionSpec)
        return jax.sharding.reshard(drawn, out_sharding) if is_spec else jax.device_put(drawn, out_sharding)

    return init


def _check_choice(name: str, given: Any, choices: Sequence[str]) -> None:
    if given not in choices:
        near = difflib.get_close_matches(str(given), choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"unknown {name} {given!r}{hint} Use one of {', '.join(choices)}")


def _check_scale(name: str, given: Any) -> None:
    if isinstance(given, Tracer):
        return
    try:
        values = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {given!r}; it scales a standard deviation") from None
    if values.ndim or not (np.isfinite(values) and values >= 0):
        raise ValueError(f"{name} must be one number, finite and at least 0, got {given!r}; for several use jax.vmap")


def _axes(name: str, given: Any) -> tuple[Any, ...]:
    axes = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    if not all(isinstance(axis, int) and not isinstance(axis, bool) for axis in axes):
        raise TypeError(f"{name}_axis must be a whole number or several, got {given!r}")
    return axes
