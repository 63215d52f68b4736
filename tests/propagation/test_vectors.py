"""Networks of blocks: against the plain kernels and explicit matrices in float64; blocks of one's own."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgain
from jaxgain.propagation.config import SweepConfig
from jaxgain.propagation.network import propagate
from jaxgain.propagation.weights import UNIT_NORMAL, draw_ends, draw_matrix
from jaxgain.theory.meanfield import Init

HE = Init(2**0.5)


def alone(linear, phi, h):
    """A plain layer as somebody's own block."""
    return phi(linear(h))


# Against the kernels of plain networks, with the same random numbers


@pytest.mark.slow
@pytest.mark.parametrize("weights", [pytest.param("matrix_free", marks=pytest.mark.slow), "dense"])
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


FUNNEL = pytest.param(alone, (12, 20, 20, 9), marks=pytest.mark.slow)


@pytest.mark.slow
@pytest.mark.parametrize(("block", "widths"), [FUNNEL, (scaled_sum, (15,) * 6)], ids=["funnel", "one's own"])
def test_all_passes_of_dense_blocks_are_those_of_the_matrices(block, widths):
    key, depth = jax.random.key(4), len(widths) - 1
    real = real_statistics(block, jnp.tanh, widths, 1.5, 0.3, key, 2)
    found = propagate(key, "tanh", Init(1.5, 0.3), width=widths, depth=depth, inputs=2, weights="dense", block=block)
    for name, expected in real.items():
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-4, atol=2e-5, err_msg=name)


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
