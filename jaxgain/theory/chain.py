r"""The scalar chain $x_l = \phi(w_l x_{l-1} + b_l)$: a network of width 1, where fluctuations are largest.

Its gradient is a product of numbers, $g = \prod_l w_l \phi'(z_l)$, and so is what is often discussed in its place, the
product of the slopes $\prod_l \phi'(z_l)$. `chain` is one of them, a plain function of arrays under `jit` and `vmap`;
the others sample many, exactly, or map out the chain whose layers are all the same.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgain.activations import Activation, activation, value_and_slope
from jaxgain.theory.finite import check_finite
from jaxgain.theory.finite_width import check_choice, count, number
from jaxgain.theory.meanfield import Init, check_init
from jaxgain.theory.outcomes import bounds, outcomes
from jaxgain.theory.panels import resolve

if TYPE_CHECKING:
    import xarray

_AT_ONCE = 4096
_MEANING = {
    "x0": "it is the input of the chain",
    "scale": "it is n in phi(n x)",
    "w": "give the weights to map as numbers, negative ones too",
    "b": "give the biases to map as numbers, negative ones too",
}
_TANH = activation("tanh").function


class Chain(NamedTuple):
    """Layers 0 … depth of a scalar chain, arrays (depth + 1,); w and b are NaN at layer 0."""

    x: Array
    w: Array
    b: Array
    log_slopes: Array
    """log |product of phi'| over the layers up to this one."""
    log_gradient: Array
    """log |dx/dx_0|; its sign is that of the product of all w phi'."""


def chain(
    key: Array,
    phi: "str | Activation | Callable[..., Any]",
    init: Init,
    *,
    depth: int,
    x0: Any = 1.0,
    scale: Any = 1.0,
    tied: bool = False,
) -> Chain:
    r"""Return one random chain of `scale` n: $x_l = \phi(n z_l)$, $z_l = w_l x_{l-1} + b_l$, slopes $n \phi'(n z_l)$.

    $w_l \sim N(0, \sigma_w^2)$ and $b_l \sim N(0, \sigma_b^2)$, the same in all layers if `tied`. Pure: jit- and
    vmap-able over `key`, `init`, `x0` and `scale`; float64 where jax is. Logarithms of tanh's slopes are right however
    small these are; a slope that underflows is -inf.

    >>> path = chain(jax.random.key(0), "tanh", Init(1.0), depth=10, scale=2.0)
    >>> path.x.shape, bool(path.log_gradient[0] == 0)
    ((11,), True)
    """
    check_init(init)
    dtype = jnp.result_type(float)
    # A longer chain begins like a shorter one: the first numbers of a key do not depend on how many follow.
    own = [jax.random.normal(half, (1 if tied else depth,), dtype) for half in jax.random.split(key)]
    w, b = (jnp.broadcast_to(each, (depth,)) for each in own)
    return follow(activation(phi), w * init.sigma_w, b * init.sigma_b, x0=x0, scale=scale)


def follow(phi: Activation, w: Array, b: Array, *, x0: Any, scale: Any) -> Chain:
    """Return the chain of these weights and biases, (depth,) each.

    >>> path = follow(activation("identity"), jnp.array([2.0, 3.0]), jnp.zeros(2), x0=1.0, scale=1.0)
    >>> path.x.tolist()
    [1.0, 2.0, 6.0]
    """
    dtype = jnp.result_type(float)
    zero, x0, scale = jnp.zeros((), dtype), jnp.asarray(x0, dtype), jnp.asarray(scale, dtype)

    def step(carry: tuple[Array, Array, Array], wb: tuple[Array, Array]) -> tuple[Any, tuple[Array, Array, Array]]:
        (x, slopes, gradient), (w, b) = carry, wb
        x, log_slope = _value_and_log_slope(phi, scale * (w * x + b))
        log_slope = log_slope + jnp.log(jnp.abs(scale))
        slopes, gradient = slopes + log_slope, gradient + log_slope + jnp.log(jnp.abs(w))
        return (x, slopes, gradient), (x, slopes, gradient)

    start = (x0, zero, zero)
    _, layers = jax.lax.scan(step, start, (w.astype(dtype), b.astype(dtype)))
    x, slopes, gradient = (jnp.concatenate([first[None], rest]) for first, rest in zip(start, layers, strict=True))
    w, b = (jnp.concatenate([jnp.full((1,), jnp.nan, dtype), each.astype(dtype)]) for each in (w, b))
    return Chain(x, w, b, slopes, gradient)


def _value_and_log_slope(phi: Activation, z: Array) -> tuple[Array, Array]:
    if phi.function is _TANH:  # 1 - tanh^2 rounds to 0 beyond z = 19
        y = jnp.abs(phi.input_scale * z)
        return phi(z), 2 * (jnp.log(2.0) - y - jnp.log1p(jnp.exp(-2 * y))) + jnp.log(abs(phi.input_scale))
    value, slope = value_and_slope(phi, z)
    return value, jnp.log(jnp.abs(slope))


@functools.lru_cache(maxsize=64)
def _sampler(phi: Activation, depth: int, tied: bool, at_once: int) -> Callable[..., Chain]:
    def run(keys: Array, sigma_w: Array, sigma_b: Array, x0: Array, scale: Array) -> Chain:
        settings = {"init": Init(sigma_w, sigma_b), "depth": depth, "x0": x0, "scale": scale, "tied": tied}
        return jax.lax.map(lambda key: chain(key, phi, **settings), keys, batch_size=at_once)

    return jax.jit(run)


def sample_chain(
    key: Array,
    phi: "str | Activation | Callable[..., Any]",
    init: Init,
    *,
    depth: int,
    networks: int = 10_000,
    x0: float = 1.0,
    scale: float = 1.0,
    tied: bool = False,
) -> "xarray.Dataset":
    """Return independent chains, sampled exactly in float64: the joint law of x, w, b and the gradient.

    Variables over (network, layer), those of `Chain`. `joint_law` makes the densities of (x, g) and (w, g) from it.

    Raises `ValueError` on scales that are arrays, on x0 and `scale` that are not finite, and where phi is not finite or
    has no finite second moment.

    >>> chains = sample_chain(jax.random.key(0), "tanh", Init(1.0), depth=5, networks=100, scale=2.0)
    >>> dict(chains.sizes)
    {'network': 100, 'layer': 6}
    """
    import xarray

    depth, networks = count("depth", depth), count("networks", networks)
    phi = activation(phi)
    check_init(init)
    check_finite(resolve(phi))
    sigma_w, sigma_b = number("sigma_w", init.sigma_w), number("sigma_b", init.sigma_b)
    x0, scale = _finite("x0", x0), _finite("scale", scale)
    with jax.enable_x64(True):
        run = _sampler(phi, depth, tied, min(networks, _AT_ONCE))
        numbers = (jnp.asarray(each) for each in (sigma_w, sigma_b, x0, scale))
        found = jax.tree.map(np.asarray, run(jax.random.split(key, networks), *numbers))
    return xarray.Dataset(
        {name: (("network", "layer"), values) for name, values in found._asdict().items()},
        coords={"network": np.arange(networks), "layer": np.arange(depth + 1)},
        attrs={
            "activation": phi.name,
            "sigma_w": sigma_w,
            "sigma_b": sigma_b,
            "x0": x0,
            "scale": scale,
            "tied": int(tied),
        },
    )


def _finite(name: str, value: Any) -> float:
    found = number(name, value)
    if not math.isfinite(found):
        raise ValueError(f"{name} must be finite, got {value!r}; {_MEANING[name]}")
    return found


def _finite_axis(name: str, values: Any) -> np.ndarray:
    axis = np.atleast_1d(np.asarray(values, np.float64))
    if not np.isfinite(axis).all():
        wrong = axis[~np.isfinite(axis)].ravel()[0]
        raise ValueError(f"every {name} must be finite, got {wrong:g}; {_MEANING[name]}")
    return axis


def joint_law(
    chains: "xarray.Dataset",
    of: str = "x",
    *,
    layer: int,
    gradient: str = "log_gradient",
    bins: int = 64,
    span: tuple[float, float] | None = None,
) -> "xarray.DataArray":
    """Return the density of (x, log |g|) or (w, log |g|) of sampled chains, a histogram.

    x or w is that of the `layer`, g the whole gradient at the last layer, or with ``gradient="log_slopes"`` the product
    of slopes. The dims are `of` and `log_g`; the density integrates to the probability inside `span`, the range of
    log |g| (by default all that is finite). The attribute `vanished` is the probability of g = 0.

    >>> chains = sample_chain(jax.random.key(0), "tanh", Init(1.0), depth=5, networks=1000, scale=2.0)
    >>> law = joint_law(chains, "w", layer=1, bins=16)
    >>> round(float(law.integrate(["w", "log_g"])), 0)
    1.0
    """
    import xarray

    check_choice("of", of, ("x", "w", "b"))
    check_choice("gradient", gradient, ("log_gradient", "log_slopes"))
    values, log_g = chains[of].sel(layer=layer).values, chains[gradient].isel(layer=-1).values
    finite = np.isfinite(values) & np.isfinite(log_g)
    limits = None if span is None else [(values[finite].min(), values[finite].max()), span]
    counts, *edges = np.histogram2d(values[finite], log_g[finite], bins=count("bins", bins), range=limits)
    area = np.diff(edges[0])[:, None] * np.diff(edges[1])[None, :]
    middle = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    return xarray.DataArray(
        counts / len(values) / area,
        dims=(of, "log_g"),
        coords={of: middle[0], "log_g": middle[1]},
        name="density",
        attrs={"layer": layer, "gradient": gradient, "vanished": float(np.mean(np.isneginf(log_g)))},
    )


def chain_probabilities(
    key: Array,
    phi: "str | Activation | Callable[..., Any]",
    init: Init,
    *,
    scales: Sequence[float],
    depth: int,
    below: float,
    above: float,
    gradient: str = "log_gradient",
    networks: int = 10_000,
    x0: float = 1.0,
) -> "xarray.Dataset":
    r"""Return the probabilities that |g| of a chain of $\phi(n x)$ is below `below`, or above `above`, by n and depth.

    `vanishing` and `exploding` over (scale, layer), with their standard errors; the scales share their random weights.

    >>> found = chain_probabilities(
    ...     jax.random.key(0), "tanh", Init(1.0), scales=[1.0, 2.0], depth=50, below=1e-3, above=1e3, networks=500
    ... )
    >>> bool(found.vanishing.sel(scale=1.0, layer=50) > 0.9), float(found.exploding.sel(scale=1.0, layer=50))
    (True, 0.0)
    """
    import xarray

    check_choice("gradient", gradient, ("log_gradient", "log_slopes"))
    log_below, log_above = bounds(below, above)
    each = [
        sample_chain(key, phi, init, depth=depth, networks=networks, x0=x0, scale=float(scale))[gradient].values
        for scale in scales
    ]
    fractions = {
        "vanishing": np.array([(log_g < log_below).mean(0) for log_g in each]),
        "exploding": np.array([(log_g > log_above).mean(0) for log_g in each]),
    }
    errors = {f"{name}_error": np.sqrt(p * (1 - p) / networks) for name, p in fractions.items()}
    return xarray.Dataset(
        {name: (("scale", "layer"), values) for name, values in (fractions | errors).items()},
        coords={"scale": np.asarray(scales, np.float64), "layer": np.arange(depth + 1)},
        attrs={"activation": activation(phi).name, "below": below, "above": above, "gradient": gradient},
    )


def initial_map(
    phi: "str | Activation | Callable[..., Any]",
    w: Any,
    b: Any,
    *,
    depth: int,
    below: float,
    above: float,
    x0: float = 1.0,
    scale: float = 1.0,
) -> "xarray.Dataset":
    r"""Return which initial (w, b) of the smallest network vanish, survive or explode: a deterministic map.

    The network $x_l = \phi(n (w x_{l-1} + b))$ has the same w and b in all layers. Variables over (w, b): `x` at the
    last layer, `log_gradient` $= \ln|dx_L/dx_0|$, `log_slopes`, and `outcome`: "vanishes" where the gradient is below
    `below`, "explodes" where it is above `above`, else "survives".

    Raises `ValueError` on w, b, x0 and `scale` that are not finite, bounds that are no ratios, and where phi is not
    finite or has no finite second moment.

    >>> found = initial_map("tanh", [0.5, 1.0, 4.0], [0.0], depth=50, below=1e-3, above=1e3, x0=0.0)
    >>> found.outcome.values.ravel().tolist()
    ['vanishes', 'survives', 'explodes']
    """
    import xarray

    depth, phi = count("depth", depth), activation(phi)
    log_below, log_above = bounds(below, above)
    check_finite(resolve(phi))
    axes = [_finite_axis("w", w), _finite_axis("b", b)]
    x0, scale = _finite("x0", x0), _finite("scale", scale)

    def one(w: Array, b: Array) -> tuple[Array, ...]:
        path = follow(phi, jnp.full(depth, w), jnp.full(depth, b), x0=x0, scale=scale)
        return path.x[-1], path.log_gradient[-1], path.log_slopes[-1]

    with jax.enable_x64(True):
        grid = jnp.meshgrid(*axes, indexing="ij")
        found = jax.tree.map(np.asarray, jax.jit(jnp.vectorize(one))(*grid))
    variables: dict[str, np.ndarray] = dict(zip(("x", "log_gradient", "log_slopes"), found, strict=True))
    variables["outcome"] = outcomes(variables["log_gradient"], log_below, log_above)
    return xarray.Dataset(
        {name: (("w", "b"), values) for name, values in variables.items()},
        coords={"w": axes[0], "b": axes[1]},
        attrs={"activation": phi.name, "depth": depth, "below": below, "above": above, "x0": x0, "scale": scale},
    )
