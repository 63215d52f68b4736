r"""The infinite-width recursion of one layer (Poole et al., 2016; Schoenholz et al., 2017).

For $z^l = W^l h^{l-1} + b^l$, $h^l = \phi(z^l)$, $W_{ij} \sim N(0, \sigma_w^2/\mathrm{fan\_in})$, $b_i \sim
N(0, \sigma_b^2)$: the length $q^l = E (z^l)^2$ and the correlation $c^l$ of two inputs of equal length.

Every function accepts Python numbers or arrays that broadcast together, computes in float64 whatever jax's
default precision is, and returns a Python float or a NumPy array; under `jit`, `vmap` or `grad` it computes
in the dtype of the traced arguments.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxgain.activations import Activation, activation
from jaxgain.theory.finite import check_values, known
from jaxgain.theory.panels import resolve
from jaxgain.theory.quadrature import Moments, separation, traced_moments, traced_separation

LARGEST = 3.4e38  # networks run in float32, and squares of what is smaller stay in float64


@dataclass(frozen=True)
class Init:
    r"""A Gaussian initialization: weights $N(0, \sigma_w^2/\mathrm{fan\_in})$, biases $N(0, \sigma_b^2)$.

    A pytree with the leaves `sigma_w` and `sigma_b`, so that both can be traced and batched. Numbers are
    checked when it is built, traced values are not. Raises `ValueError` on a negative number, NaN or
    infinity.

    >>> Init(sigma_w=2**0.5)
    Init(sigma_w=1.4142135623730951, sigma_b=0.0)
    """

    sigma_w: Any
    sigma_b: Any = 0.0

    def __post_init__(self):
        for name in ("sigma_w", "sigma_b"):
            value = getattr(self, name)
            if isinstance(value, Tracer):
                continue
            try:
                numbers = np.asarray(value, np.float64)
            except (TypeError, ValueError):
                raise TypeError(f"{name} must be a number or an array of numbers, got {value!r}") from None
            if not (np.isfinite(numbers).all() and (numbers >= 0).all()):
                raise ValueError(f"{name} must be finite and not negative, got {value!r}; it is a standard deviation")
            if (numbers > LARGEST).any():
                raise ValueError(f"{name} must be at most 3.4e38, the largest number of float32, got {value!r}")


def unchecked_init(sigma_w: Any, sigma_b: Any) -> Init:
    """Return an `Init` of results, which may be NaN where there is none."""
    init = object.__new__(Init)
    object.__setattr__(init, "sigma_w", sigma_w)
    object.__setattr__(init, "sigma_b", sigma_b)
    return init


jax.tree_util.register_pytree_with_keys(
    Init,
    lambda init: (
        (
            (jax.tree_util.GetAttrKey("sigma_w"), init.sigma_w),
            (jax.tree_util.GetAttrKey("sigma_b"), init.sigma_b),
        ),
        None,
    ),
    # Past the constructor: what jax puts into a tree (tracers, placeholders, results) is not for it to judge.
    lambda _, leaves: unchecked_init(*leaves),
)


def check_init(init: Any) -> None:
    """Raise `TypeError`, saying what to write, unless `init` is an `Init`."""
    if isinstance(init, Init):
        return
    written = f"Init({init!r})" if isinstance(init, int | float | np.number) else "Init(sigma_w, sigma_b)"
    raise TypeError(f"init must be an Init, got {init!r}; write {written}")


def one_init(init: Any, what: str) -> tuple[float, float]:
    """Return `sigma_w` and `sigma_b`; raise `ValueError`, beginning with `what`, unless they are two numbers."""
    check_init(init)
    if np.ndim(init.sigma_w) or np.ndim(init.sigma_b) or isinstance(init.sigma_w + init.sigma_b, Tracer):
        raise ValueError(f"{what} of one initialization of numbers, got {init!r}")
    return float(init.sigma_w), float(init.sigma_b)


def length_map(phi: "str | Activation | Callable[..., Any]", init: Init, q: Any) -> Any:
    r"""Return the next length, $\sigma_w^2 E\,\phi(\sqrt q z)^2 + \sigma_b^2$ (Poole et al., 2016, eq. 3).

    Raises `ValueError` where q is negative or not finite, or the expectation is not finite.

    >>> round(length_map("relu", Init(sigma_w=2**0.5, sigma_b=1.0), 3.0), 12)
    4.0
    """
    return _map(lambda m, sigma_w, sigma_b: sigma_w**2 * m.second.value + sigma_b**2, phi, init, q)


def chi_perp(phi: "str | Activation | Callable[..., Any]", init: Init, q: Any) -> Any:
    r"""Return $\chi_\perp = \sigma_w^2 E\,\phi'(\sqrt q z)^2$ (Poole et al., 2016, eq. 9).

    By this factor the squared distance of two nearby inputs of length q grows per layer, and the mean squared
    gradient going back. At q = 0 it is the limit from above. Where phi jumps it is infinite for every
    `sigma_w` > 0: two inputs, however near, are told apart at once.

    Raises `ValueError` where q is negative or not finite, or the expectation is not finite.

    >>> round(chi_perp("relu", Init(sigma_w=2.0), 5.0), 12), chi_perp("step", Init(sigma_w=1.0), 1.0)
    (2.0, inf)
    """
    return _map(lambda m, sigma_w, _: _times(sigma_w**2, m.slope_second.value), phi, init, q)


def chi_par(phi: "str | Activation | Callable[..., Any]", init: Init, q: Any) -> Any:
    r"""Return $\chi_\parallel = dq'/dq$, the derivative of the length map at q.

    $\sigma_w^2 E[\phi'^2 + \phi\phi'']$ where phi is smooth. It is computed in the form $\sigma_w^2
    E[\phi\phi' z]/\sqrt q$, which is the same number by parts and right at kinks too; where phi jumps, as
    $\sigma_w^2 E[\phi^2 (z^2 - 1)]/(2q)$. A fixed point of the length is stable where $|\chi_\parallel| <
    1$.

    Raises `ValueError` where q is negative or not finite, or the expectation is not finite.

    >>> round(chi_par("relu_squared", Init(sigma_w=1.0), 2.0), 12)
    6.0
    """
    return _map(lambda m, sigma_w, _: _times(sigma_w**2, m.length_slope.value), phi, init, q)


def correlation_map(phi: "str | Activation | Callable[..., Any]", init: Init, c: Any, q: Any) -> Any:
    r"""Return the next correlation of two inputs of length q and correlation c (Poole et al., 2016, eq. 5).

    $(\sigma_w^2 E\,\phi(u)\phi(v) + \sigma_b^2)/q'$ with $u = \sqrt q z_1$, $v = \sqrt q (c z_1 +
    \sqrt{1-c^2} z_2)$ and q' the next length. Near c = 1 use `decorrelation_map`, which keeps the digits of
    1 - c. NaN where q' = 0.

    Raises `ValueError` where c is outside [-1, 1], q is not positive, or an expectation is not finite.

    >>> relu = Init(sigma_w=2**0.5)
    >>> bool(abs(correlation_map("relu", relu, 0.0, 1.0) - 1 / np.pi) < 1e-14)
    True
    """
    return 1 - decorrelation_map(phi, init, 1 - c, q)


def decorrelation_map(phi: "str | Activation | Callable[..., Any]", init: Init, one_minus_c: Any, q: Any) -> Any:
    r"""Return the next layer's 1 - c' from 1 - c, for two inputs of length q.

    $\sigma_w^2 E(\phi(u) - \phi(v))^2/(2 q')$, which is 1 minus `correlation_map` without the subtraction:
    as c -> 1 it is $\chi_\perp q (1 - c)/q'$ to all digits. NaN where the next length q' is 0.

    Raises `ValueError` where 1 - c is outside [0, 2], q is not positive, or an expectation is not finite.

    >>> init = Init(sigma_w=2**0.5)
    >>> round(decorrelation_map("identity", init, 1e-12, 1.0) / 1e-12, 9)
    1.0
    """
    phi = resolve(activation(phi))
    check_init(init)

    def traced(sigma_w: Any, sigma_b: Any, one_minus_c: Any, q: Any) -> Any:
        length = sigma_w**2 * traced_moments(phi, q).second.value + sigma_b**2
        return sigma_w**2 * traced_separation(phi, one_minus_c, q).value / length

    def concrete(sigma_w: float, sigma_b: float, one_minus_c: float, q: float) -> float:
        length = sigma_w**2 * _checked(phi, q).second.value + sigma_b**2
        separated = separation(phi, one_minus_c, q).value
        return sigma_w**2 * separated / length if length > 0 else math.nan

    return _broadcast(traced, concrete, init.sigma_w, init.sigma_b, one_minus_c, q)


def _map(formula: Callable[[Moments, Any, Any], Any], phi: Any, init: Init, q: Any) -> Any:
    phi = resolve(activation(phi))
    check_init(init)
    return _broadcast(
        lambda sigma_w, sigma_b, q: formula(traced_moments(phi, q), sigma_w, sigma_b),
        lambda sigma_w, sigma_b, q: formula(_checked(phi, q), sigma_w, sigma_b),
        init.sigma_w,
        init.sigma_b,
        q,
    )


def _checked(phi: Activation, q: float) -> Moments:
    check_values(phi)
    return known(phi, q)


def _times(square: Any, expectation: Any) -> Any:
    # No weights, no growth: 0 times the infinite chi of a jump is 0.
    if isinstance(square, jax.Array) or isinstance(expectation, jax.Array):
        return jnp.where(square == 0, 0.0, square * expectation)
    return square * expectation if square else 0.0


def _broadcast(traced: Callable[..., Any], concrete: Callable[..., float], *arguments: Any) -> Any:
    """Return the function of the broadcast arguments: the traced one if any of them is traced."""
    if any(isinstance(argument, Tracer) for argument in arguments):
        dtype = jnp.result_type(*arguments)
        dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
        return jnp.vectorize(traced)(*(jnp.asarray(argument, dtype) for argument in arguments))
    arrays = np.broadcast_arrays(*(np.asarray(argument, np.float64) for argument in arguments))
    rows = zip(*(array.ravel().tolist() for array in arrays), strict=True)
    values = np.array([concrete(*row) for row in rows], np.float64).reshape(arrays[0].shape)
    return values if values.ndim else float(values)
