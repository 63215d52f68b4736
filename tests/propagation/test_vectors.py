"""Networks of blocks: against the plain kernels, explicit matrices in float64, and the laws of residual networks."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgain
from jaxgain.propagation.config import SweepConfig
from jaxgain.propagation.network import propagate
from jaxgain.propagation.sweep import sweep
from jaxgain.propagation.weights import UNIT_NORMAL, draw_ends, draw_matrix
from jaxgain.theory.meanfield import Init

HE = Init(2**0.5)


def alone(linear, phi, h):
    """A plain layer as somebody's own block."""
    return phi(linear(h))


# Against the kernels of plain networks, with the same random numbers


@pytest.mark.parametrize("weights", ["matrix_free", "dense"])
@pytest.mark.parametrize(
    ("phi", "sigma_b", "inputs", "width", "depths"),
    [
        ("gelu", 0.3, 1, 80, (3, 5)),
        pytest.param("tanh", 0.0, 2, 100, (), marks=pytest.mark.slow),
        pytest.param("relu", 0.1, 3, 10, (), marks=pytest.mark.slow),
    ],
)
def test_a_plain_block_that_carries_its_vectors_is_the_plain_network(weights, phi, sigma_b, inputs, width, depths):
    run = partial(propagate, jax.random.key(1), phi, Init(1.4, sigma_b), width=width, depth=6)
    run = partial(run, inputs=inputs, weights=weights, depths=depths, keep_inputs=True)
    plain, carried = run(), run(block=alone)
    for name, x in plain._asdict().items():
        if x is not None:
            np.testing.assert_allclose(getattr(carried, name), x, rtol=2e-4, atol=3e-5, err_msg=name)


@pytest.mark.slow
def test_a_funnel_of_equal_widths_is_the_network_of_that_width():
    run = partial(propagate, jax.random.key(1), "tanh", Init(1.4, 0.1), depth=4, inputs=2)
    one, several = run(width=30), run(width=[30] * 5, mode="fan_avg")
    np.testing.assert_array_equal(one.log_grad_rms, several.log_grad_rms)


# Against explicit matrices in float64


def real_statistics(block, phi, widths, sigma_w, sigma_b, key, inputs):
    """Gradients, Jacobian and weight gradients of a dense network of a block with one map, by automatic derivatives."""
    words = jax.random.bits(key, (2,), jnp.uint32)
    ends = draw_ends(
        words, inputs, widths=(widths[0], widths[-1]), scale=1.0, distance=None, directions=1, cotangent="random"
    )
    drawn = [
        draw_matrix(words, jnp.array(layer + 1), UNIT_NORMAL, fan_in=n, fan_out=m)
        for layer, (n, m) in enumerate(itertools.pairwise(widths))
    ]
    with jax.enable_x64(True):
        inputs, directions, cotangents = (jnp.asarray(np.asarray(x, np.float64)) for x in ends)
        matrices = [jnp.asarray(np.asarray(w, np.float64)) * sigma_w / w.shape[1] ** 0.5 for w, _ in drawn]
        biases = [jnp.asarray(np.asarray(b, np.float64)) * sigma_b for _, b in drawn]

        def layers(h, matrices, added):
            hs = []
            for matrix, bias, extra in zip(matrices, biases, added, strict=True):
                h = block(lambda x, w=matrix, b=bias: x @ w.T + b[None], phi, h) + extra
                hs.append(h)
            return hs

        added = [jnp.zeros((len(inputs), m)) for m in widths[1:]]
        loss = lambda h, matrices, added: jnp.sum(cotangents * layers(h, matrices, added)[-1])
        at_input, of_weights, of_layers = jax.grad(loss, argnums=(0, 1, 2))(inputs, matrices, added)
        hs, moved = jax.jvp(lambda h: layers(h, matrices, added), (inputs,), (directions,))
        log_rms = lambda x, axis: 0.5 * np.log(np.mean(np.square(np.asarray(x)), axis=axis))
        return {
            "second_moment": np.array([np.mean(np.square(h)) for h in [inputs, *hs]]),
            "log_grad_rms": np.array([log_rms(g, 1).mean() for g in [at_input, *of_layers]]),
            "log_jacobian_rms": np.array([0.0, *(log_rms(t, 1).mean() for t in moved)]),
            "log_weight_grad_rms": np.array([np.nan, *(log_rms(g, None) for g in of_weights)]),
        }


def scaled_sum(linear, phi, h):
    return 0.8 * h + phi(linear(h / (1 + jnp.mean(h * h, axis=1, keepdims=True))))


@pytest.mark.parametrize(
    ("block", "widths"), [(alone, (12, 20, 20, 9)), (scaled_sum, (15,) * 6)], ids=["funnel", "one's own"]
)
def test_all_passes_of_dense_blocks_are_those_of_the_matrices(block, widths):
    key, depth = jax.random.key(4), len(widths) - 1
    real = real_statistics(block, jnp.tanh, widths, 1.5, 0.3, key, 2)
    found = propagate(key, "tanh", Init(1.5, 0.3), width=widths, depth=depth, inputs=2, weights="dense", block=block)
    for name, expected in real.items():
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-4, atol=2e-5, err_msg=name)


# Laws of residual networks of ReLU


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
    "one layer, 1/L": (50, dict(block="residual", alpha="1/L"), 1.354),
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


# Jacobians


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
    squares = np.exp(2 * np.asarray(jax.jit(run)(jax.random.key(0)).log_singular_values, np.float64))
    found = squares.var(axis=1)[5:] / squares.mean(axis=1)[5:] ** 2 / np.arange(5, depth + 1)
    np.testing.assert_allclose(found, per_layer, rtol=0.05)


# Precision


@pytest.mark.slow
def test_weights_drawn_in_bfloat16_lose_the_signal_and_those_cast_to_it_do_not():
    run = partial(propagate, jax.random.key(0), "relu", Init(1.0), width=2048, depth=10, weights="dense")
    run = partial(run, distribution=jax.nn.initializers.he_normal(), dtype="bfloat16", statistics=("q",))
    drawn_low, cast = run(draw_dtype="bfloat16").q, run().q
    assert drawn_low[1] / drawn_low[10] > 100
    # Var log q is 5/n per layer (Hanin and Nica, 2020).
    assert abs(math.log(cast[10] / cast[1])) < 4 * (5 * 9 / 2048) ** 0.5


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


# Statistics of several inputs


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


def test_layers_have_gains_of_their_own():
    run = partial(propagate, jax.random.key(0), "linear", width=60, depth=3, weights="dense", statistics=("q",))
    base = run(Init(1.0)).q
    found = run(Init(2.0), first_gain=0.5, layer_gains=(9, 1.5, 9), readout_gain=4.0).q
    np.testing.assert_allclose(found[1:] / base[1:], [0.5**2, (0.5 * 3) ** 2, (0.5 * 3 * 4) ** 2], rtol=1e-4)


def test_fans_divide_the_variance():
    run = partial(
        propagate, jax.random.key(0), "linear", Init(1.0), width=(40, 10), depth=1, weights="dense", statistics=("q",)
    )
    by_in, by_out, by_both = (float(run(mode=mode).q[1]) for mode in ("fan_in", "fan_out", "fan_avg"))
    assert by_out / by_in == pytest.approx(4, rel=1e-5)
    assert by_both / by_in == pytest.approx(40 / 25, rel=1e-5)


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


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        (lambda linear, phi, h: linear(h, features=7), r"into float32 \(1, 9\), got float32 \(1, 7\)"),
        (lambda linear, phi, h: phi(linear(h)).astype(jnp.bfloat16), r"into float32 \(1, 9\), got bfloat16 \(1, 9\)"),
        (lambda linear, phi, h: 3, "a block must turn"),
        (lambda linear, phi, h: h + linear(h[0]), r"linear takes signals of shape \(1, width\), got \(9,\)"),
    ],
)
def test_a_block_that_changes_the_shape_or_type_is_refused(block, sentence):
    with pytest.raises(ValueError, match=sentence):
        propagate(jax.random.key(0), "tanh", Init(1.0), width=9, depth=2, block=block)


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        (lambda linear, phi, h: jax.jit(lambda h: phi(linear(h)))(h), "a block must call linear and phi itself"),
        (
            lambda linear, phi, h: jax.lax.scan(lambda h, _: (linear(h), None), h, None, length=2)[0],
            "a block must call linear and phi itself",
        ),
        (lambda linear, phi, h: linear(h, sigma_w=jnp.mean(h * h)), "must not depend on the signals"),
    ],
)
def test_a_block_whose_maps_would_not_be_its_own_is_refused(block, sentence):
    with pytest.raises(ValueError, match=sentence):
        propagate(jax.random.key(0), "tanh", Init(1.0), width=9, depth=2, block=block)


def test_a_block_without_a_map_runs():
    found = propagate(jax.random.key(0), "tanh", Init(1.0), width=9, depth=2, block=lambda linear, phi, h: phi(h))
    assert np.isfinite(found.log_grad_rms).all() and np.isnan(found.log_weight_grad_rms).all()


def test_settings_that_are_none_of_a_network_are_refused():
    with pytest.raises(TypeError, match="propagate has no setting 'sedes'"):
        propagate(jax.random.key(0), "tanh", Init(1.0), width=9, depth=2, sedes=3)
    with pytest.raises(ValueError, match="alpha must be one number for one network"):
        propagate(jax.random.key(0), "tanh", Init(1.0), width=9, depth=2, block="residual", alpha=(0.5, 1))


def test_a_block_of_ones_own_is_swept_as_any_other():
    config = SweepConfig(("relu", "tanh"), (1.0, 2**0.5), width=32, depth=3, seeds=2, block=scaled_sum, inputs=1)
    assert np.isfinite(jaxgain.sweep(config)["log_grad_rms"]).all()


@pytest.mark.slow
def test_swept_alpha_may_be_traced():
    run = lambda alpha: propagate(
        jax.random.key(0), "relu", HE, width=50, depth=3, block="residual", branch="two_layer", alpha=alpha
    )
    together = jax.vmap(run)(jnp.array([0.0, 0.5]))
    np.testing.assert_allclose(together.std[0], run(0.0).std[0], rtol=1e-5)
    np.testing.assert_allclose(together.std[1], run(0.5).std, rtol=1e-5)
