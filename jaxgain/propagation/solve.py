"""The gain at which networks of some block, width and depth keep their signal or their gradient, by simulation."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxgain.activations import Activation
from jaxgain.propagation.config import SweepConfig
from jaxgain.propagation.sweep import sweep

TARGETS = ("signal", "gradient", "balance")

# Gains of one sweep; each narrows the bracket by as much less one.
AT_ONCE = 16

# Relative width of a bracket inside which the curve is a line, beyond the rounding of float32.
NARROW_ENOUGH = 1e-4


class SolvedGain(NamedTuple):
    """A gain that meets a target."""

    gain: float
    """σ_w."""
    error: float
    """Its standard error over the seeds; NaN with one."""
    slope: float
    """Change of what was to be 0 per change of log gain."""
    residual: float
    """What was to be 0, at the gain: the rounding of float32."""


def solve_gain(
    phi: str | Callable[..., Any] | Activation,
    *,
    target: str = "balance",
    between: tuple[float, float] = (0.05, 20.0),
    seeds: int = 32,
    **settings: Any,
) -> SolvedGain:
    r"""The smallest gain at which networks of a block, width and depth meet a target.

    With $s = \log \mathrm{rms}\,h^L - \log \mathrm{rms}\,h^0$ and $g = \log \mathrm{rms}\,\partial h^0 - \log
    \mathrm{rms}\,\partial h^L$, seed means, the target `signal` is s = 0, `gradient` is g = 0, and `balance` is
    s + g = 0, which splits what one has to lose for the other. All gains meet the same random numbers, so each is a
    smooth curve; its root is found by sweeps that narrow a bracket, and the standard error is that of the mean over
    seeds divided by the slope.

    Args:
        phi: name of an activation, or an elementwise function.
        target: "signal", "gradient" or "balance".
        between: where to look, the least and the largest gain.
        seeds: networks.
        **settings: other fields of `SweepConfig`: width, depth, block, branch, alpha, sigma_b, weights, …

    Returns:
        `SolvedGain`.

    Raises:
        ValueError: where no gain in between meets the target, with how far both ends are from it; and as `SweepConfig`.

    >>> import jaxgain as jg
    >>> found = jg.solve_gain("relu", target="signal", width=200, depth=10)
    >>> abs(found.gain - 2**0.5) < 4 * found.error + 0.01
    True
    """
    if target not in TARGETS:
        raise ValueError(f"unknown target {target!r}. Use one of {', '.join(TARGETS)}")
    low, high = (float(end) for end in between)
    if not 0 < low < high < math.inf:
        raise ValueError(f"between must be two rising positive gains, got {between!r}")
    statistics = {"signal": ("second_moment",), "gradient": ("log_grad_rms",)}
    asked = statistics.get(target, ("second_moment", "log_grad_rms"))
    config = SweepConfig(activations=(phi,), gains=(1.0,), seeds=seeds, statistics=asked, **settings)
    if several := config.swept():
        raise ValueError(f"{min(several)} must be one number to solve for a gain, got {several[min(several)]}")
    config = dataclasses.replace(config, record_every=config.depth, keep_inputs=False)

    return _solved(*_bracket(config, target, low, high))


def _bracket(config: SweepConfig, target: str, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Logs of two gains close around the smallest root (2,), and what each seed misses there (2, seeds)."""
    gains = np.geomspace(low, high, AT_ONCE)
    values = _missed(config, target, gains)
    at_ends = [_factor(float(mean)) for mean in values[[0, -1]].mean(axis=1)]
    while True:
        place = _first_root(values.mean(axis=1))
        if place is None:
            raise ValueError(
                f"no gain between {low:g} and {high:g} meets the target {target!r}: at these the change over the depth "
                f"is by factors of {at_ends[0]} and {at_ends[1]}; look elsewhere with between, or take another block"
            )
        bracket = slice(place, place + 2)
        low_end, high_end = gains[bracket]
        if high_end / low_end - 1 < NARROW_ENOUGH:
            return np.log(gains[bracket]), values[bracket]
        gains = np.geomspace(low_end, high_end, AT_ONCE)
        values = _missed(config, target, gains)


def _solved(logs: np.ndarray, values: np.ndarray) -> SolvedGain:
    """The root of the line through both ends of a bracket (2,), from what each seed misses there (2, seeds)."""
    means = values.mean(axis=1)
    slope = (means[1] - means[0]) / (logs[1] - logs[0])
    share = means[0] / (means[0] - means[1])
    gain = math.exp(logs[0] + share * (logs[1] - logs[0]))
    at_root = (1 - share) * values[0] + share * values[1]
    seeds = values.shape[1]
    error = gain * at_root.std(ddof=1) / seeds**0.5 / abs(slope) if seeds > 1 else math.nan
    return SolvedGain(gain, float(error), float(slope), float(at_root.mean()))


def _first_root(means: np.ndarray) -> int | None:
    """The first place after which the sign is another; overflow and loss are numbers beyond all others, NaN is none."""
    signs = np.sign(means)
    places = np.flatnonzero(signs[:-1] * signs[1:] <= 0)
    return int(places[0]) if places.size else None


def _missed(config: SweepConfig, target: str, gains: np.ndarray) -> np.ndarray:
    """What is to be 0, (gain, seed)."""
    dataset = sweep(dataclasses.replace(config, gains=tuple(gains.tolist())))
    missed = np.zeros((len(gains), config.seeds))
    with np.errstate(divide="ignore", invalid="ignore"):
        if target != "gradient":
            moment = dataset["second_moment"].values[0]
            missed += 0.5 * (np.log(moment[..., -1]) - np.log(moment[..., 0]))
        if target != "signal":
            gradient = dataset["log_grad_rms"].values[0].astype(float)
            missed += gradient[..., 0] - gradient[..., -1]
    return missed


def _factor(log: float) -> str:
    return f"{math.exp(log):.3g}" if abs(log) < 700 else f"e^{log:.3g}"
