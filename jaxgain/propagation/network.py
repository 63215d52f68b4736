r"""One network: a key, an activation, (σ_w, σ_b), and the statistics of its layers.

`propagate` is a plain function of arrays: `vmap` over its arguments is the sweep.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxgain.activations import Activation, activation
from jaxgain.propagation.blocks import Block, block_of, mixes_inputs
from jaxgain.propagation.config import STATISTICS, SweepConfig
from jaxgain.propagation.dense import propagate_dense
from jaxgain.propagation.kernel import Network
from jaxgain.propagation.layer import Layers
from jaxgain.propagation.maps import GAUSSIAN, ORTHOGONAL, RandomMap, dense
from jaxgain.propagation.plain import propagate_plain
from jaxgain.propagation.rows import NARROW
from jaxgain.propagation.settings import OF_REVERSE, OF_SPECTRUM
from jaxgain.propagation.single import propagate_single
from jaxgain.propagation.statistics import Propagation, Record, first_layer, over_inputs
from jaxgain.propagation.vectors import propagate_vectors
from jaxgain.propagation.weights import Matrices, draw_ends
from jaxgain.theory.meanfield import Init

OF_TANGENTS = ("log_jacobian_rms", *OF_SPECTRUM)

# Neurons that are met at a time, of one network or of many: a few arrays of them fit into a core's own cache. Before
# jax 0.12 each operation of a loop costs the CPU a call, so there are fewer and larger ones.
NEURONS_AT_ONCE = 2**15 if jax.__version_info__ >= (0, 12) else 2**19


class Setting(NamedTuple):
    """What a compiled network depends on: the fields of `SweepConfig` by these names."""

    width: int | tuple[int, ...]
    depth: int
    depths: tuple[int, ...] = ()
    inputs: int = 1
    weights: str = "matrix_free"
    distribution: str | Callable[..., Array] = "normal"
    sparsity: float = 0.0
    mode: str = "fan_in"
    tied: bool = False
    first_gain: float | None = None
    readout_gain: float | None = None
    layer_gains: tuple[float, ...] = ()
    block: str | Block = "plain"
    branch: str = "one_layer"
    norm: str = "layernorm"
    dropout: float = 0.0
    dtype: str = "float32"
    draw_dtype: str = "float32"
    cotangent: str = "random"
    input_scale: float = 1.0
    directions: int = 1
    statistics: tuple[str, ...] = STATISTICS
    record_every: int = 1
    keep_inputs: bool = False

    @property
    def carries_vectors(self) -> bool:
        """Whether the network has to carry its vectors from layer to layer: all that is not plain."""
        plain = (self.block, self.branch, self.dropout, self.dtype) == ("plain", "one_layer", 0.0, "float32")
        same = isinstance(self.width, int) and not self.layer_gains
        usual = self.first_gain is None and self.readout_gain is None and set(self.statistics) <= set(STATISTICS)
        free = self.weights == "dense" or self.distribution == "normal"
        return not (plain and same and usual and free and self.directions == 1)

    @property
    def carries_means(self) -> bool:
        """Whether it carries nothing but means over its neurons."""
        return not self.carries_vectors and self.weights != "dense" and self.inputs == 1 and self.widths[0] > NARROW

    @property
    def widths(self) -> tuple[int, ...]:
        """Of layers 0 … depth."""
        return (self.width,) * (self.depth + 1) if isinstance(self.width, int) else self.width


class Point(NamedTuple):
    """The numbers of a network, scalars that may be traced; or those of many, or what is known of them."""

    sigma_w: Any
    sigma_b: Any = None
    """None, or a number 0, costs nothing."""
    alpha: Any = 1.0
    input_distance: Any = None
    """1 minus the cosine of input 1 with each other input; None draws them independently."""


def propagate(
    key: Array,
    phi: str | Callable[[Array], Array] | Activation,
    init: Init,
    *,
    width: int | Sequence[int],
    depth: int,
    inputs: int | Array = 1,
    weights: str = "matrix_free",
    distribution: str | Callable[..., Array] = "normal",
    block: str | Block = "plain",
    alpha: float | str | Array = 1.0,
    cotangent: str = "random",
    **settings: Any,
) -> Propagation:
    r"""Statistics per layer of one random network with its gradients, by default $h^l = \phi(W^l h^{l-1} + b^l)$.

    $W_{ij}$ has variance $\sigma_w^2/\mathrm{fan\_in}$ and $b_i \sim N(0, \sigma_b^2)$. The loss is $\sum_b u_b
    \cdot h_b^L$ over the inputs b. With ``weights="matrix_free"`` (Gaussian or orthogonal) the law is exact at any
    finite width without a matrix: O(width) numbers per layer; ``"dense"`` draws the matrices. jit- and vmap-able over
    `key`, `init` and `alpha`; bind sizes and names with ``functools.partial``.

    Args:
        key: a typed key, `jax.random.key(0)`; one network.
        phi: name of an activation, or an elementwise function.
        init: `Init(sigma_w, sigma_b)`; leaves may be traced.
        width: neurons n per layer, or those of the input and of each layer, depth + 1 numbers.
        depth: layers L.
        inputs: how many random inputs meet the same weights, or the inputs themselves, shape (inputs, width).
        weights: "matrix_free" or "dense".
        distribution: of the weights: "normal" or "orthogonal" (Haar); dense also "uniform", "truncated_normal",
            "sparse", or an initializer (key, shape (fan_in, fan_out), dtype), whose weights sigma_w multiplies.
        block: how a layer is made: "plain", "residual", "prenorm", "postnorm", "batchnorm", or a function
            `block(linear, phi, h)` of signals (inputs, width) to signals (inputs, width of the layer); each call
            `linear(h)` is a new map, `linear(h, features=…, sigma_w=…, sigma_b=…)` sets what is otherwise the layer's.
        alpha: what multiplies the branch of a residual block: a number, or a rule in the depth, "1/sqrt(L)".
        cotangent: u; "random" is standard normal per input, "sum" is all ones.
        **settings: any other field of `SweepConfig` that makes a network or says what to record: depths,
            input_scale, input_correlation, statistics, record_every, keep_inputs, sparsity, mode, tied, first_gain,
            readout_gain, layer_gains, branch, norm, dropout, dtype, draw_dtype, directions.

    Returns:
        `Propagation`, fields of shape (1 + depth // record_every,), float32, natural logarithms. With `depths` the
        fields of the gradient have a leading axis of those depths in rising order, `depth` among them, NaN beyond.

    Raises:
        ValueError, TypeError: for sizes, names and callables that cannot be run, in one sentence.

    >>> import jax, jaxgain as jg
    >>> network = jg.propagate(jax.random.key(0), "tanh", jg.Init(5 / 3), width=1000, depth=20)
    >>> network.std.shape
    (21,)
    >>> bool(abs(network.std[20] - 0.651) < 0.03)  # infinite width: 0.6512
    True
    """
    count = inputs
    if not isinstance(inputs, (int, np.integer)):
        inputs = _given_inputs(inputs, int(width) if isinstance(width, (int, np.integer)) else width[0])
        count = inputs.shape[0]
        if settings.get("input_scale", 1) != 1 or settings.get("input_correlation") is not None:
            raise ValueError("input_scale and input_correlation shape random inputs; scale the given inputs instead")
    if jnp.ndim(init.sigma_w) or jnp.ndim(init.sigma_b):
        raise ValueError(
            f"init must hold one sigma_w and one sigma_b, got {init!r}; for several use jax.vmap over init"
        )
    if unknown := set(settings) - {*Setting._fields, "input_correlation"}:
        raise TypeError(f"propagate has no setting {min(unknown)!r}; see SweepConfig for those of a network")
    traced = isinstance(alpha, Tracer)
    law: dict[str, Any] = dict(weights=weights, distribution=distribution, block=block, cotangent=cotangent)
    sizes: dict[str, Any] = dict(width=width, depth=depth, inputs=count)
    law |= {"alpha": 1.0 if traced else float(alpha) if isinstance(alpha, jax.Array) else alpha}
    config = SweepConfig(activations=(phi,), gains=(1.0,), **sizes, **law, **settings)
    if traced and block not in ("residual", "prenorm", "postnorm"):
        raise ValueError(f"alpha multiplies the branch of a residual block, and block is {block!r}")
    if several := config.swept():
        raise ValueError(f"{min(several)} must be one number for one network; to sweep it use SweepConfig or jax.vmap")
    phi = activation(phi)
    distance = None if config.input_correlation is None else 1 - config.input_correlation
    point = Point(init.sigma_w, init.sigma_b, alpha if traced else config.alpha, distance)
    record = record_network(
        key,
        point,
        setting_of(config),
        value_and_slope=partial(value_and_slope, phi),
        steepest=steepest_slope(phi),
        inputs=None if isinstance(inputs, (int, np.integer)) else inputs,
    )
    moments = {"q": "rms_z", "second_moment": "rms_h"}
    return Propagation(**{moment: record.pop(rms) ** 2 for moment, rms in moments.items() if rms in record}, **record)


def setting_of(config: SweepConfig) -> Setting:
    """What of a sweep's settings its compiled program depends on."""
    return Setting(**{name: getattr(config, name) for name in Setting._fields})


def record_network(key: Array, point: Point, setting: Setting, **how: Any) -> Record:
    """`propagate` without its checks, with `rms_z` and `rms_h` in place of their squares, which leave float32 early.

    `how` as for `observe_network`.
    """
    return assemble(observe_network(key, point, setting, **how), setting, jnp.concatenate)


class Observed(NamedTuple):
    """What is recorded of a network as its layers leave it, before `assemble`."""

    first: Record
    """Statistics of layer 0, (…)."""
    later: Record
    """Statistics of the recorded layers behind it, (layers, …), in those of the gradient the final depths next."""
    whole: Record
    """Statistics of all layers together."""


def observe_network(
    key: Array,
    point: Point,
    setting: Setting,
    *,
    value_and_slope: Callable[[Array], tuple[Array, Array]],
    steepest: Array | float,
    inputs: Array | None = None,
    neurons_at_once: int = NEURONS_AT_ONCE,
) -> Observed:
    """Run one network.

    `value_and_slope` gives φ(z) and φ'(z), `steepest` is sup |φ'|; `inputs` are those given, if any.
    `neurons_at_once` bounds the working memory of one wide matrix-free network with one input, per gain.
    """
    words = jax.random.bits(key, (2,), jnp.uint32)  # so any kind of key serves
    asked = set(setting.statistics)
    ends = draw_ends(
        words,
        setting.inputs if inputs is None else inputs,
        widths=(setting.widths[0], setting.widths[-1]),
        scale=setting.input_scale,
        distance=point.input_distance,
        directions=setting.directions * bool(asked & set(OF_TANGENTS)),
        cotangent=setting.cotangent if asked & set(OF_REVERSE) else None,
    )
    no_bias = isinstance(point.sigma_b, (int, float)) and point.sigma_b == 0
    bias = None if no_bias or point.sigma_b is None else jnp.asarray(point.sigma_b, jnp.float32)
    network = Network(value_and_slope, steepest, jnp.asarray(point.sigma_w, jnp.float32), bias)
    kernel = _kernel(setting, point, neurons_at_once)
    first, later = kernel(words, network, ends, depth=setting.depth, depths=setting.depths)
    if not setting.keep_inputs:
        first, later = over_inputs(first), over_inputs(later)
    recorded = {{"q": "rms_z", "second_moment": "rms_h"}.get(name, name) for name in asked} & set(later)
    peak = jnp.concatenate([first["peak"][None], later["peak"]])
    lost = {"first_nonfinite": ~jnp.isfinite(peak), "first_vanished": peak < jnp.finfo(setting.dtype).tiny}
    every = slice(setting.record_every - 1, None, setting.record_every)
    return Observed(
        first={name: first[name] for name in sorted(recorded & set(first))},
        later={name: later[name][every] for name in sorted(recorded)},
        whole={name: first_layer(condition) for name, condition in lost.items() if name in asked},
    )


def assemble(observed: Observed, setting: Setting, concatenate: Callable[[list[Any]], Any]) -> Record:
    """Records over layers 0 …, NaN where one has no meaning at layer 0, and final depths first.

    `concatenate` is that of the arrays, JAX's or NumPy's, which may have axes of their own behind.
    """
    result = {}
    for name, later in observed.later.items():
        first = observed.first.get(name)
        result[name] = concatenate([later[:1] * math.nan if first is None else first[None], later])
        if setting.depths and name in OF_REVERSE:
            result[name] = result[name].swapaxes(0, 1)
    return result | observed.whole


def _kernel(setting: Setting, point: Point, neurons_at_once: int) -> Callable[..., tuple[Record, Record]]:
    """What runs a network of this setting fastest."""
    if setting.carries_vectors:
        layers = Layers(
            block=block_of(setting.block, branch=setting.branch, norm=setting.norm, alpha=point.alpha),
            mixes_inputs=mixes_inputs(setting.block),
            random_map=_random_map(setting),
            fan=partial(_fan, "fan_in" if callable(setting.distribution) else setting.mode),
            dropout=setting.dropout,
            dtype=jnp.dtype(setting.dtype),
            sigma_w=_sigma_w_of_layers(setting, point),
        )
        return partial(propagate_vectors, layers=layers, widths=setting.widths, observe=setting.statistics)
    if setting.weights == "dense":
        return partial(propagate_dense, matrices=_matrices(setting))
    if setting.carries_means:
        return partial(propagate_single, neurons_at_once=neurons_at_once)
    return propagate_plain


def _random_map(setting: Setting) -> RandomMap:
    if setting.weights == "dense":
        return dense(_matrices(setting))
    return ORTHOGONAL if setting.distribution == "orthogonal" else GAUSSIAN


def _matrices(setting: Setting) -> Matrices:
    types = [jnp.dtype(name) for name in (setting.draw_dtype, setting.dtype)]
    return Matrices(setting.distribution, setting.sparsity, setting.tied, *types)


def _fan(mode: str, fan_in: int, fan_out: int) -> float:
    return {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]


def _sigma_w_of_layers(setting: Setting, point: Point) -> Array | None:
    """(depth,), or None where all layers have the same."""
    if not setting.layer_gains and setting.first_gain is None and setting.readout_gain is None:
        return None
    factors = np.array(setting.layer_gains or [1.0] * setting.depth, np.float32)
    each = jnp.asarray(point.sigma_w, jnp.float32) * factors
    for place, gain in ((0, setting.first_gain), (-1, setting.readout_gain)):
        each = each if gain is None else each.at[place].set(gain)
    return each


def value_and_slope(phi: Callable[[Array], Array], z: Array) -> tuple[Array, Array]:
    """φ(z) and φ'(z) of an elementwise function, shaped as z."""
    return jax.jvp(phi, (z,), (jnp.ones_like(z),))


@lru_cache(maxsize=256)
def steepest_slope(phi: Activation) -> float:
    """The supremum of |φ'(z)| over |z| ≤ 10, to the spacing 1/1000 of a grid that contains 0.

    >>> steepest_slope(activation("tanh(2x)"))
    2.0
    """
    with jax.ensure_compile_time_eval():
        return float(_largest_slope(phi, np.linspace(-10, 10, 20001, dtype=np.float32)))


@partial(jax.jit, static_argnums=0)  # one program, where every function alone would be compiled
def _largest_slope(phi: Activation, z: Array) -> Array:
    return jnp.max(jnp.abs(value_and_slope(phi, z)[1]))


def _given_inputs(inputs: Any, width: int) -> Array:
    if not hasattr(inputs, "shape") or len(inputs.shape) != 2 or inputs.shape[1] != width:
        came = inputs.shape if hasattr(inputs, "shape") else repr(inputs)
        raise TypeError(f"inputs must be a whole number or an array of shape (count, {width}), got {came}")
    return jnp.asarray(inputs, jnp.float32)
