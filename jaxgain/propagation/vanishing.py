"""How often a gradient vanishes or explodes, counted over sampled networks: exact at any width and depth."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxgain.activations import Activation, activation
from jaxgain.propagation.config import SweepConfig
from jaxgain.propagation.sweep import sweep
from jaxgain.theory.finite import check_finite
from jaxgain.theory.finite_width import number
from jaxgain.theory.meanfield import Init
from jaxgain.theory.panels import resolve


class Fraction(NamedTuple):
    """A fraction of sampled networks, and its standard error."""

    value: float
    error: float


def vanishing_fraction(
    phi: "str | Activation | Callable[..., Any]",
    init: Init,
    *,
    width: int,
    depth: int,
    below: float | None = None,
    above: float | None = None,
    networks: int = 10_000,
    seed: int = 0,
    **settings: Any,
) -> Fraction:
    """Return the fraction of random networks whose rms gradient ratio, input over output, is below or above a bound.

    What `vanishing_probability` and `exploding_probability` predict, sampled without approximation: they fail at small
    width, at depth/width above 0.4 and in the tails. Give one of `below` and `above`. A gradient that is not a number
    counts as neither. The error is the binomial standard error, with one network added on either side so that it is
    not 0. `settings` are those of `SweepConfig`, such as `distribution` or `block`.

    Raises `ValueError` unless one bound is given, and it is positive and finite; where phi is not finite, or every
    gradient is not a number; and as `SweepConfig`.

    >>> fraction = vanishing_fraction("relu", Init(2**0.5), width=8, depth=40, below=1e-6, networks=500)
    >>> 0.1 < fraction.value < 0.3  # one in seven has a layer without an active neuron
    True
    """
    if (below is None) == (above is None):
        raise ValueError("give one of below and above: what the gradient at the input is of that at the output")
    bound = below if above is None else above
    if isinstance(bound, bool) or not isinstance(bound, int | float | np.number) or not 0 < bound < math.inf:
        name = "below" if above is None else "above"
        raise ValueError(f"{name} must be positive and finite, got {bound!r}; it is a ratio of rms gradients")
    check_finite(resolve(activation(phi)))
    config = SweepConfig(
        activations=(phi,),
        gains=(number("sigma_w", init.sigma_w),),
        sigma_b=number("sigma_b", init.sigma_b),
        width=width,
        depth=depth,
        seeds=networks,
        seed=seed,
        **({"inputs": 1, "statistics": ("log_grad_rms",), "record_every": depth} | settings),
    )
    gradient = sweep(config)["log_grad_rms"].astype(np.float64)
    ratio = (gradient.isel(layer=0) - gradient.isel(layer=-1)).values
    if np.isnan(ratio).all():
        raise ValueError(
            f"the gradients of all {networks} networks are not numbers, so none can be counted: signals overflow; "
            "use fewer layers or a smaller init"
        )
    hits = int((ratio < math.log(bound)).sum() if above is None else (ratio > math.log(bound)).sum())
    shrunk = (hits + 1) / (networks + 2)
    return Fraction(hits / networks, math.sqrt(shrunk * (1 - shrunk) / networks))
