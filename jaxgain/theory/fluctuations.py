r"""What a finite width n adds to the infinite-width recursion, over depth.

Fluctuations of kernels: Hanin and Nica, *Products of many large random matrices and gradients in deep neural networks*
(2020), for ReLU; Roberts, Yaida and Hanin, *The Principles of Deep Learning Theory* (2022). Here also those of the
gradient with its dependence on the forward pass, to leading order in 1/n, or, where that fails, by integrating the law
of the length.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxgain.activations import Activation, activation
from jaxgain.theory.finite_width import (
    DISTRIBUTIONS,
    Layers,
    check_choice,
    count,
    dataset,
    infinite_width,
    noise,
    radial,
)
from jaxgain.theory.integrated import CannotIntegrate, integrate
from jaxgain.theory.meanfield import Init

if TYPE_CHECKING:
    import xarray

METHODS = ("leading", "integrated", "auto")

# What `nonlinearity` may be where leading order holds, and the largest variance.
_NONLINEAR, _WIDE = 0.1, 4.0
# What `alignment` may be where the integrated law of the gradient holds.
_ALIGNED = 0.1


class Terms(NamedTuple):
    """What one layer adds, times the width: of the logarithms of q^(l+1) and of the squared gradient; (depth,)."""

    q_var: np.ndarray
    q_mean: np.ndarray
    grad_var: np.ndarray
    grad_mean: np.ndarray
    covariance: np.ndarray
    slope: np.ndarray
    """d ln q^(l+1) / d ln q^l."""
    bend: np.ndarray
    """Its derivative in ln q^l."""
    response: np.ndarray
    """d ln chi_perp / d ln q^l."""
    response_bend: np.ndarray
    alignment: np.ndarray
    """(depth + 1,), over layers 0 … depth: n cos² of gradient and signal minus what independence gives."""
    aligned: np.ndarray
    """What the alignment adds to the mean of the log squared gradient."""


def fluctuations(
    phi: "str | Activation | Callable[..., Any]",
    init: Init,
    *,
    width: int,
    depth: int,
    second_moment: float = 1.0,
    cotangent: str = "random",
    distribution: str = "normal",
    method: str = "leading",
) -> "xarray.Dataset":
    r"""Return mean and variance of the log length and the log squared gradient per layer, to leading order in 1/width.

    For a plain network of equal widths whose input has mean square `second_moment` exactly, and whose cotangent is
    standard normal. With x = ln q^l minus its infinite-width value, M the length map in logarithms, $\chi =
    \chi_\perp$ and $v_l = \mathrm{Var}\, x$,

    $$v_{l+1} = M'^2 v_l + \mathrm{Var}(\phi^2)\,\sigma_w^4/(n q_{l+1}^2), \qquad
      E x_{l+1} = M' E x_l + M'' v_l/2 - \tfrac{1}{2n} \sigma_w^4 \mathrm{Var}(\phi^2)/q_{l+1}^2,$$

    and going back ln G gains $\ln\chi + (\ln\chi)' x + \xi$ per layer, where the layer's own $\xi$ has the variance
    $(3 E\phi'^4/(E\phi'^2)^2 - 1)/n$ and is correlated with what the layer adds to x. In the mean there is also the
    alignment: the part of the gradient along the signal comes back through weights that the signal has met.

    Variables over `layer` 0 … depth, natural logarithms, NaN where they have no meaning: `q`, the infinite-width
    length; `log_q_mean` and `log_q_var` of the variance parameter $q^l$; `log_sample_q_mean` and `log_sample_q_var`
    of the mean of z² over the neurons, which scatters by another 2/n; `log_grad_mean` and `log_grad_var` of the log
    *squared* rms gradient with respect to h^l. The terms of the latter add up to it: `log_grad_infinite_width`,
    `log_grad_mean_own`, `log_grad_mean_response`, `log_grad_mean_alignment`; `log_grad_var_own`,
    `log_grad_var_response`, `log_grad_var_covariance`. Twice `log_grad_rms` of a sweep is to be compared.

    With ``distribution="orthogonal"`` (Haar) a layer keeps norms: the radial parts of all fluctuations are absent.

    Leading order is good from width 64 for the variance of tanh's and SELU's gradients, 256 for chaotic tanh and for
    log q, 1024 for log q of tanh at sigma_w = 1. At the half-stable point of GELU or SiLU it fails below width 1024;
    for the gradient, whose alignment with the signal grows with depth there, also above. The attribute `nonlinearity`
    says how much fluctuations change the slopes of the length map that multiply them, accumulated over depth; `valid`
    is 1 where it is below 0.1 and no variance is above 4.

    ``method="integrated"`` carries the law of the length itself, all orders of its spread, and follows the gradient's
    part along the signal: at the half-stable point log q is then right from width 64, the variance of the log squared
    gradient to 4% at width 256 and 8% at 64 (with a numerical error of about 1%). It has no separate terms.
    ``method="auto"`` takes it where leading order is not valid and it can be had; the attribute `method` says which.
    The attribute `alignment` is the largest squared cosine of gradient and signal over the layers, to leading order,
    beyond that of independent ones; of integrated results `valid` is 1 where it is below 0.1. Above, as at GELU's
    half-stable point at width 64 and depth 50, or 256 and 100, log q is still right, but the gradient's variance is off
    by up to 8%, and its law is not lognormal.

    Raises `ValueError` on sizes that are not whole numbers, lengths that vanish or overflow, and where
    $E\phi^4$ is not finite.

    >>> tanh = fluctuations("tanh", Init(5 / 3), width=1000, depth=60, second_moment=0.4242529768)
    >>> per_layer = 1000 * float(tanh.log_grad_var[20] - tanh.log_grad_var[21])
    >>> own = 1000 * float(tanh.log_grad_var_own[20] - tanh.log_grad_var_own[21])
    >>> round(per_layer, 3), round(own, 3)
    (5.153, 4.022)
    """
    width, depth = count("width", width), count("depth", depth)
    check_choice("distribution", distribution, DISTRIBUTIONS)
    check_choice("method", method, METHODS)
    if cotangent != "random":
        raise ValueError(
            f"the cotangent must be 'random', got {cotangent!r}: a fixed one is aligned with the signal at the output; "
            "sample it with jaxgain.sweep"
        )
    layers = infinite_width(phi, init, depth, second_moment)
    terms = layer_terms(layers, distribution)
    variables, nonlinearity = _leading(layers, terms, width, distribution)
    alignment = float(np.abs(terms.alignment).max()) / width
    largest = max(float(np.nanmax(variables[name])) for name in ("log_q_var", "log_grad_var"))
    valid = nonlinearity < _NONLINEAR and largest < _WIDE
    if method == "integrated" and distribution != "normal":
        raise ValueError(
            "the law of the length is integrated for normal weights; for orthogonal ones use method='leading'"
        )
    chosen = "leading"
    if method == "integrated" or (method == "auto" and not valid and distribution == "normal"):
        try:
            variables, chosen, valid = integrate(layers, width), "integrated", alignment < _ALIGNED
        except CannotIntegrate:
            if method == "integrated":
                raise
    about = {"width": width, "second_moment": second_moment, "distribution": distribution}
    evidence = {"method": chosen, "nonlinearity": nonlinearity, "alignment": alignment, "valid": int(valid)}
    return dataset(variables, activation(phi).name, init, **about, **evidence)


def _leading(layers: Layers, terms: Terms, width: int, distribution: str) -> tuple[dict[str, np.ndarray], float]:
    """All variables, and the nonlinearity."""
    lengths = _lengths(layers, terms, width)
    variables = lengths | _sampled(lengths, layers, width, distribution) | _gradients(layers, terms, lengths, width)
    variables["log_q_mean"] = variables["log_q_mean"] + np.log(variables["q"])
    return variables, _nonlinearity(terms, lengths["log_q_var"][1:])


def layer_terms(layers: Layers, distribution: str) -> Terms:
    """Return what each layer adds to means and variances, times the width."""
    m, onward = layers.moments, layers.onward
    each = noise(m, layers.share, distribution)
    slope, response = onward * m.second_he2 / 2, m.slope_he2 / 2
    alignment = _alignment(layers)
    return Terms(
        q_var=onward**2 * each.spread,
        q_mean=onward * each.tilt - onward**2 * each.spread / 2,
        grad_var=each.own,
        grad_mean=each.tilt_slope - each.own / 2,
        covariance=onward * each.together,
        slope=slope,
        bend=onward * (m.second_he2 / 2 + m.second_he4 / 4) - slope**2,
        response=response,
        response_bend=response + m.slope_he4 / 4 - response**2,
        alignment=alignment,
        aligned=alignment[1:] * each.aligned,
    )


def _alignment(layers: Layers) -> np.ndarray:
    r"""N cos² of gradient and signal minus its value for independent ones, (depth + 1,), 0 at the output.

    What returns along h^l is $\sum_i \phi'(z_i) g_i e_i$ of the layer above: $E[\phi'^2 e^2]$ instead of $E\phi'^2$,
    and what alignment there is above.
    """
    alignment = np.zeros(len(layers.q) + 1)
    for l in range(len(layers.q) - 1, -1, -1):
        m = layers.moments
        alignment[l] = layers.share[l] * (m.slope_he2[l] + m.along[l] * alignment[l + 1])
    return alignment


def _lengths(layers: Layers, terms: Terms, width: int) -> dict[str, np.ndarray]:
    """q, and mean and variance of the deviation of ln q, over layers 0 … depth."""
    mean, var = [0.0], [0.0]
    for l in range(len(layers.q) - 1):
        slope = terms.slope[l]
        mean.append(slope * mean[l] + terms.bend[l] * var[l] / 2 + terms.q_mean[l] / width)
        var.append(slope**2 * var[l] + terms.q_var[l] / width)
    return {
        "q": np.append(np.nan, layers.q),
        "log_q_mean": np.append(np.nan, mean),
        "log_q_var": np.append(np.nan, var),
    }


def _sampled(lengths: dict[str, np.ndarray], layers: Layers, width: int, distribution: str) -> dict[str, np.ndarray]:
    own = np.append(np.nan, radial(layers.share, distribution)) / width
    return {
        "log_sample_q_mean": lengths["log_q_mean"] + np.log(lengths["q"]) - own,
        "log_sample_q_var": lengths["log_q_var"] + 2 * own,
    }


def _gradients(layers: Layers, terms: Terms, lengths: dict[str, np.ndarray], width: int) -> dict[str, np.ndarray]:
    depth, mean, var = len(layers.q), lengths["log_q_mean"][1:], lengths["log_q_var"][1:]
    # How the sum of ln chi over the layers behind responds to ln q^(l+1), for l = 0 … depth.
    reach = np.zeros(depth + 1)
    for l in range(depth - 1, -1, -1):
        reach[l] = terms.response[l] + (terms.slope[l] * reach[l + 1] if l + 1 < depth else 0.0)
    inner = reach[1:]  # of layer l's own contribution to ln q^(l+1)
    own_q = np.append(terms.q_var[:-1], 0.0) / width
    covariance = np.append(terms.covariance[:-1], 0.0) / width
    carried = reach**2 * np.append(var, 0.0)
    var_own = _behind(terms.grad_var / width) + 2 / width
    var_response = _behind(inner**2 * own_q) + carried
    var_covariance = _behind(2 * inner * covariance)
    # With orthogonal weights the cotangent's own norm is the only radial part of the gradient.
    mean_own = _behind(terms.grad_mean / width) - 1 / width
    mean_response = _behind(terms.response * mean + terms.response_bend * var / 2)
    at_layer = terms.alignment / width
    mean_alignment = _behind(terms.aligned / width) + at_layer
    infinite = _behind(np.log(layers.sigma_w**2 * layers.moments.slope_second))
    return {
        "log_grad_mean": infinite + mean_own + mean_response + mean_alignment,
        "log_grad_var": var_own + var_response + var_covariance,
        "log_grad_infinite_width": infinite,
        "log_grad_mean_own": mean_own,
        "log_grad_mean_response": mean_response,
        "log_grad_mean_alignment": mean_alignment,
        "log_grad_var_own": var_own,
        "log_grad_var_response": var_response,
        "log_grad_var_covariance": var_covariance,
    }


def _behind(terms: np.ndarray) -> np.ndarray:
    """Sums over the layers l + 1 … depth, for l = 0 … depth."""
    return np.append(np.cumsum(terms[::-1])[::-1], 0.0)


def _nonlinearity(terms: Terms, var: np.ndarray) -> float:
    total, largest = 0.0, 0.0
    for l in range(len(var) - 1):
        total = abs(terms.slope[l]) * total + abs(terms.bend[l]) * math.sqrt(var[l])
        largest = max(largest, total)
    return largest
