"""Batch normalization: closed forms of ReLU for every batch, Monte Carlo on the sphere, the growth of gradients."""

import math

import numpy as np
import pytest

from jaxgain.activations import activation
from jaxgain.theory.batch_norm import normalized_moments
from jaxgain.theory.depth_profile import mean_field
from jaxgain.theory.meanfield import Init


@pytest.mark.parametrize("batch", [4, 5, 8, 40, 1000])
def test_relu_has_its_closed_forms(batch):
    # Positively homogeneous functions of a direction have the moments of the normal vector with its covariance.
    found = normalized_moments(activation("relu"), batch)
    c = -1 / (batch - 1)
    product = (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / (2 * math.pi)
    both_active = (math.pi - math.acos(c)) / (2 * math.pi)
    # A kink meets the end of the range at batch 4, where the density does not vanish.
    tolerance = 3e-7 if batch == 4 else 1e-13
    assert found.second == pytest.approx(0.5, abs=1e-13)
    assert found.product == pytest.approx(product, abs=tolerance)
    assert found.diagonal == pytest.approx((1 - 2 / batch) / 2, abs=1e-13)
    assert found.off_diagonal == pytest.approx(-(batch - 1) / batch * (both_active + product), abs=tolerance)


@pytest.mark.parametrize("batch", [4, 16])
@pytest.mark.parametrize("phi", ["tanh", "hard_tanh"])
def test_expectations_agree_with_sampled_batches(phi, batch):
    z = np.random.default_rng(0).standard_normal((400_000, batch))
    z -= z.mean(1, keepdims=True)
    x, y = (z / np.sqrt(np.mean(z * z, axis=1, keepdims=True)))[:, :2].T
    function = {"tanh": np.tanh, "hard_tanh": lambda x: np.clip(x, -1, 1)}[phi]
    slope = {"tanh": lambda x: 1 - np.tanh(x) ** 2, "hard_tanh": lambda x: (np.abs(x) < 1) * 1.0}[phi]
    samples = {
        "second": function(x) ** 2,
        "product": function(x) * function(y),
        "diagonal": slope(x) ** 2 * (1 - (1 + x * x) / batch),
        "off_diagonal": -(batch - 1) / batch * slope(x) * slope(y) * (1 + x * y),
    }
    found = normalized_moments(activation(phi), batch)
    for name, values in samples.items():
        error = values.std() / values.size**0.5
        assert abs(values.mean() - getattr(found, name)) < 4 * error, name  # 16 comparisons in all


def test_many_inputs_tend_to_infinitely_many():
    large, infinite = (normalized_moments(activation("gelu"), batch) for batch in (20_000, None))
    for name in ("mean", "second", "product", "diagonal", "off_diagonal"):
        assert getattr(large, name) == pytest.approx(getattr(infinite, name), abs=3e-4)
    near = normalized_moments(activation("gelu"), 40_000)
    assert (large.second - infinite.second) / (near.second - infinite.second) == pytest.approx(2, rel=1e-3)


def test_relu_grows_the_gradient_by_pi_over_pi_minus_1():
    """Yang et al., A mean field theory of batch normalization, 2019."""
    profile = mean_field("relu", Init(1.7, 0.4), depth=10, block="batchnorm")
    np.testing.assert_allclose(-2 * np.diff(profile.log_grad_rms)[1:], math.log(math.pi / (math.pi - 1)), rtol=1e-12)
    np.testing.assert_allclose(2 * np.diff(profile.log_jacobian_rms)[1:], math.log(math.pi / (math.pi - 1)), rtol=1e-12)


def test_linear_networks_lose_nothing_to_large_batches_and_their_gradient_explodes_in_small_ones():
    assert np.abs(mean_field("identity", Init(1.3), depth=5, block="batchnorm").log_grad_rms).max() < 1e-14
    # φ' = 1: the projection leaves B - 2 of B - 1 dimensions, and E 1/χ² of B - 1 of them is 1/(B - 3).
    profile = mean_field("identity", Init(1.3), depth=6, block="batchnorm", inputs=6)
    growth = -2 * np.diff(profile.log_grad_rms)
    np.testing.assert_allclose(growth[1:-1], math.log(6 - 2) - math.log(6 - 3), atol=1e-12)


@pytest.mark.parametrize("branch", ["one_layer", "glu"])
def test_the_gradient_at_the_input_is_the_tangent_at_the_output(branch):
    # Both are the mean square of the entries of one Jacobian.
    profile = mean_field("gelu", Init(1.2, 0.3), depth=5, block="batchnorm", branch=branch, inputs=7, correlation=0.2)
    assert float(profile.log_grad_rms[0]) == pytest.approx(float(profile.log_jacobian_rms[-1]), abs=1e-10)
