r"""Fluctuations where leading order in 1/n fails: the law of the length itself, integrated layer by layer.

The variance parameter $q^l$ of a layer's pre-activations is a Markov chain. Its law is carried on a grid of ln q, all
orders of its accumulated spread included; within one layer the mean over n neurons is taken as a gamma variable with
its mean and variance. The gradient, whose part along the signal is not small there, is in `gradient_law`.
"""

import math
from typing import NamedTuple

import numpy as np

from jaxgain.theory.finite_width import Layers, Noise, noise
from jaxgain.theory.gradient_law import sampled_gradients
from jaxgain.theory.layer_moments import LayerMoments, layer_moments

_POINTS = 4000
# Grid steps per standard deviation of the narrowest layer: sums over points are then exact to 1e-12.
_STEPS = 1.25
# Standard deviations of the accumulated spread on either side of the infinite-width lengths.
_REACH = 10.0
# Lengths that the grid does not hold may have this probability.
_LOST = 1e-3


class CannotIntegrate(ValueError):
    """A law of lengths that no grid of reasonable size holds."""


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


def integrate(layers: Layers, width: int) -> dict[str, np.ndarray]:
    """Return the variables of `fluctuations` for this network, integrated over the law of its lengths.

    Raises `CannotIntegrate` where the grid would need more than 4000 points, as at large width, where leading order
    holds, and where the law leaves it.
    """
    grid = _grid(layers, width)
    laws = _laws(grid, len(layers.q))
    x = grid.log_q
    own = 2 / width  # of the mean square of n normals, relative
    q_mean, sample_mean = laws @ x, laws @ x - own / 2
    q_var = np.maximum(laws @ x**2 - q_mean**2, 0.0)
    gradients = sampled_gradients(layers, np.exp(x[1:]), width)
    at_infinity = np.log(layers.sigma_w**2 * layers.moments.slope_second)
    gradients["log_grad_infinite_width"] = np.append(np.cumsum(at_infinity[::-1])[::-1], 0.0)
    lengths = {
        "q": layers.q,
        "log_q_mean": q_mean,
        "log_q_var": q_var,
        "log_sample_q_mean": sample_mean,
        "log_sample_q_var": q_var + own,
    }
    return {name: np.append(np.nan, values) for name, values in lengths.items()} | gradients


def _grid(layers: Layers, width: int) -> Grid:
    bias = layers.q[0] * (1 - layers.share[0])
    points = _points(layers, bias, width)
    if len(points) > _POINTS:
        raise CannotIntegrate(
            f"at width {width} the law of the length needs a grid of {len(points)} points, more than {_POINTS}; "
            "use method='leading', which holds there"
        )
    log_q = np.concatenate([np.log(layers.q[:1]), points])
    m, share, onward = _expectations(layers, bias, log_q)
    each = noise(m, share, "normal")
    mean = layers.sigma_w**2 * m.second * (1 + each.tilt / width)
    onto = _gamma(np.exp(points) - bias, mean, each.spread / width) * np.exp(points) * (points[1] - points[0])
    total = onto.sum(1)
    return Grid(log_q, m, each, share, onward, onto / total[:, None], np.clip(1 - total, 0.0, 1.0))


def _expectations(layers: Layers, bias: float, log_q: np.ndarray) -> tuple[LayerMoments, np.ndarray, np.ndarray]:
    q = np.exp(log_q)
    m = layer_moments(layers.phi, q)
    signal = layers.sigma_w**2 * m.second
    return m, 1 - bias / q, signal / (signal + bias)


def _points(layers: Layers, bias: float, width: int) -> np.ndarray:
    """The grid of ln q: all lengths within reach, in steps that the narrowest layer's law is smooth over."""
    low, high = _reach(layers, bias, width)
    narrow = _narrow(layers, bias, np.linspace(low, high, 64), width)[0]
    return np.linspace(low, high, 3 + math.ceil(_STEPS * (high - low) / narrow.min()))


def _reach(layers: Layers, bias: float, width: int) -> tuple[float, float]:
    """Bounds of ln q, by two paths pushed up and down in every layer, so far that all pushes add up to `_REACH`."""
    _, slope = _narrow(layers, bias, np.log(layers.q), width)
    depth, steepest = len(layers.q), min(np.abs(slope).max(), 1.0)
    memory = min(depth, 1 / max(1 - steepest**2, 1e-9))
    push = np.array([-1.0, 1.0]) * _REACH / math.sqrt(memory)
    log_q = np.full(2, np.log(layers.q[0]))
    visited = [np.log(layers.q)]
    for _ in range(depth - 1):
        m, _, onward = _expectations(layers, bias, log_q)
        narrow = onward * np.sqrt(m.spread / width)
        log_q = np.log(layers.sigma_w**2 * m.second + bias) + push * narrow
        if bias > 0:
            log_q = np.maximum(log_q, math.log(bias) + 1e-3)
        visited.append(log_q)
        # One layer may do what several do.
        visited.append(log_q + np.sign(push) * max(_REACH - abs(push[0]), 0.0) * narrow)
    points = np.concatenate(visited)
    low = points.min() if bias == 0 else max(points.min(), math.log(bias) + 1e-3)
    return low - 1e-6, points.max() + 1e-6


def _narrow(layers: Layers, bias: float, log_q: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviation of the next ln q given each, and its slope."""
    m, _, onward = _expectations(layers, bias, log_q)
    return onward * np.sqrt(m.spread / width), onward * m.second_he2 / 2


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
        raise CannotIntegrate(
            f"lengths leave every bound with probability {lost:.2g} over {depth} layers: the law of the length spreads "
            "too far to be integrated; use fewer layers, a larger width, or sample it with jaxgain.sweep"
        )
    return law
