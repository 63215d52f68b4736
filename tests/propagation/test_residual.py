"""Laws of residual networks of ReLU, of dropout and batch normalization, and of low precision."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgain.propagation.network import propagate
from jaxgain.theory.meanfield import Init

HE = Init(2**0.5)


def mean_square(depth, seeds=24, width=400, weights="matrix_free", **setting):
    """Mean of h² over seeds and its standard error, layers 0 … depth, of ReLU with He's gain."""
    run = lambda key: propagate(
        key, "relu", HE, width=width, depth=depth, weights=weights, statistics=("second_moment",), **setting
    )
    found = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), seeds)).second_moment, np.float64)
    return found.mean(0), found.std(0, ddof=1) / seeds**0.5


RESIDUAL = {
    # E h² at the last layer; Hanin, NeurIPS 2018; Yang and Schoenholz, NeurIPS 2017.
    "two layers": (8, dict(block="residual", branch="two_layer"), 2.0**8),
    "two layers, 1/√L": (20, dict(block="residual", branch="two_layer", alpha="1/sqrt(L)"), (1 + 1 / 20) ** 20),
    "two layers, none": (20, dict(block="residual", branch="two_layer", alpha=0), 1.0),
    "two layers, prenorm": (20, dict(block="prenorm", branch="two_layer", norm="rmsnorm", alpha=0.5), 1 + 0.25 * 20),
    "one layer, prenorm": (20, dict(block="prenorm", norm="rmsnorm"), 1 + 20 + 20 * 19 / math.pi),
    "one layer, 1/√L": (50, dict(block="residual", alpha="1/sqrt(L)"), 842.0),
    # whose limit in the depth is cosh²(1/√π) = 1.354
    "one layer, 1/L": (50, dict(block="residual", alpha="1/L"), 1.36996),
}


@pytest.mark.parametrize("name", RESIDUAL)
def test_second_moment_of_residual_networks(name):
    depth, setting, expected = RESIDUAL[name]
    found, error = mean_square(depth, **setting)
    # At width n the mean over seeds of products over layers is off by O(depth / n) beside its own error.
    assert abs(found[-1] - expected) < 4 * error[-1] + 0.005 * expected


@pytest.mark.slow
def test_one_layer_branches_grow_by_2_9041_per_block():
    found, _ = mean_square(24, block="residual")
    assert found[-1] / found[-2] == pytest.approx(2.9041, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["matrix_free", pytest.param("dense", marks=pytest.mark.slow)])
def test_gradient_of_two_layer_branches_doubles_in_mean_square_per_block(weights):
    run = lambda key: propagate(
        key, "relu", HE, width=200, depth=8, block="residual", branch="two_layer", weights=weights
    )
    found = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(1), 24))
    change = np.asarray(found.log_grad_rms[:, 0] - found.log_grad_rms[:, -1], np.float64)
    assert abs(change.mean() - 4 * math.log(2)) < 4 * change.std() / 24**0.5 + 0.02


@pytest.mark.slow
def test_batch_norm_of_relu_grows_the_gradient_by_pi_over_pi_minus_1():
    """Yang et al., "A mean field theory of batch normalization", ICLR 2019, for a large batch."""
    run = lambda key: propagate(
        key, "relu", Init(1.0), width=200, depth=8, inputs=100, block="batchnorm", weights="dense",
        statistics=("q", "log_grad_rms"),
    )  # fmt: skip
    found = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 6))
    slopes = -np.diff(2 * np.asarray(found.log_grad_rms, np.float64), axis=1)[:, 1:]
    error = slopes.mean(1).std(ddof=1) / 6**0.5
    assert abs(slopes.mean() - math.log(math.pi / (math.pi - 1))) < 4 * error + 0.01
    np.testing.assert_allclose(found.q[:, 1:], 1, atol=1e-4)


@pytest.mark.slow
def test_dropout_keeps_the_second_moment_that_its_gain_makes_up_for():
    """E h² after dropping with probability p and dividing by 1 − p is E φ²/(1 − p)."""
    run = lambda key: propagate(key, "relu", Init((2 * 0.8) ** 0.5), width=500, depth=10, dropout=0.2, inputs=2)
    found = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 32))
    last = np.log(np.asarray(found.second_moment[:, -1], np.float64))
    spread = last.std(ddof=1)
    assert abs(last.mean() + spread**2 / 2) < 4 * spread / 32**0.5
    # Two copies of one input lose different neurons.
    copies = partial(propagate, jax.random.key(1), "relu", HE, width=500, depth=5, inputs=jnp.ones((2, 500)))
    assert copies().correlation[-1] > 0.9999 > 0.97 > copies(dropout=0.2).correlation[-1]


# Precision


@pytest.mark.slow
def test_weights_drawn_in_bfloat16_lose_the_signal_and_those_cast_to_it_do_not():
    run = partial(propagate, jax.random.key(0), "relu", Init(1.0), width=2048, depth=10, weights="dense")
    run = partial(run, distribution=jax.nn.initializers.he_normal(), dtype="bfloat16", statistics=("q",))
    drawn_low, cast = run(draw_dtype="bfloat16").q, run().q
    assert drawn_low[1] / drawn_low[10] > 100
    # Var log q is 5/n per layer (Hanin and Nica, 2020).
    assert abs(math.log(cast[10] / cast[1])) < 4 * (5 * 9 / 2048) ** 0.5


@pytest.mark.slow
def test_a_float16_network_overflows_and_underflows_where_its_format_ends():
    run = partial(propagate, jax.random.key(0), "relu", width=100, depth=40, weights="dense")
    up = run(Init(2.0), dtype="float16")  # grows by √2 per layer
    assert 26 <= int(up.first_nonfinite) <= 34  # 65504 of the largest of 100 neurons, about 2.5 rms
    assert int(run(Init(2.0)).first_nonfinite) == -1
    down = run(Init(0.7), dtype="float16")  # shrinks by 1/2 per layer
    # The largest of 100 neurons, about 2.5 times the rms of h, is below 6.1e-5 from layer 15.5 on, give or take.
    assert 14 <= int(down.first_vanished) <= 18
    assert np.isneginf(down.log_grad_rms[0]) and np.isfinite(run(Init(0.7)).log_grad_rms[0])
    assert np.isnan(up.log_grad_rms[0])  # nothing is known past an overflow
    fine = partial(propagate, jax.random.key(0), "tanh", Init(1.2), width=100, depth=40, weights="dense")
    # Each layer rounds to 2⁻¹¹, which moves the logarithm by about as much.
    np.testing.assert_allclose(fine(dtype="float16").log_grad_rms, fine().log_grad_rms, atol=40 * 2**-11)
