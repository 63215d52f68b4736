"""The probability of vanishing against fractions of sampled networks, and exact laws of a layer."""

import math
import re

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxgain.propagation.config import SweepConfig
from jaxgain.propagation.sweep import sweep
from jaxgain.propagation.vanishing import vanishing_fraction
from jaxgain.theory.meanfield import Init
from jaxgain.theory.vanishing import exact_layer_law, exploding_probability, vanishing_probability

RELU, TANH = ("relu", 2**0.5), ("tanh", 5 / 3)


def log_ratios(phi, sigma_w, width, depth, networks):
    config = SweepConfig(
        activations=(phi,),
        gains=(sigma_w,),
        width=width,
        depth=depth,
        seeds=networks,
        inputs=1,
        statistics=("log_grad_rms",),
        record_every=depth,
    )
    gradient = sweep(config)["log_grad_rms"].squeeze().values.astype(np.float64)
    return gradient[:, 0] - gradient[:, -1]


def assert_fractions(phi, sigma_w, width, depth, networks):
    """At quantiles 0.1 … 0.9 of the sample, its fractions against the theory, in standard errors, corrected."""
    ratios = np.sort(log_ratios(phi, sigma_w, width, depth, networks))
    levels = (0.1, 0.3, 0.5, 0.7, 0.9)
    limit = stats.norm.isf(stats.norm.sf(3) / len(levels))
    for level in levels:
        at = ratios[int(level * networks)]
        p = vanishing_probability(phi, Init(sigma_w), width=width, depth=depth, below=math.exp(at))
        assert abs(p - level) < limit * math.sqrt(level * (1 - level) / networks), (level, p)


@pytest.mark.slow
@pytest.mark.parametrize(("phi", "sigma_w"), [RELU, TANH])
def test_vanishing_probability_is_the_fraction_of_networks(phi, sigma_w):
    assert_fractions(phi, sigma_w, 256, 10, 2000)


@pytest.mark.slow
@pytest.mark.parametrize(("phi", "sigma_w"), [RELU, TANH, ("tanh", 1.304)])
@pytest.mark.parametrize(("width", "depth"), [(256, 40), (256, 100), (512, 200)])
def test_vanishing_probability_is_the_fraction_of_ten_thousand_networks(phi, sigma_w, width, depth):
    assert_fractions(phi, sigma_w, width, depth, 10_000)


ROW = r"^ +(relu|tanh), sigma_w = \S+ +(\d+) +(\d+) +([\d.]+) +([\d.]+) +([\d.]+)$"
TABLE = re.findall(ROW, str(vanishing_probability.__doc__), re.MULTILINE)


def test_the_table_of_the_docstring_is_read():
    assert [row[:3] for row in TABLE] == [
        ("relu", "256", "100"),
        ("relu", "64", "100"),
        ("relu", "16", "40"),
        ("tanh", "256", "100"),
        ("tanh", "16", "40"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("row", TABLE, ids="-".join)
def test_vanishing_probability_fails_outside_its_range_as_its_docstring_says(row):
    """The printed fractions, of 10,000 networks and rounded to 0.001, against 10,000 other networks."""
    phi, sigma_w = row[0], dict([RELU, TANH])[row[0]]
    width, depth, networks = int(row[1]), int(row[2]), 10_000

    def score(below):
        return stats.norm.ppf(vanishing_probability(phi, Init(sigma_w), width=width, depth=depth, below=below))

    # The score is linear in ln below.
    at_one, at_half = score(1.0), score(0.5)
    ratios = log_ratios(phi, sigma_w, width, depth, networks)
    limit = stats.norm.isf(stats.norm.sf(3) / 15)  # of 15 numbers
    for level, printed in zip((0.1, 0.01, 0.001), map(float, row[3:]), strict=True):
        below = (stats.norm.ppf(level) - at_one) / (at_one - at_half) * math.log(2)
        assert score(math.exp(below)) == pytest.approx(stats.norm.ppf(level), abs=1e-9)
        fraction = (ratios < below).mean()
        error = math.sqrt(2 * (printed + 1 / networks) / networks)
        assert abs(fraction - printed) < limit * error + 0.0005, (level, fraction, printed)


def test_vanishing_and_exploding_leave_nothing_out():
    setting = dict(width=300, depth=30)
    below = vanishing_probability("tanh", Init(1.3, 0.2), below=0.9, **setting)
    above = exploding_probability("tanh", Init(1.3, 0.2), above=0.9, **setting)
    assert 0.01 < below < 0.99
    assert below + above == pytest.approx(1, abs=1e-14)


def test_an_orthogonal_linear_network_never_vanishes():
    assert vanishing_probability("identity", Init(1.0), width=8, depth=9, below=0.99, distribution="orthogonal") == 0
    assert exploding_probability("identity", Init(1.0), width=8, depth=9, above=0.99, distribution="orthogonal") == 1


def test_fraction_of_sampled_networks_counts_both_sides():
    setting = dict(width=32, depth=8, networks=200)
    below = vanishing_fraction("tanh", Init(1.2), below=0.8, **setting)
    above = vanishing_fraction("tanh", Init(1.2), above=0.8, **setting)
    assert below.value + above.value == pytest.approx(1)
    assert 0 < below.error < 0.04


# --- the exact law of a layer ---


def test_relu_at_width_eight_has_its_exact_variance():
    assert exact_layer_law("relu", 8).var == pytest.approx(1.247, abs=5e-4)
    assert exact_layer_law("relu", 8).dead == 2**-8
    assert exact_layer_law("relu", 1000).var == pytest.approx(0.005, rel=0.005)


@pytest.mark.parametrize("width", [1, 2, 7])
def test_law_of_a_linear_layer_is_that_of_chi_squared(width):
    law = exact_layer_law("identity", width)
    log_chi = stats.gamma(width / 2, scale=2 / width)
    mean = log_chi.expect(np.log)
    assert law.mean == pytest.approx(mean, abs=1e-7)
    assert law.var == pytest.approx(log_chi.expect(lambda x: (np.log(x) - mean) ** 2), abs=1e-6)
    assert exact_layer_law("abs", width) == law


def test_law_of_a_relu_layer_is_that_of_sampled_networks():
    depth, networks = 4, 4000
    logs = 2 * log_ratios(*RELU, 8, depth, networks)
    alive = logs[np.isfinite(logs)]
    law = exact_layer_law("relu", 8)
    assert abs(alive.mean() - depth * law.mean) < 3.5 * alive.std() / math.sqrt(alive.size)
    deviation = (alive - alive.mean()) ** 2
    assert abs(deviation.mean() - depth * law.var) < 3.5 * deviation.std() / math.sqrt(alive.size)
    expected = 1 - (1 - law.dead) ** depth
    assert abs(1 - alive.size / networks - expected) < 3.5 * math.sqrt(expected / networks)


def test_activations_without_an_exact_law_are_refused():
    for phi in ("tanh", "leaky_relu(0.2)", "relu6"):
        with pytest.raises(ValueError, match="the exact law of a layer is known for"):
            exact_layer_law(phi, 10)


@pytest.mark.parametrize("below", [0.0, -1.0, math.inf, math.nan, "small"])
def test_a_bound_that_is_no_ratio_is_refused(below):
    with pytest.raises(ValueError, match="below must be positive and finite"):
        vanishing_probability("tanh", Init(1.0), width=300, depth=10, below=below)
    with pytest.raises(ValueError, match="below must be positive and finite"):
        vanishing_fraction("tanh", Init(1.0), width=300, depth=10, below=below)


def test_one_bound_is_needed_to_count():
    with pytest.raises(ValueError, match="give one of below and above"):
        vanishing_fraction("tanh", Init(1.0), width=300, depth=10)


@pytest.mark.parametrize(
    ("phi", "init", "message"),
    [
        (jnp.log, Init(1.0), "log must be finite on the real line, but phi"),
        (lambda x: 1 / x, Init(1.0), "must be finite on the real line, but phi"),
        (
            "relu_squared",
            Init(10.0),
            "of all 20 networks are not numbers, so none can be counted: signals overflow; use",
        ),
        ("tanh", Init(np.ones(2)), r"sigma_w must be one number, got an array of shape \(2,\)"),
        ("tanh", Init(1.0, np.ones(2)), r"sigma_b must be one number, got an array of shape \(2,\)"),
    ],
)
def test_gradients_that_are_no_numbers_are_not_counted(phi, init, message):
    with pytest.raises(ValueError, match=message) as refused:
        vanishing_fraction(phi, init, width=8, depth=60, below=0.1, networks=20)
    assert "\n" not in str(refused.value)
