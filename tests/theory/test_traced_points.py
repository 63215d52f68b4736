"""All fixed points under jit, vmap and grad, and of arrays, against those of numbers."""

import jax
import numpy as np
import pytest

from jaxgain.activations import activation
from jaxgain.theory.critical import critical_init
from jaxgain.theory.fixed_points import fixed_point, fixed_points
from jaxgain.theory.meanfield import Init
from jaxgain.theory.panels import resolve
from jaxgain.theory.phases import PHASES, STABILITIES
from jaxgain.theory.quadrature import moments
from jaxgain.theory.tables import length_table
from jaxgain.theory.traced_lengths import places

NUMBERS = ("q", "one_minus_c", "chi_par", "chi_perp", "slope")
WEIGHTS, BIASES = np.array([0.0, 0.3, 0.8, 1.1, 1.35, 1.7, 2.3, 3.5]), np.array([0.0, 0.03, 0.2, 0.45, 1.1])
GRID = Init(*(np.ravel(part) for part in np.meshgrid(WEIGHTS, BIASES)))


def traced_points(name, init):
    with jax.enable_x64(True):
        found = jax.jit(lambda init: fixed_points(name, init))(init)
        return jax.tree.map(np.asarray, found)


OFTEN = ("gelu",)
MORE = (
    "tanh",
    "relu",
    "silu",
    "selu",
    "sin",
    "cos",
    "erf",
    "elu",
    "hard_tanh",
    "mish",
    "sigmoid",
    "relu_squared",
    "step",
)


@pytest.mark.parametrize("name", [*OFTEN, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_all_traced_fixed_points_are_those_of_numbers(name):
    numbers, traced = fixed_points(name, GRID), traced_points(name, GRID)
    for field in NUMBERS:
        # The slopes are at most a few, and near 0 where they are differences; that of the correlation map is the
        # derivative of a polynomial of degree 12 over panels of width 0.4, which makes 12²/0.2 times its rounding.
        expected, off = getattr(numbers, field), 1e-9 if field == "slope" else 1e-11
        np.testing.assert_allclose(getattr(traced, field), expected, rtol=1e-9, atol=off, err_msg=field)
    np.testing.assert_allclose(traced.basin, numbers.basin, rtol=1e-9)
    assert np.array((*STABILITIES, "none"))[traced.stability].tolist() == numbers.stability.tolist()
    assert np.array((*PHASES, "none"))[traced.phase].tolist() == numbers.phase.tolist()
    assert (traced.converged == numbers.converged).all()
    assert (traced.stable == numbers.stable).all()


def test_arrays_hold_the_points_of_each_number():
    found = fixed_points("gelu", Init(np.array([[1.2], [1.6]]), np.array([0.0, 0.2, 1.0])))
    assert found.q.shape == (3, 2, 3) and found.basin.shape == (3, 2, 3, 2)
    for i, sigma_w in enumerate((1.2, 1.6)):
        for j, sigma_b in enumerate((0.0, 0.2, 1.0)):
            points = fixed_points("gelu", Init(sigma_w, sigma_b))
            here = found.q[:, i, j]
            assert here[~np.isnan(here)].tolist() == [point.q for point in points]
            assert found.stability[: len(points), i, j].tolist() == [point.stability for point in points]
            assert found.converged[:, i, j].tolist() == [k < len(points) for k in range(3)]


@pytest.mark.parametrize(("name", "expected"), [("tanh", 2), ("relu", 2), ("gelu", 3), ("silu", 3), ("cos", 2)])
def test_the_number_of_places_is_two_more_than_the_slope_has_extrema(name, expected):
    assert places(resolve(activation(name))) == expected


@pytest.mark.slow
def test_every_length_of_a_critical_relu_is_fixed():
    found = traced_points("relu", Init(2**0.5, np.array([0.0, 0.1])))
    assert found.q[:, 0].tolist() == [0.0, 1.0]
    assert found.stability[:, 0].tolist() == [STABILITIES.index("neutral")] * 2
    assert found.phase[:, 0].tolist() == [PHASES.index("scale-invariant")] * 2
    assert np.isnan(found.q[:, 1]).all()


def test_where_the_map_touches_the_diagonal_there_is_one_half_stable_point():
    critical = critical_init("gelu")
    assert critical.init is not None
    init = Init(critical.init.sigma_w * np.array([1.0, 1 - 1e-6, 1 + 1e-6]), critical.init.sigma_b)
    all_found = traced_points("gelu", init)
    found = jax.tree.map(lambda field: field[:, 0], all_found)
    stable, touching = fixed_points("gelu", critical.init)
    np.testing.assert_allclose(found.q, [stable.q, critical.q, np.nan], rtol=1e-10)
    assert found.stability.tolist() == [STABILITIES.index("stable"), STABILITIES.index("half-stable"), -1]
    assert found.basin[1].tolist() == [pytest.approx(critical.q), np.inf]
    assert touching.stability == "half-stable"
    # Next to it there are two points, or none.
    assert (~np.isnan(all_found.q)).sum(0).tolist() == [2, 1, 3]


@pytest.mark.slow
def test_the_derivative_of_every_fixed_point_is_that_of_the_implicit_function():
    """Dq/d ln sigma_w = 2 (q - sigma_b^2)/(1 - chi_par)."""
    with jax.enable_x64(True):
        slopes = jax.jit(jax.jacobian(lambda sigma_w: fixed_points("gelu", Init(sigma_w, 0.2)).q))(1.5)
        slopes = np.asarray(slopes)
    for point, slope in zip(fixed_points("gelu", Init(1.5, 0.2)), slopes, strict=False):
        assert slope == pytest.approx(2 * (point.q - 0.2**2) / (1 - point.chi_par) / 1.5, rel=1e-9)
    assert slopes[2] == 0.0


@pytest.mark.slow
def test_the_point_that_is_reached_is_one_of_all():
    init = Init(np.array([0.7, 1.2, 1.9, 2.6]), 0.1)
    every = traced_points("silu", init)
    with jax.enable_x64(True):
        one = np.asarray(jax.jit(lambda init: fixed_point("silu", init).q)(init))
    there = np.isfinite(one)
    nearest = np.nanmin(np.abs(every.q[:, there] / one[there] - 1), axis=0)
    assert (nearest < 1e-11).all() and there.any()


@pytest.mark.slow
def test_the_table_of_what_is_zero_around_zero_begins_where_it_is_known():
    """The soft threshold: E phi^2 underflows at small lengths."""
    phi = resolve(activation(lambda x: jax.numpy.sign(x) * jax.numpy.maximum(abs(x) - 0.5, 0.0)))
    table = length_table(phi)
    assert 1e-5 < np.exp(table.nodes[0]) < 1e-2
    with jax.enable_x64(True):
        assert np.exp(table.at(jax.numpy.float64(0.0))[0]) == pytest.approx(moments(phi, 1.0).second.value, rel=1e-9)
