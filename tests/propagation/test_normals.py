import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.extend.random import threefry_2x32

from jaxgain.propagation.normals import erf_inv, normal_of, standard_normal, threefry

KEY = jax.random.bits(jax.random.key(3), (2,))
COUNT = 1_000_000


def test_threefry_is_the_one_of_jax():
    words = jax.random.bits(jax.random.key(4), (2, 1000))
    for high in words[0, :5]:
        expected = threefry_2x32(KEY, jnp.concatenate([jnp.full(1000, high), words[1]]))
        np.testing.assert_array_equal(jnp.concatenate(threefry(KEY, high, words[1])), expected)


def test_inverse_error_function_is_right_to_rounding_from_the_centre_to_the_last_step():
    steps = np.unique(
        np.concatenate([2 * np.arange(4096) + 1, 2**24 - 1 - 2 * np.arange(4096), np.r_[1 : 2**24 : 254]])
    )
    x = steps * 2.0**-24
    expected = scipy.special.erfinv(x)
    for sign in (1, -1):
        found = np.asarray(erf_inv(jnp.asarray(sign * x, jnp.float32)), np.float64)
        assert np.max(np.abs(sign * found / expected - 1)) < 5e-7  # 1.5e-7 of the polynomial, and Horner in float32


def test_words_become_equal_steps_symmetric_about_zero():
    words = np.array([0, 2**8, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
    steps = np.array([1, 3, 2**24 - 1, 1 - 2**24, -1]) / 2**24
    np.testing.assert_allclose(normal_of(jnp.asarray(words)), scipy.stats.norm.ppf((1 + steps) / 2), rtol=5e-7)


def test_numbers_are_standard_normal_also_in_the_tails():
    x = np.asarray(standard_normal(KEY, 5, 1, COUNT), np.float64)[0]
    assert scipy.stats.kstest(x, "norm").pvalue > 1e-3
    for edge in (3.0, 4.0, 4.5):
        expected = 2 * scipy.stats.norm.sf(edge) * COUNT
        assert abs(np.sum(np.abs(x) > edge) - expected) < 4 * np.sqrt(expected)


@pytest.mark.parametrize("rows", [1, 2])
def test_halves_neighbours_rows_and_streams_are_independent(rows):
    width = COUNT // rows
    x, y = (np.asarray(standard_normal(KEY, stream, rows, width), np.float64) for stream in (8, 9))
    half = width // 2
    pairs = [(x[:, :half], x[:, half:]), (x[:, :-1], x[:, 1:]), (x, y)] + [(x[:1], x[1:])] * (rows - 1)
    for a, b in pairs:
        for one, other in ((a, b), (a**2 - 1, b**2 - 1)):
            product = (one * other).ravel()
            assert abs(product.mean()) < 4 * product.std() / np.sqrt(product.size)


@pytest.mark.parametrize("width", [1, 2, 7, 64])
def test_rows_do_not_depend_on_how_many_follow_nor_on_being_mapped(width):
    several = standard_normal(KEY, 6, 5, width)
    np.testing.assert_array_equal(several[:2], standard_normal(KEY, 6, 2, width))
    streams = jnp.array([2, 6])
    mapped = jax.vmap(lambda stream: standard_normal(KEY, stream, 5, width))(streams)
    np.testing.assert_array_equal(mapped[1], several)
    assert len(np.unique(mapped)) == mapped.size
