"""Activations that theory can say nothing of: those that are not finite, or have no finite expectation."""

import functools

import numpy as np

from jaxgain.activations import Activation
from jaxgain.theory.panels import tabulate
from jaxgain.theory.quadrature import Moments, NotFinite, moments


@functools.lru_cache(maxsize=512)
def check_values(phi: Activation) -> None:
    """Raise `NotFinite`, a `ValueError`, unless phi is finite at 4097 points from -8 to 8."""
    x = np.linspace(-8.0, 8.0, 4097)
    values = tabulate(phi, x)[0]
    wrong = ~np.isfinite(values)
    if wrong.any():
        nearest = np.argmin(abs(x[wrong]))
        raise NotFinite(
            f"{phi.name} must be finite on the real line, but phi({x[wrong][nearest]:g}) is "
            f"{values[wrong][nearest]:g}; a signal has every sign and size"
        )


@functools.lru_cache(maxsize=512)
def check_finite(phi: Activation) -> None:
    """Raise `NotFinite` unless phi is finite, and its expectations are, at length 1."""
    check_values(phi)
    m = known(phi, 1.0)
    slope = m.slope_second
    if not phi.jumps and slope.error > 1e-3 * slope.value:
        raise NotFinite(f"E phi'^2 of {phi.name} does not converge at q = 1: it may be infinite")


def known(phi: Activation, q: float) -> Moments:
    """The moments at q; raises `NotFinite` where the second one does not converge."""
    m = moments(phi, q)
    if m.second.error > 1e-6 * m.second.value:
        raise NotFinite(f"E phi^2 of {phi.name} does not converge at q = {q:g}: it may be infinite")
    return m
