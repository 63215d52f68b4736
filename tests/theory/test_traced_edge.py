"""The edge of chaos under jit, vmap and grad, against the edge of numbers, closed forms and finite differences."""

import math

import jax
import numpy as np
import pytest

from jaxgain.activations import activation
from jaxgain.theory.critical import critical_init, edge_at
from jaxgain.theory.edge import edge_of_chaos, edges_of_chaos
from jaxgain.theory.panels import resolve
from jaxgain.theory.phases import STABILITIES
from jaxgain.theory.traced_edge import edge_table, places

NAMES = (*STABILITIES, "none")
BIASES = np.array([0.0, 0.01, 0.2, 0.45, 0.6, 0.9, 2.5])
WEIGHTS = np.array([0.5, 0.81, 0.99, 1.05, 1.3, 1.408, 1.5, 1.9, 2.2, 11.0])
LENGTHS = np.array([0.01, 0.3, 1.0, 5.0, 60.0, 1e3])


def assert_same(traced, concrete, rtol=1e-9):
    for part in ("q", "chi_par"):
        np.testing.assert_allclose(getattr(traced, part), getattr(concrete, part), rtol=rtol, atol=1e-10)
    np.testing.assert_allclose(traced.init.sigma_w, concrete.init.sigma_w, rtol=rtol)
    # sigma_b^2/q is what is left of two numbers of order 1, each known to a few times 1e-14.
    known = np.sqrt(np.asarray(concrete.init.sigma_b) ** 2 + 1e-13 * np.asarray(concrete.q)) - concrete.init.sigma_b
    off = np.abs(np.asarray(traced.init.sigma_b) - concrete.init.sigma_b)
    assert np.array_equal(np.isnan(off), np.isnan(known))
    assert (np.isnan(off) | (off <= rtol * np.asarray(concrete.init.sigma_b) + known + 1e-12)).all()
    assert np.array(NAMES)[np.asarray(traced.stability)].tolist() == concrete.stability.tolist()


OFTEN = ("gelu",)
MORE = (
    "tanh",
    "sin",
    "relu",
    "silu",
    "selu",
    "cos",
    "erf",
    "elu",
    "hard_tanh",
    "mish",
    "sigmoid",
    "relu6",
    "softplus",
    "step",
    "snake",
)


@pytest.mark.parametrize("name", [*OFTEN, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_the_traced_edge_is_that_of_numbers(name):
    with jax.enable_x64(True):
        by_bias = jax.jit(lambda sigma_b: edges_of_chaos(name, sigma_b))(BIASES)
        by_weights = jax.jit(jax.vmap(lambda sigma_w: edge_of_chaos(name, sigma_w=sigma_w)))(WEIGHTS)
        at_lengths = jax.jit(lambda q: edge_of_chaos(name, q=q))(LENGTHS)
    assert_same(by_bias, edges_of_chaos(name, BIASES))
    assert_same(by_weights, edge_of_chaos(name, sigma_w=WEIGHTS))
    assert_same(at_lengths, edge_of_chaos(name, q=LENGTHS))


@pytest.mark.slow
def test_of_several_traced_points_the_choice_is_that_of_numbers():
    """GELU has a stable and an unstable point at sigma_w = 1.408, one of them at 1.45 and at 1.6."""
    scales = np.array([1.408, 1.45, 1.6])
    with jax.enable_x64(True):
        one = jax.jit(lambda sigma_w: edge_of_chaos("gelu", sigma_w=sigma_w))(scales)
        every = jax.jit(lambda sigma_w: edges_of_chaos("gelu", sigma_w=sigma_w))(scales)
    assert every.q.shape == (places(resolve(activation("gelu")), by_bias=False), 3)
    found = [edges_of_chaos("gelu", sigma_w=float(scale)) for scale in scales]
    assert [int(number) for number in (~np.isnan(every.q)).sum(0)] == [len(points) for points in found]
    chosen = [edge_of_chaos("gelu", sigma_w=float(scale)).q for scale in scales]
    np.testing.assert_allclose(one.q, chosen, rtol=1e-9)


def test_at_the_critical_bias_the_traced_point_is_half_stable():
    critical = critical_init("gelu")
    assert critical.init is not None
    with jax.enable_x64(True):
        found = jax.jit(lambda sigma_b: edge_of_chaos("gelu", sigma_b))(critical.init.sigma_b)
    assert STABILITIES[int(found.stability)] == "half-stable"
    assert float(found.q) == pytest.approx((3 + 17**0.5) / 2, rel=1e-10)
    assert not found.stable


def test_erf_has_the_derivative_of_its_closed_form():
    """sigma_w^2 = pi sqrt(1 + 4q)/4 and sigma_b^2 = q - asin(2q/(1 + 2q)) sqrt(1 + 4q)/2."""
    q = 0.7
    sigma_w = math.sqrt(math.pi * math.sqrt(1 + 4 * q) / 4)
    square = q - math.asin(2 * q / (1 + 2 * q)) * math.sqrt(1 + 4 * q) / 2
    asin_slope = 1 / ((1 + 2 * q) * math.sqrt(1 + 4 * q)) * 2
    square_slope = 1 - asin_slope * math.sqrt(1 + 4 * q) / 2 - math.asin(2 * q / (1 + 2 * q)) / math.sqrt(1 + 4 * q)
    sigma_w_slope = math.pi / (4 * math.sqrt(1 + 4 * q) * sigma_w)
    expected = sigma_w_slope / square_slope * 2 * math.sqrt(square)
    with jax.enable_x64(True):
        value, slope = jax.jit(jax.value_and_grad(lambda b: edge_of_chaos("erf", b).init.sigma_w))(math.sqrt(square))
    assert float(value) == pytest.approx(sigma_w, rel=1e-11)
    assert float(slope) == pytest.approx(expected, rel=1e-8)


@pytest.mark.slow
def test_a_kink_does_not_spoil_the_derivative():
    def sigma_b(sigma_w):
        return edge_of_chaos("hard_tanh", sigma_w=sigma_w).init.sigma_b

    with jax.enable_x64(True):
        slope = float(jax.jit(jax.grad(sigma_b))(1.3))
    assert slope == pytest.approx((sigma_b(1.3 + 1e-5) - sigma_b(1.3 - 1e-5)) / 2e-5, rel=1e-8)


def test_without_an_edge_derivatives_are_zero_not_nan_and_values_are_nan():
    with jax.enable_x64(True):
        value, slope = jax.jit(jax.value_and_grad(lambda w: edge_of_chaos("tanh", sigma_w=w).q))(0.5)
    assert math.isnan(value) and float(slope) == 0


def test_in_float32_it_is_computed_in_float32():
    found = jax.jit(lambda sigma_b: edge_of_chaos("tanh", sigma_b))(0.2)
    assert found.init.sigma_w.dtype == np.float32
    assert float(found.init.sigma_w) == pytest.approx(1.304145840057, rel=1e-6)
    assert bool(found.stable)


@pytest.mark.parametrize("name", ["tanh", pytest.param("selu", marks=pytest.mark.slow)])
def test_the_table_is_right_between_its_points(name):
    phi = resolve(activation(name))
    table = edge_table(phi)
    assert table is not None
    for q in np.random.default_rng(0).uniform(-6, 5, 30):
        edge = edge_at(phi, float(np.exp(q)))
        with jax.enable_x64(True):
            log_sigma_w, bias, chi_par = np.asarray(table.at(jax.numpy.asarray(q)))
        assert log_sigma_w == pytest.approx(math.log(edge.sigma_w.value), abs=1e-12)
        assert bias == pytest.approx(edge.bias.value, abs=1e-12)
        assert chi_par == pytest.approx(edge.chi_par.value, abs=1e-11)
