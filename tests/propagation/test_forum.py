"""What the forum measured, on its own settings: width 1000, depth 100, seed means."""

import math

import numpy as np
import pytest

from jaxgain.propagation.config import SweepConfig
from jaxgain.propagation.sweep import sweep

PROFILES = ("std", "log_grad_rms")


def growth(one, first=10, last=90):
    """Factor by which the rms gradient grows per layer going back: slope of the seed mean of its log."""
    layers = np.arange(first, last + 1)
    mean = one["log_grad_rms"].mean("seed").sel(layer=layers)
    return math.exp(-np.polyfit(layers, mean, 1)[0])


@pytest.fixture(scope="module")
def forum():
    gains = (0.75, 1.0, 1.1, "sqrt(2)", "5/3")
    dataset = sweep(SweepConfig(activations=("tanh", "selu"), gains=gains, inputs=1, statistics=PROFILES))

    def one(phi, gain):
        return dataset.sel(activation=phi).sel(gain=gain, method="nearest")

    return one


@pytest.mark.parametrize("input_scale", [1.0, 0.5])
def test_tanh_at_five_thirds_keeps_a_std_of_0_65_while_its_gradient_explodes(forum, input_scale):
    one = forum("tanh", 5 / 3)
    if input_scale != 1:
        config = SweepConfig(("tanh",), ("5/3",), inputs=1, statistics=PROFILES, input_scale=input_scale)
        one = sweep(config).squeeze(["activation", "gain"])
    np.testing.assert_allclose(one["std"].mean("seed").sel(layer=[10, 20, 100]), 0.651, rtol=0, atol=0.007)
    assert growth(one) == pytest.approx(1.0992, abs=0.004)


def test_tanh_at_1_1_holds_a_small_signal_and_nearly_its_gradient(forum):
    one = forum("tanh", 1.1)
    assert one["std"].mean("seed").sel(layer=slice(50, 100)).mean() == pytest.approx(0.305, abs=0.008)
    assert growth(one, 50, 100) == pytest.approx(1.005, abs=0.004)


def test_selu_at_1_keeps_a_unit_signal_and_its_gradient_grows_by_3_5_percent(forum):
    one = forum("selu", 1.0)
    assert one["std"].mean("seed").sel(layer=100) == pytest.approx(1.0, abs=0.025)
    assert growth(one) == pytest.approx(1.035, abs=0.004)


def test_selu_at_three_quarters_shrinks_to_a_fifth(forum):
    assert forum("selu", 0.75)["std"].mean("seed").sel(layer=100) == pytest.approx(0.1996, abs=0.009)


def assert_mean_is(sample, expected):
    """Within 3.5 standard errors of the mean."""
    error = sample.std(ddof=1) / math.sqrt(len(sample))
    assert abs(sample.mean() - expected) < 3.5 * error, (sample.mean(), expected, error)


def test_softsign_at_1_falls_like_one_over_depth():
    """q ~ (π/8) / l², so l·std tends to √(π/8): the approach is logarithmically slow, and its steps are 1.

    Finite width adds a random walk of log std, so the network is wide: at width 1000 it is 10% per seed.
    """
    config = SweepConfig(("softsign",), (1.0,), width=30_000, inputs=1, statistics=("std",))
    std = sweep(config)["std"].squeeze(["activation", "gain"])
    steps = (1 / std.sel(layer=100) - 1 / std.sel(layer=50)).values / 50
    assert_mean_is(steps, math.sqrt(8 / math.pi))


@pytest.fixture(scope="module")
def relu():
    def run(cotangent):
        config = SweepConfig(
            ("relu",), ("sqrt(2)",), inputs=1, seeds=640, statistics=("log_grad_rms",), cotangent=cotangent
        )
        return sweep(config)["log_grad_rms"].squeeze(["activation", "gain"]).transpose("layer", "seed").values

    return run


def test_relu_gradient_with_random_cotangent_falls_by_no_more_than_its_fluctuations(relu):
    log = relu("random")
    for k in (1, 10, 50, 100):
        assert_mean_is(log[100 - k] - log[100], -1.25 * k / 1000)


def test_relu_gradient_of_the_sum_of_the_outputs_grows_although_chi_perp_is_one(relu):
    log = relu("sum")
    for k in (1, 5, 20, 60):
        assert_mean_is(log[100 - k], 0.5 * math.log(1 + (2 * k - 1) / math.pi) - 1.25 * k / 1000)
