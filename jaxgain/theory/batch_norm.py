r"""Batch normalization at infinite width: what z normalized over B inputs makes of signals and gradients.

For inputs that are all equally correlated, z over the batch, less its mean, points in a random direction u of
$B - 1$ dimensions, whatever its length: z normalized is $\sqrt B\,u$, and its moments do not depend on the layer
(Yang et al., *A mean field theory of batch normalization*, 2019). One entry is $\sqrt{B-1}\sin\theta$ with a density
$\propto \cos^{B-3}\theta$; another is, given it, $\sqrt{B-1}\,(\cos\gamma\sin\theta + \sin\gamma\cos\theta\sin\psi)$
with $\cos\gamma = -1/(B-1)$ and a density $\propto \cos^{B-4}\psi$.

With a gated branch, $\phi(\cdot) \odot Vh$, inputs do not stay alike: one that is longer by a little gains on both
factors, for ReLU by twice as much per layer. Networks of width n leave these averages by order $4^l/n$ at layer l.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxgain.activations import Activation
from jaxgain.theory.meanfield import Init
from jaxgain.theory.panels import WEIGHTS_HIGH, mesh, nodes, tabulate
from jaxgain.theory.quadrature import moments


class Normalized(NamedTuple):
    r"""Expectations over entries x, y of a normalized z, $E x^2 = 1$.

    `mean` $E\phi$, `second` $E\phi^2$, `product` $E\phi(x)\phi(y)$, and of the projection Q that is left of the
    Jacobian, which takes the mean over the batch and z itself away: `diagonal` $E\phi'^2 Q_{xx}$ and
    `off_diagonal` $(B-1)\,E\phi'(x)\phi'(y) Q_{xy}$.
    """

    mean: float
    second: float
    product: float
    diagonal: float
    off_diagonal: float
    batch: float

    @property
    def inverse_square(self) -> float:
        """B/(B − 3): the mean of B/|z − mean z|², times E (z − z')²/2."""
        return 1.0 if math.isinf(self.batch) else self.batch / (self.batch - 3)


@functools.lru_cache(maxsize=256)
def normalized_moments(phi: Activation, batch: int | None) -> Normalized:
    """Return the expectations for a batch of at least 4, or None, infinitely many.

    >>> from jaxgain.activations import activation
    >>> infinite = normalized_moments(activation("relu"), None)
    >>> growth = infinite.diagonal / (infinite.second - infinite.product)
    >>> round(growth, 12) == round(math.pi / (math.pi - 1), 12)
    True
    """
    if batch is None:
        return _infinite(phi)
    x, of_x = _entries(phi, batch)
    value, slope = tabulate(phi, x)
    y, of_y = _others(phi, batch, x)
    value_y, slope_y = tabulate(phi, y.ravel()).reshape(2, *y.shape)
    pair = lambda f, g: of_x @ (f * np.sum(of_y * g, axis=1))
    diagonal = math.inf if phi.jumps else of_x @ (slope**2 * (1 - (1 + x**2) / batch))
    slopes = pair(slope, slope_y) + pair(slope * x, slope_y * y)
    return Normalized(
        mean=float(of_x @ value),
        second=float(of_x @ value**2),
        product=float(pair(value, value_y)),
        diagonal=float(diagonal),
        off_diagonal=float(-(batch - 1) / batch * slopes),
        batch=float(batch),
    )


class BatchNormLayer(NamedTuple):
    r"""A layer's h, as in `Branch`, and how it carries the mean squares of gradients and tangents over the batch.

    `from_same` and `from_other` are what the normalized map makes of the mean square and of the product of two
    inputs, up to what takes the mean away; `gate` and `gate_product` what comes past it (glu).
    """

    mean: float
    variance: float
    distance: float
    from_same: float
    from_other: float
    gate: float
    gate_product: float
    batch: float


def batch_norm_layer(
    n: Normalized, init: Init, branch: str, kept: float, second_moment: float, distance: float
) -> BatchNormLayer:
    """Return the layer for an h with this second moment and distance of all pairs of inputs."""
    second, gated = n.second / kept, branch in ("glu", "glu_ffn")
    stretch = n.inverse_square / distance
    # What multiplies φ, of one input and of two: 1, or the other half of the gated unit.
    length = init.sigma_w**2 * second_moment + init.sigma_b**2 if gated else 1.0
    product = length - init.sigma_w**2 * distance if gated else 1.0
    mean = n.mean if branch == "one_layer" else 0.0
    return BatchNormLayer(
        mean,
        length * second - mean * mean,
        length * second - product * n.product,
        stretch * length * n.diagonal / kept,
        stretch * product * n.off_diagonal,
        init.sigma_w**2 * second if gated else 0.0,
        init.sigma_w**2 * n.product if gated else 0.0,
        n.batch,
    )


def grown(layers: Sequence[BatchNormLayer], *, back: bool) -> np.ndarray:
    """Return half the logarithms of the mean square of a gradient, or of a tangent, as it goes through the layers.

    Both begin with 1, independent between the inputs; their mean square and the product of those of two inputs.
    Going back the normalization takes the mean over the batch away last, forward it does so first.
    """
    same, other, logs, log = 1.0, 0.0, [0.0], 0.0
    for layer in layers:
        if back:
            through = layer.from_same * same + layer.from_other * other
            beside = -through / (layer.batch - 1)
        else:
            through = layer.from_same * (same - other)
            beside = layer.from_other * (same - other) / (layer.batch - 1)
        same, other = through + layer.gate * same, beside + layer.gate_product * other
        with np.errstate(divide="ignore"):
            log += float(np.log(same))
        # Linear in both: only their ratio goes on, if there is one.
        same, other = 1.0, other / same if 0 < same < math.inf else 0.0
        logs.append(log)
    return np.array(logs) / 2


def _infinite(phi: Activation) -> Normalized:
    """Entries are independent and normal."""
    m = moments(phi, 1.0)
    mean, slope = m.mean.value, m.slope_mean.value
    z, half = _panels(np.append(_WITHIN, mesh(phi)), _WITHIN[-1])
    density = half * WEIGHTS_HIGH * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    tilt = float(np.sum(density * tabulate(phi, z.ravel())[0].reshape(z.shape) * (z * z - 1)))  # E φ' z, by parts
    off_diagonal = -(slope * slope + tilt * tilt)
    return Normalized(mean, m.second.value, mean * mean, m.slope_second.value, off_diagonal, math.inf)


_WITHIN = np.array([-20.0, -15.0, -11.0, -8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0, 11.0, 15.0, 20.0])


def _panels(edges: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and half widths of the panels between sorted edges, along the last axis, within ±limit."""
    edges = np.sort(np.clip(edges, -limit, limit), axis=-1)
    low, high = edges[..., :-1].ravel(), edges[..., 1:].ravel()
    z, half = nodes(low, high)
    return z, half


def _entries(phi: Activation, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes x and their weights, (n,) each."""
    radius = math.sqrt(batch - 1)
    edges = _angles(np.concatenate([_WITHIN, mesh(phi)]) / radius)
    # Where a kink enters or leaves the range of the other entry the integral over that one is not smooth.
    turn = math.acos(-1 / (batch - 1))
    kinks = _angles(np.array(phi.kinks or ()) / radius)
    meetings = np.concatenate([kinks + turn, kinks - turn, math.pi - kinks - turn, turn - math.pi - kinks])
    theta, half = _panels(np.concatenate([edges, meetings, _ENDS]), math.pi / 2)
    return radius * np.sin(theta).ravel(), _normalized(half * WEIGHTS_HIGH * np.cos(theta) ** (batch - 3)).ravel()


def _others(phi: Activation, batch: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes y given every node x and their weights, (n, m) each."""
    radius = math.sqrt(batch - 1)
    cosine = -1 / (batch - 1)
    # Where x has all of the radius there is no spread left, and panels of no width.
    left = np.sqrt(np.maximum(1 - (x / radius) ** 2, 1e-30))
    spread = math.sqrt((1 - cosine**2) * (batch - 1)) * left
    own = np.concatenate([_WITHIN, mesh(phi)])
    fixed = np.broadcast_to(np.append(_ENDS, _angles(_WITHIN / radius)), (x.size, 2 + _WITHIN.size))
    edges = np.concatenate([fixed, _angles((own[None, :] - cosine * x[:, None]) / spread[:, None])], axis=1)
    psi, half = _panels(edges, math.pi / 2)
    weight = half * WEIGHTS_HIGH * np.cos(psi) ** (batch - 4)
    psi, weight = psi.reshape(x.size, -1), weight.reshape(x.size, -1)
    return cosine * x[:, None] + spread[:, None] * np.sin(psi), weight / weight.sum(axis=1, keepdims=True)


_ENDS = np.array([-math.pi / 2, math.pi / 2])


def _angles(sines: np.ndarray) -> np.ndarray:
    return np.arcsin(np.clip(sines, -1, 1))


def _normalized(weight: np.ndarray) -> np.ndarray:
    return weight / weight.sum()
