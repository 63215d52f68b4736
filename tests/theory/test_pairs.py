"""Separations of many pairs: closed forms, the adaptive quadrature, series against single values."""

import numpy as np
import pytest

from jaxgain.activations import activation
from jaxgain.theory.pairs import separations, slope_of
from jaxgain.theory.quadrature import moments, separation


@pytest.mark.parametrize("q", [0.3, 9.0])
@pytest.mark.parametrize("count", [9, 1001])
def test_relu_has_the_arc_cosine_kernels(q, count):
    angles = np.linspace(0, np.pi, count)
    found = separations(activation("relu"), q, 1 - np.cos(angles))
    kernel = q * (np.sin(angles) + (np.pi - angles) * np.cos(angles)) / (2 * np.pi)
    np.testing.assert_allclose(found.value, q / 2 - kernel, atol=2e-12 * q)
    # 1 - c = 2 cannot tell angles within 1e-8 of π.
    np.testing.assert_allclose(found.slope, angles / (2 * np.pi), atol=3e-8)


@pytest.mark.parametrize(("phi", "q"), [("tanh", 0.1), ("gelu", 4.0), ("selu", 30.0), ("sin", 25.0)])
def test_single_pairs_and_series_agree_with_adaptive_quadrature(phi, q):
    phi = activation(phi)
    some = np.array([1e-6, 0.3, 1.0, 1.7, 1.9999])
    expected = [separation(phi, x, q).value for x in some]
    of_slopes = [separation(slope_of(phi), x, q).value for x in some]
    for pairs in (some, np.concatenate([some, np.linspace(0, 2, 100)])):
        found = separations(phi, q, pairs)
        np.testing.assert_allclose(found.value[:5], expected, rtol=1e-9)
        np.testing.assert_allclose(found.slope[:5], of_slopes, rtol=1e-8)


def test_shapes_are_kept_and_equal_inputs_have_no_separation():
    found = separations(activation("tanh"), 1.0, np.zeros((2, 2)))
    assert found.value.shape == (2, 2)
    assert not found.value.any() and not found.slope.any()


def test_the_slope_of_an_activation_has_its_moments():
    phi = activation("gelu")
    assert moments(slope_of(phi), 2.0).second.value == pytest.approx(moments(phi, 2.0).slope_second.value, rel=1e-13)
