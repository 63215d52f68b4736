r"""What one branch of a block does at infinite width to its input's second moment, mean, angle and gradient.

The input has the second moment s over the neurons, and another input at the distance d, $d = E(x - x')^2/2$: then
$z = Wx + b$ has the length $q = \sigma_w^2 s + \sigma_b^2$, and $1 - c = \sigma_w^2 d/q$. Dropout keeps an output of
phi with probability 1 - p, divided by it, for every input apart: it multiplies $E\phi^2$ and $E\phi'^2$ by
$1/(1 - p)$ and leaves $E\phi\phi$ (Schoenholz et al., *Deep information propagation*, 2017, section 5).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from jaxgain.activations import Activation
from jaxgain.theory.meanfield import Init
from jaxgain.theory.pairs import pair_separation
from jaxgain.theory.quadrature import NotFinite, moments


class Branch(NamedTuple):
    r"""One branch b of a layer, at one length.

    `q` and `one_minus_c` of the z that meet phi; `mean` and `variance` of b over the neurons, `distance`
    $E(b - b')^2/2$ of two inputs (NaN where there is one), and `growth` of the mean squared gradient through it.
    """

    q: float
    one_minus_c: float
    mean: float
    variance: float
    distance: float
    growth: float

    @property
    def second_moment(self) -> float:
        """E b²."""
        return self.variance + self.mean * self.mean


def one_layer(phi: Activation, init: Init, kept: float, s: float, d: float) -> Branch:
    r"""Return $b = \phi(Wx)$."""
    q = init.sigma_w**2 * s + init.sigma_b**2
    if not q > _SMALLEST:
        return _constant(phi, init, kept, q)
    try:
        m = moments(phi, q) if q < _LARGEST else None
    except NotFinite:
        m = None
    if m is None:
        return Branch(q, *[math.nan] * 5)
    one_minus_c = min(init.sigma_w**2 * d / q, 2.0)
    dropped = m.second.value * (1 - kept) / kept
    distance = pair_separation(phi, one_minus_c, q) if one_minus_c > 0 else one_minus_c
    growth = init.sigma_w**2 * m.slope_second.value / kept if init.sigma_w else 0.0
    return Branch(q, one_minus_c, m.mean.value, m.variance.value + dropped, distance + dropped, growth)


# Lengths at which expectations, and the squares of phi in them, are known.
_SMALLEST, _LARGEST = 1e-300, 1e300


def _constant(phi: Activation, init: Init, kept: float, q: float) -> Branch:
    """Return phi(0), which is the same for all neurons and inputs; q is NaN past where numbers end."""
    if math.isnan(q):
        return Branch(q, *[math.nan] * 5)
    m = moments(phi, 0.0)
    dropped = m.second.value * (1 - kept) / kept
    growth = init.sigma_w**2 * m.slope_second.value / kept if init.sigma_w else 0.0
    return Branch(q, math.nan, m.mean.value, m.variance.value + dropped, dropped, growth)


def two_layer(phi: Activation, init: Init, kept: float, s: float, d: float) -> Branch:
    r"""Return $b = V\phi(Wx)$ with a unit V and no bias in it: as `one_layer`, with no mean."""
    inner = one_layer(phi, init, kept, s, d)
    return inner._replace(mean=0.0, variance=inner.second_moment)


def glu(phi: Activation, init: Init, kept: float, s: float, d: float) -> Branch:
    r"""Return $b = \phi(Wx) \odot Vx$, V distributed as W.

    $Vx$ has the length q and the correlation c too, and is independent of $Wx$; the gradient comes through both.
    """
    gate = one_layer(phi, init, kept, s, d)
    q, second = gate.q, gate.second_moment
    distance = q * (second * gate.one_minus_c + gate.distance * (1 - gate.one_minus_c))
    growth = q * gate.growth + init.sigma_w**2 * second
    return Branch(q, gate.one_minus_c, 0.0, q * second, distance, growth)


BRANCHES: dict[str, Callable[[Activation, Init, float, float, float], Branch]] = {
    "one_layer": one_layer,
    "two_layer": two_layer,
    "glu": glu,
    "glu_ffn": glu,  # a unit map after it changes neither, and glu has no mean for it to take away
}
