"""Which initializations vanish, survive or explode at infinite width: the deterministic map."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgain.activations import Activation, activation
from jaxgain.theory.finite import check_finite
from jaxgain.theory.finite_width import count
from jaxgain.theory.meanfield import Init
from jaxgain.theory.panels import resolve
from jaxgain.theory.tables import LengthTable, length_table

if TYPE_CHECKING:
    import xarray

OUTCOMES = ("vanishes", "survives", "explodes")


def bounds(below: Any, above: Any) -> tuple[float, float]:
    """Return the logarithms of both bounds; raise `ValueError` unless 0 < below < above, finite.

    >>> bounds(0.5, 2.0) == (-math.log(2), math.log(2))
    True
    """
    for name, value in (("below", below), ("above", above)):
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value!r}; it is a ratio of gradients")
    if not below < above:
        raise ValueError(f"below must be less than above, got below={below!r} and above={above!r}")
    return math.log(below), math.log(above)


def outcomes(log_ratio: np.ndarray, log_below: float, log_above: float) -> np.ndarray:
    """Return the names in `OUTCOMES` of gradients with these logarithms; "" where one is no number.

    >>> outcomes(np.array([-5.0, 0.0, 5.0, np.nan]), -1.0, 1.0).tolist()
    ['vanishes', 'survives', 'explodes', '']
    """
    names = np.where(log_ratio < log_below, OUTCOMES[0], np.where(log_ratio > log_above, OUTCOMES[2], OUTCOMES[1]))
    return np.where(np.isnan(log_ratio), "", names)


def outcome_map(
    phi: "str | Activation | Callable[..., Any]",
    sigma_w: Any,
    sigma_b: Any,
    *,
    depth: int,
    below: float,
    above: float,
    second_moment: float = 1.0,
) -> "xarray.Dataset":
    r"""Return which (sigma_w, sigma_b) of a wide network vanish, survive or explode within `depth` layers.

    $\tfrac12 \sum_l \ln\chi_\perp(q^l)$ along the lengths behind an input of mean square `second_moment`: the log of
    the rms gradient at the input over that at the output, at infinite width. Variables over (sigma_w, sigma_b):
    `log_ratio`, `q` at the last layer, and `outcome`, "vanishes" where the ratio is below `below`, "explodes" where it
    is above `above`, else "survives". Lengths outside 1e-12 … 1e6 follow the power law that they have there.

    Raises `ValueError` on scales that are negative or not finite, bounds that are no ratios, and jumps of phi, whose
    gradient is no number.

    >>> found = outcome_map("tanh", [0.8, 1.0, 2.5], [0.0], depth=100, below=1e-3, above=1e3)
    >>> found.outcome.values.ravel().tolist()
    ['vanishes', 'survives', 'explodes']
    """
    import xarray

    phi = resolve(activation(phi))
    check_finite(phi)
    depth = count("depth", depth)
    log_below, log_above = bounds(below, above)
    axes = [np.atleast_1d(np.asarray(axis, np.float64)) for axis in (sigma_w, sigma_b)]
    Init(*axes)  # refuses what is negative or not finite
    if not (math.isfinite(second_moment) and second_moment > 0):
        raise ValueError(f"second_moment must be positive and finite, got {second_moment!r}; it is that of the input")
    table = length_table(phi)
    if table.jumps:
        raise ValueError(f"{phi.name} jumps, so chi_perp is infinite: its gradient has no size to map")
    grid = np.meshgrid(*axes, indexing="ij")
    u, log_ratio = _follow(table, grid[0], grid[1], depth, second_moment)
    variables = {"q": np.exp(np.minimum(u, 700.0)), "log_ratio": log_ratio}
    variables["outcome"] = outcomes(log_ratio, log_below, log_above)
    return xarray.Dataset(
        {name: (("sigma_w", "sigma_b"), values) for name, values in variables.items()},
        coords={"sigma_w": axes[0], "sigma_b": axes[1]},
        attrs={"activation": phi.name, "depth": depth, "below": below, "above": above, "second_moment": second_moment},
    )


def _follow(
    table: LengthTable, sigma_w: np.ndarray, sigma_b: np.ndarray, depth: int, second_moment: float
) -> tuple[np.ndarray, np.ndarray]:
    """Ln q at the last layer and the log ratio."""
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        at = jax.jit(jnp.vectorize(table.at, signature="()->(k)"))

        def logarithms(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Ln E phi² and ln E phi'² at ln q = u, beyond the table by the power law at its end."""
            inside = np.clip(u, table.nodes[0], table.nodes[-1])
            log_second, power, ratio = np.moveaxis(np.asarray(at(inside)), -1, 0)
            log_second = log_second + power * (u - inside)
            return log_second, np.log(np.maximum(ratio, 0.0)) + log_second - u

        with np.errstate(divide="ignore"):
            log_w, log_b = 2 * np.log(sigma_w), 2 * np.log(sigma_b)
            u = log_second = np.full(sigma_w.shape, math.log(second_moment))
            log_ratio = np.zeros(sigma_w.shape)
            for _ in range(depth):
                # -1e300: no length at all, where both scales are 0.
                u = np.maximum(np.logaddexp(log_w + log_second, log_b), -1e300)
                log_second, log_slope = logarithms(u)
                log_ratio = log_ratio + (log_w + log_slope) / 2
    return u, log_ratio
