"""Where naive arithmetic underflows, overflows or divides by zero, and mathematics still has a number."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxgain.propagation import weights
from jaxgain.propagation.config import STATISTICS
from jaxgain.propagation.network import propagate
from jaxgain.theory.meanfield import Init

DEFINED = ("q", "mean", "std", "second_moment", "log_grad_rms", "log_grad_mean_abs", "log_weight_grad_rms")


def networks(phi, init, count=64, seed=0, **setting):
    """Statistics of many networks, leading axis the network."""
    run = jax.jit(jax.vmap(partial(propagate, phi=phi, init=init, **setting)))
    return jax.tree.map(np.asarray, run(jax.random.split(jax.random.key(seed), count)))


def assert_no_nan_where_defined(network, inputs):
    for name in (*DEFINED, "log_jacobian_rms", "saturated", "dead"):
        x = getattr(network, name)
        absent_at_input = name in ("q", "log_weight_grad_rms", "saturated", "dead")
        assert not np.isnan(x[:, 1:] if absent_at_input else x).any(), name
    if inputs == 1:
        assert np.isnan(network.correlation).all() and np.isnan(network.correlation_h).all()


@pytest.mark.parametrize(
    ("width", "phi", "inputs", "sigma_b", "weights"),
    [
        (1, "tanh", 1, 0.0, "matrix_free"),
        (1, "relu", 2, 0.5, "matrix_free"),
        (2, "relu", 3, 0.0, "matrix_free"),
        (2, "relu", 2, 0.5, "dense"),
    ],
)
def test_narrow_networks_have_no_nan(phi, inputs, sigma_b, width, weights):
    network = networks(phi, Init(1.5, sigma_b), width=width, depth=12, inputs=inputs, weights=weights)
    assert_no_nan_where_defined(network, inputs)
    assert (network.first_nonfinite == -1).all()


@pytest.mark.slow
def test_width_one_has_no_spread_and_two_inputs_are_parallel():
    network = networks("tanh", Init(1.5), width=1, depth=8, inputs=2)
    assert (network.std == 0).all()
    np.testing.assert_allclose(np.abs(network.correlation[:, 1:]), 1, rtol=1e-6)


def test_dead_relu_layer_ends_signal_and_gradient_and_says_where():
    network = networks("relu", Init(1.0), count=400, width=2, depth=12, seed=3)
    died = network.first_vanished
    assert (died >= 1).any() and (died == -1).any()
    for one in np.flatnonzero(died >= 1):
        assert (network.second_moment[one, died[one] :] == 0).all()
        assert (network.second_moment[one, : died[one]] > 0).all()
        assert (network.dead[one, died[one] :] == 1).all()
        assert np.isneginf(network.log_grad_rms[one, : died[one]]).all()
        assert np.isneginf(network.log_jacobian_rms[one, died[one] :]).all()
    # With two neurons, both are dead at one layer with probability 1/4, independently of the layers before it.
    for_all = stats.binomtest(int((died == 1).sum()), len(died), 0.25)
    assert for_all.pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("phi", ["relu", pytest.param("gelu", marks=pytest.mark.slow)])
def test_identical_inputs_stay_identical(phi):
    x = jnp.tile(jax.random.normal(jax.random.key(1), (1, 50)), (2, 1))
    network = networks(phi, Init(1.5, 0.1), count=8, width=50, depth=20, inputs=x, keep_inputs=True)
    for name in ("q", "std", "mean"):
        both = getattr(network, name)[:, 1:]
        np.testing.assert_allclose(both[..., 0], both[..., 1], rtol=1e-5, atol=1e-7, err_msg=name)
    np.testing.assert_allclose(network.correlation[:, 1:], 1, rtol=0, atol=3e-7)


@pytest.mark.slow
def test_gain_zero_gives_a_zero_network_with_no_gradient_but_at_the_output():
    network = networks("tanh", Init(0.0), count=4, width=20, depth=5, inputs=2)
    assert_no_nan_where_defined(network, 2)
    assert (network.q[:, 1:] == 0).all() and (network.std[:, 1:] == 0).all()
    assert np.isneginf(network.log_grad_rms[:, :5]).all() and np.isfinite(network.log_grad_rms[:, 5]).all()
    assert np.isneginf(network.log_jacobian_rms[:, 1:]).all()
    assert (network.first_vanished == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["matrix_free", "dense"])
def test_gain_of_a_million_saturates_without_nan(weights):
    network = networks("tanh", Init(1e6), count=16, width=40, depth=8, inputs=2, weights=weights)
    assert_no_nan_where_defined(network, 2)
    np.testing.assert_allclose(network.second_moment[:, 1:], 1, rtol=1e-3)
    np.testing.assert_allclose(np.log10(network.q[:, 2:]).mean(), 12, atol=0.2)
    assert (network.saturated[:, 1:] > 0.99).all()


def test_exploding_linear_network_reports_its_first_nonfinite_layer():
    """N(0, 1) weights of width 256: the signal grows sixteenfold per layer, float32 ends at 16^32 = 2^128."""
    network = networks("identity", Init(16.0), count=32, width=256, depth=50)
    assert (network.first_nonfinite >= 31).all() and (network.first_nonfinite <= 33).all()
    one = network.first_nonfinite[0]
    assert np.isfinite(network.std[0, :one]).all() and not np.isfinite(network.std[0, one])
    slopes = np.diff(network.log_jacobian_rms[:, :30], axis=1)
    np.testing.assert_allclose(slopes.mean(), np.log(16), rtol=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "weights"),
    [(1e-3, "dense"), (1e-19, "matrix_free"), pytest.param(1e19, "matrix_free", marks=pytest.mark.slow)],
)
def test_tiny_and_huge_signals_keep_the_law_of_a_homogeneous_network(scale, weights):
    """ReLU commutes with positive factors: every statistic of the same networks scales exactly."""
    setting = dict(count=200, width=12, depth=6, inputs=2, weights=weights)
    unit = networks("relu", Init(1.4), **setting)
    scaled = networks("relu", Init(1.4), input_scale=scale, **setting)
    assert_nearly_all_equal(scaled.std / np.float32(scale), unit.std, "std")
    for name in ("log_grad_rms", "log_jacobian_rms", "correlation", "correlation_h"):
        assert_nearly_all_equal(getattr(scaled, name), getattr(unit, name), name)
    shift = np.log(scale)
    assert_nearly_all_equal(scaled.log_weight_grad_rms - shift, unit.log_weight_grad_rms, "log_weight_grad_rms")


def assert_nearly_all_equal(ours, theirs, name):
    """All but 2%: where two inputs have become parallel, rounding decides the direction in which they part."""
    finite = np.isfinite(theirs)
    np.testing.assert_array_equal(finite, np.isfinite(ours), err_msg=name)
    off = np.abs(ours[finite] - theirs[finite]) > 1e-3 * (1 + np.abs(theirs[finite]))
    assert off.mean() < 0.02, f"{name}: {off.mean():.3f} of the values differ"


@pytest.mark.slow
@pytest.mark.parametrize(("phi", "scale"), [("tanh", 1e-3), ("gelu", 1e-19)])
def test_tiny_signal_beside_a_unit_tangent_keeps_its_law(phi, scale):
    """Near zero tanh and gelu are linear: ratios to the input have the law of the linear network."""
    slope = {"tanh": 1.0, "gelu": 0.5}[phi]
    network = networks(phi, Init(1.0), count=4000, width=12, depth=4, input_scale=scale)
    linear = networks("identity", Init(slope), count=4000, width=12, depth=4, seed=1)
    for ours, theirs in (
        (network.std[:, -1] / scale, linear.std[:, -1]),
        (network.log_jacobian_rms[:, -1], linear.log_jacobian_rms[:, -1]),
        (network.log_grad_rms[:, 0], linear.log_grad_rms[:, 0]),
    ):
        assert stats.ks_2samp(ours, theirs, method="asymp").pvalue > 1e-3


@pytest.mark.slow
def test_close_inputs_separate_at_the_rate_of_their_tangent():
    """1 − c = 10⁻⁶: to first order 2 (1 − c) is the squared length of a tangent, over the squared length of h."""
    setting = dict(count=400, width=200, depth=10, inputs=2)
    close = networks("tanh", Init(2.0), input_correlation=1 - 1e-6, **setting)
    apart = 1 - close.correlation_h[:, -1].astype(np.float64)
    growth = np.log(apart / 1e-6)
    lone = networks("tanh", Init(2.0), seed=5, **(setting | {"inputs": 1}))
    expected = 2 * lone.log_jacobian_rms[:, -1] - np.log(lone.second_moment[:, -1])
    error = np.hypot(growth.std(), expected.std()) / 400**0.5
    # The tangent along the signal itself does not separate the inputs; across it grows alike up to order 1/width.
    assert abs(growth.mean() - expected.mean()) < 3 * error + 0.1


def test_jacobian_of_ten_thousand_chaotic_layers_is_finite_and_linear_in_depth():
    network = networks("tanh", Init(3.0), count=2, width=100, depth=10_000, statistics=("log_jacobian_rms",))
    log = network.log_jacobian_rms[0]
    assert np.isfinite(log).all() and log[-1] > 2000
    half, whole = log[5000] / 5000, log[-1] / 10_000
    np.testing.assert_allclose(half, whole, rtol=0.02)


@pytest.mark.slow
def test_first_input_is_the_same_network_whatever_follows_it():
    key = jax.random.key(4)
    run = lambda inputs: propagate(key, "tanh", Init(1.5, 0.2), width=30, depth=9, inputs=inputs, keep_inputs=True)
    alone, accompanied = run(1), run(3)
    for name in ("q", "mean", "std", "second_moment"):
        np.testing.assert_allclose(
            getattr(alone, name)[:, 0], getattr(accompanied, name)[:, 0], rtol=2e-5, atol=1e-6, err_msg=name
        )


def recorded(network):
    """The fields that were asked for."""
    fields = [x for x in network if x is not None]
    assert len(fields) == len(STATISTICS)
    return fields


@pytest.mark.slow
def test_numbers_drawn_at_a_time_do_not_matter(monkeypatch):
    depth = 7
    run = lambda: propagate(jax.random.key(2), "tanh", Init(1.5), width=20, depth=depth, inputs=2)
    whole = run()
    monkeypatch.setattr(weights, "DRAWN_AT_ONCE", 1500)
    for a, b in zip(recorded(whole), recorded(run()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_recording_every_third_layer_takes_rows_of_the_full_record():
    run = partial(propagate, jax.random.key(2), "gelu", Init(1.5), width=20, depth=10)
    full, some = run(), run(record_every=3)
    np.testing.assert_array_equal(full.std[::3], some.std)
    assert some.std.shape == (4,)


@pytest.mark.slow
def test_double_precision_mode_changes_nothing():
    run = lambda: propagate(jax.random.key(2), "gelu", Init(1.5, 0.1), width=20, depth=6, inputs=2)
    single = run()
    with jax.enable_x64(True):
        double = run()
    for a, b in zip(recorded(single), recorded(double), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("width", [40, 200])
def test_zero_input_with_a_bias_has_the_gradient_of_dense_weights(width):
    """A signal row may lie wholly in the bias column."""
    setting = dict(count=200, width=width, depth=1, inputs=jnp.zeros((1, width)), cotangent="sum")
    ours, real = (networks("abs", Init(1.0, 1.0), weights=kind, **setting) for kind in ("matrix_free", "dense"))
    assert stats.ks_2samp(ours.log_grad_rms[:, 0], real.log_grad_rms[:, 0], method="asymp").pvalue > 1e-3


@pytest.mark.slow
def test_weight_gradients_that_cancel_between_opposite_inputs_keep_their_digits():
    """tanh is odd: at a cosine of −1 + ε the two inputs' gradients of ∂(sum)/∂W cancel up to √ε."""
    setting = dict(count=8, width=200, depth=3, inputs=2, cotangent="sum")
    coarse, fine = (networks("tanh", Init(1.2), input_correlation=-1 + e, **setting) for e in (1e-3, 1e-5))
    shrunk = (coarse.log_weight_grad_rms - fine.log_weight_grad_rms)[:, 1]
    np.testing.assert_allclose(shrunk.mean(), np.log(1e2) / 2, rtol=0.01)


@pytest.mark.parametrize("inputs", [[1.0, 2.0], jnp.int32(2), "two"])
def test_inputs_that_are_neither_a_count_nor_rows_are_refused(inputs):
    with pytest.raises(TypeError, match=r"inputs must be a whole number or an array of shape \(count, 5\)"):
        propagate(jax.random.key(0), "tanh", Init(1.0), width=5, depth=2, inputs=inputs)


def test_several_initializations_at_once_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"jax\.vmap over init"):
        propagate(jax.random.key(0), "tanh", Init(np.array([1.0, 2.0])), width=5, depth=2)
