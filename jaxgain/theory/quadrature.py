r"""Gaussian expectations $E f(\sqrt q z)$, $z \sim N(0, 1)$, and those of correlated pairs, with errors.

Composite Gauss-Legendre: the real line is cut where the activation is not smooth, at its own length scales
and at those of the normal density; on every panel the rule of order 16 is compared with that of order 32.
On the host, panels that differ are halved until they agree. The traced functions keep the panels fixed, so
that they can be compiled and batched over q, and return the difference as their error.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgain.activations import Activation, activation, value_and_slope
from jaxgain.theory.panels import (
    WEIGHTS_HIGH,
    WEIGHTS_LOW,
    Expectation,
    Grid,
    integrated,
    mesh,
    nodes,
    refine,
    resolve,
    tabulate,
)

# Panels of the normal density. Beyond 37.5 it underflows; integrands that matter there are refused.
_POSITIVE_EDGES = np.array([2.0, 4.0, 6.0, 8.0, 11.0, 15.0, 20.0, 28.0, 37.5])
_Z_EDGES = np.concatenate([-_POSITIVE_EDGES[::-1], [0.0], _POSITIVE_EDGES])


class Moments(NamedTuple):
    r"""The expectations that the theory of one activation is made of, $x = \sqrt q z$.

    `mean` $E\phi$, `second` $E\phi^2$, `variance` $E(\phi - E\phi)^2$ (two-pass), `slope_mean` $E\phi'$,
    `slope_second` $E\phi'^2$ (infinite where $\phi$ jumps), `length_slope` $dE\phi^2/dq$. The last is
    $E[\phi \phi' z]/\sqrt q$, one integration by parts away from $E[\phi'^2 + \phi\phi'']$, so that no second
    derivative, and no delta at a kink, is needed; where $\phi$ jumps it is $E[\phi^2 (z^2 - 1)]/(2q)$.
    """

    mean: Expectation
    second: Expectation
    variance: Expectation
    slope_mean: Expectation
    slope_second: Expectation
    length_slope: Expectation


class NotFinite(ValueError):
    """An expectation that is not finite, or does not exist."""


def _density(z: Any) -> Any:
    exp = np.exp if isinstance(z, np.ndarray) else jnp.exp
    return exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def _host_grid(phi: Activation, q: float, integrands: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Grid:
    root = math.sqrt(q)
    own = np.asarray(mesh(phi)) / root
    edges = np.unique(np.concatenate([_Z_EDGES, own[np.abs(own) < _Z_EDGES[-1]]]))

    def evaluate(z: np.ndarray) -> np.ndarray:
        return tabulate(phi, root * z)

    def checked(z: np.ndarray, values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            f = integrands(z, values)
        bad = ~np.isfinite(f)
        if bad.any():
            where = z[bad.any(0)]
            at = float(where[np.argmin(np.abs(np.abs(where) - 1))])
            raise NotFinite(
                f"the expectation over {phi.name} at q = {q:g} is not finite: its integrand is not at x = {root * at:g}"
            )
        return f

    lo, hi, grid = refine(evaluate, checked, edges, _density)
    f = checked(grid.z, grid.values)
    size = grid.high * np.abs(f)
    tail = size[:, (lo >= _POSITIVE_EDGES[-2]) | (hi <= -_POSITIVE_EDGES[-2])].sum((1, 2))
    if (tail > 1e-14 * size.sum((1, 2))).any():
        raise NotFinite(
            f"the expectation over {phi.name} at q = {q:g} does not exist: "
            f"its integrand has not decayed {_POSITIVE_EDGES[-1]:g} standard deviations out"
        )
    return grid


def check_length(q: float) -> float:
    """Return q as a float; raise `ValueError` unless it is a positive, finite number."""
    try:
        q = float(q)
    except (TypeError, ValueError):
        raise ValueError(f"the length q must be a number, got {q!r}") from None
    if not (math.isfinite(q) and q > 0):
        raise ValueError(f"the length q must be positive and finite, got {q!r}; it is the mean square of the input")
    return q


def expectation(f: "str | Activation | Callable[[Array], Array]", q: float = 1.0) -> Expectation:
    r"""Return $E f(\sqrt q z)$, z standard normal, with an estimate of its absolute error, in float64.

    `f` is an activation's name, an `Activation` or any elementwise jax.numpy callable, its kinks unknown. The
    error is of the order of 1e-14 $E|f|$ whenever the halving of panels converges.

    Raises `ValueError` where q is not positive, or the expectation does not exist or is not finite.

    >>> value, error = expectation(lambda x: jnp.maximum(x, 0.0) ** 2, q=2.0)
    >>> round(value, 14), error < 1e-14
    (1.0, True)
    """
    grid = _host_grid(activation(f), check_length(q), lambda z, values: values[:1])
    return grid.integral(grid.values[0])


def moments(phi: "str | Activation | Callable[[Array], Array]", q: float = 1.0) -> Moments:
    r"""Return the moments of $\phi(\sqrt q z)$ and $\phi'(\sqrt q z)$ as Python floats with error estimates.

    q = 0 means the limit from above. Raises `ValueError` where q is negative or not finite, or a moment is
    not finite.

    >>> round(moments("relu", q=3.0).second.value, 14)
    1.5
    """
    phi = resolve(activation(phi))
    if q == 0:
        return _moments_at_zero(phi)
    return _moments(phi, check_length(q))


@functools.lru_cache(maxsize=512)
def _moments_at_zero(phi: Activation) -> Moments:
    with jax.enable_x64(True):
        # Compiled first: what evaluates at compile time does so operation by operation.
        compiled = jax.jit(functools.partial(_limit_moments, phi)).lower(np.float64(0.0)).compile()
        with jax.ensure_compile_time_eval():
            limit = compiled(np.float64(0.0))
        return Moments(*(Expectation(float(value), float(error)) for value, error in limit))


@functools.lru_cache(maxsize=8192)
def _moments(phi: Activation, q: float) -> Moments:
    root = math.sqrt(q)

    def integrands(z: np.ndarray, values: np.ndarray) -> np.ndarray:
        value, slope = values
        square = value * value
        by_parts = [value * z / root, square * (z * z - 1) / (2 * q)]
        return np.stack([value, square, slope, slope * slope, value * slope * z / root, *by_parts])

    grid = _host_grid(phi, q, integrands)
    integrals = list(map(grid.integral, integrands(grid.z, grid.values)))
    mean, second, slope_mean, slope_second, length_slope, slope_mean_by_parts, length_slope_by_parts = integrals
    variance = grid.integral(np.square(grid.values[0] - mean.value))
    # By parts, E phi' = E phi z / sqrt q unless phi jumps; a callable may jump where no bisection has seen
    # it.
    if phi.jumps or _differ(slope_mean, slope_mean_by_parts) or _differ(length_slope, length_slope_by_parts):
        slope_mean, length_slope = slope_mean_by_parts, length_slope_by_parts
        slope_second = Expectation(math.inf, 0.0)
    elif variance.value < 1e-3 * second.value:
        # phi - E phi is small beside phi, and phi's own rounding with it; phi' is not.
        deviation = integrated(grid.values[1], grid.half, grid.z) * root
        variance = grid.integral(np.square(deviation - grid.integral(deviation).value))
    return Moments(mean, second, variance, slope_mean, slope_second, length_slope)


def _differ(a: Expectation, b: Expectation) -> bool:
    return abs(a.value - b.value) > 1e-9 * max(abs(a.value), abs(b.value)) + 1e3 * (a.error + b.error)


def traced_grid(phi: Activation, q: Array) -> tuple[Array, Array, Array]:
    """Return nodes z and the weights of both rules, (panels, 48) each, at a traced scalar q > 0."""
    own = jnp.asarray(np.asarray(mesh(phi)), q.dtype) / jnp.sqrt(q)
    return _fixed_grid(jnp.concatenate([jnp.asarray(_Z_EDGES, q.dtype), own]), float(_Z_EDGES[-1]))


def _fixed_grid(edges: Array, limit: float) -> tuple[Array, Array, Array]:
    # The nodes are a choice, not a function of q: derivatives pass through phi(sqrt(q) z) alone.
    edges = jax.lax.stop_gradient(jnp.sort(jnp.clip(edges, -limit, limit)))
    z, half = nodes(edges[:-1], edges[1:])
    density = half * _density(z)
    return z, density * WEIGHTS_LOW[None, :], density * WEIGHTS_HIGH[None, :]


@functools.partial(jax.jit, static_argnums=0)
def traced_moments(phi: Activation, q: Array) -> Moments:
    """Return the moments at a traced scalar q >= 0, in its dtype; compiles, batches and differentiates.

    The panels are those that resolve phi over |x| <= 1024, so the results are those of `moments` to
    rounding for every shipped activation at q in 1e-6 ... 1e4; elsewhere the errors say how far they are
    off.
    """
    phi = resolve(phi)
    positive = q > 0
    at = jnp.where(positive, q, 1.0)
    z, low, high = traced_grid(phi, at)
    root = jnp.sqrt(at)
    value, slope = value_and_slope(phi, root * z)

    def integral(integrand: Array) -> Expectation:
        result = jnp.sum(high * integrand)
        difference = jnp.sum(jnp.abs(jnp.sum((high - low) * integrand, axis=1)))
        rounding = 4 * jnp.finfo(q.dtype).eps * jnp.sum(high * jnp.abs(integrand))
        return Expectation(result, difference + rounding)

    mean = integral(value)
    slope_second = integral(slope * slope)
    slope_mean, length_slope = integral(slope), integral(value * slope * z / root)
    if phi.jumps:
        slope_second = Expectation(jnp.full_like(q, jnp.inf), jnp.zeros_like(q))
        slope_mean = integral(value * z / root)
        length_slope = integral(value * value * (z * z - 1) / (2 * at))
    above = Moments(
        mean,
        integral(value * value),
        integral(jnp.square(value - mean.value)),
        slope_mean,
        slope_second,
        length_slope,
    )
    return jax.tree.map(functools.partial(jnp.where, positive), above, _limit_moments(phi, q))


def _limit_moments(phi: Activation, q: Array) -> Moments:
    """Return the moments in the limit q -> 0+, where phi is p + s x + t x^2/2 on either side of 0."""
    tiny = 1e-30 if q.dtype == jnp.float32 else 1e-100
    sides = jnp.asarray([-tiny, tiny], q.dtype)
    first = functools.partial(value_and_slope, phi)
    p, s = first(sides)
    p = p - s * sides
    t = jax.jvp(lambda x: first(x)[1], (sides,), (jnp.ones_like(sides),))[1]
    kink = p[1] * s[1] - p[0] * s[0]  # of phi^2 at 0: its slope in q diverges like kink / sqrt(2 pi q)
    rounding = 1e-12 * jnp.sum(jnp.abs(p * s)) + 1e10 * tiny * jnp.sum(s * s)
    regular = jnp.mean(s * s + p * t)
    length_slope = jnp.where(jnp.abs(kink) > rounding, kink * jnp.inf, regular)
    jump = p[1] != p[0] if phi.jumps else False
    slope_mean = jnp.where(jump, (p[1] - p[0]) * jnp.inf, jnp.mean(s)) if phi.jumps else jnp.mean(s)
    slope_second = jnp.where(jump, jnp.inf, jnp.mean(s * s))
    values = (
        jnp.mean(p),
        jnp.mean(p * p),
        jnp.square((p[1] - p[0]) / 2),
        slope_mean,
        slope_second,
        length_slope,
    )
    eps = jnp.finfo(q.dtype).eps
    return Moments(*(Expectation(value, 4 * eps * jnp.abs(value)) for value in values))


# The panels of a pair of variables: fewer, as their number is squared.
_PAIR_EDGES = np.array([-10.5, -7.5, -5.0, -2.5, 0.0, 2.5, 5.0, 7.5, 10.5])
_PAIR_CHUNK = 48  # outer nodes whose inner integrals are computed in one call


def pair_expectation(
    f: "str | Activation | Callable[[Array], Array]",
    g: "str | Activation | Callable[[Array], Array]",
    c: float | None = None,
    q: float = 1.0,
    *,
    one_minus_c: float | None = None,
) -> Expectation:
    r"""Return $E f(u) g(v)$ for u, v normal with mean 0, variance q and correlation c, and its error.

    The panels of u are cut at the kinks of f, those of v given u at the kinks of g. Near c = 1 give
    `one_minus_c` instead of `c`. Raises `ValueError` where q is not positive, c is outside [-1, 1], or the
    expectation is not finite.

    >>> value, error = pair_expectation("sign", "sign", 0.5)
    >>> bool(abs(value - 2 / np.pi * np.arcsin(0.5)) < 1e-12)
    True
    """
    if one_minus_c is None and c is not None:
        one_minus_c = 1 - c
    elif one_minus_c is None or c is not None:
        raise ValueError("give the correlation as c or as one_minus_c, and not both")
    return _pair(resolve(activation(f)), resolve(activation(g)), _gap(one_minus_c), q, False)


def separation(phi: "str | Activation | Callable[[Array], Array]", one_minus_c: float, q: float = 1.0) -> Expectation:
    r"""Return $\tfrac12 E(\phi(u) - \phi(v))^2 = E\phi(u)^2 - E\phi(u)\phi(v)$ from 1 - c, to all its digits.

    u and v are normal with mean 0, variance q and correlation c. Raises as `pair_expectation`.

    >>> round(separation("identity", 1e-10).value / 1e-10, 9)
    1.0
    """
    phi = resolve(activation(phi))
    return _pair(phi, phi, _gap(one_minus_c), q, True)


def _gap(one_minus_c: float) -> float:
    if not 0 <= one_minus_c <= 2:
        raise ValueError(f"a correlation must be in [-1, 1], got c = {1 - one_minus_c!r}")
    return float(one_minus_c)


@functools.lru_cache(maxsize=1024)
def _pair(f: Activation, g: Activation, one_minus_c: float, q: float, difference: bool) -> Expectation:
    root = math.sqrt(check_length(q))
    # |v| stays below 15 sqrt(q); the edges are padded so that few shapes are compiled.
    inner = [edge for edge in mesh(g) if abs(edge) < 15 * root]
    inner = np.array(inner + [np.inf] * (-len(inner) % 16))
    own_f, own_g = (np.array([edge for edge in mesh(phi) if abs(edge) < 15 * root]) for phi in (f, g))
    kinks_g = np.array([*(g.kinks or ())])

    def evaluate(z: np.ndarray) -> np.ndarray:
        padded = np.resize(z, -(-z.size // _PAIR_CHUNK) * _PAIR_CHUNK).reshape(-1, _PAIR_CHUNK)
        with jax.enable_x64(True), jax.ensure_compile_time_eval():
            arguments = (np.float64(one_minus_c), np.float64(q), inner)
            rows = [_compiled_inner(f, g, difference)(row, *arguments) for row in padded]
            return np.concatenate([np.asarray(row) for row in rows], axis=1)[:, : z.size]

    edges = np.asarray(_outer_edges(np, own_f / root, own_g / root, kinks_g / root, one_minus_c))
    edges = np.unique(np.clip(edges, _PAIR_EDGES[0], _PAIR_EDGES[-1]))
    with np.errstate(invalid="ignore", over="ignore"):
        lo, hi, grid = refine(evaluate, lambda z, values: values[:1], edges, _density, noise=2, panels=1000)
    value, inner_error, noise = grid.values
    if not np.isfinite(value).all():
        raise NotFinite(f"the expectation over {f.name} and {g.name} at q = {q:g} is not finite")
    outer = grid.integral(value)
    tail = np.abs(grid.high * value).sum(1)
    if tail[(lo >= 7.5) | (hi <= -7.5)].sum() > 1e-10 * tail.sum():
        raise NotFinite(f"the expectation over {f.name} and {g.name} at q = {q:g} has not decayed by z = 10")
    # Rounding is independent from node to node, so the noise of the sum is far below the sum of the noise;
    # taking the latter keeps the estimate an upper one.
    return Expectation(outer.value, outer.error + float((grid.high * (inner_error + noise)).sum()))


def _outer_edges(np_: Any, own_f: Any, own_g: Any, kinks_g: Any, one_minus_c: Any) -> Any:
    """Return the edges in z1: those of f, and those of g at v = c u with the width of their blur over z2."""
    c = 1 - one_minus_c
    s = np_.sqrt(one_minus_c * (2 - one_minus_c))
    c = np_.where(np_.abs(c) > 1e-3, c, 1.0)  # else g is blurred over all of the normal density
    blurred = kinks_g[:, None] / c + s / c * np.array([-9.0, -3.0, 3.0, 9.0])[None, :]
    return np_.concatenate([np_.asarray(_PAIR_EDGES), own_f, own_g / c, blurred.ravel()])


@functools.lru_cache(maxsize=256)
def _compiled_inner(f: Activation, g: Activation, difference: bool) -> Callable[..., Array]:
    return jax.jit(functools.partial(_inner, f, g, difference))


def _inner(
    f: Activation, g: Activation, difference: bool, z1: Array, one_minus_c: Array, q: Array, own: Array
) -> Array:
    """Return the inner integrals over z2 at the outer nodes z1: value, error and rounding, (3, nodes)."""
    root, s = jnp.sqrt(q), jnp.sqrt(one_minus_c * (2 - one_minus_c))
    u = root * z1

    def at(z1: Array, u: Array) -> Array:
        # v = u - sqrt(q) (1 - c) z1 + sqrt(q) s z2: the difference from u keeps its digits near c = 1.
        edges = (own / root - (1 - one_minus_c) * z1) / jnp.where(s > 0, s, 1.0)
        z2, low, high = _fixed_grid(jnp.concatenate([jnp.asarray(_PAIR_EDGES, q.dtype), edges]), _PAIR_EDGES[-1])
        fu, gv = f(u), g(u + root * (s * z2 - one_minus_c * z1))
        values = jnp.square(fu - gv) / 2 if difference else fu * gv
        size = jnp.abs(fu - gv) * (jnp.abs(fu) + jnp.abs(gv)) if difference else jnp.abs(values)
        value = jnp.sum(high * values)
        error = jnp.sum(jnp.abs(jnp.sum((high - low) * values, axis=1)))
        return jnp.stack([value, error, 4 * jnp.finfo(q.dtype).eps * jnp.sum(high * size)])

    return jax.vmap(at, out_axes=1)(z1, u)


def traced_pair_expectation(f: Activation, g: Activation, one_minus_c: Array, q: Array) -> Expectation:
    """Return `pair_expectation` at traced scalars, on fixed panels, in their dtype; q > 0."""
    return _traced_pair(resolve(f), resolve(g), one_minus_c, q, False)


def traced_separation(phi: Activation, one_minus_c: Array, q: Array) -> Expectation:
    """Return `separation` at traced scalars, on fixed panels, in their dtype; q > 0."""
    phi = resolve(phi)
    return _traced_pair(phi, phi, one_minus_c, q, True)


@functools.partial(jax.jit, static_argnums=(0, 1, 4))
def _traced_pair(f: Activation, g: Activation, one_minus_c: Array, q: Array, difference: bool) -> Expectation:
    own_f, own_g, kinks_g = (jnp.asarray(np.array(own), q.dtype) for own in (mesh(f), mesh(g), g.kinks or ()))
    root = jnp.sqrt(q)
    edges = _outer_edges(jnp, own_f / root, own_g / root, kinks_g / root, one_minus_c)
    z, low, high = _fixed_grid(edges, _PAIR_EDGES[-1])
    # One panel of outer nodes at a time bounds the memory.
    inner = jax.lax.map(lambda row: _inner(f, g, difference, row, one_minus_c, q, own_g), z)
    value, error, noise = inner[:, 0], inner[:, 1], inner[:, 2]
    differences = jnp.sum(jnp.abs(jnp.sum((high - low) * value, axis=1)))
    return Expectation(jnp.sum(high * value), differences + jnp.sum(high * (error + noise)))
