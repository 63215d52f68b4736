r"""Fluctuations where leading order in 1/n fails: the law of the length itself, integrated layer by layer.

The variance parameter $q^l$ of a layer's pre-activations is a Markov chain. Its law is carried on a grid of ln q, all
orders of its accumulated spread included; within one layer the mean over n neurons is taken as a gamma variable with
its mean and variance. The log gradient's first two moments given $q^l$ come back over the same grid.
"""

import math
from typing import NamedTuple

import numpy as np

from jaxgain.theory.finite_width import Layers, Noise, noise, radial
from jaxgain.theory.layer_moments import LayerMoments, layer_moments

_POINTS = 4000
# Grid steps per standard deviation of the narrowest layer: sums over points are then exact to 1e-12.
_STEPS = 1.25
# Standard deviations of the accumulated spread on either side of the infinite-width lengths.
_REACH = 10.0
# Lengths that the grid does not hold may have this probability.
_LOST = 1e-3


class Grid(NamedTuple):
    """Lengths q, with their expectations and what the next layer's law is given each; the first is q of layer 1."""

    log_q: np.ndarray
    moments: LayerMoments
    noise: Noise
    share: np.ndarray
    onward: np.ndarray
    """Share of the signal in the mean of the next length."""
    onto: np.ndarray
    """Probability of every length, (lengths, lengths - 1): no later layer has that of layer 1 exactly."""
    lost: np.ndarray
    """Probability of lengths beyond the grid."""


def integrate(layers: Layers, width: int, distribution: str) -> dict[str, np.ndarray]:
    """Return the variables of `fluctuations` for this network, integrated over the law of its lengths.

    Raises `ValueError` where the grid would need more than 4000 points, as at large width, where leading order holds,
    and where the law leaves it.
    """
    grid = _grid(layers, width, distribution)
    laws = _laws(grid, len(layers.q))
    x = grid.log_q
    own = 2 * radial(grid.share, distribution) / width
    q_mean, sample_mean = laws @ x, laws @ (x - own / 2)
    q_var = np.maximum(laws @ x**2 - q_mean**2, 0.0)
    gradients = _gradients(grid, laws, layers.sigma_w, width, distribution)
    at_infinity = np.log(layers.sigma_w**2 * layers.moments.slope_second)
    gradients["log_grad_infinite_width"] = np.append(np.cumsum(at_infinity[::-1])[::-1], 0.0)
    lengths = {
        "q": layers.q,
        "log_q_mean": q_mean,
        "log_q_var": q_var,
        "log_sample_q_mean": sample_mean,
        "log_sample_q_var": np.maximum(laws @ (x - own / 2) ** 2 - sample_mean**2, 0.0) + laws @ own,
    }
    return {name: np.append(np.nan, values) for name, values in lengths.items()} | gradients


def _grid(layers: Layers, width: int, distribution: str) -> Grid:
    bias = layers.q[0] * (1 - layers.share[0])
    points = _points(layers, bias, width, distribution)
    if len(points) > _POINTS:
        raise ValueError(
            f"at width {width} the law of the length needs a grid of {len(points)} points, more than {_POINTS}; "
            "use method='leading', which holds there"
        )
    log_q = np.concatenate([np.log(layers.q[:1]), points])
    m, share, onward = _expectations(layers, bias, log_q)
    each = noise(m, share, distribution)
    mean = layers.sigma_w**2 * m.second * (1 + each.tilt / width)
    onto = _gamma(np.exp(points) - bias, mean, each.spread / width) * np.exp(points) * (points[1] - points[0])
    total = onto.sum(1)
    return Grid(log_q, m, each, share, onward, onto / total[:, None], np.clip(1 - total, 0.0, 1.0))


def _expectations(layers: Layers, bias: float, log_q: np.ndarray) -> tuple[LayerMoments, np.ndarray, np.ndarray]:
    q = np.exp(log_q)
    m = layer_moments(layers.phi, q)
    signal = layers.sigma_w**2 * m.second
    return m, 1 - bias / q, signal / (signal + bias)


def _points(layers: Layers, bias: float, width: int, distribution: str) -> np.ndarray:
    """The grid of ln q: all lengths within reach, in steps that the narrowest layer's law is smooth over."""
    path = np.log(layers.q)
    low, high = path.min(), path.max()
    coarse = np.linspace(low, high, 64)
    for _ in range(2):
        m, share, onward = _expectations(layers, bias, coarse)
        narrow = onward * np.sqrt(noise(m, share, distribution).spread / width)
        slope = np.minimum(np.abs(onward * m.second_he2 / 2).max(), 1.0)
        spread = narrow.max() * math.sqrt(min(len(path), 1 / max(1 - slope**2, 1e-9)))
        reach = _REACH * spread
        bottom = low - reach if bias == 0 else max(low - reach, math.log(bias) + 1e-3)
        coarse = np.linspace(bottom, high + reach, 64)
    m, share, onward = _expectations(layers, bias, coarse)
    narrow = onward * np.sqrt(noise(m, share, distribution).spread / width)
    return np.linspace(coarse[0], coarse[-1], 3 + math.ceil(_STEPS * (coarse[-1] - coarse[0]) / narrow.min()))


def _gamma(x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Densities at x > 0 of gamma variables of these means and relative variances, (means, x)."""
    shape = 1 / variance[:, None]
    ratio = x[None, :] / mean[:, None]
    log_gamma = np.vectorize(math.lgamma)(shape)
    return np.exp(shape * (np.log(shape) + np.log(ratio) - ratio) - log_gamma) / x[None, :]


def _laws(grid: Grid, depth: int) -> np.ndarray:
    """Probabilities of the lengths of the layers 1 … depth, (depth, lengths)."""
    law = np.zeros((depth, len(grid.log_q)))
    law[0, 0], lost = 1.0, 0.0
    for l in range(1, depth):
        law[l, 1:] = law[l - 1] @ grid.onto
        lost += float(law[l - 1] @ grid.lost)
    if lost > _LOST:
        raise ValueError(
            f"lengths leave every bound with probability {lost:.2g} over {depth} layers: the law of the length spreads "
            "too far to be integrated; use fewer layers, a larger width, or sample it with jaxgain.sweep"
        )
    return law


def _gradients(grid: Grid, laws: np.ndarray, sigma_w: float, width: int, distribution: str) -> dict[str, np.ndarray]:
    """Mean and variance of the log squared gradient over layers 0 … depth.

    Given the length of layer l + 1, `first` and `second` are the moments of what the layers l + 1 … depth multiply,
    and `alignment` is that of gradient and signal at layer l.
    """
    depth, each, m = len(laws), grid.noise, grid.moments
    log_chi = np.log(sigma_w**2 * m.slope_second)
    own_mean, own_var = (each.tilt_slope - each.own / 2) / width, each.own / width
    # Own noise given the next length: the part that is linear in its deviation.
    deviation = grid.log_q[None, 1:] - (grid.onto @ grid.log_q[1:])[:, None]
    linear = grid.onto * deviation
    slope = each.together / (grid.onward * each.spread)
    alignment = first = second = np.zeros(len(grid.log_q))
    mean, var = np.full(depth + 1, -1 / width), np.full(depth + 1, 2 / width)
    for l in range(depth - 1, -1, -1):
        above = grid.onto @ alignment[1:]
        here = log_chi + own_mean + each.aligned * above / width
        ahead = grid.onto @ first[1:]
        second = own_var + here**2 + 2 * here * ahead + 2 * slope * (linear @ first[1:]) + grid.onto @ second[1:]
        first = here + ahead
        alignment = grid.share * (m.slope_he2 + m.along * above)
        law = laws[l]
        mean[l] += law @ first + law @ alignment / width
        var[l] += max(law @ second - (law @ first) ** 2, 0.0)
    return {"log_grad_mean": mean, "log_grad_var": var}
