"""Mean-field theory against sampled networks, for every phase that an activation has."""

import numpy as np
import pytest
from scipy.stats import t as student

from jaxgain.propagation.config import SweepConfig
from jaxgain.propagation.sweep import sweep
from jaxgain.theory.depth_profile import mean_field
from jaxgain.theory.edge import edge_of_chaos
from jaxgain.theory.fixed_points import fixed_point
from jaxgain.theory.meanfield import Init

WIDTH, DEPTH, SEEDS = 100_000, 30, 8
LAYERS = (1, 10, 20, 30)


def edge(phi, sigma_b):
    found = edge_of_chaos(phi, sigma_b=sigma_b)
    assert found.stable
    return found.init.sigma_w, sigma_b


BOUNDED = {"collapsing": (0.8, 0.0), "ordered": (1.0, 0.3), "edge": 0.2, "chaotic": (2.5, 0.3)}
GATED = {"collapsing": (1.2, 0.0), "ordered": (1.2, 0.4)}
PHASES = {
    "tanh": BOUNDED,
    "erf": BOUNDED | {"ordered": (0.8, 0.3)},
    "sin": BOUNDED | {"chaotic": (2.0, 0.3)},
    "selu": {"collapsing": (0.6, 0.0), "ordered": (0.8, 0.3), "edge": 0.2, "chaotic": (1.3, 0.0)}
    | {"diverging": (2**0.5, 0.0)},
    "relu": GATED | {"scale-invariant": (2**0.5, 0.0), "diverging": (1.6, 0.0)},
    "gelu": GATED | {"edge": 0.5, "chaotic": (1.4019, 0.5), "diverging": (1.8, 0.4)},
    "silu": GATED | {"edge": 1.0, "chaotic": (1.4080, 1.0), "diverging": (2.0, 0.4)},
}


@pytest.mark.slow
@pytest.mark.parametrize("phi", PHASES)
def test_length_correlation_and_gradient_of_wide_networks_are_those_of_the_theory(phi):
    points = {name: point if isinstance(point, tuple) else edge(phi, point) for name, point in PHASES[phi].items()}
    assert {name: fixed_point(phi, Init(*point)).phase for name, point in points.items()} == {n: n for n in points}
    gains, biases = (tuple(sorted({point[i] for point in points.values()})) for i in (0, 1))
    statistics = ("q", "log_one_minus_correlations", "log_grad_rms")
    sizes = dict(width=WIDTH, depth=DEPTH, seeds=SEEDS, inputs=2, input_correlation=0.5)
    runs = sweep(SweepConfig((phi,), gains, biases, **sizes, statistics=statistics)).sel(activation=phi)
    standard_errors = {}
    for name, (sigma_w, sigma_b) in points.items():
        one = runs.sel(gain=sigma_w, sigma_b=sigma_b, method="nearest").sel(layer=[*LAYERS])
        theory = mean_field(phi, Init(sigma_w, sigma_b), depth=DEPTH, correlation=0.5).sel(layer=[*LAYERS])
        apart = one["log_one_minus_correlations"].isel(input=0, other_input=1)
        whole = runs.sel(gain=sigma_w, sigma_b=sigma_b, method="nearest")["log_grad_rms"]
        expected = mean_field(phi, Init(sigma_w, sigma_b), depth=DEPTH)["log_grad_rms"]
        pairs = {
            "length": (np.log(one["q"]), np.log(theory["q"])),
            "correlation": (apart, np.log(theory["one_minus_correlation"])),
            "gradient": (whole.sel(layer=[0, 10, 20]) - whole.sel(layer=DEPTH), expected.sel(layer=[0, 10, 20])),
        }
        for what, (found, predicted) in pairs.items():
            difference = found.transpose("layer", "seed").values - predicted.values[:, None]
            difference = difference[predicted.values > (np.log(1e-5) if what == "correlation" else -np.inf)]
            error = difference.std(axis=1, ddof=1) / SEEDS**0.5
            for layer, value in enumerate(difference.mean(axis=1) / error):
                standard_errors[name, what, layer] = float(value)
    # 3 standard errors of one comparison, for so many of them and an error that is itself measured
    limit = student.isf(0.00135 / len(standard_errors), SEEDS - 1)
    beyond = {case: value for case, value in standard_errors.items() if not abs(value) < limit}
    assert len(standard_errors) > 30 and not beyond
