r"""The spectrum of the input-output Jacobian of a plain network at infinite width.

$J = \prod_l D^l W^l$ with $D^l = \mathrm{diag}\,\phi'(z^l)$: factors that are free of each other, so that the
S-transform of $JJ^T$ is the product of those of $(D^l)^2$ and $W W^T$ (Pennington, Schoenholz and Ganguli,
*Resurrecting the sigmoid in deep learning*, 2017; *The emergence of spectral universality in deep networks*, 2018).
"""

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxgain.activations import Activation, activation
from jaxgain.theory.fixed_points import fixed_point
from jaxgain.theory.meanfield import Init, one_init
from jaxgain.theory.panels import WEIGHTS_HIGH, mesh, nodes, resolve, tabulate
from jaxgain.theory.quadrature import moments

if TYPE_CHECKING:
    import xarray

DISTRIBUTIONS = ("normal", "orthogonal")


def jacobian_spectrum(
    phi: "str | Activation | Callable[..., Any]",
    init: Init,
    *,
    depth: int,
    distribution: str = "normal",
    second_moment: float | None = None,
) -> "xarray.Dataset":
    r"""Return moments and the largest of the squared singular values of the Jacobian from the input to each layer.

    With $\mu_k = E\phi'^{2k}$ at a layer's q, the mean is $m_1 = \prod_l \sigma_w^2\mu_1$, the variance over $m_1^2$
    $\sum_l(\mu_2/\mu_1^2 - 1 - s_1)$ with $s_1 = -1$ for normal weights and 0 for orthogonal ones (Pennington et al.,
    2018). The largest is the least of $z(m)$, $m > 0$, up to its first minimum, where $\ln z = \ln\frac{1+m}{m} +
    \sum_l [\ln M_l^{-1}(m) - \ln\frac{1+m}{m} + \ln\sigma_w^2]$, with $+ \ln(1 + m)$ in each term for normal weights
    and $M_l(w) = E[\phi'^2/(w - \phi'^2)]$.

    Every layer has the length that is reached from 1, or with `second_moment` that which the recursion from this
    input gives it. Variables over `layer` 0 … depth: `log_jacobian_second_moment` $= \ln m_1$, `relative_variance`,
    and `log_largest_singular_value`, $\ln\lambda_{\max}/2$: infinite where $\phi'$ is unbounded, NaN where the
    largest slopes are so rare (softplus, orthogonal, few layers) that no edge shows. Finite networks come below it
    by about $n^{-2/3}$ of it.

    Raises `ValueError` and `TypeError` for settings that are none, where phi jumps, as the slope of a jump is no
    number, and where the length vanishes within the depth or diverges.

    >>> spectrum = jacobian_spectrum("identity", Init(1.0), depth=3)
    >>> float(spectrum.relative_variance[-1]), round(float(2 * spectrum.log_largest_singular_value[-1]), 9)
    (3.0, 2.249340578)
    >>> round(math.log(4**4 / 3**3), 9)  # Fuss-Catalan: (L + 1)^(L + 1) / L^L
    2.249340578
    """
    import xarray

    phi = resolve(activation(phi))
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"distribution must be normal or orthogonal, got {distribution!r}")
    if isinstance(depth, bool) or not isinstance(depth, int | np.integer):
        raise TypeError(f"depth must be a whole number, got {depth!r}")
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}; it counts the layers")
    if phi.jumps:
        raise ValueError(f"{phi.name} jumps, and the slope of a jump is no number: its Jacobian has no spectrum")
    lengths = _lengths(phi, init, depth, second_moment)
    sigma_w, normal = float(init.sigma_w), distribution == "normal"
    slopes = [squared_slopes(phi, q) for q in lengths]
    with np.errstate(divide="ignore"):
        log_means = np.log([sigma_w**2 * each.mean for each in slopes])
    spreads = [each.spread + normal for each in slopes]
    columns = {
        "log_jacobian_second_moment": np.cumsum(log_means),
        "relative_variance": np.cumsum(spreads),
        "log_largest_singular_value": log_largest(slopes, normal) / 2 + np.arange(1, depth + 1) * _log(sigma_w),
    }
    return xarray.Dataset(
        {name: ("layer", np.insert(values, 0, 0.0)) for name, values in columns.items()},
        coords={"layer": np.arange(depth + 1)},
        attrs=dict(activation=phi.name, sigma_w=sigma_w, sigma_b=float(init.sigma_b), distribution=distribution),
    )


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def _lengths(phi: Activation, init: Init, depth: int, second_moment: float | None) -> list[float]:
    sigma_w, sigma_b = one_init(init, "a spectrum is that")
    if second_moment is None:
        q = fixed_point(phi, init).q
        if not math.isfinite(q):
            raise ValueError(f"every length diverges with {init!r}; give the second_moment of the input")
        return [q] * depth
    if not (isinstance(second_moment, int | float | np.number) and 0 < second_moment < math.inf):
        raise ValueError(f"second_moment must be finite and positive, a mean square, got {second_moment!r}")
    lengths, second = [], float(second_moment)
    for layer in range(1, depth + 1):
        q = sigma_w**2 * second + sigma_b**2
        if not 1e-290 < q < 1e290:
            raise ValueError(f"the length of layer {layer} is {q:g}; choose fewer layers or another init")
        lengths.append(q)
        second = moments(phi, q).second.value
    return lengths


# The distribution of φ'² at one length


class SquaredSlopes(NamedTuple):
    """Values y of φ'² over their supremum, at nodes with weights that sum to 1; `short` is 1 - y."""

    supremum: float
    weight: np.ndarray
    y: np.ndarray
    short: np.ndarray
    mean: float
    spread: float
    """Variance over the squared mean."""
    bounded: bool


_NORMAL = np.array([-8.5, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.5])  # what is beyond weighs 1e-17


@functools.lru_cache(maxsize=4096)
def squared_slopes(phi: Activation, q: float) -> SquaredSlopes:
    """Return the distribution of φ'² at the length q >= 0.

    >>> from jaxgain.activations import activation
    >>> slopes = squared_slopes(activation("relu"), 1.0)
    >>> round(slopes.mean, 12), round(slopes.spread, 12)
    (0.5, 1.0)
    """
    root = math.sqrt(max(q, 1e-200))
    # Over a larger interval, to see whether the largest slope is at its end, and goes on growing.
    edges = np.unique(np.concatenate([_NORMAL, np.array(mesh(phi)) / root]))
    edges = edges[np.abs(edges) <= _NORMAL[-1]]
    z, _ = nodes(edges[:-1], edges[1:])
    slopes = np.abs(tabulate(phi, root * z.ravel())[1])
    peak = float(z.ravel()[np.argmax(slopes)])
    # Around the largest slope panels halve, as y/(w - y) is narrow there for w near 1.
    near = np.concatenate([[0.0], 2.0 ** np.arange(-26, 1)])
    edges = np.unique(np.clip(np.concatenate([edges, peak + near, peak - near]), _NORMAL[0], _NORMAL[-1]))
    z, half = nodes(edges[:-1], edges[1:])
    weight = (half * WEIGHTS_HIGH * np.exp(-z * z / 2)).ravel()
    used = weight > 0
    z, weight = z.ravel()[used], weight[used] / weight.sum()
    square = tabulate(phi, root * z)[1] ** 2
    supremum = float(square.max())
    if supremum == 0:
        return SquaredSlopes(0.0, weight, square, 1 - square, 0.0, math.nan, True)
    far = tabulate(phi, root * np.array([-20.0, -10.0, 10.0, 20.0]))[1] ** 2
    bounded = bool(max(far[0] / max(far[1], 1e-300), far[3] / max(far[2], 1e-300)) < 1.5 or supremum > far.max())
    y = square / supremum
    mean = float(weight @ y)
    spread = float(weight @ np.square(y / mean - 1))
    return SquaredSlopes(supremum, weight, y, (supremum - square) / supremum, supremum * mean, spread, bounded)


# The edge of the spectrum

_ORDER = 12
_NODES = np.cos(np.pi * (np.arange(_ORDER) + 0.5) / _ORDER)[::-1]
_WIDTH = 1.5  # of a panel in ln m: what is there is analytic to π on either side


def log_largest(slopes: list[SquaredSlopes], normal: bool) -> np.ndarray:
    """Return the logarithm of the largest squared singular value after each layer, of weights of unit variance.

    >>> from jaxgain.activations import activation
    >>> relu = squared_slopes(activation("relu"), 1.0)
    >>> round(math.exp(log_largest([relu] * 4, normal=False)[-1]) * 2**4, 9), 4**4 / 3**3
    (9.481481481, 9.481481481481481)
    """
    if any(not each.bounded for each in slopes):
        first = next(place for place, each in enumerate(slopes) if not each.bounded)
        known = log_largest(slopes[:first], normal) if first else np.zeros(0)
        return np.concatenate([known, np.full(len(slopes) - first, math.inf)])
    spread = min((each.spread for each in slopes if each.spread > 1e-20), default=1.0)
    low = -math.log(sum(each.spread + 1 for each in slopes) + 1) - 3
    panels = math.ceil((8 - min(0.0, math.log(spread)) / 2 - low) / _WIDTH)
    u = low + _WIDTH * (np.arange(panels)[:, None] + (_NODES[None, :] + 1) / 2)
    m = np.exp(u)
    value, slope = -np.log(m / (1 + m)), -1 / (1 + m)
    largest, inverses = [], {}
    for each in slopes:
        if id(each) not in inverses:
            inverses[id(each)] = _log_inverse(each, m)
        log_w, log_w_slope = inverses[id(each)]
        value = value + log_w + np.log(m / (1 + m)) + normal * np.log1p(m)
        slope = slope + log_w_slope + 1 / (1 + m) + normal * m / (1 + m)
        largest.append(_first_minimum(value, slope))
    at_end = np.cumsum([math.log(each.supremum) if each.supremum else -math.inf for each in slopes])
    return np.where(np.isposinf(largest), math.inf if normal else at_end, largest)


def _log_inverse(slopes: SquaredSlopes, m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ln w with M(w) = m and its derivative with respect to ln m; NaN where m is not reached."""
    if slopes.supremum == 0:
        return np.full_like(m, -math.inf), np.zeros_like(m)
    flat = m.ravel()
    # w = supremum (1 + v); M falls from v = 0 on, and is below E y / v.
    low, high = np.full_like(flat, math.log(1e-13)), np.log(slopes.weight @ slopes.y / flat)
    high = np.maximum(high, low)
    at = high
    for _ in range(40):
        value, change = _transform(slopes, at)
        above = value > flat
        low, high = np.where(above, at, low), np.where(above, high, at)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = at + (np.log(value) - np.log(flat)) * value / change
        step = np.where((step > low) & (step < high), step, (low + high) / 2)
        done = np.abs(step - at).max() < 1e-14
        at = step
        if done:
            break
    value, change = _transform(slopes, at)
    v = np.exp(at)
    known = np.abs(value / flat - 1) < 1e-8
    log_w = np.where(known, math.log(slopes.supremum) + np.log1p(v), math.nan)
    slope = np.where(known, -flat * v / ((1 + v) * change), math.nan)
    return log_w.reshape(m.shape), slope.reshape(m.shape)


def _transform(slopes: SquaredSlopes, log_v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return M and -dM/d ln v at w = supremum (1 + v)."""
    v = np.exp(log_v)
    share = 1 / (v[:, None] + slopes.short[None, :])
    of_y = slopes.weight * slopes.y
    return share @ of_y, v * ((share * share) @ of_y)


def _first_minimum(value: np.ndarray, slope: np.ndarray) -> float:
    """Return the function where its slope, both at the nodes of panels, first changes sign from - to +.

    Infinite where it falls to the end, NaN where it is not known as far.
    """
    flat = slope.ravel()
    rising = np.flatnonzero(flat > 0)
    unknown = np.flatnonzero(np.isnan(flat))
    if not rising.size:
        return math.nan if unknown.size else math.inf
    if unknown.size and unknown[0] <= (rising[0] // _ORDER + 1) * _ORDER - 1:
        return math.nan
    panel = int(rising[0] // _ORDER)
    if rising[0] % _ORDER == 0 and panel:  # between two panels: the slope is 0 at or just below this one's first node
        before = np.polynomial.chebyshev.chebfit(_NODES, slope[panel - 1], _ORDER - 1)
        panel -= int(np.polynomial.chebyshev.chebval(1.0, before) > 0)
    series = np.polynomial.chebyshev.chebfit(_NODES, slope[panel], _ORDER - 1)
    roots = np.polynomial.chebyshev.chebroots(series)
    real = roots[np.abs(roots.imag) < 1e-6].real
    inside = np.sort(real[np.abs(real) < 1.02])
    values = np.polynomial.chebyshev.chebfit(_NODES, value[panel], _ORDER - 1)
    return float(np.polynomial.chebyshev.chebval(inside[0], values)) if inside.size else math.nan
