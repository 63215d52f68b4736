r"""The expectations over one layer that its finite width brings in, $x = \sqrt q e$, e standard normal.

The mean over n neurons of $\phi^2$, and of $\phi'^2 \epsilon^2$ with a gradient $\epsilon$, scatters about its
expectation; how much, and what that does to the layers behind, are the fourth moments and the derivatives in ln q.
With the Hermite polynomials $He_2 = e^2 - 1$ and $He_4 = e^4 - 6 e^2 + 3$, $q\, d/dq\, E f = E[f He_2]/2$ and
$q^2 d^2/dq^2\, E f = E[f He_4]/4$, so that no derivative of f is needed.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxgain.activations import Activation, value_and_slope
from jaxgain.theory.panels import resolve
from jaxgain.theory.quadrature import NotFinite, traced_grid


class LayerMoments(NamedTuple):
    r"""Expectations at lengths q, arrays shaped as q; a = $\phi^2/E\phi^2$ and s = $\phi'^2/E\phi'^2$."""

    second: Any
    r"""$E\phi^2$."""
    slope_second: Any
    r"""$E\phi'^2$."""
    spread: Any
    r"""Var a."""
    slope_fourth: Any
    r"""$E s^2$."""
    together: Any
    """Cov(a, s)."""
    overlap: Any
    """E a s."""
    second_he2: Any
    r"""$E[a He_2] = 2\, d\ln E\phi^2/d\ln q$."""
    second_he4: Any
    r"""$E[a He_4]$."""
    slope_he2: Any
    r"""$E[s He_2] = 2\, d\ln E\phi'^2/d\ln q$."""
    slope_he4: Any
    r"""$E[s He_4]$."""
    along: Any
    r"""$(E\phi\phi' e)^2/(E\phi^2 E\phi'^2)$, how much of the alignment of gradient and signal a layer hands on."""


class AlignedMoments(NamedTuple):
    r"""Expectations for a gradient with a part along the signal.

    A hat divides by $\sqrt{E\phi^2}$ or $\sqrt{E\phi'^2}$.
    Each is $E[\hat\phi'^i \hat\phi^j e^k]$ for the `POWERS` (i, j, k) of its name.
    """

    direct: Any
    slope_square: Any
    slope_fourth_a: Any
    slope_fourth_a2: Any
    slope_square_a_e2: Any
    slope_cube: Any
    slope_cube_a: Any
    slope_a2: Any
    slope_a: Any


POWERS = AlignedMoments(
    direct=(1, 1, 1),
    slope_square=(2, 0, 2),
    slope_fourth_a=(4, 2, 0),
    slope_fourth_a2=(4, 4, 0),
    slope_square_a_e2=(2, 2, 2),
    slope_cube=(3, 1, 1),
    slope_cube_a=(3, 3, 1),
    slope_a2=(2, 4, 0),
    slope_a=(1, 3, 1),
)


def aligned_moments(phi: Activation, q: Any) -> AlignedMoments:
    r"""Return what `AlignedMoments` names at every length of the array q > 0, in float64.

    >>> from jaxgain.activations import activation
    >>> relu = aligned_moments(activation("relu"), np.array([2.0]))
    >>> round(float(relu.direct[0]), 12), round(float(relu.slope_cube[0]), 12)
    (1.0, 2.0)
    """
    return AlignedMoments(*_at_lengths(_aligned_at, resolve(phi), q))


def layer_moments(phi: Activation, q: Any) -> LayerMoments:
    r"""Return the expectations of a layer at every length of the array q > 0, in float64.

    Where $\phi$ jumps, or has no slope, what is divided by $E\phi'^2$ is NaN. Raises `NotFinite` where
    $E\phi^4$ is not finite.

    >>> from jaxgain.activations import activation
    >>> relu = layer_moments(activation("relu"), np.array([2.0]))
    >>> round(float(relu.spread[0]), 12), round(float(3 * relu.slope_fourth[0] - 1), 12)
    (5.0, 5.0)
    """
    phi = resolve(phi)
    moments = LayerMoments(*_at_lengths(_at, phi, q))
    if not np.isfinite(moments.spread).all():
        at = np.asarray(q)[~np.isfinite(moments.spread)].ravel()[0]
        raise NotFinite(f"the fluctuations of {phi.name} at q = {at:g} are not finite: E phi^4 is not, or phi is 0")
    return moments


def _at_lengths(function: Callable[..., Any], phi: Activation, q: Any) -> list[np.ndarray]:
    """The fields of function(phi, q) at every length, shaped as q."""
    q = np.asarray(q, np.float64)
    # Few shapes are compiled; rows of 64 lengths bound the memory.
    padded = np.resize(q, -(-q.size // 64) * 64).reshape(-1, 64)
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        parts = [[np.asarray(part) for part in _compiled(function, phi)(row)] for row in padded]
    return [np.concatenate(part)[: q.size].reshape(q.shape) for part in zip(*parts, strict=True)]


@functools.lru_cache(maxsize=256)
def _compiled(function: Callable[..., Any], phi: Activation) -> Any:
    return jax.jit(jax.vmap(functools.partial(function, phi)))


def _grid(phi: Activation, q: Array) -> tuple[Array, Array, Array, Callable[[Array], Array]]:
    """Normals e, phi and phi' at them, and the expectation of a function of e."""
    e, _, weights = traced_grid(phi, q)
    value, slope = value_and_slope(phi, jnp.sqrt(q) * e)
    # Where the density underflows, phi^4 may be infinite.
    return e, value, slope, lambda f: jnp.sum(jnp.where(weights > 0, weights * f, 0.0))


def _aligned_at(phi: Activation, q: Array) -> AlignedMoments:
    e, value, slope, expect = _grid(phi, q)
    value, slope = value / jnp.sqrt(expect(value**2)), slope / jnp.sqrt(expect(slope**2))
    return AlignedMoments(*(expect(slope**i * value**j * e**k) for i, j, k in POWERS))


def _at(phi: Activation, q: Array) -> LayerMoments:
    e, value, slope, expect = _grid(phi, q)
    # The largest value first: squares of small ones underflow.
    scale = jnp.maximum(jnp.sqrt(expect(value**2)), 1e-300)
    second, slope_second = expect((value / scale) ** 2), expect(slope**2)
    a, s = (value / scale) ** 2 / second, slope**2 / slope_second
    if phi.jumps:
        s = jnp.full_like(s, jnp.nan)
    he2, he4 = e**2 - 1, e**4 - 6 * e**2 + 3
    return LayerMoments(
        second=scale**2 * second,
        slope_second=jnp.where(bool(phi.jumps), jnp.inf, slope_second),
        spread=expect((a - 1) ** 2),
        slope_fourth=1 + expect((s - 1) ** 2),
        together=expect((a - 1) * (s - 1)),
        overlap=1 + expect((a - 1) * (s - 1)),
        second_he2=expect(a * he2),
        second_he4=expect(a * he4),
        slope_he2=expect(s * he2),
        slope_he4=expect(s * he4),
        along=expect(value / scale * slope * e) ** 2 / (second * slope_second),
    )
