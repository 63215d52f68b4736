r"""Fixed points of the length and correlation maps, their depth scales and their phase.

Poole et al., *Exponential expressivity in deep neural networks through transient chaos* (2016); Schoenholz et
al., *Deep information propagation* (2017). Per layer, a deviation of the length shrinks by $\chi_\parallel$, one
of the correlation by the slope of its map, and the mean squared gradient, going back, changes by
$\chi_\perp$.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxgain.activations import Activation, activation
from jaxgain.theory.critical import root
from jaxgain.theory.finite import check_finite
from jaxgain.theory.increments import power, separation_ratios
from jaxgain.theory.lengths import TINY, Length, fixed_lengths, next_length, reached, scan
from jaxgain.theory.meanfield import Init, check_init
from jaxgain.theory.panels import resolve
from jaxgain.theory.phases import EDGE, NOISE, PHASES, FixedPoint, depth
from jaxgain.theory.quadrature import Moments, moments
from jaxgain.theory.reached import reached_correlation, reached_length
from jaxgain.theory.tables import correlation_table, length_table
from jaxgain.theory.traced_lengths import places
from jaxgain.theory.traced_points import traced_fixed_point, traced_fixed_points

__all__ = ["PHASES", "FixedPoint", "depth", "fixed_point", "fixed_points"]


def fixed_points(phi: "str | Activation | Callable[..., Any]", init: Init) -> Any:
    r"""Return every fixed point $q^* \ge 0$ of the length map, from small to large (Poole et al., 2016).

    $q^* = \sigma_w^2 E\phi(\sqrt{q^*} z)^2 + \sigma_b^2$. Zero is one where $\sigma_b = 0$ and $\phi(0) = 0$. A
    point where the map touches the diagonal is one point, "half-stable". Where every length is preserved, q = 1
    stands for all of them, "neutral". None at all: every length diverges.

    Of one initialization of numbers a tuple. Of arrays, and under `jit` and `vmap`, one `FixedPoint` whose fields
    have a first axis more, of as many places as phi can have fixed points, which is two more than $dE\phi^2/dq$ has
    extrema: 2 for tanh and ReLU, 3 for GELU. Places that are left over come last: NaN in all numbers, "none" (traced
    -1) in `stability` and `phase`, and `converged` is false. `basin` has a last axis of its two ends.

    Arrays are taken number by number. Traced values are computed from tables, in their dtype, which hold lengths from
    1e-12 to 1e6, and 0; a fixed length outside is left out, and c is NaN at lengths above 1e4. In float64 they agree
    with the numbers to 1e-9 where fixed points are apart. Where two of them meet, and q goes as the square root of
    what the scales are off, to the root of 1e-12; nearer than that they are one point, half-stable, whose
    derivative in the scales, infinite, comes out as that of the place where $\chi_\parallel = 1$: 0.

    Raises `ValueError` where phi is not finite or has no finite expectation.

    >>> [(round(point.q, 9), point.stability) for point in fixed_points("tanh", Init(2**0.5))]
    [(0.0, 'unstable'), (0.61796477, 'stable')]
    >>> fixed_points("tanh", Init(np.array([0.5, 2**0.5]))).q.round(9).tolist()
    [[0.0, 0.0], [nan, 0.61796477]]
    """
    phi = resolve(activation(phi))
    check_init(init)
    check_finite(phi)
    arguments = (init.sigma_w, init.sigma_b)
    if any(isinstance(argument, Tracer) for argument in arguments):
        dtype = jnp.result_type(*arguments, float)
        traced = jnp.vectorize(functools.partial(traced_fixed_points, phi), signature=_SIGNATURE)
        points = FixedPoint(*traced(*(jnp.asarray(argument, dtype) for argument in arguments)))
        moved = {name: jnp.moveaxis(field, -1, 0) for name, field in points._asdict().items() if name != "basin"}
        return FixedPoint(**moved, basin=jnp.moveaxis(points.basin, -2, 0))
    if any(np.ndim(argument) for argument in arguments):
        return _all_of_many(phi, *np.broadcast_arrays(*(np.asarray(argument, np.float64) for argument in arguments)))
    sigma_w, sigma_b = map(float, arguments)
    return tuple(_fixed_point(phi, sigma_w, sigma_b, found) for found in fixed_lengths(phi, sigma_w, sigma_b))


def fixed_point(phi: "str | Activation | Callable[..., Any]", init: Init, q0: Any = 1.0) -> FixedPoint:
    r"""Return the fixed point that the length reaches from q0, layer by layer (Poole et al., 2016).

    It has an infinite q where the length diverges, and `converged` is false there and where the length neither
    diverges nor settles. Arrays of scales and of q0 broadcast; under `jit` and `vmap` it is computed in the dtype
    of the traced arguments, and `converged` is false too where rounding decides, and where c is below 1 at a length
    above 1e4: there c is NaN.

    Raises `ValueError` on a q0 that is not positive (or 0, for one initialization) and finite, and where phi is
    not finite or has no finite expectation.

    >>> point = fixed_point("tanh", Init(2.5, 0.3))
    >>> round(point.q, 9), round(point.c, 10), round(point.xi_c, 4), point.phase
    (4.079123875, 0.1221037473, 5.1089, 'chaotic')
    """
    phi = resolve(activation(phi))
    check_init(init)
    check_finite(phi)
    arguments = (init.sigma_w, init.sigma_b, q0)
    if any(isinstance(argument, Tracer) for argument in arguments):
        dtype = jnp.result_type(*arguments, float)
        traced = jnp.vectorize(functools.partial(traced_fixed_point, phi))
        return FixedPoint(*traced(*(jnp.asarray(argument, dtype) for argument in arguments)))
    _check_first_length(q0)
    if any(np.ndim(argument) for argument in arguments):
        return _many(phi, *np.broadcast_arrays(*(np.asarray(argument, np.float64) for argument in arguments)))
    return _one(phi, *map(float, arguments))


def _check_first_length(q0: Any) -> None:
    try:
        lengths = np.asarray(q0, np.float64)
    except (TypeError, ValueError):
        lengths = np.array(math.nan)
    if not (np.isfinite(lengths).all() and (lengths >= 0).all() and (lengths.ndim == 0 or (lengths > 0).all())):
        raise ValueError(f"the first length q0 must be finite and not negative, in arrays positive, got {q0!r}")


# --- one initialization ---


@functools.lru_cache(maxsize=16384)
def _one(phi: Activation, sigma_w: float, sigma_b: float, q0: float) -> FixedPoint:
    found, converged = reached(phi, sigma_w, sigma_b, q0)
    if found is None:
        return _diverging(phi, sigma_w)
    return _fixed_point(phi, sigma_w, sigma_b, found)._replace(converged=converged)


def _fixed_point(phi: Activation, sigma_w: float, sigma_b: float, found: Length) -> FixedPoint:
    q, m = found.q, moments(phi, found.q)
    chi_par, chi_perp = _chis(m, sigma_w)
    if q == 0:
        chi_par, chi_perp = (0.0 if chi < TINY else chi for chi in (chi_par, chi_perp))
    one_minus_c, slope = _correlation(phi, sigma_w, q, chi_perp)
    return FixedPoint(
        q=q,
        one_minus_c=one_minus_c,
        chi_par=chi_par,
        chi_perp=chi_perp,
        slope=slope,
        xi_q=depth(abs(chi_par)),
        xi_c=depth(slope),
        xi_grad=depth(chi_perp),
        stability=found.stability,
        basin=found.basin,
        phase=_phase(q, chi_perp, found.stability),
        residual=abs(next_length(phi, sigma_w, sigma_b, q) / q - 1) if q else 0.0,
        converged=True,
    )


def _diverging(phi: Activation, sigma_w: float) -> FixedPoint:
    m = scan(phi)[-1][1]
    chi_par, chi_perp = _chis(m, sigma_w)
    depths = {"xi_q": depth(chi_par), "xi_c": math.nan, "xi_grad": depth(chi_perp)}
    return FixedPoint(
        q=math.inf,
        one_minus_c=math.nan,
        chi_par=chi_par,
        chi_perp=chi_perp,
        slope=math.nan,
        **depths,
        stability="unstable",
        basin=(math.inf, math.inf),
        phase="diverging",
        residual=math.inf,
        converged=False,
    )


def _chis(m: Moments, sigma_w: float) -> tuple[float, float]:
    if sigma_w == 0:
        return 0.0, 0.0
    return sigma_w**2 * m.length_slope.value, sigma_w**2 * m.slope_second.value


def _phase(q: float, chi_perp: float, stability: str) -> str:
    if stability == "neutral":
        return "scale-invariant"
    if abs(chi_perp - 1) <= EDGE:
        return "edge"
    if q == 0 and stability == "stable":
        return "collapsing"
    return "ordered" if chi_perp < 1 else "chaotic"


def _correlation(phi: Activation, sigma_w: float, q: float, chi_perp: float) -> tuple[float, float]:
    """Return 1 - c at the attracting fixed correlation in [0, 1], and the slope of the correlation map there.

    The map is convex in c on [0, 1] (its series in c has no negative coefficient), at least 0 at 0 and 1 at 1:
    below 1 it has one fixed point where chi_perp > 1, and none otherwise.
    """
    if q == 0:
        return 0.0, 1.0  # the limit of chi_perp q/q', where phi is linear on either side of 0
    if not chi_perp > 1 + NOISE:
        return 0.0, chi_perp

    def excess(log_x: np.ndarray) -> np.ndarray:
        t = np.exp(log_x / 2)
        ratios = separation_ratios(phi, np.full_like(t, q), t)
        return np.log(sigma_w**2 * ratios) + (power(phi) - 2) * log_x / 2

    def at(log_x: float) -> float:
        return float(excess(np.array([log_x]))[0])

    if at(0.0) > -1e-12:
        log_x = 0.0  # phi is odd and there is no bias
    else:
        high, low = 0.0, -math.log(16)
        while at(low) <= 0:
            high, low = low, 2 * low
            if low < -80:  # chi_perp - 1 is rounding
                return 0.0, chi_perp
        log_x = root(at, low, high)
    return math.exp(log_x), 1 + _derivative(excess, log_x)


# Chebyshev nodes, and the weights that differentiate there the polynomial through values at them, at 0.
_NODES = np.cos(np.pi * (np.arange(13) + 0.5) / 13)
_WEIGHTS = np.linalg.solve(_NODES[None, :] ** np.arange(13)[:, None], np.eye(13)[1])
_WIDTH = 0.2


def _derivative(function: Callable[[np.ndarray], np.ndarray], x: float) -> float:
    """Return the derivative at x of a function that is analytic well beyond 0.2 on either side of it."""
    values = function(x + _WIDTH * _NODES)
    return float(_WEIGHTS @ (values - np.mean(values))) / _WIDTH


# --- arrays of initializations ---


# Of the traced function of all fixed points: a last axis of places, and of the ends of the basin.
_SIGNATURE = "(),()->" + ",".join("(p,e)" if name == "basin" else "(p)" for name in FixedPoint._fields)
_NUMBERS = ("q", "one_minus_c", "chi_par", "chi_perp", "slope", "xi_q", "xi_c", "xi_grad", "residual")
_EMPTY = FixedPoint(
    **dict.fromkeys(_NUMBERS, math.nan), stability="none", basin=(math.nan, math.nan), phase="none", converged=False
)


def _all_of_many(phi: Activation, sigma_w: np.ndarray, sigma_b: np.ndarray) -> FixedPoint:
    """Return all fixed points of every initialization, with a first axis of places."""
    shape, rows = sigma_w.shape, []
    for w, b in zip(sigma_w.ravel().tolist(), sigma_b.ravel().tolist(), strict=True):
        found = [_fixed_point(phi, w, b, length) for length in fixed_lengths(phi, w, b)]
        rows.append(found + [_EMPTY] * (places(phi) - len(found)))
    fields = zip(*(point for row in rows for point in row), strict=True)
    arrays = [np.array(field).reshape(*shape, places(phi), *np.shape(field[0])) for field in fields]
    return FixedPoint(*(np.moveaxis(array, len(shape), 0) for array in arrays))


# From tables.
def _many(phi: Activation, sigma_w: np.ndarray, sigma_b: np.ndarray, q0: np.ndarray) -> FixedPoint:
    shape = sigma_w.shape
    sigma_w, sigma_b, q0 = sigma_w.ravel(), sigma_b.ravel(), q0.ravel()
    with jax.enable_x64(True):
        ends = _compiled_lengths()(length_table(phi), sigma_w, sigma_b, q0)
    q, chi_par, chi_perp, known, falls, rises, residual = (np.array(part) for part in ends)
    limit, top = moments(phi, 0.0), scan(phi)[-1][1]
    falls &= (sigma_b == 0) & (limit.second.value < TINY) & (not phi.jumps)
    for where, value, m in ((falls, 0.0, limit), (rises, math.inf, top)):
        q[where] = value
        chi_par[where], chi_perp[where] = (sigma_w[where] ** 2 * f.value for f in (m.length_slope, m.slope_second))
    falls &= chi_perp < 1  # else there is a length below the table
    known = (known | falls | rises) & (np.abs(chi_perp - 1) > 1e-7)
    one_minus_c, slope = np.where(rises, math.nan, 0.0), np.where(rises, math.nan, np.where(falls, 1.0, chi_perp))
    chaotic = known & (chi_perp > 1) & (q > 0) & ~rises
    if chaotic.any():
        one_minus_c[chaotic], slope[chaotic] = _correlations(phi, q[chaotic], sigma_w[chaotic])
    columns = {
        "q": q,
        "one_minus_c": one_minus_c,
        "slope": slope,
        "chi_par": chi_par,
        "chi_perp": chi_perp,
        "xi_q": _depths(np.abs(chi_par)),
        "xi_c": _depths(slope),
        "xi_grad": _depths(chi_perp),
        "stability": np.where(rises, "unstable", "stable").astype("<U11"),
        "basin": np.full((q.size, 2), math.nan),
        "phase": np.select([rises, falls, chi_perp < 1], ["diverging", "collapsing", "ordered"], "chaotic").astype(
            "<U15"
        ),
        "residual": np.where(rises, math.inf, np.where(falls, 0.0, residual)),
        "converged": ~rises,
    }
    for i in np.flatnonzero(~known):
        for name, value in _one(phi, float(sigma_w[i]), float(sigma_b[i]), float(q0[i]))._asdict().items():
            columns[name][i] = value
    return FixedPoint(**{name: column.reshape(*shape, *column.shape[1:]) for name, column in columns.items()})


# Tables are arguments, so that one compiled function serves every activation.
@functools.cache
def _compiled_lengths() -> Callable[..., Any]:
    return jax.jit(jax.vmap(reached_length, (None, 0, 0, 0)))


@functools.cache
def _compiled_correlations() -> Callable[..., Any]:
    return jax.jit(jax.vmap(reached_correlation, (None, 0, 0)))


def _correlations(phi: Activation, q: np.ndarray, sigma_w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    table = correlation_table(phi, float(q.min()), float(q.max()))
    with jax.enable_x64(True):
        one_minus_c, slope = _compiled_correlations()(table, np.log(q), 2 * np.log(sigma_w))
        return np.asarray(one_minus_c), np.asarray(slope)


def _depths(factor: np.ndarray) -> np.ndarray:
    """Return -1/ln of every factor, as `depth` does for one."""
    with np.errstate(divide="ignore"):
        depths = -1 / np.log(factor)
    return np.where(np.abs(factor - 1) <= NOISE, np.inf, np.where(np.isinf(factor), 0.0, depths)) + 0.0
