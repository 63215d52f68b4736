"""Separations of many pairs: closed forms, the adaptive quadrature, series against single values."""

import numpy as np
import pytest

from jaxgain.activations import activation
from jaxgain.theory.pairs import pair_separation, separations, slope_of
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


@pytest.mark.parametrize(("phi", "q", "more"), [("tanh", 0.1, 100), ("sin", 25.0, 0)])
def test_single_pairs_and_series_agree_with_adaptive_quadrature(phi, q, more):
    phi = activation(phi)
    some = np.array([1e-6, 0.3, 1.7, 1.9999])
    found = separations(phi, q, np.concatenate([some, np.linspace(0, 2, more)]))
    np.testing.assert_allclose(found.value[:4], [separation(phi, x, q).value for x in some], rtol=1e-9)
    np.testing.assert_allclose(found.slope[:4], [separation(slope_of(phi), x, q).value for x in some], rtol=1e-8)


def test_shapes_are_kept_and_equal_inputs_have_no_separation():
    found = separations(activation("tanh"), 1.0, np.zeros((2, 2)))
    assert found.value.shape == (2, 2)
    assert not found.value.any() and not found.slope.any()


def test_the_slope_of_an_activation_has_its_moments():
    phi = activation("gelu")
    assert moments(slope_of(phi), 2.0).second.value == pytest.approx(moments(phi, 2.0).slope_second.value, rel=1e-13)


@pytest.mark.parametrize("phi", ["relu", "tanh", "sign"])
def test_close_pairs_keep_their_digits(phi):
    phi = activation(phi)
    close = 10.0 ** -np.arange(9.0, 200.0, 10.0)
    found = separations(phi, 2.0, close).value
    expected = {
        "relu": close,  # q (1 - c) E φ'², to first order
        "tanh": 2 * close * moments(phi, 2.0).slope_second.value,
        "sign": 2 / np.pi * np.sqrt(2 * close),  # 2 P(signs differ)
    }[phi.name]
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-8)
    for one_minus_c, value in zip(close[:3], found[:3], strict=True):
        assert pair_separation(phi, one_minus_c, 2.0) == pytest.approx(value, rel=1e-9)
