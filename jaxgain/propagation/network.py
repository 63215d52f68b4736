r"""One network: a key, an activation, (σ_w, σ_b), and the statistics of its layers.

`propagate` is a plain function of arrays: `vmap` over its arguments is the sweep.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgain.activations import Activation, activation
from jaxgain.propagation.config import STATISTICS, SweepConfig
from jaxgain.propagation.dense import propagate_dense
from jaxgain.propagation.kernel import Network
from jaxgain.propagation.plain import propagate_plain
from jaxgain.propagation.rows import NARROW
from jaxgain.propagation.single import propagate_single
from jaxgain.propagation.statistics import Propagation, Record, first_layer, over_inputs
from jaxgain.propagation.weights import draw_ends
from jaxgain.theory.meanfield import Init

REVERSE = ("log_grad_rms", "log_grad_mean_abs", "log_weight_grad_rms")
TANGENT = ("log_jacobian_rms",)

# Neurons that are met at a time, of one network or of many: a few arrays of them fit into a core's own cache. Before
# jax 0.12 each operation of a loop costs the CPU a call, so there are fewer and larger ones.
NEURONS_AT_ONCE = 2**15 if jax.__version_info__ >= (0, 12) else 2**17


def propagate(
    key: Array,
    phi: str | Callable[[Array], Array] | Activation,
    init: Init,
    *,
    width: int,
    depth: int,
    inputs: int | Array = 1,
    weights: str = "matrix_free",
    distribution: str = "normal",
    block: str = "plain",
    depths: tuple[int, ...] = (),
    cotangent: str = "random",
    input_scale: float = 1.0,
    input_correlation: float | None = None,
    statistics: tuple[str, ...] = STATISTICS,
    record_every: int = 1,
    keep_inputs: bool = False,
) -> Propagation:
    r"""Statistics per layer of one random network $z^l = W^l h^{l-1} + b^l$, $h^l = \phi(z^l)$, with gradients.

    $W_{ij} \sim N(0, \sigma_w^2/n)$, $b_i \sim N(0, \sigma_b^2)$. The loss is $\sum_b u_b \cdot h_b^L$ over the
    inputs b. With ``weights="matrix_free"`` (Gaussian only) the law is exact at any width without a matrix:
    O(width) numbers per layer; ``"dense"`` draws the matrices. jit- and vmap-able over `key` and `init`; bind
    sizes and names with ``functools.partial``.

    Args:
        key: a typed key, `jax.random.key(0)`; one network.
        phi: name of an activation, or an elementwise function.
        init: `Init(sigma_w, sigma_b)`; leaves may be traced.
        width: neurons n per layer.
        depth: layers L.
        inputs: how many random inputs meet the same weights, or the inputs themselves, shape (inputs, width).
        weights: "matrix_free" or "dense".
        distribution: of the weights, "normal".
        block: how a layer is made, "plain".
        depths: final depths, at most `depth`, whose gradients to compute beside those of the whole depth: what a
            network that ends there would have, from the same random numbers.
        cotangent: u; "random" is standard normal per input, "sum" is all ones.
        input_scale: exact rms of each random input.
        input_correlation: exact cosine of input 1 with each other random input; None draws them independently.
        statistics: which fields to compute; gradients and Jacobians are passes of their own.
        record_every: layers from one record to the next, layer 0 first.
        keep_inputs: give each statistic an axis for the inputs instead of averaging over them.

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
        inputs = _given_inputs(inputs, width)
        count = inputs.shape[0]
        if input_scale != 1 or input_correlation is not None:
            raise ValueError("input_scale and input_correlation shape random inputs; scale the given inputs instead")
    if jnp.ndim(init.sigma_w) or jnp.ndim(init.sigma_b):
        raise ValueError(
            f"init must hold one sigma_w and one sigma_b, got {init!r}; for several use jax.vmap over init"
        )
    settings: dict[str, Any] = dict(
        width=width,
        depth=depth,
        depths=depths,
        weights=weights,
        cotangent=cotangent,
        input_scale=input_scale,
        input_correlation=input_correlation,
        statistics=statistics,
        record_every=record_every,
        keep_inputs=keep_inputs,
    )
    law: dict[str, Any] = dict(distribution=distribution, block=block, inputs=count)
    settings["depths"] = SweepConfig(activations=(phi,), gains=(1.0,), **law, **settings).depths
    phi = activation(phi)
    record = record_network(
        key,
        value_and_slope=partial(value_and_slope, phi),
        steepest=steepest_slope(phi),
        sigma_w=init.sigma_w,
        sigma_b=init.sigma_b,
        inputs=inputs,
        **settings,
    )
    moments = {"q": "rms_z", "second_moment": "rms_h"}
    return Propagation(**{moment: record.pop(rms) ** 2 for moment, rms in moments.items() if rms in record}, **record)


def record_network(
    key: Array,
    *,
    value_and_slope: Callable[[Array], tuple[Array, Array]],
    steepest: Array | float,
    sigma_w: Array | float,
    sigma_b: Array | float,
    width: int,
    depth: int,
    depths: tuple[int, ...],
    inputs: int | Array,
    weights: str,
    cotangent: str,
    input_scale: float,
    input_correlation: float | None,
    statistics: tuple[str, ...],
    record_every: int,
    keep_inputs: bool,
    neurons_at_once: int = NEURONS_AT_ONCE,
) -> Record:
    """`propagate` without its checks, with `rms_z` and `rms_h` in place of their squares, which leave float32 early.

    `value_and_slope` gives φ(z) and φ'(z), `steepest` is sup |φ'|; a `sigma_b` that is the number 0 costs nothing.
    `neurons_at_once` bounds the working memory of one wide matrix-free network with one input, per gain.
    """
    words = jax.random.bits(key, (2,), jnp.uint32)  # so any kind of key serves
    backward = bool(set(REVERSE) & set(statistics))
    ends = draw_ends(
        words,
        inputs,
        width=width,
        scale=input_scale,
        cosine=input_correlation,
        tangents=bool(set(TANGENT) & set(statistics)),
        cotangent=cotangent if backward else None,
    )
    kernel = propagate_dense if weights == "dense" else propagate_plain
    if weights == "matrix_free" and len(ends.inputs) == 1 and width > NARROW:
        kernel = partial(propagate_single, neurons_at_once=neurons_at_once)
    bias = None if isinstance(sigma_b, (int, float)) and sigma_b == 0 else jnp.asarray(sigma_b, jnp.float32)
    network = Network(value_and_slope, steepest, jnp.asarray(sigma_w, jnp.float32), bias)
    first, later = kernel(words, network, ends, depth=depth, depths=depths)
    if not keep_inputs:
        first, later = over_inputs(first), over_inputs(later)
    record = {name: _from_layer_zero(first.get(name), x) for name, x in later.items()}
    peak = record.pop("peak")
    recorded = {{"q": "rms_z", "second_moment": "rms_h"}.get(name, name) for name in statistics}
    result = {name: record[name][::record_every] for name in sorted(recorded & set(record))}
    if depths:
        result |= {name: jnp.moveaxis(result[name], 1, 0) for name in recorded & set(REVERSE)}
    if "first_nonfinite" in statistics:
        result["first_nonfinite"] = first_layer(~jnp.isfinite(peak))
    if "first_vanished" in statistics:
        result["first_vanished"] = first_layer(peak < jnp.finfo(peak.dtype).tiny)
    return result


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
        _, slope = value_and_slope(phi, jnp.linspace(-10, 10, 20001, dtype=jnp.float32))
        return float(jnp.max(jnp.abs(slope)))


def _given_inputs(inputs: Any, width: int) -> Array:
    if not hasattr(inputs, "shape") or len(inputs.shape) != 2 or inputs.shape[1] != width:
        came = inputs.shape if hasattr(inputs, "shape") else repr(inputs)
        raise TypeError(f"inputs must be a whole number or an array of shape (count, {width}), got {came}")
    return jnp.asarray(inputs, jnp.float32)


def _from_layer_zero(first: Any, later: Array) -> Array:
    """A statistic with layer 0 in front, NaN where it has no meaning there."""
    start = jnp.full(later.shape[1:], jnp.nan, later.dtype) if first is None else first
    return jnp.concatenate([start[None], later])
