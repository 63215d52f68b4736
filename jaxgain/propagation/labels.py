"""From the arrays of a sweep to a dataset with names, axes, units and where it came from."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jaxlib.version
import numpy as np

import jaxgain
from jaxgain.activations import Activation
from jaxgain.propagation.config import SWEPT, SweepConfig
from jaxgain.propagation.settings import OF_PAIRS, OF_REVERSE
from jaxgain.propagation.statistics import OF_ALL_INPUTS
from jaxgain.theory.critical import critical_init

if TYPE_CHECKING:
    import xarray

LONG_NAMES = {
    "q": "length: mean of z² over the neurons",
    "mean": "mean of h over the neurons",
    "std": "standard deviation of h over the neurons",
    "second_moment": "mean of h² over the neurons",
    "log_grad_rms": "log rms of ∂loss/∂h over the neurons",
    "log_grad_mean_abs": "log mean absolute value of ∂loss/∂h over the neurons",
    "log_weight_grad_rms": "log rms entry of ∂loss/∂W",
    "log_jacobian_rms": "log ‖J u‖/‖u‖ from the input, random u",
    "correlation": "cosine of two inputs' pre-activations z",
    "correlation_h": "cosine of two inputs' activations h",
    "saturated": "fraction of neurons with |φ'(z)| below 1% of its largest",
    "dead": "fraction of neurons with φ'(z) = 0 for every input",
    "correlations": "cosines of the inputs' pre-activations z",
    "log_one_minus_correlations": "log of 1 minus the cosines of the inputs' pre-activations z",
    "effective_rank": "effective rank of the inputs' activations h",
    "grad_correlation": "cosine of two inputs' ∂loss/∂h",
    "grad_alignment": "cosine of ∂loss/∂h and h",
    "log_jacobian_second_moment": "log of the mean of (‖J u‖/‖u‖)² over the directions",
    "log_largest_singular_value": "log of the largest singular value of the Jacobian on the directions",
    "log_singular_values": "logs of the singular values of the Jacobian on the directions",
    "first_nonfinite": "first layer with a value that is not finite, −1 if none",
    "first_vanished": "first layer whose activations are all below the smallest normal number, −1 if none",
}


def dataset_of(
    config: SweepConfig, phis: Sequence[Activation], gains: np.ndarray, results: dict[str, np.ndarray]
) -> "xarray.Dataset":
    """The statistics with their axes; squares of what float32 holds are taken in float64, where none underflows."""
    import xarray  # not before the compiler has given its memory back

    for moment, rms in (("q", "rms_z"), ("second_moment", "rms_h")):
        if rms in results:
            results[moment] = results.pop(rms).astype(np.float64) ** 2
    swept = {name: values for name, values in config.swept().items() if name != "width"}
    grid = (len(phis), len(gains), *map(len, swept.values()), config.seeds)
    members = ("activation", "gain", *swept, "seed")
    variables = {}
    for name in config.statistics:
        x = results[name].reshape(*grid, *results[name].shape[3:])
        dims = members + _dims_of_network(config, name)
        variables[name] = (dims, x, {"long_name": LONG_NAMES[name]})
    return xarray.Dataset(variables)


def _dims_of_network(config: SweepConfig, name: str) -> tuple[str, ...]:
    """The axes that a statistic has within one network."""
    if name.startswith("first_"):
        return ()
    dims = ("depth", "layer") if config.depths and name in OF_REVERSE else ("layer",)
    if name in OF_PAIRS:
        return (*dims, "input", "other_input")
    if name == "log_singular_values":
        dims += ("singular_value",)
    per_input = config.keep_inputs and name not in OF_ALL_INPUTS
    return (*dims, "input") if per_input else dims


def labelled(
    config: SweepConfig, phis: Sequence[Activation], gains: np.ndarray, gain_names: np.ndarray, parts: list[Any]
) -> "xarray.Dataset":
    """The parts, a width each, as one dataset with its coordinates and attributes."""
    import xarray

    swept = config.swept()
    dataset = parts[0]
    if "width" in swept:
        dataset = xarray.concat([part.expand_dims("width", axis=2) for part in parts], "width")
        dataset = dataset.assign_coords(width=("width", list(swept["width"])))
    about = {name: (name, list(values), {"long_name": SWEPT[name]}) for name, values in swept.items()}
    return dataset.assign_coords(
        {
            "activation": list(config.activation_names()),
            "gain": ("gain", gains, {"long_name": "gain σ_w: standard deviation of a weight times √fan_in"}),
            **about,
            "seed": np.arange(config.seeds),
            "layer": ("layer", np.arange(0, config.depth + 1, config.record_every), {"long_name": "layer"}),
            **({"depth": ("depth", list(config.depths), {"long_name": "last layer"})} if config.depths else {}),
            "critical_sigma_b": (
                "activation",
                [_critical_sigma_b(phi) for phi in phis],
                {"long_name": "σ_b of the critical initialization, NaN if there is none"},
            ),
            "gain_name": (
                ("activation", "gain"),
                gain_names,
                {"long_name": "the activation's own gains by kind"},
            ),
        }
    ).assign_attrs(
        config=config.to_json(),
        config_hash=config.hash(),
        jaxgain=jaxgain.__version__,
        jax=jax.__version__,
        jaxlib=jaxlib.version.__version__,
    )


def _critical_sigma_b(phi: Activation) -> float:
    critical = critical_init(phi)
    return math.nan if critical.kind == "none" or critical.init is None else float(critical.init.sigma_b)
