r"""Phase diagrams: the fixed point that the length reaches at every $(\sigma_w, \sigma_b)$ of a grid.

What `fixed_point` finds at one initialization, from tables of the activation's expectations; where a table
cannot tell, as where rounding decides, `fixed_point` itself.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxgain.activations import Activation, activation
from jaxgain.theory.fixed_points import PHASES, fixed_point
from jaxgain.theory.meanfield import Init

if TYPE_CHECKING:
    import xarray


def phase_diagram(
    phi: "str | Activation | Callable[..., Any]", sigma_w: Any = None, sigma_b: Any = None, *, q0: float = 1.0
) -> "xarray.Dataset":
    r"""Return the fixed point reached from q0 on the grid of `sigma_w` and `sigma_b`, by default 64 x 64.

    Variables over (sigma_w, sigma_b): `q`, `c`, `one_minus_c`, `slope`, `chi_par`, `chi_perp`, `xi_q`, `xi_c`,
    `xi_grad`, `stable`, `converged` and `phase`, each as in `FixedPoint`.

    Raises `ValueError` on scales that are negative or not finite, on a q0 that is not positive, and where phi is
    not finite or has no finite expectation.

    >>> diagram = phase_diagram("tanh", sigma_w=[0.5, 2.5], sigma_b=[0.3])
    >>> diagram.phase.values.ravel().tolist(), round(float(diagram.c[1, 0]), 9)
    (['ordered', 'chaotic'], 0.122103747)
    """
    import xarray

    phi = activation(phi)
    axes = [
        _axis("sigma_w", sigma_w, np.linspace(0.0, 4.0, 64)),
        _axis("sigma_b", sigma_b, np.linspace(0.0, 2.0, 64)),
    ]
    if not (isinstance(q0, int | float | np.number) and math.isfinite(q0) and q0 > 0):
        raise ValueError(f"the first length q0 must be positive and finite, got {q0!r}")
    point = fixed_point(phi, Init(*np.meshgrid(*axes, indexing="ij")), q0)
    return xarray.Dataset(
        {name: (("sigma_w", "sigma_b"), getattr(point, name), about) for name, about in _ABOUT.items()},
        coords={"sigma_w": axes[0], "sigma_b": axes[1]},
        attrs={"activation": phi.name, "q0": q0, "description": "fixed point of the length map reached from q0"},
    )


_ABOUT = {
    "q": {"long_name": "length", "description": "fixed length; infinite where it diverges"},
    "c": {"long_name": "correlation", "description": "attracting fixed correlation in [0, 1]"},
    "one_minus_c": {"long_name": "1 - c", "description": "distance of c from 1, to all its digits"},
    "slope": {"long_name": "slope of the correlation map", "description": "at c"},
    "chi_par": {"long_name": "χ∥", "description": "derivative of the length map at q"},
    "chi_perp": {"long_name": "χ⊥", "description": "growth of the mean squared gradient per layer at q"},
    "xi_q": {"long_name": "ξ_q", "units": "layers", "description": "-1/ln|chi_par|"},
    "xi_c": {"long_name": "ξ_c", "units": "layers", "description": "-1/ln slope"},
    "xi_grad": {"long_name": "ξ_grad", "units": "layers", "description": "-1/ln chi_perp; negative: explodes"},
    "stable": {"long_name": "stable", "description": "lengths on both sides of q are attracted to it"},
    "converged": {"long_name": "converged", "description": "the length reaches q"},
    "phase": {"long_name": "phase", "description": ", ".join(PHASES)},
}


def _axis(name: str, values: Any, default: np.ndarray) -> np.ndarray:
    axis = np.atleast_1d(default if values is None else np.asarray(values, np.float64))
    Init(**({"sigma_w": 1.0} | {name: axis}))  # refuses what is negative or not finite, by its name
    if axis.ndim != 1 or axis.size == 0:
        raise ValueError(f"{name} must be a list of numbers, the grid's axis, got an array of shape {axis.shape}")
    return axis
