"""Distributions of explicit matrices; and what maps without them must keep to the letter, whatever is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgain.propagation.maps import GAUSSIAN, ORTHOGONAL, Sizes, dense
from jaxgain.propagation.weights import DISTRIBUTIONS, TRUNCATED_STD, Matrices, draw_matrix

WORDS = jax.random.bits(jax.random.key(2), (2,))
ONE = jnp.array(1)


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_weights_have_mean_0_and_variance_1(name):
    drawn = [
        draw_matrix(WORDS, jnp.array(layer), Matrices(name, sparsity=0.8), fan_in=300, fan_out=200)[0]
        for layer in (1, 2, 3)
    ]
    weights = np.concatenate([np.asarray(each, np.float64).ravel() for each in drawn])
    assert abs(weights.mean()) < 4 * weights.std() / weights.size**0.5
    squares = weights**2
    error = 4 * squares.std() / squares.size**0.5 if name != "orthogonal" else 1e-5
    assert abs(squares.mean() - 1) < error


def test_distributions_have_their_shapes():
    draw = lambda name: np.asarray(draw_matrix(WORDS, ONE, Matrices(name, sparsity=0.8), fan_in=300, fan_out=200)[0])
    assert np.abs(draw("uniform")).max() <= 3**0.5 * (1 + 1e-6) and np.abs(draw("uniform")).max() > 1.73
    assert np.abs(draw("truncated_normal")).max() <= 2 / TRUNCATED_STD * (1 + 1e-6)
    assert np.abs(draw("normal")).max() > 3
    zeros = np.mean(draw("sparse") == 0)
    assert abs(zeros - 0.8) < 4 * (0.8 * 0.2 / 60_000) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("fan_in", "fan_out"), [(30, 30), (30, 20), (20, 30)])
def test_orthogonal_matrices_are_orthonormal_along_their_shorter_side(fan_in, fan_out):
    weights, _ = draw_matrix(WORDS, ONE, Matrices("orthogonal"), fan_in=fan_in, fan_out=fan_out)
    weights = weights if fan_out <= fan_in else weights.T
    longer, shorter = max(fan_in, fan_out), min(fan_in, fan_out)
    np.testing.assert_allclose(weights @ weights.T, longer * np.eye(shorter), atol=2e-4)


@pytest.mark.slow
def test_tied_layers_have_one_matrix_and_one_bias():
    draw = lambda tied, layer: draw_matrix(WORDS, jnp.array(layer), Matrices(tied=tied), fan_in=5, fan_out=5)
    for one, other in zip(draw(True, 2), draw(True, 7), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(draw(False, 2)[0], draw(False, 7)[0])


@pytest.mark.slow
def test_an_initializer_keeps_its_own_scale_and_its_axes():
    initializer = lambda key, shape, dtype: jnp.arange(shape[0], dtype=dtype)[:, None] * jnp.ones(shape, dtype)
    sizes = Sizes(signals=1, tangents=0, fan_in=3, fan_out=2, bias=False)
    drawn = dense(Matrices(initializer)).draw(WORDS, ONE, sizes, reverse=False)
    images, _ = dense(Matrices(initializer)).meet(drawn, jnp.array([[1.0, 1.0, 1.0]]), sizes, jnp.float32(2.0), None)
    np.testing.assert_allclose(images, [[6.0, 6.0]], rtol=1e-6)  # 2 (0 + 1 + 2)


@pytest.mark.slow
def test_low_precision_rounds_what_float32_drew():
    sizes = Sizes(signals=1, tangents=0, fan_in=16, fan_out=16, bias=False)
    full, low = (
        dense(Matrices(dtype=dtype)).draw(WORDS, ONE, sizes, reverse=False)[0] for dtype in (jnp.float32, jnp.bfloat16)
    )
    np.testing.assert_array_equal(full.astype(jnp.bfloat16), low)


def sides(random_map, fan_in, fan_out, signals=2, tangents=3, sigma_b=None):
    """Rows and their images, cotangents and what they become, of one map."""
    sizes = Sizes(signals, tangents, fan_in, fan_out, sigma_b is not None)
    rows, cotangents = (
        jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(5, fan_in), (signals, fan_out)])
    )
    drawn = random_map.draw(WORDS, ONE, sizes, reverse=True)
    images, seen = random_map.meet(drawn, rows, sizes, jnp.float32(1.3), sigma_b)
    return rows, images, cotangents, random_map.send_back(drawn, seen, cotangents, sizes, jnp.float32(1.3))


@pytest.mark.parametrize("random_map", [GAUSSIAN, ORTHOGONAL, dense(Matrices("uniform"))], ids=["g", "o", "d"])
@pytest.mark.parametrize(
    ("fan_in", "fan_out"),
    [(7, 12), *(pytest.param(*fans, marks=pytest.mark.slow) for fans in ((70, 90), (40, 40), (12, 7)))],
)
def test_the_transpose_is_that_of_the_map_on_all_that_entered(random_map, fan_in, fan_out):
    """u · W v = Wᵀ u · v holds for every row v that met W, as it does for a real matrix."""
    rows, images, cotangents, returned = sides(random_map, fan_in, fan_out)
    np.testing.assert_allclose(cotangents @ images.T, returned @ rows.T, rtol=2e-4, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("random_map", [GAUSSIAN, ORTHOGONAL], ids=["g", "o"])
def test_no_bias_reaches_the_tangents(random_map):
    without, withit = (sides(random_map, 40, 40, sigma_b=sigma_b) for sigma_b in (None, jnp.float32(0.5)))
    rows, images, cotangents, returned = withit
    assert not np.allclose(images[:2], without[1][:2], atol=1e-2)
    # On tangents, which have no bias, the transpose is that of the map.
    np.testing.assert_allclose(cotangents @ images[2:].T, returned @ rows[2:].T, rtol=2e-4, atol=2e-3)


@pytest.mark.slow
def test_orthogonal_maps_keep_all_inner_products_both_ways():
    rows, images, cotangents, returned = sides(ORTHOGONAL, 40, 40)
    np.testing.assert_allclose(images @ images.T, 1.3**2 * rows @ rows.T, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(returned @ returned.T, 1.3**2 * cotangents @ cotangents.T, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_an_orthogonal_map_keeps_inner_products_where_rows_fill_the_width():
    rows, images, cotangents, returned = sides(ORTHOGONAL, 5, 5)
    np.testing.assert_allclose(images @ images.T, 1.3**2 * rows @ rows.T, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(returned @ returned.T, 1.3**2 * cotangents @ cotangents.T, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("random_map", [GAUSSIAN, ORTHOGONAL], ids=["g", "o"])
def test_rows_of_zeros_and_repeated_rows_are_legal(random_map):
    sizes = Sizes(signals=3, tangents=0, fan_in=20, fan_out=20, bias=False)
    row = jax.random.normal(jax.random.key(0), (20,))
    drawn = random_map.draw(WORDS, ONE, sizes, reverse=True)
    images, seen = random_map.meet(drawn, jnp.stack([row, 0 * row, -2 * row]), sizes, jnp.float32(1.0), None)
    np.testing.assert_array_equal(images[1], 0)
    np.testing.assert_allclose(images[2], -2 * images[0], rtol=1e-4, atol=1e-5)
    assert np.isfinite(random_map.send_back(drawn, seen, jnp.stack([row, row, 0 * row]), sizes, jnp.float32(1.0))).all()
