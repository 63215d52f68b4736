r"""What a layer of finite width n adds to the infinite-width recursion, per layer and before it accumulates.

With Gaussian weights the layer's variance parameter $q^l = \sigma_w^2 \overline{(h^{l-1})^2} + \sigma_b^2$ is a Markov
chain: given it, the $z^l_i$ are independent $N(0, q^l)$, and $q^{l+1}$ scatters about the length map as a mean over n
neurons does. A cotangent goes back through the same weights: given the forward pass, its part along the signal is
fixed by that pass, the rest is fresh noise.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jax.core import Tracer

from jaxgain.activations import Activation, activation
from jaxgain.theory.finite import check_finite
from jaxgain.theory.layer_moments import LayerMoments, layer_moments
from jaxgain.theory.meanfield import Init, check_init
from jaxgain.theory.panels import resolve
from jaxgain.theory.quadrature import moments

if TYPE_CHECKING:
    import xarray

DISTRIBUTIONS = ("normal", "orthogonal")

# Lengths between these have a square, and so fluctuations, in float64.
_SMALLEST, _LARGEST = 1e-150, 1e150


class NoLength(ValueError):
    """A length that has vanished or overflowed at some layer; the message says which."""


class Layers(NamedTuple):
    """A plain network at infinite width: arrays over its layers 1 … depth, of what its fluctuations need."""

    phi: Activation
    q: np.ndarray
    moments: LayerMoments
    share: np.ndarray
    """Of the signal, without the bias, in q^l: how much of the pre-activation the weights make."""
    sigma_w: float

    @property
    def onward(self) -> np.ndarray:
        """The share of the signal in the next layer's length, (depth,)."""
        return np.append(self.share[1:], np.nan)


class Noise(NamedTuple):
    """What n neurons of one layer scatter by, times n, relative to their expectations; arrays as the lengths."""

    spread: np.ndarray
    r"""Variance of the mean of $\phi^2$."""
    own: np.ndarray
    """Variance of what the squared gradient is multiplied by, going back."""
    together: np.ndarray
    """Covariance of the two."""
    tilt: np.ndarray
    r"""What is added to the expectation of $\phi^2$, relative to it."""
    tilt_slope: np.ndarray
    r"""The same of $\phi'^2$."""
    aligned: np.ndarray
    """What the mean squared gradient gains, going back, per alignment with the signal."""


def noise(m: LayerMoments, share: np.ndarray, distribution: str) -> Noise:
    r"""Return how a layer scatters, from its moments and the share of the weights in its lengths.

    Orthogonal weights keep norms: $W h$ has exactly that of $\sigma_w h$, and $W^T\delta$ that of $\sigma_w\delta$.
    So the radial part of the fluctuations of n normals is absent, along $He_2$, and expectations over n normals
    become those over a sphere, $E f - E[f He_4]/(4n)$.

    >>> from jaxgain.activations import Activation, activation
    >>> relu = layer_moments(activation("relu"), 1.0)
    >>> [round(float(noise(relu, np.array(1.0), each).own), 9) for each in DISTRIBUTIONS]
    [5.0, 3.0]
    """
    if distribution == "normal":
        nothing = np.zeros_like(m.spread)
        return Noise(m.spread, 3 * m.slope_fourth - 1, m.together, nothing, nothing, m.overlap)
    square = share**2
    # What scatters only radially, as a linear network, does not scatter: up to rounding.
    return Noise(
        spread=np.maximum(m.spread - square * m.second_he2**2 / 2, 0.0),
        own=np.maximum(3 * (m.slope_fourth - 1) - square * m.slope_he2**2 / 2, 0.0),
        together=m.together - square * m.second_he2 * m.slope_he2 / 2,
        tilt=-square * m.second_he4 / 4,
        tilt_slope=-square * m.slope_he4 / 4,
        aligned=m.overlap - 1,
    )


def radial(share: np.ndarray, distribution: str) -> np.ndarray:
    """Return n/2 times the relative variance of the mean square of z, given the length.

    That of n normals is 2/n; an orthogonal matrix leaves to chance only what the bias does.
    """
    return 1 - share**2 if distribution == "orthogonal" else np.ones_like(share)


def infinite_width(
    phi: "str | Activation | Callable[..., Any]", init: Init, depth: int, second_moment: float
) -> Layers:
    """Return lengths and expectations of the layers 1 … depth behind an input of this mean square.

    Raises `NoLength` where a length vanishes or overflows, and `ValueError` where an expectation is not finite.

    >>> infinite_width("relu", Init(2**0.5), 3, 1.0).q.round(12).tolist()
    [2.0, 2.0, 2.0]
    """
    phi = resolve(activation(phi))
    check_init(init)
    check_finite(phi)
    sigma_w, sigma_b = number("sigma_w", init.sigma_w), number("sigma_b", init.sigma_b)
    signal = number("second_moment", second_moment)
    if not (math.isfinite(signal) and signal > 0):
        raise ValueError(f"second_moment must be positive and finite, got {second_moment!r}; it is that of the input")
    lengths, shares = [], []
    for layer in range(1, depth + 1):
        q = sigma_w**2 * signal + sigma_b**2
        if not _SMALLEST < q < _LARGEST:
            raise NoLength(
                f"the length of {phi.name} is {q:.3g} at layer {layer}: it has "
                f"{'vanished' if q < 1 else 'overflowed'}; use fewer layers or another init"
            )
        lengths.append(q)
        shares.append(sigma_w**2 * signal / q)
        signal = moments(phi, q).second.value
    q = np.array(lengths)
    return Layers(phi, q, layer_moments(phi, q), np.array(shares), sigma_w)


def dataset(variables: dict[str, np.ndarray], phi: str, init: Init, **about: Any) -> "xarray.Dataset":
    """Return the variables over layers with what they describe."""
    import xarray

    depth = len(next(iter(variables.values()))) - 1
    return xarray.Dataset(
        {name: ("layer", values, {"description": _ABOUT[name]}) for name, values in variables.items()},
        coords={"layer": np.arange(depth + 1)},
        attrs={"activation": phi, "sigma_w": float(init.sigma_w), "sigma_b": float(init.sigma_b)} | about,
    )


_ABOUT = {
    "q": "length at infinite width",
    "log_q_mean": "mean of the log of the layer's variance parameter",
    "log_q_var": "variance of the log of the layer's variance parameter",
    "log_sample_q_mean": "mean of the log of the mean square of z over the neurons",
    "log_sample_q_var": "variance of the log of the mean square of z over the neurons",
    "log_grad_mean": "mean of the log squared rms gradient",
    "log_grad_var": "variance of the log squared rms gradient",
    "log_grad_infinite_width": "log squared rms gradient at infinite width",
    "log_grad_mean_own": "what the layers' own fluctuations add to the mean: the logarithm is concave",
    "log_grad_mean_response": "what the length's fluctuations add to the mean through chi_perp",
    "log_grad_mean_alignment": "what the alignment of gradient and signal adds to the mean",
    "log_grad_var_own": "what the layers' own fluctuations add to the variance",
    "log_grad_var_response": "what the length's fluctuations add to the variance through chi_perp",
    "log_grad_var_covariance": "twice the covariance of own fluctuations and response",
}


def count(name: str, value: Any) -> int:
    """Return a whole number of at least 1; raise `ValueError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def number(name: str, value: Any) -> float:
    """Return one number as a float; raise `ValueError` for an array and for a traced value."""
    if isinstance(value, Tracer):
        raise ValueError(f"{name} must be one number, got a traced value; call this outside jit, vmap and grad")
    if np.ndim(value):
        raise ValueError(f"{name} must be one number, got an array of shape {np.shape(value)}; loop over its entries")
    return float(value)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise `ValueError` unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
