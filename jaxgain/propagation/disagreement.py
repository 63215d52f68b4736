r"""Theory against sampled networks: differences in standard errors, judged for as many as there are."""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxgain.activations import Activation, activation
from jaxgain.propagation.config import SweepConfig
from jaxgain.propagation.sweep import sweep
from jaxgain.theory.finite_width import number
from jaxgain.theory.meanfield import Init, decorrelation_map
from jaxgain.theory.panels import resolve
from jaxgain.theory.portrait import lengths_over_depth

if TYPE_CHECKING:
    import xarray

CHANCE = 0.01  # probability of a disagreement between a right theory and its networks
WIDE, FEW = 100_000, 16  # width and number of the networks whose correlation is held against infinite width
_LEAST_GAP = 1e-4  # 1 - c below which float32 does not know it well enough
_PLACES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)  # layers from either end


class Comparison(NamedTuple):
    """One number predicted and measured, and the probability that chance alone puts them as far apart."""

    statistic: str
    at_layer: int
    predicted: float
    measured: float
    standard_error: float
    standard_errors: float
    probability: float


def disagreement(
    phi: "str | Activation | Callable[..., Any]",
    init: Init,
    prediction: "xarray.Dataset",
    *,
    seeds: int = 256,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> "xarray.Dataset":
    r"""Return what sampled networks are, beside the `prediction` of `portrait`, and how far they are from it.

    Over `comparison`: `statistic`, `at_layer`, `predicted`, `measured`, `standard_error`, `standard_errors` (the
    difference in them) and `probability`. The means and variances of the logarithms of q and of the squared
    gradient are those of `seeds` networks of the prediction's width, matrix-free, against the theory at that width.
    Of the correlation of two inputs there is no theory at finite width: 16 networks of width 100,000 are held
    against the infinite one. Over `layer`: `measured_log_q_mean`, `measured_log_q_var`, and those of `log_grad`.

    Attributes: `agrees` (1 or 0), whether the least probability times the number of comparisons is above 0.01;
    `threshold`, the standard errors that a normal difference must exceed to be below that.

    Raises `ValueError` where there is no prediction at the width, and as `SweepConfig` does.

    `disagreement("tanh", init, jaxgain.portrait("tanh", init))` takes seconds. One of its comparisons, of the
    correlations that four networks have at layer 3 with a predicted 0.5:

    >>> one = of_mean("correlation", 3, 0.5, np.array([0.49, 0.5, 0.51, 0.52]))
    >>> one.at_layer, round(one.measured, 3), round(one.standard_errors, 3), round(one.probability, 3)
    (3, 0.505, 0.775, 0.495)
    """
    import xarray

    phi = resolve(activation(phi))
    if "log_q_var" not in prediction:
        raise ValueError(f"there is nothing to compare with: {prediction.attrs['bands_missing']}")
    if seeds < 3:
        raise ValueError(f"seeds must be at least 3, got {seeds}; a variance is judged by its own spread")
    depth, width = prediction.attrs["depth"], prediction.attrs["width"]
    sigma_w, sigma_b = number("sigma_w", init.sigma_w), number("sigma_b", init.sigma_b)
    shared: dict[str, Any] = {"activations": phi, "gains": sigma_w, "sigma_b": sigma_b}
    shared |= {"depth": depth, "seed": seed}
    narrow = SweepConfig(**shared, width=width, seeds=seeds, inputs=1, statistics=("q", "log_grad_rms"))
    cosine = prediction.attrs["input_correlation"]
    pairs = SweepConfig(
        **shared, width=max(WIDE, width), seeds=FEW, input_correlation=cosine, statistics=("correlation",)
    )
    measured = _logarithms(sweep(narrow, progress=progress))
    correlation = sweep(pairs, progress=progress)["correlation"].squeeze(("activation", "gain"), drop=True)
    found = [*_of_logarithms(prediction, measured), *_of_correlation(phi, init, cosine, correlation)]
    columns = {
        name: ("comparison", np.array(column))
        for name, column in zip(Comparison._fields, zip(*found, strict=True), strict=True)
    }
    least = min(each.probability for each in found)
    profiles = {f"measured_{name}_mean": values.mean("seed", skipna=False) for name, values in measured.items()}
    profiles |= {f"measured_{name}_var": values.var("seed", ddof=1, skipna=False) for name, values in measured.items()}
    dead = int(measured["log_q"].isel(layer=-1).isnull().sum())
    about = {"agrees": int(least * len(found) >= CHANCE), "threshold": threshold(len(found)), "seeds": seeds}
    about |= {"chance": CHANCE, "pairs_width": max(WIDE, width), "pairs_seeds": FEW, "seed": seed, "dead": dead}
    return xarray.Dataset(columns | profiles, attrs=about | {"probability": min(1.0, least * len(found))})


def _logarithms(dataset: "xarray.Dataset") -> dict[str, "xarray.DataArray"]:
    """Logarithms of q and of the mean squared gradient, (seed, layer); NaN where they are not finite."""
    one = dataset.squeeze(("activation", "gain"), drop=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {"log_q": np.log(one["q"]), "log_grad": 2 * one["log_grad_rms"].astype(float)}
    return {name: values.where(np.isfinite(values)) for name, values in found.items()}


def _of_logarithms(prediction: "xarray.Dataset", measured: dict[str, "xarray.DataArray"]) -> Iterator[Comparison]:
    depth = prediction.attrs["depth"]
    ends = sorted({*(place for place in _PLACES if place < depth), depth})
    layers = {"log_q": ends, "log_grad": [depth - place for place in reversed([0, *ends])]}
    words = {"log_q": "ln q", "log_grad": "ln g²"}
    for name, values in measured.items():
        for layer in layers[name]:
            x = values.sel(layer=layer).values
            mean, variance = (float(prediction[f"{name}_{what}"].sel(layer=layer)) for what in ("mean", "var"))
            # Where phi jumps there is no gradient; where a network has died, no logarithm.
            if not (np.isfinite(x).all() and math.isfinite(mean) and variance > 0):
                continue
            yield of_mean(f"mean of {words[name]}", layer, mean, x)
            yield of_variance(f"variance of {words[name]}", layer, variance, x)


def _of_correlation(phi: Activation, init: Init, cosine: float, measured: "xarray.DataArray") -> Iterator[Comparison]:
    depth = int(measured["layer"][-1])
    q = lengths_over_depth(phi, init, depth)
    gap = float(init.sigma_w) ** 2 * (1 - cosine) / q[0]
    for layer in range(1, depth + 1):
        if gap < _LEAST_GAP:
            return
        x = measured.sel(layer=layer).values.astype(float)
        if (layer in _PLACES or layer == depth) and np.isfinite(x).all():
            yield of_mean("correlation", layer, 1 - gap, x)
        gap = float(decorrelation_map(phi, init, min(gap, 2.0), q[layer - 1]))


def of_mean(statistic: str, layer: int, predicted: float, x: np.ndarray) -> Comparison:
    """Compare a mean with that of the sample x, by Student's t.

    >>> round(of_mean("", 0, 0.0, np.array([1.0, 2.0, 3.0])).probability, 4)
    0.0742
    """
    mean, error = float(x.mean()), float(x.std(ddof=1)) / math.sqrt(x.size)
    t = (
        (mean - predicted) / error
        if error > 0
        else math.copysign(math.inf, mean - predicted)
        if mean != predicted
        else 0.0
    )
    return Comparison(statistic, layer, predicted, mean, error, t, _student(t, x.size - 1))


def of_variance(statistic: str, layer: int, predicted: float, x: np.ndarray) -> Comparison:
    r"""Compare a variance with that of the sample x, on the logarithm, in which it scatters evenly.

    The variance of $\ln s^2$ is $2/(N - 1) + \kappa/N$, with the sample's excess kurtosis κ, where that is positive.
    """
    variance = float(x.var(ddof=1))
    kurtosis = float(((x - x.mean()) ** 4).mean() / x.var() ** 2) - 3 if variance > 0 else 0.0
    relative = math.sqrt(2 / (x.size - 1) + max(kurtosis, 0.0) / x.size)
    z = math.log(variance / predicted) / relative if variance > 0 else -math.inf
    return Comparison(statistic, layer, predicted, variance, variance * relative, z, math.erfc(abs(z) / math.sqrt(2)))


def _student(t: float, freedom: int) -> float:
    """Probability that Student's t is at least as far from 0."""
    import jax
    from jax.scipy.special import betainc

    with jax.enable_x64(True):
        return float(betainc(freedom / 2, 0.5, freedom / (freedom + t * t))) if math.isfinite(t) else 0.0


def threshold(count: int) -> float:
    """Return how many standard errors the largest of `count` normal differences exceeds with probability `CHANCE`.

    >>> round(threshold(1), 3)
    2.576
    """
    from statistics import NormalDist

    return -NormalDist().inv_cdf(CHANCE / count / 2)
