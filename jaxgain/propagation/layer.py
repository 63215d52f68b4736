"""One layer of a network that carries its vectors: what it draws, and its block between maps and activation."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.core
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_derivatives import SymbolicZero

from jaxgain.propagation.blocks import Block
from jaxgain.propagation.kernel import Network
from jaxgain.propagation.maps import RandomMap, Sizes

# It moved from one place to the other between the versions of jax.
_trace_state = next(
    getattr(module, "get_opaque_trace_state")  # noqa: B009
    for module in (jax.core, jax.extend.core)
    if hasattr(module, "get_opaque_trace_state")
)


class Call(NamedTuple):
    """One call of `linear` in a block."""

    sizes: Sizes
    order: int
    """Which of the layer's calls it is."""


class Layers(NamedTuple):
    """What the layers of a network are made of."""

    block: Block
    mixes_inputs: bool
    random_map: RandomMap
    fan: Callable[[int, int], float]
    """fan_in and fan_out of a map -> the number by which the variance of its weights is divided."""
    dropout: float
    """The probability of an output of φ to be zero in one layer, for one input."""
    dtype: Any
    """The type of activations and cotangents."""
    sigma_w: Array | None
    """(depth,), of each layer; None for that of the network."""


class Layer:
    """A layer between two widths: its maps are known by the order in which the block calls them."""

    def __init__(
        self, key: Array, network: Network, layers: Layers, inputs: int, directions: int, fan_in: int, fan_out: int
    ) -> None:
        """Find the calls of `linear` in the block, by its shapes alone."""
        self.key, self.network, self.layers = key, network, layers
        self.inputs, self.tangents, self.widths = inputs, directions * inputs, (fan_in, fan_out)
        self.calls = self._calls()

    @property
    def keeps_width(self) -> bool:
        """Whether what leaves has the width of what enters."""
        return self.widths[0] == self.widths[1]

    def _calls(self) -> list[Call]:
        calls: list[Call] = []

        def linear(h: Array, features: int | None = None, **settings: Any) -> Array:
            if h.ndim != 2 or h.shape[0] != self.inputs:
                raise ValueError(f"linear takes signals of shape ({self.inputs}, width), got {h.shape}")
            bias = self._biases(**settings) is not None
            sizes = Sizes(self.inputs, self.tangents, h.shape[-1], features or self.widths[1], bias)
            calls.append(Call(sizes, len(calls)))
            return jnp.zeros((*h.shape[:-1], sizes.fan_out), h.dtype)

        h = jax.ShapeDtypeStruct((self.inputs, self.widths[0]), self.layers.dtype)
        found = jax.eval_shape(lambda h: self.layers.block(linear, lambda z: self.network.value_and_slope(z)[0], h), h)
        expected = (self.inputs, self.widths[1])
        if getattr(found, "shape", None) != expected or found.dtype != h.dtype:
            came = f"{found.dtype} {found.shape}" if hasattr(found, "shape") else repr(found)
            raise ValueError(
                f"a block must turn {h.dtype} {h.shape} into {h.dtype} {expected}, got {came}; "
                "what it adds to its input must have the input's width"
            )
        return calls

    def _biases(self, sigma_w: Any = None, sigma_b: Any = None) -> Array | None:
        del sigma_w
        if sigma_b is None:
            return self.network.sigma_b
        nothing = isinstance(sigma_b, (int, float)) and sigma_b == 0
        return None if nothing else _constant(jnp.asarray(sigma_b, jnp.float32))

    def draw(self, index: Array, *, reverse: bool) -> tuple[list[Any], Array | None]:
        """All random numbers of a layer: those of its maps, and a key for dropout."""
        keys = [_own_key(self.key, call.order) for call in self.calls]
        draw = self.layers.random_map.draw
        maps = [draw(key, index, call.sizes, reverse=reverse) for key, call in zip(keys, self.calls, strict=True)]
        if not self.layers.dropout:
            return maps, None
        return maps, jax.random.key_data(jax.random.fold_in(_typed(_own_key(self.key, DROPOUT)), index))

    def run(self, linear: Callable[[int, Array, Array, Array | None], Array], index: Array, drawn: Any, h: Array):
        """The layer's output, with the z that meet φ and the signals that enter its maps, in the order of the calls.

        `linear(order, signals, scale, sigma_b)` is one of its maps.
        """
        _, of_dropout = drawn
        entering: list[Array] = []
        preactivations: list[Array] = []
        check_trace = _same_trace()
        of_layer = self.network.sigma_w if self.layers.sigma_w is None else self.layers.sigma_w[index - 1]

        def one(x: Array, features: int | None = None, sigma_w: Any = None, sigma_b: Any = None) -> Array:
            del features
            sizes = self.calls[len(entering)].sizes
            stretch = (sizes.fan_in / self.layers.fan(sizes.fan_in, sizes.fan_out)) ** 0.5
            sigma_w = of_layer if sigma_w is None else _constant(jnp.asarray(sigma_w, jnp.float32))
            check_trace()
            entering.append(x)
            return linear(len(entering) - 1, x, sigma_w * np.float32(stretch), self._biases(sigma_b=sigma_b))

        def phi(z: Array) -> Array:
            check_trace()
            preactivations.append(z)
            return self._dropped(_phi(self.network.value_and_slope, z), of_dropout, len(preactivations))

        out = self.layers.block(one, phi, h)
        return out, preactivations, entering

    def _dropped(self, h: Array, key: Array | None, place: int) -> Array:
        if key is None:
            return h
        kept = 1 - self.layers.dropout
        mask = jax.random.bernoulli(jax.random.fold_in(_typed(key), place), kept, h.shape)
        return jnp.where(mask, h / kept, 0).astype(h.dtype)


# Of the keys of a layer's maps, which count from 0, the one of its dropout.
DROPOUT = 2**31


def _own_key(key: Array, order: int) -> Array:
    """Two words of its own for each call of `linear`; the first one has those of a plain network."""
    return key if order == 0 else jax.random.key_data(jax.random.fold_in(_typed(key), order)).astype(jnp.uint32)


def _typed(words: Array) -> Array:
    return jax.random.wrap_key_data(words, impl="threefry2x32")


def _same_trace() -> Callable[[], None]:
    """A function that refuses to be called in another transformation than this one was."""
    here = _trace_state(convention="nnx")

    def check() -> None:
        if _trace_state(convention="nnx") != here:
            raise ValueError(
                "a block must call linear and phi itself, not inside jit, vmap, scan or checkpoint: each call is a "
                "map and an observation of its own"
            )

    return check


@jax.custom_jvp
def _constant(x: Array) -> Array:
    """A number that no signal changes."""
    return x


@partial(_constant.defjvp, symbolic_zeros=True)
def _constant_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Any]:
    if type(tangents[0]) is not SymbolicZero:
        raise ValueError("sigma_w and sigma_b of linear must not depend on the signals; multiply what it returns")
    return primals[0], tangents[0]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _phi(value_and_slope: Callable[[Array], tuple[Array, Array]], z: Array) -> Array:
    return value_and_slope(z)[0]


@_phi.defjvp
def _phi_jvp(value_and_slope: Callable, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    value, slope = value_and_slope(*primals)
    # The slope of what is no number may be one, and means nothing.
    return value, jnp.where(jnp.isnan(value), value, slope) * tangents[0]
