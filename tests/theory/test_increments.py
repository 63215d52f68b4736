"""Mean squared increments: closed forms of pairs at every length, and an independent quadrature of them."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgain.activations import activation
from jaxgain.theory.increments import increments, is_symmetric, power, separation_ratios, wavelength
from jaxgain.theory.panels import resolve
from jaxgain.theory.quadrature import separation

T = np.array([0.02, 0.1, 0.3, 0.7, 0.95, 1.0])


def _gelu(q, c):
    # By Stein's lemma, twice, from E Phi(u) Phi(v) and E phi(u) phi(v).
    below = 0.25 + np.arcsin(q * c / (1 + q)) / (2 * math.pi)
    density = 1 / (2 * math.pi * np.sqrt((1 + q) ** 2 - (q * c) ** 2))
    return q * c * below + q * q * density * (1 + q - q * c * c + c * c) / (1 + q)


# E phi(u) phi(v); Cho and Saul (2009) for the arc-cosine family.
PAIRS = {
    "step": lambda q, c: 0.5 - np.arccos(c) / (2 * math.pi),
    "relu": lambda q, c: q / (2 * math.pi) * (np.sqrt(1 - c * c) + c * (math.pi - np.arccos(c))),
    "relu_squared": lambda q, c: (
        q * q / (2 * math.pi) * (3 * c * np.sqrt(1 - c * c) + (math.pi - np.arccos(c)) * (1 + 2 * c * c))
    ),
    "abs": lambda q, c: 2 * q / math.pi * (np.sqrt(1 - c * c) + c * np.arcsin(c)),
    "sign": lambda q, c: 2 / math.pi * np.arcsin(c),
    "erf": lambda q, c: 2 / math.pi * np.arcsin(2 * q * c / (1 + 2 * q)),
    "gelu": _gelu,
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("q", [0.03, 1.0, 200.0])
def test_pairs_have_their_closed_forms(name, q):
    phi, pair = activation(name), PAIRS[name]
    expected = (pair(q, 1.0) - pair(q, 1 - T * T)) / (q * T ** power(phi))
    # The closed form loses digits near c = 1: a few units of its rounding.
    rounding = 1e-15 * pair(q, 1.0) / (q * T**2)
    np.testing.assert_allclose(separation_ratios(phi, np.full(6, q), T), expected, rtol=1e-12, atol=rounding.max())


# E cos u cos v = exp(-q) cosh(q c), E sin u sin v = exp(-q) sinh(q c)
def _sin(q, t):
    return (-np.expm1(-q * t * t) + np.exp(-q * (2 - t * t)) - np.exp(-2 * q)) / (2 * q * t * t)


def _cos(q, t):
    return (-np.expm1(-q * t * t) - np.exp(-q * (2 - t * t)) * -np.expm1(-q * t * t)) / (2 * q * t * t)


@pytest.mark.parametrize("q", [0.7, 30.0, 1e3, pytest.param(1e4, marks=pytest.mark.slow)])
def test_waves_have_their_closed_forms_however_long_the_inputs(q):
    t = np.linspace(0.05, 1.2, 24)  # c from nearly 1 to -0.44
    for name, expected in (("sin", _sin(q, t)), ("cos", _cos(q, t)), ("snake", 1 + _cos(4 * q, t))):
        np.testing.assert_allclose(separation_ratios(activation(name), np.full(24, q), t), expected, rtol=1e-11)


@pytest.mark.parametrize(
    "phi",
    ["tanh", "relu6", *(pytest.param(phi, marks=pytest.mark.slow) for phi in ("selu", lambda x: jnp.maximum(x, -0.3)))],
)
def test_they_are_what_another_quadrature_finds(phi):
    phi = resolve(activation(phi))
    for q in (0.03, 25.0):
        expected = [separation(phi, t * t, q).value / (q * t * t) for t in (1e-5, 0.1, 1.0)]
        found = separation_ratios(phi, np.full(3, q), np.array([1e-5, 0.1, 1.0]))
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_what_grows_too_fast_is_refused_and_right_before():
    # E sinh(u) sinh(v) = exp(q) sinh(q c)
    sinh = resolve(activation(lambda x: jnp.sinh(x)))
    for q, t in ((0.1, 1.0), (0.5, 0.3)):
        expected = math.exp(q) * (math.sinh(q) - math.sinh(q * (1 - t * t))) / (q * t * t)
        assert separation_ratios(sinh, np.array([q]), np.array([t]))[0] == pytest.approx(expected, rel=1e-10)
    with pytest.raises(ValueError, match="grows too fast"):
        separation_ratios(sinh, np.array([5.0]), np.array([0.5]))


def test_their_panels_end_where_two_kinks_meet():
    assert 3.0 in increments(activation("relu6"), 2).edges
    assert 1.0 in increments(activation("hard_tanh"), 2).edges


def test_only_what_oscillates_for_ever_has_a_wavelength():
    assert [wavelength(activation(name)) for name in ("sin", "cos", "snake", "sin(2x)")] == [1.0, 1.0, 0.5, 0.5]
    assert all(math.isinf(wavelength(activation(name))) for name in ("tanh", "relu", "relu6", "mish", "identity"))


def test_symmetry_is_seen():
    assert is_symmetric(activation("tanh"))
    assert is_symmetric(activation("abs"))
    assert not is_symmetric(activation("gelu"))
