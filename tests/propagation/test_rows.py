"""The small algebra of rows against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgain.propagation.rows import (
    combine_lower,
    factor,
    factor_array,
    magnitude,
    norm,
    orthonormalized,
    reciprocal,
    unit_size,
)


def rows_of(count, width, seed=0):
    return list(jax.random.normal(jax.random.key(seed), (count, width)))


def triangle(rows):
    """Lower factor with a positive diagonal by Householder QR, inner products being means."""
    rows = np.asarray(rows, np.float64) / np.sqrt(len(rows[0]))
    lower = np.linalg.qr(rows.T)[1].T
    return lower * np.sign(np.diag(lower))


@pytest.mark.parametrize(("count", "width"), [(1, 5), (2, 12), (4, 100), (3, 1000), (6, 200)])
def test_factor_is_the_triangle_of_a_qr_decomposition(count, width):
    rows = rows_of(count, width)
    lower, inverse = factor(rows, careful=2)
    np.testing.assert_allclose(lower, triangle(rows), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(inverse @ lower, np.eye(count), atol=1e-5)


@pytest.mark.parametrize("angle", [1e-2, 1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("width", [40, 1000])
def test_nearly_parallel_rows_keep_the_residual_that_their_entries_hold(angle, width):
    first, other = rows_of(2, width)
    close = [first, first + np.float32(angle) * other]
    lower, _ = factor(close, careful=2)
    np.testing.assert_allclose(lower[1, 1], triangle(close)[1, 1], rtol=2e-7 / angle)


@pytest.mark.parametrize("angle", [1e-1, 1e-3, 1e-4])
@pytest.mark.parametrize("width", [2, 40])
def test_basis_is_orthonormal_to_rounding_however_close_the_rows_are(angle, width):
    first, other = rows_of(2, width)
    rows = jnp.stack([first, first + np.float32(angle) * other, jnp.zeros(width)])
    basis, lower, _ = map(np.asarray, orthonormalized(rows, width))
    np.testing.assert_allclose(basis @ basis.T / width, np.diag([1, 1, 0]), atol=4e-7)
    np.testing.assert_allclose(lower @ basis, rows, atol=1e-6)


@pytest.mark.parametrize("width", [3, 500])
def test_rows_in_the_span_of_others_are_dead(width):
    first, second = rows_of(2, width)
    zero = jnp.zeros(width)
    lower, inverse = factor([first, first, zero, second], careful=4)
    np.testing.assert_array_equal(np.diag(lower)[1:3], 0)
    np.testing.assert_array_equal(np.asarray(inverse)[1:3], 0)
    assert lower[3, 3] > 0.1
    np.testing.assert_allclose(lower[1, 0], lower[0, 0], rtol=1e-6)


@pytest.mark.slow
def test_there_are_never_more_live_rows_than_directions():
    for seed in range(20):
        assert np.count_nonzero(np.diag(factor_array(jnp.stack(rows_of(5, 2, seed))).lower)) == 2


@pytest.mark.parametrize("scale", [1e-37, 1e-19, 1.0, 1e19, 1e37])
def test_magnitudes_and_norms_neither_overflow_nor_underflow(scale):
    row = jnp.float32(scale) * jnp.array([3.0, -4.0, 0.0])
    assert 0 < float(magnitude(row, whole_range=True)) / scale < 13
    np.testing.assert_allclose(norm(row) / jnp.float32(scale), 5, rtol=1e-6)
    (unit,), _ = unit_size([row])
    np.testing.assert_allclose(unit[1] / unit[0], -4 / 3, rtol=1e-6)


def test_a_zero_row_has_no_magnitude_and_a_finite_reciprocal():
    assert magnitude(jnp.zeros(7), whole_range=True) == 0
    assert reciprocal(jnp.float32(0)) == 0
    assert np.isnan(reciprocal(jnp.float32(np.nan)))


def test_lower_combinations_ignore_what_lies_above_the_diagonal():
    rows = rows_of(3, 9)
    lower = jnp.tril(jax.random.normal(jax.random.key(4), (3, 3)))
    np.testing.assert_allclose(jnp.stack(combine_lower(lower, rows)), lower @ jnp.stack(rows), rtol=1e-5, atol=1e-6)
