r"""The gains of an activation: the scale $\sigma_w$ of the weights, each under the name of its criterion.

Expectations are over $x = \sqrt q z$, z standard normal.

================
===================================================================================================
`forward`        $1/\sqrt{E\phi^2}$: the next length is 1 when this one is q (He et al., 2015)
`centred`        $1/\sqrt{E(\phi - E\phi)^2}$, for weights whose rows sum to 0 (Brock et al., 2021)
`backward`       $1/\sqrt{E\phi'^2}$: $\chi_\perp = 1$, the mean squared gradient is kept (He et al., 2015)
`balanced`       the geometric mean of forward and backward, as Glorot and Bengio (2010) compromise
`self_consistent` $\sigma$ with $E\phi(\sigma z)^2 = 1$: the outputs keep mean square 1
`critical`       $\sigma_w$ of `critical_init`, whose $\sigma_b$ must come along where it is not 0
`kumar`          $1/(|\phi'(0)| \sqrt{1 + \phi(0)^2})$ (Kumar, 2017)
`torch`          the values of `torch.nn.init.calculate_gain`
================
===================================================================================================
"""

import difflib
import functools
import itertools
import math
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxgain.activations import ACTIVATIONS, Activation, activation
from jaxgain.theory.critical import LENGTHS, critical_init, root, sides
from jaxgain.theory.panels import Expectation, resolve
from jaxgain.theory.quadrature import NotFinite, check_length, moments

if TYPE_CHECKING:
    import xarray

KINDS = ("forward", "centred", "backward", "balanced", "self_consistent", "critical", "kumar", "torch")


class NoSuchGain(ValueError):
    """A gain that does not exist for this activation; the message is the reason."""


class BiasNeeded(UserWarning):
    """A critical gain was asked for alone, and means nothing without its sigma_b."""


def gain(phi: "str | Activation | Callable[..., Any]", kind: str = "forward", *, q: float = 1.0) -> float:
    r"""Return the gain of `phi` under the criterion `kind`, one of `KINDS`, at the length q of its input.

    The formulas are at the top of this module. `self_consistent`, `critical`, `kumar` and `torch` do not
    depend on q. The gain that *preserves* the length q is $\sqrt q$ times `forward`.

    Raises `NoSuchGain`, with the reason, where the gain does not exist, and `ValueError` on an unknown kind
    or a q that is not positive. Warns `BiasNeeded` where the critical initialization has a bias.

    >>> round(gain("relu") ** 2, 14), gain("tanh", "torch") == 5 / 3, round(gain("gelu"), 12)
    (2.0, True, 1.533530441196)
    """
    phi = activation(phi)
    if kind == "critical":
        critical = critical_init(phi)
        if critical.kind != "none" and critical.init is not None and critical.init.sigma_b > 0:
            warnings.warn(
                f"the critical gain of {phi.name} needs sigma_b = {critical.init.sigma_b:.10g} beside it: "
                "without that bias the signal vanishes",
                BiasNeeded,
                stacklevel=2,
            )
    return gain_estimate(phi, kind, q=q).value


def gain_estimate(
    phi: "str | Activation | Callable[..., Any]", kind: str = "forward", *, q: float = 1.0
) -> Expectation:
    """Return a gain with an estimate of its absolute error: `(value, error)`. Raises as `gain`; never warns.

    >>> value, error = gain_estimate("selu")
    >>> abs(value - 1) < 1e-14, error < 1e-14
    (True, True)
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"unknown kind of gain {kind!r}; {hint}kinds are {', '.join(KINDS)}")
    result = _gain(resolve(activation(phi)), kind, check_length(q))
    if isinstance(result, str):
        raise NoSuchGain(result)
    return result


def named_gains(phi: "str | Activation | Callable[..., Any]", *, q: float = 1.0) -> dict[str, float]:
    """Return kind -> gain for the kinds that exist, in the order of `KINDS`. Never warns.

    >>> sorted(named_gains("step"))
    ['centred', 'forward']
    """
    phi, q = resolve(activation(phi)), check_length(q)
    estimates = {kind: _gain(phi, kind, q) for kind in KINDS}
    return {kind: estimate.value for kind, estimate in estimates.items() if not isinstance(estimate, str)}


@functools.lru_cache(maxsize=8192)
def _gain(phi: Activation, kind: str, q: float) -> Expectation | str:
    """Return the gain, or the reason why it does not exist."""
    try:
        return _CRITERIA[kind](phi, q)
    except (NoSuchGain, NotFinite) as reason:
        return str(reason)


def _inverse_root(phi: Activation, name: str, expectation: Expectation) -> Expectation:
    value, error = expectation
    if math.isinf(value):
        jumps = "jumps" if phi.jumps else "jumps, or is too steep to tell"
        raise NoSuchGain(f"{phi.name} {jumps}: {name} is infinite")
    if error > 1e-6 * value or value <= 0:
        zero = value <= error
        raise NoSuchGain(
            f"{name} of {phi.name} is 0" if zero else f"{name} of {phi.name} does not converge; it may be infinite"
        )
    return Expectation(value**-0.5, 0.5 * error * value**-1.5 + 2e-16 * value**-0.5)


def _forward(phi: Activation, q: float) -> Expectation:
    return _inverse_root(phi, "E phi^2", moments(phi, q).second)


def _centred(phi: Activation, q: float) -> Expectation:
    return _inverse_root(phi, "the variance", moments(phi, q).variance)


def _backward(phi: Activation, q: float) -> Expectation:
    return _inverse_root(phi, "E phi'^2", moments(phi, q).slope_second)


def _balanced(phi: Activation, q: float) -> Expectation:
    (forward, forward_error), (backward, backward_error) = _forward(phi, q), _backward(phi, q)
    value = math.sqrt(forward * backward)
    return Expectation(value, value * (forward_error / forward + backward_error / backward) / 2)


def _self_consistent(phi: Activation, q: float) -> Expectation:
    """Return the smallest sigma > 0 with E phi(sigma z)^2 = 1, looked for between 2^-10 and 2^10.

    The smallest, as from there down to 0 the outputs of a layer are too small and from there up too large,
    or the other way around, with nothing in between. As a function of ln sigma, E phi(sigma z)^2 is an
    average over ln|z|, whose width is above 1: a scan by factors of 2 does not step over two roots.
    """

    def excess(sigma: float) -> float:
        try:
            return moments(phi, sigma * sigma).second.value - 1
        except NotFinite:
            return math.inf

    sigmas = [math.sqrt(length) for length in LENGTHS]
    values = [excess(sigma) for sigma in sigmas]
    if all(abs(value) < 1e-12 for value in values):
        raise NoSuchGain(f"E phi(sigma z)^2 of {phi.name} is 1 for every sigma: no sigma is special")
    # On the roots at infinity (tanh) and at zero (cos), where rounding makes a sign: a value within it has
    # none.
    signs = [0 if abs(value) < 1e-12 else math.copysign(1, value) for value in values]
    sure = [(sigma, sign) for sigma, sign in zip(sigmas, signs, strict=True) if sign]
    brackets = [(a, b) for (a, sa), (b, sb) in itertools.pairwise(sure) if sa != sb]
    if not brackets:
        raise NoSuchGain(_no_root(phi, [value + 1 for value in values], sure[0][1] > 0))
    sigma = root(excess, *brackets[0])
    m = moments(phi, sigma * sigma)
    tilt = 2 * sigma * abs(m.length_slope.value)
    return Expectation(sigma, 4e-16 * sigma + (m.second.error + 4e-16) / tilt)


def _no_root(phi: Activation, values: list[float], above: bool) -> str:
    where = f"for every sigma from {math.sqrt(LENGTHS[0]):.3g} to {math.sqrt(LENGTHS[-1]):.4g}"
    relation, extreme = ("above 1", min(values)) if above else ("below 1", max(values))
    bound = "at least" if above else "at most"
    return f"E phi(sigma z)^2 of {phi.name} is {relation} {where}, {bound} {extreme:.6g} there"


def _critical(phi: Activation, q: float) -> Expectation:
    critical = critical_init(phi)
    if critical.kind == "none" or critical.init is None:
        raise NoSuchGain(critical.reason)
    return Expectation(critical.init.sigma_w, critical.error)


def _kumar(phi: Activation, q: float) -> Expectation:
    (value_below, slope_below), (value_above, slope_above) = sides(phi)
    if value_below != value_above or not math.isclose(slope_below, slope_above, rel_tol=1e-12, abs_tol=1e-90):
        raise NoSuchGain(f"{phi.name} is not differentiable at 0, and this criterion linearizes it there")
    if not (math.isfinite(slope_above) and abs(slope_above) > 1e-90):
        raise NoSuchGain(f"phi'(0) of {phi.name} is 0 or infinite, and this criterion divides by it")
    value = 1 / (abs(slope_above) * math.hypot(1, value_above))
    return Expectation(value, 8e-16 * value)


def _torch(phi: Activation, q: float) -> Expectation:
    values = {"identity": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}
    name = phi.name.partition("(")[0]
    shipped = name in ACTIVATIONS and phi.function is ACTIVATIONS[name].function and phi.input_scale == 1.0
    if shipped and name == "leaky_relu":
        value = math.sqrt(2 / (1 + phi.parameters[0] ** 2))
    elif shipped and name in values:
        value = values[name]
    else:
        known = ", ".join([*values, "leaky_relu"])
        raise NoSuchGain(f"torch.nn.init.calculate_gain has no value for {phi.name}; it knows {known}")
    return Expectation(value, 2e-16 * value)


_CRITERIA: dict[str, Callable[[Activation, float], Expectation]] = {
    "forward": _forward,
    "centred": _centred,
    "backward": _backward,
    "balanced": _balanced,
    "self_consistent": _self_consistent,
    "critical": _critical,
    "kumar": _kumar,
    "torch": _torch,
}


def stability(phi: "str | Activation | Callable[..., Any]", *, q: float = 1.0) -> tuple[float, float, str]:
    r"""Return $\chi_\perp$, $\chi_\parallel$ and the verdict at the gain that preserves the length q.

    $\sigma_w^2 = q/E\phi^2$, $\sigma_b = 0$: $\chi_\perp = q E\phi'^2/E\phi^2$ and $\chi_\parallel = d\ln
    E\phi^2/d\ln q$. The length is "stable" where $|\chi_\parallel| < 1$, "neutral" where it is 1 within
    rounding, "unstable" above, and "undefined" where no gain preserves it. Raises `ValueError` as `gain`
    does.

    >>> [stability(phi)[2] for phi in ("tanh", "relu", "gelu")]
    ['stable', 'neutral', 'unstable']
    """
    phi, q = resolve(activation(phi)), check_length(q)
    try:
        m = moments(phi, q)
        _inverse_root(phi, "E phi^2", m.second)
    except (NoSuchGain, NotFinite):
        return math.nan, math.nan, "undefined"
    chi_perp, chi_par = (q * moment.value / m.second.value for moment in (m.slope_second, m.length_slope))
    rounding = 1e-12 + 10 * q * (m.length_slope.error + abs(chi_par) / q * m.second.error) / m.second.value
    if abs(abs(chi_par) - 1) <= rounding:
        return chi_perp, chi_par, "neutral"
    return chi_perp, chi_par, "stable" if abs(chi_par) < 1 else "unstable"


def gain_table(
    phis: "Iterable[str | Activation | Callable[..., Any]] | None" = None, q: float = 1.0
) -> "xarray.Dataset":
    """Return every kind of gain of `phis`, by default all shipped activations, and what the forward one does.

    Variables over (activation, kind): `gain` (NaN where it does not exist), `error` (estimated, absolute)
    and `reason` (why it does not exist, else ""). Over activation, at the gain that preserves the length q:
    `chi_perp`,
    `chi_par` and `stability`; and `sigma_b`, the bias of the critical initialization (NaN: there is none).

    Raises `ValueError` on a q that is not positive, and as `activation` on what is no activation.

    >>> table = gain_table(["gelu", "tanh"])
    >>> table.stability.values.tolist(), round(float(table.gain.sel(activation="tanh", kind="forward")), 10)
    (['unstable', 'stable'], 1.5925374197)
    """
    import xarray

    q = check_length(q)
    activations = [resolve(activation(phi)) for phi in (ACTIVATIONS.values() if phis is None else phis)]
    results = [[_gain(phi, kind, q) for kind in KINDS] for phi in activations]
    verdicts = [stability(phi, q=q) for phi in activations]
    criticals = [critical_init(phi) for phi in activations]
    biases = [c.init.sigma_b if c.init is not None and c.kind != "none" else math.nan for c in criticals]
    at = "at the gain that preserves the length q"

    def by_kind(field: int) -> np.ndarray:
        """One field of the gains that exist, and of the others NaN."""
        found = [[math.nan if isinstance(result, str) else result[field] for result in row] for row in results]
        return np.array(found).reshape(-1, len(KINDS))

    reasons = np.array([[result if isinstance(result, str) else "" for result in row] for row in results], str)
    pairs = {
        "gain": (by_kind(0), _about("gain", "scale of the weights, sigma_w")),
        "error": (by_kind(1), _about("error", "estimated absolute error of the gain")),
        "reason": (reasons.reshape(-1, len(KINDS)), _about("reason", "why the gain does not exist", "")),
    }
    perpendicular, parallel, stabilities = ([verdict[i] for verdict in verdicts] for i in range(3))
    singles = {
        "chi_perp": (perpendicular, _about("χ⊥", f"growth of the mean squared gradient per layer, {at}")),
        "chi_par": (parallel, _about("χ∥", f"derivative of the length map, {at}")),
        "stability": (np.array(stabilities, str), _about("stability", f"of the length, {at}", "")),
        "sigma_b": (biases, _about("σ_b", "bias that the critical gain needs beside it")),
    }
    return xarray.Dataset(
        {name: (("activation", "kind"), *one) for name, one in pairs.items()}
        | {name: (("activation",), *one) for name, one in singles.items()},
        coords={"activation": np.array([phi.name for phi in activations], str), "kind": np.array(KINDS)},
        attrs={"q": q, "description": "gains of activations in infinite width, each under its criterion's name"},
    )


def _about(long_name: str, description: str, units: str = "1") -> dict[str, str]:
    return {"long_name": long_name, "units": units, "description": description}
