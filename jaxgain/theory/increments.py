r"""The mean squared increment of an activation, and the separation of two inputs made of it.

With $u = a + b$ and $v = a - b$, where $a$ and $b$ are independent normal numbers,

$$E(\phi(u) - \phi(v))^2 = E_b\, G(b, E a^2),\qquad G(b, s^2) = E_a(\phi(a + b) - \phi(a - b))^2.$$

So one table of G serves all correlations at all lengths. It is made of Chebyshev panels: in $\ln s^2$, where an
expectation under a normal density is analytic whatever the kinks of phi, and in b, where panels are halved until
the series converges. An activation that oscillates for ever, as sin does, would want more panels the longer the
inputs are: unless they are near each other it is smoothed instead, on a lattice.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from jaxgain.activations import Activation
from jaxgain.theory.chebyshev import chebyshev, clenshaw
from jaxgain.theory.panels import mesh, tabulate
from jaxgain.theory.quadrature import NotFinite

WIDTH = 1.25  # of a panel in ln q or ln s^2: a polynomial of degree 15 is right to 1e-12 there
REACH = 9.0  # standard deviations, beyond which a normal density is nothing
POINTS, MATRIX = chebyshev(16)

_POINTS_B, _MATRIX_B = chebyshev(16)
_CONVERGED = 1e-11  # the last coefficients in b, relative to the largest
_HALVINGS = 8
_x_sum, _w_sum = np.polynomial.legendre.leggauss(16)
_x_difference, _w_difference = np.polynomial.legendre.leggauss(10)
_SUM_EDGES = np.array([0.0, 2.0, 4.0, 6.5, REACH])
_DIFFERENCE_EDGES = np.array([0.0, 0.75, 1.75, 3.0, 4.5, 6.5, REACH])
_CHUNK = 2**16  # points at which phi is computed in one call
_ROWS = 2**20  # nodes that are held at once
_NEAR = 1.5  # standard deviation of b, in the scale of an oscillation: up to here the lattice is not used


class Increments(NamedTuple):
    r"""$G(b, s^2)/(2b)^p$ for $s^2$ in one panel and $0 \le b \le 9 s$; p is 2, or 1 where phi jumps.

    Where phi oscillates b is at most nine times 1.5 `wavelength`.

    `edges` are those of the panels in b, `coefficients` has the shape (16 in ln s^2, panels in b, 16 in b).
    """

    edges: np.ndarray
    coefficients: np.ndarray


@functools.lru_cache(maxsize=512)
def increments(phi: Activation, panel: int) -> Increments:
    r"""Return the mean squared increments for $\ln s^2$ from 1.25 `panel` on."""
    s = np.exp(WIDTH * (panel + (1 + POINTS) / 2) / 2)
    reach = REACH * min(math.exp(WIDTH * (panel + 1) / 2), _NEAR * wavelength(phi))
    edges = np.unique(np.concatenate([[0.0], _spans(phi, reach), [reach]]))
    done: list[tuple[float, float, np.ndarray]] = []
    low, high = edges[:-1], edges[1:]
    for halving in range(_HALVINGS + 1):
        b = (low + high)[:, None] / 2 + (high - low)[:, None] / 2 * _POINTS_B
        values = _mean_square(phi, b.ravel(), s).reshape(*b.shape, s.size) / (2 * b[..., None]) ** power(phi)
        coefficients = np.einsum("nm,pmk->pnk", _MATRIX_B, values)
        size = np.abs(coefficients)
        rough = (size[:, -3:].max(1) > _CONVERGED * size.max(1)).any(1) & (halving < _HALVINGS)
        done += [(low[i], high[i], coefficients[i]) for i in np.flatnonzero(~rough)]
        middle = (low + high)[rough] / 2
        low, high = np.concatenate([low[rough], middle]), np.concatenate([middle, high[rough]])
        if not low.size:
            break
    done.sort(key=lambda part: part[0])
    stacked = np.stack([part for _, _, part in done])
    return Increments(np.array([a for a, _, _ in done] + [done[-1][1]]), np.einsum("kj,pnj->kpn", MATRIX, stacked))


def power(phi: Activation) -> int:
    """Return the power of b, or of the square root of 1 - c, as which a mean squared increment vanishes."""
    return 1 if phi.jumps else 2


def _spans(phi: Activation, reach: float) -> np.ndarray:
    """Return the b at which panels end: where two kinks meet, and the distances at which phi has its own scales."""
    own = np.abs([edge for edge in mesh(phi) if abs(edge) < reach])
    kinks = np.array(phi.kinks or ())
    meetings = np.abs(kinks[:, None] - kinks[None, :]).ravel() / 2
    spans = np.unique(np.concatenate([own, meetings]))
    return spans[(spans > 0) & (spans < reach)]


def _mean_square(phi: Activation, b: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Return G at every b and s: shape (b, s). The integral over a is cut where a + b or a - b is an edge of phi."""
    symmetric, reach = is_symmetric(phi), REACH * s.max()
    own = np.array([edge for edge in mesh(phi) if abs(edge) < reach + b.max()])
    fixed = s.max() * (_SUM_EDGES if symmetric else np.concatenate([-_SUM_EDGES[:0:-1], _SUM_EDGES]))
    rows = max(1, _ROWS // (s.size * _x_sum.size * (fixed.size + 2 * own.size)))
    parts = [_integrals(phi, part, s, own, fixed) for part in np.array_split(b, -(-b.size // rows))]
    result = (2 if symmetric else 1) * np.concatenate(parts)
    end = np.array([[-reach], [reach]])
    tail = np.square(_values(phi, end + b) - _values(phi, end - b)).max(0) * math.exp(-0.5 * REACH**2)
    _check_decay(phi, tail, result[:, np.argmax(s)], float(s.max() ** 2))
    return result


def _check_decay(phi: Activation, tail: np.ndarray, total: np.ndarray, square: float) -> None:
    """Raise `NotFinite` where the integrand nine standard deviations out is not nothing beside the integral."""
    if not (tail <= 1e-10 * total).all():
        raise NotFinite(
            f"the expectation over {phi.name} of two inputs of length {square:.3g} has not decayed {REACH:g} standard "
            "deviations out: phi grows too fast for its correlations to be found there"
        )


def _integrals(phi: Activation, b: np.ndarray, s: np.ndarray, own: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    cuts = np.concatenate([own - b[:, None], own + b[:, None]], axis=1)
    cuts = np.clip(cuts, fixed[0], fixed[-1])
    edges = np.sort(np.concatenate([np.broadcast_to(fixed, (b.size, fixed.size)), cuts], axis=1), axis=1)
    row, panel = np.nonzero(np.diff(edges) > 0)
    low, half = edges[row, panel], (edges[row, panel + 1] - edges[row, panel]) / 2
    a, weight = (low + half)[:, None] + half[:, None] * _x_sum, half[:, None] * _w_sum
    f = weight * np.square(_values(phi, a + b[row, None]) - _values(phi, a - b[row, None]))
    density = np.exp(-0.5 * np.square(a)[..., None] / s**2) / (math.sqrt(2 * math.pi) * s)
    inside = np.einsum("pn,pnk->pk", f, density)
    return np.add.reduceat(inside, np.searchsorted(row, np.arange(b.size)))


@functools.lru_cache(maxsize=256)
def _compiled(phi: Activation) -> Callable[[np.ndarray], Array]:
    return jax.jit(phi)


def _values(phi: Activation, x: np.ndarray) -> np.ndarray:
    """Return phi at the points x in float64, whatever surrounds the call."""
    flat = x.ravel()
    padded = np.zeros(-(-flat.size // _CHUNK) * _CHUNK)
    padded[: flat.size] = flat
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        parts = [np.asarray(_compiled(phi)(part)) for part in padded.reshape(-1, _CHUNK)]
    return np.concatenate(parts)[: flat.size].reshape(x.shape)


@functools.lru_cache(maxsize=512)
def is_symmetric(phi: Activation) -> bool:
    """Return whether phi is odd or even, seen at 4097 points: then half of a symmetric integral is enough."""
    x = np.linspace(0.0, 16.0, 4097)[1:]
    right, left = tabulate(phi, x)[0], tabulate(phi, -x)[0]
    return bool((right == left).all() or (right == -left).all())


def separation_ratios(phi: Activation, q: np.ndarray, t: np.ndarray) -> np.ndarray:
    r"""Return $E(\phi(u) - \phi(v))^2/(2 q t^p)$ for u, v of length q and correlation $1 - t^2$, p as in `power`.

    Pairs of equal shape, (n,), with $0 < t \le 1.2$. Raises `NotFinite` where phi grows too fast.

    >>> from jaxgain.activations import activation
    >>> q, t = np.array([3.0]), np.array([1.0])
    >>> bool(abs(separation_ratios(activation("relu"), q, t)[0] - (0.5 - 0.5 / math.pi)) < 1e-14)
    True
    """
    ratios = np.empty_like(q)
    far = np.sqrt(q / 2) * t > _NEAR * wavelength(phi)
    panels = np.where(far, -(10**6), np.floor(np.log(q * (1 - t * t / 2)) / WIDTH)).astype(int)
    for panel in np.unique(panels[~far]):
        table, places = increments(phi, int(panel)), np.flatnonzero(panels == panel)
        rows = max(1, _ROWS // (_x_difference.size * (table.edges.size + _DIFFERENCE_EDGES.size)))
        for part in np.array_split(places, -(-places.size // rows)):
            ratios[part] = _from_increments(phi, table, panel, q[part], t[part])
    for length in np.unique(q[far]):
        places = np.flatnonzero(far & (q == length))
        ratios[places] = _from_lattice(phi, float(length), t[places])
    return ratios


def _from_increments(phi: Activation, table: Increments, panel: int, q: np.ndarray, t: np.ndarray) -> np.ndarray:
    local = 2 * (np.log(q * (1 - t * t / 2)) / WIDTH - panel) - 1
    along = clenshaw(table.coefficients[..., None], local)  # (panels in b, 16, pairs)
    total, tail = _over_b(table.edges, along, np.sqrt(q / 2) * t, power(phi))
    _check_decay(phi, tail, total, float(q.max()))
    return total * (2 * q) ** (power(phi) / 2 - 1)


def _over_b(edges: np.ndarray, along: np.ndarray, scale: np.ndarray, power: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Return $E |w|^p G(b)/(2b)^p$, $b = \text{scale}\, w$, w standard normal; and the integrand at its end."""
    cuts = np.clip(edges[1:-1] / scale[:, None], 0.0, REACH)
    fixed = np.broadcast_to(_DIFFERENCE_EDGES, (scale.size, _DIFFERENCE_EDGES.size))
    pieces = np.sort(np.concatenate([fixed, cuts], axis=1), axis=1)
    row, piece = np.nonzero(np.diff(pieces) > 0)
    low, high = pieces[row, piece], pieces[row, piece + 1]
    panel = np.searchsorted(edges[1:-1], scale[row] * (low + high) / 2)
    w = (low + high)[:, None] / 2 + (high - low)[:, None] / 2 * _x_difference
    left, right = edges[panel, None], edges[panel + 1, None]
    mean = clenshaw(along[panel, :, row].T[..., None], (2 * scale[row, None] * w - left - right) / (right - left))
    weight = (high - low)[:, None] * _w_difference * np.exp(-0.5 * w * w) / math.sqrt(2 * math.pi)
    inside = (weight * w**power * mean).sum(1)
    last = np.searchsorted(row, np.arange(scale.size), "right") - 1
    tail = np.abs(mean[last, -1]) * REACH**power * math.exp(-0.5 * REACH**2)
    return np.add.reduceat(inside, np.searchsorted(row, np.arange(scale.size))), tail


# --- activations that oscillate for ever ---


@functools.lru_cache(maxsize=512)
def wavelength(phi: Activation) -> float:
    """Return the scale of a smooth phi that oscillates for ever, 1 for sin; of any other phi infinity.

    It is an eighth of the panels on which phi is resolved far from 0. Of what does not oscillate, those are long.
    """
    edges = np.array(mesh(phi))
    far = np.diff(edges[np.abs(edges) >= 128])
    return math.inf if phi.kinks or np.median(far) > 16 else float(far.min()) / 8


def _from_lattice(phi: Activation, q: float, t: np.ndarray) -> np.ndarray:
    r"""Return $(E\phi^2 - E f(a)f(\pm a))/(q t^2)$, with $f(a) = E\phi(a + \sqrt{q(1 - |c|)} z)$ and $E a^2 = q |c|$.

    The sign is that of $c = 1 - t^2$. Sums over a lattice are exact up to rounding where functions are
    analytic and decay. f is made of phi, periodic far beyond where the density reaches, by its Fourier coefficients;
    the smoother f is the fewer of them it has.
    """
    spacing = float(np.diff(mesh(phi)).min()) / 8
    half = 2 ** math.ceil(math.log2(1.5 * REACH * math.sqrt(q) / spacing))
    values = _values(phi, spacing * np.arange(-half, half))
    transformed = np.fft.rfft(values) / half
    waves = math.pi / (half * spacing) * np.arange(half + 1)
    second, period, ratios = _lattice_mean(values * values, 2 * half * spacing, q), 2 * half * spacing, []
    for c in (1 - t * t).tolist():
        width = math.sqrt(q * (1 - abs(c)))
        few = min(half, 2 ** math.ceil(math.log2(2 * REACH / (width * waves[1]))))
        damped = transformed[: few + 1] * np.exp(-0.5 * np.square(width * waves[: few + 1]))
        f = few * np.fft.irfft(damped, 2 * few)
        ratios.append(second - _lattice_mean(f * (f if c >= 0 else np.roll(f[::-1], 1)), period, q * abs(c)))
    return np.array(ratios) / (q * t * t)


def _lattice_mean(values: np.ndarray, period: float, square: float) -> float:
    """Return the mean of a periodic function under a normal density of variance `square` around the middle."""
    half = values.size // 2
    spacing = period / values.size
    if square > (4 * spacing) ** 2:
        density = np.exp(-0.5 * np.square(spacing * np.arange(-half, half)) / square)
        return float(values @ density / density.sum())
    # A density too narrow for the lattice is not too narrow for its waves.
    waves = 2 * math.pi / period * np.arange(half + 1)
    return float(np.fft.irfft(np.fft.rfft(values) * np.exp(-0.5 * square * np.square(waves)), 2 * half)[half])
