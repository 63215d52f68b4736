r"""The gradient's part along the signal, and the law of the gradient where that part is not small.

Where $\chi_\parallel = \chi_\perp = 1$ the inner product of gradient and signal is handed on from layer to layer while
each layer adds to it, so that its square grows with depth: it is no correction of order 1/n any more. Then three
numbers of every layer go back, all correlated: what the layer adds to the length, to the gradient's size, and to its
part along the signal. Each is a mean over n neurons and so nearly normal, with covariances that are expectations
over one neuron; how they accumulate is followed along many paths of these few numbers, whatever the width.
"""

import numpy as np

from jaxgain.theory.finite_width import Layers
from jaxgain.theory.layer_moments import AlignedMoments, LayerMoments, aligned_moments, layer_moments

PATHS = 2**15


def sampled_gradients(layers: Layers, lengths: np.ndarray, width: int) -> dict[str, np.ndarray]:
    """Return mean and variance of the log squared gradient over layers 0 … depth, for Gaussian weights.

    `lengths` are increasing lengths, evenly spaced in their logarithm, between which expectations are interpolated.
    From 2^15 paths with fixed random numbers and their mirror images: variances are within about 1%, also for
    neighbouring inits, which share the numbers.
    """
    depth = len(layers.q)
    random = np.random.default_rng(0)
    table = _Table(layers, lengths)
    bias = layers.q[0] * (1 - layers.share[0])
    log_q, normals = np.full(2 * PATHS, np.log(layers.q[0])), []
    visited = []
    for _ in range(depth):
        m = table.at(log_q)
        u = _mirrored(random)
        visited.append((m, log_q))
        normals.append(u)
        # The log of a gamma variable, to the third moment.
        variance = m["spread"] / width
        noise = np.sqrt(variance) * (u - np.sqrt(variance) * (u**2 - 1) / 6) - variance / 2
        log_q = np.log(np.exp(np.log(m["signal"]) + noise) + bias)
    log_size, along = np.zeros(2 * PATHS), np.zeros(2 * PATHS)
    onward = np.zeros(2 * PATHS)  # share of the signal in the length ahead; none behind the output
    mean, var = np.full(depth + 1, -1 / width), np.full(depth + 1, 2 / width)
    for l in range(depth - 1, -1, -1):
        m, log_q = visited[l]
        behind = 1 - bias / np.exp(log_q)
        log_size, along = _back(m, log_size, along, onward, behind, normals[l], random, width)
        onward = behind
        log_gradient = log_size + np.log1p((along**2 - onward) / width)
        mean[l] += log_gradient.mean()
        var[l] += log_gradient.var()
    return {"log_grad_mean": mean, "log_grad_var": var}


def _mirrored(random: np.random.Generator) -> np.ndarray:
    u = random.standard_normal(PATHS)
    return np.concatenate([u, -u])


def _back(
    m: dict[str, np.ndarray],
    log_size: np.ndarray,
    along: np.ndarray,
    onward: np.ndarray,
    behind: np.ndarray,
    of_length: np.ndarray,
    random: np.random.Generator,
    width: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Size and part along the signal behind a layer, from those at it.

    The gradient at neuron i is y + ε, ε standard normal and y = c φ̂/√n: c is the part along the signal, in units of
    the other parts' standard deviation. Per neuron H = φ̂² enters the length ahead, X = φ̂'² (y + ε)² the size, and
    C = φ̂' e (y + ε) what returns along the signal behind.
    """
    x = along**2 / width
    root = along / np.sqrt(width)
    size = 1 + x * m["overlap"]
    # The fresh part has no more than 1 - onward of its variance along the signal: the weights ahead have met that.
    known = onward * m["overlap"]
    var_x = (
        3 * m["slope_fourth"] + x * (6 * m["slope_fourth_a"] - 4 * known * m["overlap"]) + x**2 * m["slope_fourth_a2"]
    ) / size**2 - 1
    var_c = m["slope_square"] - onward * m["direct"] ** 2 + x * (m["slope_square_a_e2"] - m["direct"] ** 2)
    with_x = (m["overlap"] - 1 + x * (m["slope_a2"] - m["overlap"])) / size
    with_c = root * (m["slope_a"] - m["direct"])
    both = root * ((3 * m["slope_cube"] - 2 * known * m["direct"] + x * m["slope_cube_a"]) / size - m["direct"])
    u, v, w = of_length, _mirrored(random), random.standard_normal(len(along))
    on_x, on_c = with_x / np.sqrt(m["spread"]), with_c / np.sqrt(m["spread"])
    rest_x = np.sqrt(np.maximum(var_x - on_x**2, 1e-300))
    cross = (both - on_x * on_c) / rest_x
    rest_c = np.sqrt(np.maximum(var_c - on_c**2 - cross**2, 0.0))
    # y is along the signal as it came out, whose length has scattered with H.
    on_x = on_x - x * m["overlap"] / size * np.sqrt(m["spread"])
    on_c = on_c - root * m["direct"] / 2 * np.sqrt(m["spread"])
    var_x = on_x**2 + rest_x**2
    scatter = (on_x * u + rest_x * v) / np.sqrt(width) - var_x / (2 * width)
    # Second order in that length, of 1/|h|² and 1/|h| with what they multiply.
    bend_x = x * (m["overlap"] * (1 + m["spread"]) - m["slope_a2"])
    bend_c = m["direct"] * (0.5 + 0.375 * m["spread"]) - m["slope_a"] / 2
    factor = np.log(np.maximum(size + (bend_x - known) / width, 1e-300)) + scatter
    returned = along * (m["direct"] + bend_c / width) + on_c * u + cross * v + rest_c * w
    return log_size + m["log_chi"] + factor, np.sqrt(behind) * returned * np.exp(-factor / 2)


class _Table:
    """Expectations as functions of the log length, linear between those of a grid."""

    def __init__(self, layers: Layers, lengths: np.ndarray):
        of_layer: LayerMoments = layer_moments(layers.phi, lengths)
        aligned: AlignedMoments = aligned_moments(layers.phi, lengths)
        columns = aligned._asdict() | {
            "log_chi": np.log(layers.sigma_w**2 * of_layer.slope_second),
            "signal": layers.sigma_w**2 * of_layer.second,
            "spread": of_layer.spread,
            "overlap": of_layer.overlap,
            "slope_fourth": of_layer.slope_fourth,
        }
        self.names, self.values = tuple(columns), np.stack(list(columns.values()), axis=1)
        self.low, self.step = np.log(lengths[0]), np.log(lengths[1] / lengths[0])

    def at(self, log_q: np.ndarray) -> dict[str, np.ndarray]:
        place = np.clip((log_q - self.low) / self.step, 0, len(self.values) - 1.000001)
        below = place.astype(int)
        weight = (place - below)[:, None]
        found = (1 - weight) * self.values[below] + weight * self.values[below + 1]
        return dict(zip(self.names, found.T, strict=True))
