"""Profiles over depth of every block: laws in closed form, invariants, and the sampled networks themselves."""

import math
from functools import partial

import jax
import numpy as np
import pytest

from jaxgain.propagation.network import propagate
from jaxgain.theory.depth_profile import BLOCKS, mean_field
from jaxgain.theory.meanfield import Init, chi_perp, correlation_map, length_map

HE = Init(2**0.5)


def last(**settings):
    return mean_field("relu", HE, **settings).isel(layer=-1)


# Laws of ReLU with He's gain


@pytest.mark.parametrize("depth", [1, 7, 30])
def test_two_layer_residual_doubles_per_block(depth):
    profile = mean_field("relu", HE, depth=depth, block="residual", branch="two_layer")
    np.testing.assert_allclose(profile.second_moment, 2.0 ** np.arange(depth + 1), rtol=1e-13)
    np.testing.assert_allclose(2 * profile.log_grad_rms, math.log(2) * np.arange(depth, -1, -1), atol=1e-12)
    np.testing.assert_allclose(2 * profile.log_jacobian_rms, math.log(2) * np.arange(depth + 1), atol=1e-12)


@pytest.mark.parametrize("depth", [1, 10, 100])
def test_scaling_by_one_over_root_depth_keeps_two_layer_residual_below_e(depth):
    end = last(depth=depth, block="residual", branch="two_layer", alpha="1/sqrt(L)")
    assert float(end.second_moment) == pytest.approx((1 + 1 / depth) ** depth, rel=1e-12)
    assert float(end.second_moment) < math.e


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_prenorm_grows_linearly_without_a_mean_and_quadratically_with_one(norm):
    l = np.arange(31)
    two = mean_field("relu", HE, depth=30, block="prenorm", branch="two_layer", norm=norm, alpha=0.7)
    np.testing.assert_allclose(two.second_moment, 1 + 0.49 * l, rtol=1e-13)
    one = mean_field("relu", HE, depth=30, block="prenorm", norm=norm, alpha=0.7)
    np.testing.assert_allclose(one.second_moment, 1 + 0.49 * l + 0.49 * l * (l - 1) / math.pi, rtol=1e-13)


def test_prenorm_gradient_is_divided_by_what_the_norm_divides_by():
    # 1 + α²χ/s per block, s = 1 + α²l: the product telescopes.
    profile = mean_field("relu", HE, depth=30, block="prenorm", branch="two_layer", norm="rmsnorm", alpha=0.7)
    expected = math.log(1 + 0.49 * 30) - np.log(1 + 0.49 * np.arange(31))
    np.testing.assert_allclose(2 * profile.log_grad_rms, expected, atol=1e-12)


def test_one_layer_residual_drifts_and_grows_by_2_9041_per_block():
    # s' = s + 2 m √(s/π) + s and m' = m + √(s/π): with r = m/√s at rest, s'/s = 2 + 2r/√π = ((r + 1/√π)/r)².
    def excess(r):
        return ((r + math.pi**-0.5) / r) ** 2 - 2 - 2 * r * math.pi**-0.5

    low, high = 0.1, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    growth = 2 + 2 * low * math.pi**-0.5
    assert growth == pytest.approx(2.9041, abs=5e-5)
    moments = mean_field("relu", HE, depth=60, block="residual").second_moment.values
    assert moments[-1] / moments[-2] == pytest.approx(growth, rel=1e-12)


def test_one_layer_residual_at_one_over_root_depth_is_842_at_depth_50():
    assert float(last(depth=50, block="residual", alpha="1/sqrt(L)").second_moment) == pytest.approx(842, abs=0.5)


def test_one_layer_residual_at_one_over_depth_tends_to_cosh_squared():
    # dm/dt = √(s/π), s = 1 + m²: cosh²(1/√π) = 1.3536 for infinite depth, approached like 1/L; 1.370 at L = 50.
    limit = math.cosh(math.pi**-0.5) ** 2
    ends = []
    for depth in (50, 100, 200):
        s, m = 1.0, 0.0
        for _ in range(depth):
            s, m = s + 2 / depth * m * math.sqrt(s / math.pi) + s / depth**2, m + math.sqrt(s / math.pi) / depth
        ends.append(float(last(depth=depth, block="residual", alpha="1/L").second_moment))
        assert ends[-1] == pytest.approx(s, rel=1e-13)
    assert ends[0] == pytest.approx(1.36996, abs=5e-6)
    assert (ends[0] - limit) / (ends[1] - limit) == pytest.approx(2, abs=0.03)
    assert (ends[1] - limit) / (ends[2] - limit) == pytest.approx(2, abs=0.03)


# What blocks have in common


@pytest.mark.parametrize("phi", ["tanh", "gelu", "relu6"])
def test_a_plain_profile_is_the_maps_of_one_layer_repeated(phi):
    init = Init(1.4, 0.3)
    profile = mean_field(phi, init, depth=5, second_moment=2.0, correlation=0.4)
    q = init.sigma_w**2 * 2 + init.sigma_b**2
    c = (init.sigma_w**2 * 0.8 + init.sigma_b**2) / q
    grown = [0.0]
    for layer in range(1, 6):
        assert float(profile.q[layer]) == pytest.approx(q, rel=1e-13)
        assert float(profile.correlation[layer]) == pytest.approx(c, abs=1e-12)
        grown.append(grown[-1] + math.log(chi_perp(phi, init, q)) / 2)
        q, c = length_map(phi, init, q), correlation_map(phi, init, c, q)
    np.testing.assert_allclose(profile.log_jacobian_rms, grown, atol=1e-12)
    np.testing.assert_allclose(profile.log_grad_rms, grown[-1] - np.array(grown), atol=1e-12)


@pytest.mark.parametrize("block", ["residual", "prenorm", "postnorm"])
@pytest.mark.parametrize("branch", ["one_layer", "glu"])
def test_without_a_branch_nothing_changes(block, branch):
    profile = mean_field("step", Init(3.0), depth=4, block=block, branch=branch, alpha=0, correlation=0.2)
    np.testing.assert_allclose(profile.second_moment, 1)
    np.testing.assert_allclose(profile.correlation_h, 0.2)
    np.testing.assert_allclose(profile.log_grad_rms, 0)


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_postnorm_ends_at_one_and_layernorm_without_a_mean(norm):
    profile = mean_field("gelu", Init(1.5, 0.3), depth=6, block="postnorm", norm=norm, correlation=0.2)
    np.testing.assert_allclose(profile.second_moment, 1, rtol=1e-14)
    assert (float(profile["mean"][-1]) == 0) == (norm == "layernorm")


def test_the_distance_of_close_inputs_keeps_its_digits():
    # To first order the distance grows as the tangent does.
    near = mean_field("tanh", Init(1.5, 0.1), depth=20, block="residual", alpha=0.5, correlation=1 - 2**-40)
    ratio = near.one_minus_correlation_h * near.second_moment / 2**-40
    np.testing.assert_allclose(np.log(ratio), 2 * near.log_jacobian_rms, atol=1e-9)


def test_a_jump_has_an_infinite_gradient_through_any_block():
    for block in ("plain", "residual", "prenorm", "postnorm", "batchnorm"):
        gradient = mean_field("sign", Init(1.0), depth=3, block=block).log_grad_rms.values
        np.testing.assert_array_equal(gradient, [np.inf, np.inf, np.inf, 0])


def test_what_overflows_is_not_a_number_and_what_vanishes_is_zero():
    up = mean_field("relu_squared", Init(3.0), depth=20)
    assert up.second_moment[-1].isnull() and not up.second_moment[5].isnull()
    assert up.log_grad_rms[0].isnull()
    none = mean_field("tanh", Init(0.0), depth=3, correlation=0.5)
    np.testing.assert_array_equal(none.second_moment[1:], 0)
    np.testing.assert_array_equal(none.log_grad_rms, [-np.inf, -np.inf, -np.inf, 0])


def test_dropout_leaves_relu_s_length_where_its_gain_makes_up_for_it_and_separates_copies():
    profile = mean_field("relu", Init((2 * 0.8) ** 0.5), depth=30, dropout=0.2, correlation=1.0)
    np.testing.assert_allclose(profile.second_moment, 1, rtol=1e-13)
    np.testing.assert_allclose(profile.log_grad_rms, 0, atol=1e-13)
    # One layer: E φφ over E φ²/(1 - p).
    assert float(profile.correlation_h[1]) == pytest.approx(0.8, rel=1e-13)
    assert float(profile.correlation_h[-1]) < 0.8


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(block="dense"), "unknown block 'dense'; use one of plain, residual"),
        (dict(branch="three_layer"), "unknown branch"),
        (dict(norm="l2"), "unknown norm"),
        (dict(alpha=2.0), "alpha multiplies the branch of a residual block"),
        (dict(dropout=1.0), "dropout must be at least 0 and below 1"),
        (dict(second_moment=0.0), "second_moment must be finite and positive"),
        (dict(correlation=1.5), "correlation must be between -1 and 1"),
        (dict(inputs=8), "inputs are those that batchnorm normalizes over"),
        (dict(block="batchnorm", inputs=3), "inputs must be at least 4"),
        (dict(block="batchnorm", correlation=1.0), "correlation must be below 1"),
        (dict(block="batchnorm", init=Init(0.0)), "sigma_w must be above 0"),
        (dict(depth=0), "depth must be at least 1"),
    ],
)
def test_settings_that_are_none_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        mean_field("tanh", **(dict(init=HE, depth=3) | settings))


def test_several_initializations_are_refused():
    with pytest.raises(ValueError, match="one initialization of numbers"):
        mean_field("tanh", Init(np.ones(3)), depth=3)


# Sampled networks

COMPARED = ("q", "mean", "second_moment", "correlation", "correlation_h", "log_grad_rms", "log_jacobian_rms")
SEEDS = 32


def standard_errors(phi, init, *, width, depth, correlation=0.3, inputs=2, **settings):
    """By how many standard errors the mean over seeds of each statistic is off at the far end, per statistic."""
    batch = settings.get("block") == "batchnorm"
    of_input = {} if batch else dict(input_correlation=correlation)
    run = partial(propagate, width=width, depth=depth, inputs=inputs, statistics=COMPARED, **settings, **of_input)
    found = jax.jit(jax.vmap(lambda key: run(key, phi, init)))(jax.random.split(jax.random.key(2), SEEDS))
    of_theory = dict(inputs=inputs) if batch else {}
    predicted = mean_field(phi, init, depth=depth, correlation=correlation, **settings, **of_theory)
    off = {}
    for name in COMPARED:
        place = 0 if name == "log_grad_rms" else -1
        values = np.asarray(getattr(found, name), np.float64)[:, place]
        expected = float(predicted[name][place])
        if name in ("q", "second_moment"):
            values, expected = np.log(values), math.log(expected)
        error = values.std(ddof=1) / SEEDS**0.5
        # Beside it: the shift of order depth/width, and float32.
        off[name] = (values.mean() - expected) / math.hypot(error, 5 * depth / width, 1e-5)
    return off


RESIDUALS = [
    dict(block="plain"),
    dict(block="residual", alpha=0.5),
    dict(block="prenorm", alpha=0.7),
    dict(block="prenorm", norm="rmsnorm"),
    dict(block="postnorm"),
    dict(block="postnorm", norm="rmsnorm"),
]
# 7 statistics of 35 networks, Student's t with 31 degrees of freedom: beyond 5.5 once in 800 runs of all.
LIMIT = 5.5


@pytest.mark.slow
@pytest.mark.parametrize("branch", ["one_layer", "two_layer", "glu", "glu_ffn"])
@pytest.mark.parametrize("settings", RESIDUALS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_sampled_networks_are_as_predicted(branch, settings):
    off = standard_errors("gelu", Init(1.4, 0.3), width=10_000, depth=4, branch=branch, **settings)
    assert max(map(abs, off.values())) < LIMIT, off


@pytest.mark.slow
@pytest.mark.parametrize("branch", ["one_layer", "two_layer", "glu", "glu_ffn"])
@pytest.mark.parametrize(("phi", "dropout"), [("relu", 0.0), ("gelu", 0.2)])
def test_sampled_batchnorm_is_as_predicted(phi, dropout, branch):
    # Inputs of a gated branch grow unlike, by order 4^depth/width.
    width, depth = (10_000, 2) if branch.startswith("glu") else (4000, 4)
    settings = dict(block="batchnorm", branch=branch, dropout=dropout, inputs=12, correlation=0.0)
    off = standard_errors(phi, Init(1.5, 0.3), width=width, depth=depth, **settings)
    assert max(map(abs, off.values())) < LIMIT, off


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [dict(), dict(block="residual", alpha=0.5, branch="glu"), dict(block="prenorm")],
    ids=["plain", "residual glu", "prenorm"],
)
def test_sampled_dropout_is_as_predicted(settings):
    off = standard_errors("gelu", Init(1.2, 0.3), width=10_000, depth=4, dropout=0.3, **settings)
    assert max(map(abs, off.values())) < LIMIT, off


@pytest.mark.slow
def test_a_residual_network_of_real_matrices_is_as_predicted():
    random, width, depth, seeds = np.random.default_rng(0), 800, 5, 16
    found = []
    for _ in range(seeds):
        h = random.standard_normal((2, width))
        h[1] = 0.6 * h[0] + 0.8 * h[1]
        for _ in range(depth):
            w = 1.2 * random.standard_normal((width, width)) / math.sqrt(width)
            h = h + 0.8 * np.maximum(h / np.sqrt(np.mean(h * h, axis=1, keepdims=True)) @ w + 0.5, 0)
        found.append([np.mean(h[0]), np.mean(h[0] ** 2), np.mean(h[0] * h[1])])
    mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / seeds**0.5
    shifted = mean_field(
        lambda x: jax.numpy.maximum(x + 0.5, 0),
        Init(1.2),
        depth=depth,
        block="prenorm",
        norm="rmsnorm",
        alpha=0.8,
        correlation=0.6,
    ).isel(layer=-1)
    second = float(shifted.second_moment)
    expected = [float(shifted["mean"]), second, second * float(shifted.correlation_h)]
    assert (np.abs(mean - expected) < 4.5 * np.hypot(error, 2 * depth / width)).all()


def test_every_block_has_a_profile():
    assert set(BLOCKS) == {"plain", "residual", "prenorm", "postnorm", "batchnorm"}
    for block in BLOCKS:
        for branch in ("one_layer", "two_layer", "glu", "glu_ffn"):
            profile = mean_field("tanh", Init(1.2, 0.1), depth=2, block=block, branch=branch, correlation=0.1)
            assert np.isfinite(profile.log_grad_rms).all() and np.isfinite(profile.second_moment).all()
