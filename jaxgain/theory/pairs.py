r"""Expectations over two inputs of one length as functions of the angle between them, for any number of pairs.

In the angle $\theta = \arccos c$ they are analytic on $[0, \pi]$, kinks of phi included, where in c they have
singularities at both ends. Many pairs are interpolated from Chebyshev points, on panels that are halved until their
series have ended.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgain.activations import Activation, value_and_slope
from jaxgain.theory.pair_rule import own_edges, separation_ratio
from jaxgain.theory.panels import resolve, tabulate
from jaxgain.theory.quadrature import moments, separation


class Separations(NamedTuple):
    r"""$E(\phi(u) - \phi(v))^2/2$ and $E(\phi'(u) - \phi'(v))^2/2$, shaped as the correlations."""

    value: np.ndarray
    slope: np.ndarray


@functools.lru_cache(maxsize=512)
def slope_of(phi: Activation) -> Activation:
    """Return phi' as an activation, with phi's kinks.

    >>> from jaxgain.activations import activation
    >>> float(slope_of(activation("relu"))(2.0))
    1.0
    """
    kinks = resolve(phi).kinks
    return Activation(f"slope of {phi.name}", lambda x: value_and_slope(phi, x)[1], kinks=kinks, jumps=())


def separations(phi: Activation, q: float, one_minus_c: np.ndarray) -> Separations:
    """Return both for pairs of length q > 0, from 1 - c, to about 1e-10 of themselves.

    >>> from jaxgain.activations import activation
    >>> far = separations(activation("relu"), 2.0, np.array([1.0]))
    >>> bool(abs(far.value[0] - (1 - 1 / math.pi)) < 1e-12), round(float(far.slope[0]), 12)
    (True, 0.25)
    """
    # 1 - c = 2 sin²(θ/2), of which θ = 2 arcsin √((1 - c)/2) keeps the digits.
    angles = 2 * np.arcsin(np.sqrt(np.clip(one_minus_c, 0, 2) / 2))
    unique, places = np.unique(angles, return_inverse=True)
    apart = unique > 0
    values = np.zeros((2, unique.size))
    if apart.any():
        values[:, apart] = _at(phi, q, unique[apart])
    value, slope = values[:, places.reshape(angles.shape)]
    return Separations(value, slope)


# Below this 1 - c, of t = 1e-5, rounding of u - v shows; the separations have their first order there.
_CLOSE = 1e-10


def pair_separation(phi: Activation, one_minus_c: float, q: float) -> float:
    r"""Return $E(\phi(u) - \phi(v))^2/2$ as `separation` does, for 1 - c however small.

    Below 1e-10 from the value there: $q\,(1-c)\,(E\phi'^2 + O(\sqrt{1-c}))$, at a jump $O(\sqrt{1-c})$.

    >>> from jaxgain.activations import activation
    >>> round(pair_separation(activation("relu"), 1e-40, 1.0) / 1e-40, 9)
    0.5
    """
    if one_minus_c >= _CLOSE or one_minus_c == 0:
        return separation(phi, one_minus_c, q).value
    ratio = separation(phi, _CLOSE, q).value / (q * _CLOSE)
    return q * one_minus_c * float(_closer(phi, q, ratio, math.sqrt(one_minus_c / _CLOSE)))


def _closer(phi: Activation, q: float, ratio: Any, nearness: Any) -> Any:
    """Return what becomes of the ratio at the closest t that is computed, at `nearness` <= 1 times that t."""
    if phi.jumps:
        return ratio / nearness
    limit = moments(phi, q).slope_second.value
    return limit + (ratio - limit) * nearness


_FEW = 48  # pairs whose expectations are computed one by one


def _at(phi: Activation, q: float, angles: np.ndarray) -> np.ndarray:
    t = np.sqrt(2) * np.sin(angles / 2)
    closest = 2 * math.asin(math.sqrt(_CLOSE / 2))
    nearness = np.minimum(t / math.sqrt(_CLOSE), 1.0)
    angles = np.maximum(angles, closest)
    if angles.size <= _FEW:
        ratios = _ratios(phi, q, angles)
    else:
        ratios = np.empty((2, angles.size))
        for low, high, coefficients in _series(phi, q):
            inside = (angles >= low) & (angles <= high)
            x = (2 * angles[inside] - low - high) / (high - low)
            ratios[:, inside] = np.polynomial.chebyshev.chebval(x, coefficients)
    ratios[0] = np.where(nearness < 1, _closer(phi, q, ratios[0], nearness), ratios[0])
    # Where phi has a kink its slope separates like t, elsewhere like t².
    ratios[1] *= 1.0 if phi.kinks else nearness
    return ratios * q * np.stack([t * t, t])


_ORDER = 16
_NODES = np.cos(np.pi * (np.arange(_ORDER) + 0.5) / _ORDER)
_NARROWEST = 1e-3
_FARTHEST = math.sqrt(2) * (1 - 1e-15)  # at √2 itself nothing is left of u + v


@functools.lru_cache(maxsize=64)
def _series(phi: Activation, q: float) -> list[tuple[float, float, np.ndarray]]:
    """Return panels in the angle with Chebyshev coefficients, (16, 2), of what `_ratios` returns."""
    panels, open_ = [], [(0.0, math.pi / 2), (math.pi / 2, math.pi)]
    while open_:
        low, high = open_.pop()
        values = _ratios(phi, q, (low + high + (high - low) * _NODES) / 2)
        coefficients = np.polynomial.chebyshev.chebfit(_NODES, values.T, _ORDER - 1)
        tail, size = np.abs(coefficients[-3:]).max(0), np.abs(coefficients).max(0)
        if (tail > 3e-11 * size).any() and high - low > _NARROWEST:
            middle = (low + high) / 2
            open_ += [(low, middle), (middle, high)]
        else:
            panels.append((low, high, coefficients))
    return panels


def _ratios(phi: Activation, q: float, angles: np.ndarray) -> np.ndarray:
    """Return the separation of phi over q t² and that of phi' over q t, t² = 1 - c, (2, angles)."""
    padded = np.resize(angles, -(-angles.size // 8) * 8)
    t = np.minimum(np.sqrt(2) * np.sin(padded / 2), _FARTHEST)
    both = []
    for f, power in ((phi, 0), (slope_of(phi), 1)):
        own, spans = (np.pad(x, (0, -x.size % 8), constant_values=np.inf) for x in _edges(f, q))
        with jax.enable_x64(True):
            ratio = np.asarray(_compiled(f)(t, np.float64(q), own, spans))
        both.append(ratio * t**power)
    return np.stack(both)[:, : angles.size]


def _edges(f: Activation, q: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of `own_edges`, for what oscillates with those halfway."""
    own, spans = own_edges(f, 10 * math.sqrt(q))
    if not _oscillates(f):
        return own, spans
    halved = [np.unique(np.append(edges, 0.0)) for edges in (own, spans)]
    halved = [np.unique(np.concatenate([edges, (edges[1:] + edges[:-1]) / 2])) for edges in halved]
    return halved[0], halved[1][1:]


@functools.lru_cache(maxsize=512)
def _oscillates(f: Activation) -> bool:
    values, _ = tabulate(f, np.linspace(-32.0, 32.0, 4096))
    changes = np.diff(values)
    return bool(np.count_nonzero(changes[1:] * changes[:-1] < 0) > 8)


# Near c = -1 the half sum of u and v hardly varies, and kinks are blurred over so many of its standard deviations.
_BLUR = np.array([-9.0, -4.5, -1.5, 1.5, 4.5, 9.0])


@functools.lru_cache(maxsize=64)
def _compiled(f: Activation) -> Callable[..., Any]:
    kinks = np.abs(np.array(resolve(f).kinks or ()))

    def one(t: Array, q: Array, own: Array, spans: Array) -> Array:
        width = jnp.sqrt(q * (1 - t * t / 2))
        blurred = (kinks[:, None] + width * _BLUR[None, :]).ravel()
        return separation_ratio(f, own, jnp.concatenate([spans, blurred]), t, q)

    return jax.jit(lambda t, q, own, spans: jax.lax.map(lambda t: one(t, q, own, spans), t, batch_size=8))
