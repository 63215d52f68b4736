"""From the arrays of a sweep to a dataset with names, axes, units and where it came from."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import jax
import jaxlib.version
import numpy as np

import jaxgain
from jaxgain.activations import Activation
from jaxgain.propagation.config import SWEPT, SweepConfig
from jaxgain.propagation.settings import OF_PAIRS, OF_REVERSE
from jaxgain.propagation.statistics import OF_ALL_INPUTS
from jaxgain.runs.merge import Slab, Variable
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

SQUARES = {"q": "rms_z", "second_moment": "rms_h"}


def variables_of(config: SweepConfig, activations: int, gains: int) -> dict[str, Variable]:
    """Every statistic's axes and type, before there are values."""
    swept = config.swept()
    sizes = {
        "activation": activations,
        "gain": gains,
        **{name: len(values) for name, values in swept.items()},
        "seed": config.seeds,
        "depth": len(config.depths),
        "layer": 1 + config.depth // config.record_every,
        "input": config.inputs,
        "other_input": config.inputs,
        "singular_value": config.directions,
    }
    variables = {}
    for name in config.statistics:
        dims = ("activation", "gain", *swept, "seed", *_dims_of_network(config, name))
        kind = np.float64 if name in SQUARES else np.int32 if name.startswith("first_") else np.float32
        shape = tuple(sizes[dim] for dim in dims)
        variables[name] = Variable(dims, shape, np.dtype(kind), {"long_name": LONG_NAMES[name]})
    return variables


def slabs_of(
    config: SweepConfig, results: dict[str, np.ndarray], *, width: int, phi: int, gains: slice, seeds: slice
) -> Iterator[Slab]:
    """Where results (seed, point, …) of a width and an activation, by their index, belong in the variables."""
    swept = {name: len(values) for name, values in config.swept().items() if name != "width"}
    at_width = (width,) if config.widths else ()
    count = gains.stop - gains.start
    for name in config.statistics:
        # Squares of what float32 holds are taken in float64, where none underflows.
        x = results[SQUARES[name]].astype(np.float64) ** 2 if name in SQUARES else results[name]
        x = np.moveaxis(x[:, : count * math.prod(swept.values())], 0, 1)
        grid = x.reshape(count, *swept.values(), *x.shape[1:])
        yield Slab(name, (phi, gains, *at_width, *(slice(0, size) for size in swept.values()), seeds), grid)


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


def frame_of(
    config: SweepConfig, phis: Sequence[Activation], gains: np.ndarray, gain_names: np.ndarray
) -> "xarray.Dataset":
    """The coordinates and the attributes of a sweep's dataset."""
    import xarray  # not before the compiler has given its memory back

    about = {name: (name, list(values), {"long_name": SWEPT[name]}) for name, values in config.swept().items()}
    return (
        xarray.Dataset()
        .assign_coords(
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
        )
        .assign_attrs(
            config=config.to_json(),
            config_hash=config.hash(),
            jaxgain=jaxgain.__version__,
            jax=jax.__version__,
            jaxlib=jaxlib.version.__version__,
        )
    )


def _critical_sigma_b(phi: Activation) -> float:
    critical = critical_init(phi)
    return math.nan if critical.kind == "none" or critical.init is None else float(critical.init.sigma_b)
