r"""How often a gradient vanishes or explodes between the output and the input of a random network of finite width."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.scipy.special import digamma, gammaln, polygamma

from jaxgain.activations import Activation, activation
from jaxgain.theory.critical import is_scale_invariant, sides
from jaxgain.theory.finite_width import count
from jaxgain.theory.fluctuations import fluctuations
from jaxgain.theory.meanfield import Init
from jaxgain.theory.panels import resolve


def vanishing_probability(
    phi: "str | Activation | Callable[..., Any]",
    init: Init,
    *,
    width: int,
    depth: int,
    below: float,
    second_moment: float = 1.0,
    distribution: str = "normal",
) -> float:
    r"""Return the probability that the rms gradient at the input is less than `below` times that at the output.

    $P = \Phi((2\ln\mathrm{below} - \mu)/s)$, where $\mu$ and $s^2$ are mean and variance of the log squared ratio from
    `fluctuations`: the ratio is a product over layers, so nearly lognormal. For a plain network, over its weights, its
    input of mean square `second_moment`, and a random cotangent.

    It is within three standard errors of the fraction of 10,000 networks for tanh and ReLU at width >= 256, depth/width
    <= 0.4 and probabilities of at least 0.1; at GELU's half-stable point, 256 wide and 100 deep, it is off by up to
    0.03, as the gradient is not lognormal there. Outside it fails, mostly by being too small: the lower tail of a
    product is heavier than lognormal. Sampled fractions where it says 0.1, 0.01 and 0.001, of 10,000 networks each:

    ======================  =====  =====  ======  ======  =======
    network                 width  depth  at 0.1  at 0.01  at 0.001
    ======================  =====  =====  ======  ======  =======
    relu, sigma_w = √2        256    100   0.100   0.009   0.001
    relu, sigma_w = √2         64    100   0.117   0.014   0.002
    relu, sigma_w = √2         16     40   0.164   0.034   0.007
    tanh, sigma_w = 5/3       256    100   0.097   0.010   0.001
    tanh, sigma_w = 5/3        16     40   0.128   0.017   0.002
    ======================  =====  =====  ======  ======  =======

    There `jaxgain.vanishing_fraction` samples networks exactly.

    Raises `ValueError` as `fluctuations`, and where `below` is not positive and finite.

    >>> p = vanishing_probability("relu", Init(2**0.5), width=256, depth=100, below=0.5)
    >>> round(p, 4)
    0.3847
    """
    return _normal_cdf(_score(phi, init, width, depth, "below", below, second_moment, distribution))


def exploding_probability(
    phi: "str | Activation | Callable[..., Any]",
    init: Init,
    *,
    width: int,
    depth: int,
    above: float,
    second_moment: float = 1.0,
    distribution: str = "normal",
) -> float:
    """Return the probability that the rms gradient at the input is more than `above` times that at the output.

    As `vanishing_probability`, with its limits.

    >>> p = exploding_probability("tanh", Init(5 / 3), width=256, depth=100, above=1e4)
    >>> round(p, 4)
    0.286
    """
    return _normal_cdf(-_score(phi, init, width, depth, "above", above, second_moment, distribution))


def _score(
    phi: Any, init: Init, width: int, depth: int, name: str, ratio: float, second_moment: float, distribution: str
) -> float:
    if isinstance(ratio, bool) or not isinstance(ratio, int | float | np.number) or not 0 < ratio < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {ratio!r}; it is a ratio of rms gradients")
    found = fluctuations(
        phi,
        init,
        width=width,
        depth=depth,
        second_moment=second_moment,
        distribution=distribution,
        method="auto",
    )
    # The cotangent's own norm is no part of the ratio.
    mean = float(found.log_grad_mean[0] - found.log_grad_mean[-1])
    var = float(found.log_grad_var[0] - found.log_grad_var[-1])
    distance = 2 * math.log(ratio) - mean
    return distance / math.sqrt(var) if var > 1e-12 else math.copysign(math.inf, distance)


def _normal_cdf(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


class LayerLaw(NamedTuple):
    """The exact law of the log of what one layer of a given width multiplies, relative to infinite width."""

    mean: float
    var: float
    dead: float
    """Probability that no neuron is active; mean and variance are given that one is."""


def exact_layer_law(phi: "str | Activation | Callable[..., Any]", width: int) -> LayerLaw:
    r"""Return mean and variance of the log of one layer's factor on the squared gradient, at any width n.

    For activations that are 0 on one side and linear on the other, $(2/n)\chi^2_N$ with N binomial(n, 1/2) (Hanin and
    Nica, 2020): $\mathrm{Var} = E\,\psi_1(N/2) + \mathrm{Var}\,\psi(N/2)$ given N > 0. For linear ones and the
    absolute value $\chi^2_n/n$. The same law holds for the length, and the layers are independent for ReLU, so that
    depth multiplies.

    Raises `ValueError` for other activations.

    >>> round(exact_layer_law("relu", 8).var, 3), round(1000 * exact_layer_law("relu", 1000).var, 2)
    (1.247, 5.02)
    """
    phi = resolve(activation(phi))
    width = count("width", width)
    (_, below), (_, above) = sides(phi)
    kinds = sorted(abs(slope) for slope in (below, above))
    if not is_scale_invariant(phi) or kinds[1] == 0 or (kinds[0] != 0 and kinds[0] != kinds[1]):
        raise ValueError(
            f"the exact law of a layer is known for ReLU, linear activations and the absolute value, not for "
            f"{phi.name}; see fluctuations for its leading order"
        )
    one_sided = kinds[0] == 0
    active = np.arange(1, width + 1) if one_sided else np.array([width])
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        log_count = gammaln(width + 1.0) - gammaln(active + 1.0) - gammaln(width - active + 1.0)
        weights = np.exp(np.asarray(log_count) - width * math.log(2)) if one_sided else np.ones(1)
        means, variances = np.asarray(digamma(active / 2)), np.asarray(polygamma(1, active / 2.0))
    dead = 2.0**-width if one_sided else 0.0
    weights = weights / weights.sum()
    mean = float(weights @ means)
    var = float(weights @ variances + weights @ (means - mean) ** 2)
    return LayerLaw(mean + math.log((4 if one_sided else 2) / width), var, dead)
