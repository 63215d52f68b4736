"""Axes beside the gain, settings per layer, and statistics of several inputs and directions."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgain.propagation.config import SweepConfig
from jaxgain.propagation.network import propagate
from jaxgain.propagation.sweep import sweep
from jaxgain.propagation.weights import UNIT_NORMAL, draw_matrix
from jaxgain.theory.meanfield import Init

# Jacobians


@pytest.mark.slow
def test_all_directions_give_the_jacobian_itself():
    run = partial(propagate, jax.random.key(3), "tanh", Init(1.5), width=20, depth=4)
    for weights in ("matrix_free", "dense"):
        found = run(weights=weights, directions=20, statistics=SPECTRUM)
        values = np.exp(np.asarray(found.log_singular_values, np.float64))
        assert values.shape == (5, 20)
        np.testing.assert_allclose(values[0], 1, rtol=1e-4)
        np.testing.assert_allclose(np.log(np.nansum(values**2, 1) / 20), found.log_jacobian_second_moment, atol=1e-4)
        np.testing.assert_allclose(np.log(values[:, 0]), found.log_largest_singular_value, atol=1e-5)
    one = run(weights="dense", statistics=SPECTRUM)
    np.testing.assert_allclose(one.log_jacobian_second_moment, 2 * one.log_jacobian_rms, atol=1e-5)


SPECTRUM = (
    *("log_jacobian_rms", "log_jacobian_second_moment", "log_largest_singular_value"),
    "log_singular_values",
)


@pytest.mark.slow
@pytest.mark.parametrize(("distribution", "per_layer"), [("orthogonal", 0.0042689), ("normal", 1.0)])
def test_spread_of_the_squared_singular_values_of_tanh_at_the_edge_of_chaos(distribution, per_layer):
    """Pennington, Schoenholz and Ganguli, NeurIPS 2017: variance over squared mean, at σ_w² = 1.05."""
    sigma_b, q = 2.0105213e-5**0.5, 0.0259209482
    depth, width = 8, 500
    scale = ((q - sigma_b**2) / 1.05) ** 0.5
    run = lambda key: propagate(
        key, "tanh", Init(1.05**0.5, sigma_b), width=width, depth=depth, weights="dense", distribution=distribution,
        input_scale=scale, directions=width, statistics=("log_singular_values",),
    )  # fmt: skip
    logs = np.asarray(jax.jit(run)(jax.random.key(0)).log_singular_values, np.float64)
    squares = np.nan_to_num(np.exp(2 * logs))  # what is lost in rounding is nothing beside the others
    found = squares.var(axis=1)[5:] / squares.mean(axis=1)[5:] ** 2 / np.arange(5, depth + 1)
    np.testing.assert_allclose(found, per_layer, rtol=0.05)


# Statistics of several inputs


@pytest.mark.slow
def test_correlations_ranks_and_angles_are_those_of_the_vectors():
    inputs = jax.random.normal(jax.random.key(5), (3, 50)) + 1
    found = propagate(
        jax.random.key(0), "linear", Init(1.0), width=50, depth=1, inputs=inputs, weights="dense", cotangent="sum",
        statistics=("correlations", "log_one_minus_correlations", "effective_rank", "grad_correlation",
                    "grad_alignment", "correlation", "second_moment"), keep_inputs=True,
    )  # fmt: skip
    words = jax.random.bits(jax.random.key(0), (2,), jnp.uint32)
    weights, _ = draw_matrix(words, jnp.array(1), UNIT_NORMAL, fan_in=50, fan_out=50)
    z = np.asarray(inputs, np.float64) @ np.asarray(weights, np.float64).T / 50**0.5
    units = z / np.linalg.norm(z, axis=1, keepdims=True)
    np.testing.assert_allclose(found.correlations[1], units @ units.T, atol=2e-6)
    apart = np.log(1 - units @ units.T + np.eye(3))
    np.testing.assert_allclose(np.where(np.eye(3), 0, found.log_one_minus_correlations[1]), apart, atol=1e-4)
    assert np.isneginf(np.diag(found.log_one_minus_correlations[1])).all() and np.isnan(found.correlations[0]).all()
    shares = np.linalg.svd(z, compute_uv=False)
    shares = shares / shares.sum()
    assert found.effective_rank[1] == pytest.approx(np.exp(-np.sum(shares * np.log(shares))), rel=1e-4)
    np.testing.assert_allclose(found.grad_correlation, 1, atol=1e-5)  # linear: all inputs have one gradient
    alignment = z.mean(1) / np.sqrt(np.mean(z**2, axis=1))
    np.testing.assert_allclose(found.grad_alignment[1], alignment, atol=1e-5)


def test_close_inputs_keep_the_digits_of_their_distance():
    config = SweepConfig(
        ("tanh",), (1.0,), width=2000, depth=1, seeds=4, input_correlation=1 - 1e-9,
        statistics=("log_one_minus_correlations", "std"),
    )  # fmt: skip
    found = sweep(config)["log_one_minus_correlations"].isel(layer=1, input=0, other_input=1)
    assert float(found.mean()) == pytest.approx(math.log(1e-9), abs=0.1)


# What is swept


@pytest.mark.slow
def test_axes_are_swept_beside_the_gain_as_if_each_were_alone():
    common = dict(depth=4, seeds=2, block="residual", statistics=("std", "log_grad_rms", "correlation"))
    all_of_them = dict(sigma_b=(0.0, 0.2), alpha=(1, "1/sqrt(L)"), input_correlation=(0.3, 0.9), widths=(8, 12))
    dataset = sweep(SweepConfig(("tanh", "relu"), (1.0, 1.5), **common, **all_of_them))
    assert dataset["std"].dims == (
        "activation", "gain", "width", "sigma_b", "alpha", "input_correlation", "seed", "layer",
    )  # fmt: skip
    assert dataset["alpha"].values.tolist() == [0.5, 1.0]  # 1/√4
    for at in (
        dict(width=8, sigma_b=0.2, alpha=1.0, input_correlation=0.9),
        dict(width=12, sigma_b=0.0, alpha=0.5, input_correlation=0.3),
    ):
        one = sweep(SweepConfig(("relu",), (1.5,), **common, **at))
        same = dataset.sel(activation="relu").sel(gain=1.5, **at)
        for name in common["statistics"]:
            np.testing.assert_allclose(same[name], one[name].squeeze(), rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.mark.slow
def test_layers_have_gains_of_their_own():
    run = partial(propagate, jax.random.key(0), "linear", width=60, depth=3, weights="dense", statistics=("q",))
    base = run(Init(1.0)).q
    found = run(Init(2.0), first_gain=0.5, layer_gains=(9, 1.5, 9), readout_gain=4.0).q
    np.testing.assert_allclose(found[1:] / base[1:], [0.5**2, (0.5 * 3) ** 2, (0.5 * 3 * 4) ** 2], rtol=1e-4)


@pytest.mark.slow
def test_fans_divide_the_variance():
    run = partial(
        propagate, jax.random.key(0), "linear", Init(1.0), width=(40, 10), depth=1, weights="dense", statistics=("q",)
    )
    by_in, by_out, by_both = (float(run(mode=mode).q[1]) for mode in ("fan_in", "fan_out", "fan_avg"))
    assert by_out / by_in == pytest.approx(4, rel=1e-5)
    assert by_both / by_in == pytest.approx(40 / 25, rel=1e-5)


@pytest.mark.slow
def test_tied_weights_are_one_matrix_applied_again_and_again():
    found = propagate(
        jax.random.key(0),
        "linear",
        Init(1.0),
        width=30,
        depth=3,
        weights="dense",
        tied=True,
        inputs=jnp.ones((1, 30)),
        statistics=("q",),
    )
    words = jax.random.bits(jax.random.key(0), (2,), jnp.uint32)
    matrix = np.asarray(draw_matrix(words, jnp.array(1), UNIT_NORMAL, fan_in=30, fan_out=30)[0], np.float64) / 30**0.5
    h = np.ones(30)
    for layer in (1, 2, 3):
        h = matrix @ h
        assert found.q[layer] == pytest.approx(np.mean(h**2), rel=1e-4)
