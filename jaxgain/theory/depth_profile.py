r"""Length, correlation and gradient over the depth of a network of any built-in block, at infinite width.

The neurons of $h^l$ have a mean m, a variance v and, beside another input, a distance $d = E(h - h')^2/2$. A branch
adds its own, as its z are normal and independent of $h^{l-1}$ neuron by neuron: with $h^l = h^{l-1} + \alpha b$ the
means add, and so do the variances and distances, times $\alpha^2$. So $E h^2 = v + m^2$ has the cross term
$2\alpha\, m\, E b$: what all neurons have in common adds up coherently (Yang and Schoenholz, *Mean field residual
networks*, 2017). A norm divides by $\sqrt v$ or $\sqrt{v + m^2}$. Gradients have no mean and add in mean square.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxgain.activations import Activation, activation
from jaxgain.grammar import number
from jaxgain.theory.batch_norm import batch_norm_layer, grown, normalized_moments
from jaxgain.theory.branches import BRANCHES, Branch
from jaxgain.theory.finite import check_finite
from jaxgain.theory.meanfield import Init, one_init
from jaxgain.theory.panels import resolve

if TYPE_CHECKING:
    import xarray

BLOCKS = ("plain", "residual", "prenorm", "postnorm", "batchnorm")
NORMS = ("layernorm", "rmsnorm")


class Signal(NamedTuple):
    """What h is over the neurons of a layer, and its distance from that of another input (NaN where there is none)."""

    mean: float
    variance: float
    distance: float

    @property
    def second_moment(self) -> float:
        """E h²."""
        return self.variance + self.mean * self.mean

    def normalized(self, norm: str) -> "tuple[Signal, float]":
        """Return it after a norm, and the square that the norm divides by."""
        centred = norm == "layernorm"
        square = self.variance if centred else self.second_moment
        if not square > 0:
            return Signal(math.nan, math.nan, math.nan), math.nan
        mean = 0.0 if centred else self.mean / math.sqrt(square)
        return Signal(mean, self.variance / square, self.distance / square), square


def mean_field(
    phi: "str | Activation | Callable[..., Any]",
    init: Init,
    *,
    depth: int,
    block: str = "plain",
    branch: str = "one_layer",
    norm: str = "layernorm",
    alpha: "float | str" = 1.0,
    dropout: float = 0.0,
    second_moment: float = 1.0,
    correlation: float | None = None,
    inputs: int | None = None,
) -> "xarray.Dataset":
    r"""Return what the layers 0 … depth of an infinitely wide network are: the theory beside `propagate` and `sweep`.

    Settings are those of `propagate`. `second_moment` is that of the input, whose mean is 0, and `correlation` the
    cosine of two inputs; None is one input, or for batchnorm independent ones. Their `inputs`, at least 4, are how
    many batchnorm normalizes over; None is infinitely many. Batchnorm takes all inputs to be equally long and all
    pairs to be equally correlated; with a gated branch only very wide networks stay so for more than a few layers.

    Variables over `layer`, as in a sweep: `q`, `mean`, `std` and `second_moment` of h, `correlation` of z and
    `correlation_h` of h, and natural logarithms `log_grad_rms`, of the gradient at h for a random gradient of rms 1
    at the last layer, and `log_jacobian_rms`, of what becomes of a random tangent of the input. Besides,
    `one_minus_correlation` and `one_minus_correlation_h` to all their digits. NaN at layer 0 where a sweep has it,
    for a second input where there is none, and from where lengths leave floating point on. Where phi jumps the
    mean squared gradient is infinite, and that of autodifferentiation, which sees no jump, another.

    Per block, with chi the growth in the branch, $\chi_\perp$ for one and two layers, and s the square that the norm
    divides by: the mean squared gradient grows by $\chi$ (plain), $1 + \alpha^2\chi$ (residual), $1 + \alpha^2\chi/s$
    (prenorm), $(1 + \alpha^2\chi)/s$ (postnorm); batchnorm over many inputs by $E\phi'^2/\mathrm{Var}\,\phi$ (Yang et
    al., *A mean field theory of batch normalization*, 2019). Dropout: Schoenholz et al., 2017. What divides has no
    epsilon added.

    Raises `ValueError` and `TypeError` for settings that are none, and where phi is not finite or has no finite
    expectation.

    >>> he = Init(2**0.5)
    >>> mean_field("relu", he, depth=10, block="residual", branch="two_layer").second_moment[-1].item()
    1024.0
    >>> profile = mean_field("relu", he, depth=50, block="residual", alpha="1/sqrt(L)")
    >>> round(profile.second_moment[-1].item())
    842
    """
    import xarray

    phi, init = resolve(activation(phi)), Init(*one_init(init, "a profile over depth is that"))
    check_finite(phi)
    for what, given, names in (("block", block, BLOCKS), ("branch", branch, BRANCHES), ("norm", norm, NORMS)):
        _check_name(what, given, names)
    depth = _whole("depth", depth, 1, "counts the layers")
    alpha = _alpha(alpha, depth, block)
    kept = 1 - _real("dropout", dropout, lambda p: 0 <= p < 1, "at least 0 and below 1, a probability")
    first = _first(second_moment, correlation, block)
    if block == "batchnorm":
        if init.sigma_w == 0:
            raise ValueError(
                "batchnorm divides by what weights make of the inputs' differences: sigma_w must be above 0"
            )
        inputs = None if inputs is None else _whole("inputs", inputs, 4, "gives the gradient a finite mean square")
        layers = _batch_norm_layers(phi, init, branch, kept, inputs, first, depth)
    elif inputs is not None:
        raise ValueError(f"inputs are those that batchnorm normalizes over, got inputs={inputs!r} for block {block!r}")
    else:
        run = partial(BRANCHES[branch], phi, init, kept)
        layers = _layers(partial(_layer, block, norm, alpha, run), first, depth)
    settings = dict(block=block, branch=branch, norm=norm, alpha=alpha, dropout=float(dropout))
    return xarray.Dataset(
        {
            name: ("layer", values, _ABOUT[name])
            for name, values in _columns(first, layers, block == "batchnorm" or correlation is not None).items()
        },
        coords={"layer": np.arange(depth + 1)},
        attrs=dict(activation=phi.name, sigma_w=init.sigma_w, sigma_b=init.sigma_b, **settings),
    )


_ABOUT = {
    "q": {"long_name": "length", "description": "mean of z²"},
    "mean": {"long_name": "mean of h", "description": "over the neurons"},
    "std": {"long_name": "std of h", "description": "over the neurons"},
    "second_moment": {"long_name": "E h²", "description": "over the neurons"},
    "correlation": {"long_name": "correlation", "description": "cosine of two inputs' z"},
    "correlation_h": {"long_name": "correlation of h", "description": "cosine of two inputs' h"},
    "one_minus_correlation": {"long_name": "1 - c", "description": "to all its digits"},
    "one_minus_correlation_h": {"long_name": "1 - c of h", "description": "to all its digits"},
    "log_grad_rms": {"long_name": "log rms gradient", "description": "at h, for rms 1 at the last layer"},
    "log_jacobian_rms": {"long_name": "log rms tangent", "description": "of a random tangent of the input"},
}


class Layers(NamedTuple):
    """Layers 1 … depth: h and z; and the logarithms of the gradient and the tangent at layers 0 … depth."""

    signals: list[Signal]
    lengths: list[tuple[float, float]]
    """q and 1 - c of z."""
    log_grad: np.ndarray
    log_jacobian: np.ndarray


def _layers(layer: Callable[[Signal], tuple[Signal, Branch, float]], signal: Signal, depth: int) -> Layers:
    signals, lengths, growths = [], [], []
    for _ in range(depth):
        signal, branch, growth = layer(signal)
        signals.append(signal)
        lengths.append((branch.q, branch.one_minus_c))
        growths.append(growth)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.array(growths)) / 2
        return Layers(signals, lengths, np.append(np.cumsum(logs[::-1])[::-1], 0.0), np.insert(np.cumsum(logs), 0, 0.0))


def _layer(
    block: str, norm: str, alpha: float, run: Callable[[float, float], Branch], h: Signal
) -> tuple[Signal, Branch, float]:
    """Return the layer's h, its branch, and the growth of the mean squared gradient."""
    entering, square = h.normalized(norm) if block == "prenorm" else (h, 1.0)
    branch = run(entering.second_moment, entering.distance)
    if block == "plain":
        return Signal(branch.mean, branch.variance, branch.distance), branch, branch.growth
    if alpha == 0:  # also where numbers have ended in the branch
        out, growth = h, 1.0
    else:
        out = Signal(
            h.mean + alpha * branch.mean,
            h.variance + alpha**2 * branch.variance,
            h.distance + alpha**2 * branch.distance,
        )
        growth = 1 + alpha**2 * branch.growth / square
    if block == "postnorm":
        out, square = out.normalized(norm)
        growth /= square
    return out, branch, growth


def _batch_norm_layers(
    phi: Activation, init: Init, branch: str, kept: float, inputs: int | None, signal: Signal, depth: int
) -> Layers:
    normalized = normalized_moments(phi, inputs)
    one_minus_c = 1.0 if inputs is None else inputs / (inputs - 1)
    steps, signals = [], []
    for _ in range(depth):
        step = batch_norm_layer(normalized, init, branch, kept, signal.second_moment, signal.distance)
        signal = Signal(step.mean, step.variance, step.distance)
        steps.append(step)
        signals.append(signal)
    grad, jacobian = grown(steps[::-1], back=True), grown(steps, back=False)
    return Layers(signals, [(1.0, one_minus_c)] * depth, grad[::-1], jacobian)


def _columns(first: Signal, layers: Layers, pair: bool) -> dict[str, np.ndarray]:
    signals = [first, *layers.signals]
    mean, variance, distance = np.array(signals).T
    q, one_minus_c = np.array([(math.nan, math.nan), *layers.lengths]).T
    second = np.array([signal.second_moment for signal in signals])
    with np.errstate(divide="ignore", invalid="ignore"):
        one_minus_c_h = distance / second
    if not pair:
        one_minus_c, one_minus_c_h = np.full((2, len(second)), math.nan)
    return {
        "q": q,
        "mean": mean,
        "std": np.sqrt(variance),
        "second_moment": second,
        "correlation": 1 - one_minus_c,
        "correlation_h": 1 - one_minus_c_h,
        "one_minus_correlation": one_minus_c,
        "one_minus_correlation_h": one_minus_c_h,
        "log_grad_rms": layers.log_grad,
        "log_jacobian_rms": layers.log_jacobian,
    }


# What is asked for


def _check_name(what: str, given: Any, names: Iterable[str]) -> None:
    if given not in names:
        raise ValueError(f"unknown {what} {given!r}; use one of {', '.join(names)}")


def _whole(name: str, given: Any, least: int, why: str) -> int:
    if isinstance(given, bool) or not isinstance(given, int | np.integer):
        raise TypeError(f"{name} must be a whole number, got {given!r}")
    if given < least:
        raise ValueError(f"{name} must be at least {least}, got {given}; it {why}")
    return int(given)


def _real(name: str, given: Any, legal: Callable[[float], bool], expected: str) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float | np.number):
        raise TypeError(f"{name} must be a number, got {given!r}")
    if not legal(float(given)):
        raise ValueError(f"{name} must be {expected}, got {given!r}")
    return float(given)


def _alpha(alpha: Any, depth: int, block: str) -> float:
    value = number(alpha, L=depth) if isinstance(alpha, str) else alpha
    value = _real("alpha", value, math.isfinite, "finite")
    if value != 1 and block not in ("residual", "prenorm", "postnorm"):
        raise ValueError(f"alpha multiplies the branch of a residual block, and block is {block!r}")
    return value


def _first(second_moment: Any, correlation: Any, block: str) -> Signal:
    square = _real("second_moment", second_moment, lambda s: 0 < s < math.inf, "finite and positive, a mean square")
    if correlation is None:
        return Signal(0.0, square, square if block == "batchnorm" else math.nan)
    c = _real("correlation", correlation, lambda c: -1 <= c <= 1, "between -1 and 1")
    if block == "batchnorm" and c == 1:
        raise ValueError("batchnorm divides by what tells inputs apart, so correlation must be below 1, got 1")
    return Signal(0.0, square, square * (1 - c))
