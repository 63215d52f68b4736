r"""Flax modules whose signal and gradient survive their depth from the start: critical unless told otherwise.

Hidden layers of equal shape are one stacked module, through which the input is scanned: a network of 100 layers
compiles as fast as one of 3. Inputs are taken to have mean square 1.
"""

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from jaxgain.activations import Activation, activation
from jaxgain.initializers import bias, branch, scaled, scales
from jaxgain.theory.critical import critical_init
from jaxgain.theory.meanfield import Init

Phi = str | Activation | Callable[..., Any]
NORMS = ("layernorm", "rmsnorm", "none")


class LayerScales(NamedTuple):
    r"""Standard deviations of a network's parameters: $\sigma_w$ of its layers, times $\sqrt{\mathrm{fan\_in}}$."""

    first: Any
    hidden: Any
    readout: Any
    sigma_b: Any
    """Of the biases of all layers but the readout, which has none to begin with."""


def layer_scales(phi: Phi, init: "str | float | Init | LayerScales" = "critical") -> LayerScales:
    r"""The scales of a plain network's layers, for inputs of mean square 1.

    `init` is a kind of gain (see `gain`), a number, an `Init`, or scales of one's own. Kinds and numbers are the gain
    of every layer. "critical" has $\sigma_w$ and $\sigma_b$ of `critical_init`, a first layer that brings the length
    to the fixed length q where there is one, $q = \sigma_{w,1}^2 + \sigma_b^2$, and a readout of gain 1. Where every
    length is kept, it is the gain of every layer: with ReLU the √2 of He et al. (2015).

    Raises `NoSuchGain`, with the reason, where there is no such gain, and `ValueError` as `gain` and `scaled`.

    >>> first, hidden, readout, sigma_b = layer_scales("gelu")
    >>> round(first**2 + sigma_b**2, 10), round(hidden**2, 10), readout  # q of the fixed length is (3 + √17)/2
    (3.5615528128, 1.9830582574, 1.0)
    """
    if isinstance(init, LayerScales):
        return init
    if isinstance(init, Init):
        return LayerScales(init.sigma_w, init.sigma_w, init.sigma_w, init.sigma_b)
    if isinstance(init, Real) and not isinstance(init, bool):
        return LayerScales(float(init), float(init), float(init), 0.0)
    if not isinstance(init, str):
        raise TypeError(f"init must be a kind of gain, a number, an Init or LayerScales, got {init!r}")
    sigma_w, sigma_b = scales(phi, init)
    if init != "critical" or critical_init(phi).kind == "scale-invariant":
        return LayerScales(sigma_w, sigma_w, sigma_w, sigma_b)
    q = critical_init(phi).q
    return LayerScales((q - sigma_b**2) ** 0.5 if q > sigma_b**2 else sigma_w, sigma_w, 1.0, sigma_b)


class MLP(nnx.Module):
    r"""Linear layers of one width with an activation after each, and a linear readout.

    $z^1 = W^1 x + b^1$, $z^{l+1} = W^{l+1}\phi(z^l) + b^{l+1}$ for `depth` layers, $y = W\phi(z^L) + b$.

    Parameters: `first.kernel` (in_features, width), `hidden.kernel` (depth - 1, width, width), `readout.kernel` (width,
    out_features), and `.bias` of each; depth 1 has no `hidden`.

    Raises `ValueError` or `TypeError` where a size is not at least 1, and as `layer_scales` and `activation`.

    >>> model = MLP(64, 128, 50, 10, activation="gelu", rngs=nnx.Rngs(0))
    >>> model(jnp.ones((32, 64))).shape, model.hidden.kernel.shape
    ((32, 10), (49, 128, 128))
    """

    def __init__(
        self,
        in_features: int,
        width: int,
        depth: int,
        out_features: int,
        *,
        activation: Phi = "tanh",
        init: str | float | Init | LayerScales = "critical",
        distribution: str = "normal",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_sizes(in_features=in_features, width=width, depth=depth, out_features=out_features)
        self.phi = _activation(activation)
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        sizes = (in_features, width, depth, out_features)
        layers = _plain_layers(nnx.Linear, sizes, layer_scales(self.phi, init), distribution, types, rngs)
        self.first, self.hidden, self.readout = layers

    def __call__(self, x: Array) -> Array:
        """Outputs (batch, out_features) of inputs (batch, in_features)."""
        return self.readout(self.phi(self.preactivations(x)[-1]))

    def preactivations(self, x: Array) -> Array:
        """$z^1$ to $z^L$ of inputs (batch, in_features), shape (depth, batch, width)."""
        first = self.first(x)
        return through(lambda layer, z: layer(self.phi(z)), self.hidden, first)


class ResidualMLP(nnx.Module):
    r"""Two-layer branches beside the identity, pre-norm or unnormalized, and a linear readout.

    $h^0 = W^0 x + b^0$, $h^l = h^{l-1} + W_2^l \phi(W_1^l\,\mathrm{norm}(h^{l-1}) + b_1^l) + b_2^l$ for `depth` blocks,
    and $y = W\,\mathrm{norm}(h^L) + b$. The branches are initialized by `jaxgain.initializers.branch` with that
    `scaling`, and the gain of kind `init` ("critical" is "forward": what enters a branch it does not have to keep).

    Parameters: `first.kernel` (in_features, width), `blocks.up.kernel` and `blocks.down.kernel` (depth, width, width),
    `blocks.norm.scale` (depth, width) and `norm.scale` (width,) if there is a norm, `readout.kernel` (width,
    out_features), and biases.

    Raises as `MLP`, and `ValueError` on an unknown norm or scaling.

    >>> model = ResidualMLP(64, 128, 20, 10, activation="relu", norm="none", rngs=nnx.Rngs(0))
    >>> model(jnp.ones((32, 64))).shape, model.blocks.up.kernel.shape
    ((32, 10), (20, 128, 128))
    """

    def __init__(
        self,
        in_features: int,
        width: int,
        depth: int,
        out_features: int,
        *,
        activation: Phi = "relu",
        init: str = "critical",
        norm: str = "layernorm",
        scaling: str = "1/sqrt(L)",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_sizes(in_features=in_features, width=width, depth=depth, out_features=out_features)
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
        self.phi = _activation(activation)
        kinds = branch(self.phi, depth, scaling=scaling, kind="forward" if init == "critical" else init)
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        self.first = nnx.Linear(in_features, width, rngs=rngs, kernel_init=_lecun(), **types)
        self.blocks = stacked(lambda rngs: _Branch(width, self.phi, norm, kinds, types, rngs), depth, rngs)
        self.norm = _norm(norm, width, types, rngs)
        self.readout = nnx.Linear(width, out_features, rngs=rngs, kernel_init=_lecun(), **types)

    def __call__(self, x: Array) -> Array:
        """Outputs (batch, out_features) of inputs (batch, in_features)."""
        h = self.activations(x)[-1]
        return self.readout(h if self.norm is None else self.norm(h))

    def activations(self, x: Array) -> Array:
        """$h^0$ to $h^L$ of inputs (batch, in_features), shape (depth + 1, batch, width)."""
        return through(lambda block, h: h + block(h), self.blocks, self.first(x))

    def preactivations(self, x: Array) -> Array:
        r"""What meets the activation in each branch, $W_1^l\,\mathrm{norm}(h^{l-1}) + b_1^l$, (depth, batch, width)."""
        return nnx.vmap(lambda block, h: block.enter(h))(self.blocks, self.activations(x)[:-1])


class _Branch(nnx.Module):
    """`down(phi(up(norm(h))))`."""

    def __init__(self, width: int, phi: Activation, norm: str, kinds: Any, types: Any, rngs: nnx.Rngs) -> None:
        self.phi = phi
        self.norm = _norm(norm, width, types, rngs)
        self.up = nnx.Linear(width, width, rngs=rngs, kernel_init=kinds[0], **types)
        self.down = nnx.Linear(width, width, rngs=rngs, kernel_init=kinds[-1], **types)

    def __call__(self, h: Array) -> Array:
        return self.down(self.phi(self.enter(h)))

    def enter(self, h: Array) -> Array:
        return self.up(h if self.norm is None else self.norm(h))


class ConvNet(nnx.Module):
    r"""Convolutions of one number of channels with an activation after each, a mean over places, a linear readout.

    $z^1 = W^1 * x + b^1$, $z^{l+1} = W^{l+1} * \phi(z^l) + b^{l+1}$ for `depth` layers. The padding is circular by
    default: zeros beyond the border ("SAME") take from a border's neurons what the gain counts on.

    Parameters: `first.kernel` (*kernel_size, in_channels, channels), `hidden.kernel` (depth - 1, *kernel_size,
    channels, channels), `readout.kernel` (channels, out_features), and `.bias` of each; depth 1 has no `hidden`.

    Raises as `MLP`.

    >>> model = ConvNet(1, 16, 10, 10, rngs=nnx.Rngs(0))
    >>> model(jnp.ones((32, 8, 8, 1))).shape, model.hidden.kernel.shape
    ((32, 10), (9, 3, 3, 16, 16))
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        depth: int,
        out_features: int,
        *,
        kernel_size: tuple[int, ...] = (3, 3),
        padding: str = "CIRCULAR",
        activation: Phi = "tanh",
        init: str | float | Init | LayerScales = "critical",
        distribution: str = "normal",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_sizes(in_channels=in_channels, channels=channels, depth=depth, out_features=out_features)
        self.phi = _activation(activation)
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        convolution = partial(nnx.Conv, kernel_size=kernel_size, padding=padding)
        sizes = (in_channels, channels, depth, out_features)
        layers = _plain_layers(convolution, sizes, layer_scales(self.phi, init), distribution, types, rngs)
        self.first, self.hidden, self.readout = layers

    def __call__(self, x: Array) -> Array:
        """Outputs (batch, out_features) of inputs (batch, *places, in_channels)."""
        h = self.phi(self.preactivations(x)[-1])
        return self.readout(jnp.mean(h, axis=tuple(range(1, h.ndim - 1))))

    def preactivations(self, x: Array) -> Array:
        """$z^1$ to $z^L$ of inputs (batch, *places, in_channels), shape (depth, batch, *places, channels)."""
        return through(lambda layer, z: layer(self.phi(z)), self.hidden, self.first(x))


def _plain_layers(
    layer: Callable[..., Any],
    sizes: tuple[int, int, int, int],
    of: LayerScales,
    distribution: str,
    types: dict[str, Any],
    rngs: nnx.Rngs,
) -> tuple[Any, Any, nnx.Linear]:
    """First, hidden and readout layers of a plain network; `layer(inputs, outputs, …)` makes one of the former."""
    inputs, width, depth, outputs = sizes
    kernel: Callable[[Any], Any] = lambda gain: scaled(gain, distribution=distribution)
    wide = partial(layer, out_features=width, bias_init=bias(of.sigma_b), **types)
    first = wide(inputs, kernel_init=kernel(of.first), rngs=rngs)
    hidden = stacked(lambda rngs: wide(width, kernel_init=kernel(of.hidden), rngs=rngs), depth - 1, rngs)
    return first, hidden, nnx.Linear(width, outputs, kernel_init=kernel(of.readout), rngs=rngs, **types)


def stacked(make: Callable[[nnx.Rngs], Any], count: int, rngs: nnx.Rngs) -> Any:
    """So many modules of one shape as one, each parameter with a leading axis for them; None for no module.

    >>> stacked(lambda rngs: nnx.Linear(2, 3, rngs=rngs), 5, nnx.Rngs(0)).kernel.shape
    (5, 2, 3)
    """
    if not count:
        return None
    return nnx.split_rngs(splits=count)(nnx.vmap(make, in_axes=(0,), out_axes=0))(rngs)


def through(step: Callable[[Any, Array], Array], layers: Any, x: Array) -> Array:
    """What leaves each of `stacked` layers in turn, x first: shape (1 + layers, *x.shape)."""
    if layers is None:
        return x[None]

    def one(x: Array, layer: Any) -> tuple[Array, Array]:
        x = step(layer, x)
        return x, x

    _, after = nnx.scan(one, in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))(x, layers)
    return jnp.concatenate([x[None], after])


def check_sizes(**sizes: Any) -> None:
    """Refuse what is not a whole number of at least 1."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"{name} must be a whole number, got {size!r}")
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


def _activation(phi: Phi) -> Activation:
    return activation(phi)


def _lecun() -> Any:
    return scaled(1.0)


def _norm(name: str, width: int, types: dict[str, Any], rngs: nnx.Rngs) -> Any:
    kinds = {"layernorm": nnx.LayerNorm, "rmsnorm": nnx.RMSNorm}
    return None if name == "none" else kinds[name](width, rngs=rngs, **types)
