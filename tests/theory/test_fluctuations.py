"""Fluctuations at finite width against closed forms and against networks that are sampled exactly."""

import functools
import math

import jax
import numpy as np
import pytest
from scipy import stats

from jaxgain.activations import activation
from jaxgain.propagation.config import SweepConfig
from jaxgain.propagation.sweep import sweep
from jaxgain.theory.critical import critical_init
from jaxgain.theory.fluctuations import fluctuations
from jaxgain.theory.layer_moments import layer_moments
from jaxgain.theory.meanfield import Init, chi_par, chi_perp, length_map

# Probability, over all comparisons of one test, that a right theory fails; the keys are fixed.
FALSE_ALARM = 2 * stats.norm.sf(3)


@functools.lru_cache(maxsize=2)
def sample(phi, sigma_w, sigma_b, width, depth, networks, distribution):
    """Logs of sampled networks, (networks, depth + 1) each, under the names that the theory gives them."""
    config = SweepConfig(
        activations=(phi,),
        gains=(sigma_w,),
        sigma_b=sigma_b,
        width=width,
        depth=depth,
        seeds=networks,
        inputs=1,
        distribution=distribution,
        statistics=("q", "second_moment", "log_grad_rms"),
    )
    found = sweep(config).squeeze().astype(np.float64)
    length = np.log(sigma_w**2 * found.second_moment.values + sigma_b**2)
    return {
        "log_sample_q": np.log(found.q.values),
        "log_q": np.concatenate([length[:, :1], length[:, :-1]], axis=1),
        "log_grad": 2 * found.log_grad_rms.values,
    }


def assert_agrees(phi, sigma_w, sigma_b, width, depth, *, networks, names, moments=("mean", "var"), **setting):
    """Compare means and variances at three layers, in standard errors, corrected for how many are compared."""
    method = setting.pop("method", "leading")
    distribution = setting.pop("distribution", "normal")
    theory = fluctuations(
        phi, Init(sigma_w, sigma_b), width=width, depth=depth, distribution=distribution, method=method
    )
    sampled = sample(phi, sigma_w, sigma_b, width, depth, networks, distribution)
    scores = {}
    for name in names:
        for layer in {"log_grad": [0, depth // 2, depth - 1]}.get(name, [2, depth // 2, depth]):
            x = sampled[name][:, layer]
            mean, var = x.mean(), x.var(ddof=1)
            var_error = math.sqrt((((x - mean) ** 2 - var) ** 2).mean() / networks)
            found = {"mean": (mean, math.sqrt(var / networks)), "var": (var, var_error)}
            for moment in moments:
                value, error = found[moment]
                scores[name, moment, layer] = (value - float(theory[f"{name}_{moment}"][layer])) / error
    worst = max(scores, key=lambda each: abs(scores[each]))
    limit = stats.norm.isf(FALSE_ALARM / 2 / len(scores))
    assert abs(scores[worst]) < limit, f"{worst}: {scores[worst]:+.1f} standard errors"


# --- closed forms and invariants ---


def test_tanh_at_five_thirds_has_its_known_fluctuations():
    """Per layer 5.153/n, 4.022/n of it the layer's own; over 50 layers the mean moves by -110.5/n, -91.7/n without
    the alignment."""
    found = fluctuations("tanh", Init(5 / 3), width=1, depth=200)
    per_layer = found.log_grad_var.diff("layer")
    own = found.log_grad_var_own.diff("layer")
    assert -float(per_layer[100]) == pytest.approx(5.153, abs=5e-4)
    assert -float(own[100]) == pytest.approx(4.022, abs=5e-4)
    found = fluctuations("tanh", Init(5 / 3), width=1, depth=50)
    shift = found.log_grad_mean - found.log_grad_infinite_width
    without = shift - found.log_grad_mean_alignment
    assert float(shift[0] - shift[50]) == pytest.approx(-110.5, abs=0.05)
    assert float(without[0] - without[50]) == pytest.approx(-91.7, abs=0.05)


@pytest.mark.parametrize("width", [1, 100])
def test_relu_scatters_by_five_over_n_per_layer_in_length_and_gradient(width):
    found = fluctuations("relu", Init(2**0.5), width=width, depth=7)
    np.testing.assert_allclose(width * found.log_q_var[1:], 5 * np.arange(7), atol=1e-11)
    np.testing.assert_allclose(width * found.log_grad_var, 2 + 5 * np.arange(7, -1, -1), atol=1e-11)
    np.testing.assert_allclose(width * found.log_grad_mean, -1 - 2.5 * np.arange(7, -1, -1), atol=1e-10)


def test_orthogonal_relu_scatters_by_three_over_n_per_layer():
    found = fluctuations("relu", Init(2**0.5), width=100, depth=7, distribution="orthogonal")
    np.testing.assert_allclose(100 * found.log_q_var[1:], 3 * np.arange(7), atol=1e-11)
    np.testing.assert_allclose(100 * found.log_sample_q_var[1:], 3 * np.arange(7), atol=1e-11)
    np.testing.assert_allclose(100 * found.log_grad_var, 2 + 3 * np.arange(7, -1, -1), atol=1e-11)


def test_an_orthogonal_linear_network_keeps_every_norm():
    found = fluctuations("identity", Init(1.0), width=10, depth=5, distribution="orthogonal")
    np.testing.assert_allclose(found.log_q_var[1:], 0, atol=1e-14)
    np.testing.assert_allclose(found.log_grad_var, 0.2, atol=1e-13)
    np.testing.assert_allclose(found.log_grad_mean, -0.1, atol=1e-13)


def test_the_terms_add_up():
    found = fluctuations("silu", Init(1.3, 0.6), width=500, depth=12)
    var = found.log_grad_var_own + found.log_grad_var_response + found.log_grad_var_covariance
    mean = found.log_grad_mean_own + found.log_grad_mean_response + found.log_grad_mean_alignment
    np.testing.assert_allclose(var, found.log_grad_var, rtol=1e-13)
    np.testing.assert_allclose(mean + found.log_grad_infinite_width, found.log_grad_mean, rtol=1e-13)


def test_the_variance_of_log_q_saturates_where_the_length_is_stable():
    init, q = Init(5 / 3), 1.1784804903859083
    found = fluctuations("tanh", init, width=300, depth=80)
    slope = chi_par("tanh", init, q)
    spread = float(layer_moments(activation("tanh"), np.array(q)).spread)
    assert 300 * float(found.log_q_var[80]) == pytest.approx(spread / (1 - slope**2), rel=1e-6)


@pytest.mark.parametrize("phi", ["tanh", "gelu", "selu", "relu6", "sin"])
@pytest.mark.parametrize("q", [0.05, 1.0, 30.0])
def test_hermite_moments_are_derivatives_in_log_q(phi, q):
    """He2 gives the first derivative of the maps, He4 the second, kinks included; against finite differences."""
    init, h = Init(1.0), 1e-3
    m = layer_moments(activation(phi), np.array(q))

    def differences(function):
        low, middle, high = (math.log(function(phi, init, q * math.exp(step))) for step in (-h, 0, h))
        return (high - low) / (2 * h), (high - 2 * middle + low) / h**2

    for function, he2, he4 in ((length_map, m.second_he2, m.second_he4), (chi_perp, m.slope_he2, m.slope_he4)):
        first, second = differences(function)
        assert he2 / 2 == pytest.approx(first, abs=1e-5)
        assert he2 / 2 + he4 / 4 - (he2 / 2) ** 2 == pytest.approx(second, abs=1e-4)


def test_moments_of_a_layer_are_those_of_monte_carlo():
    e = np.random.default_rng(0).standard_normal(1_000_000)
    z = math.sqrt(2.0) * e
    a, s = np.tanh(z) ** 2, (1 - np.tanh(z) ** 2) ** 2
    a, s = a / a.mean(), s / s.mean()
    m = layer_moments(activation("tanh"), np.array(2.0))
    for value, draws in (
        (m.spread, (a - 1) ** 2),
        (m.slope_fourth, s**2),
        (m.overlap, a * s),
        (m.slope_he2, s * (e**2 - 1)),
    ):
        error = draws.std() / 1e3
        assert abs(draws.mean() - value) < 5 * error  # normalized by sample means: their error is of the same size


def test_integration_reduces_to_leading_order_at_large_width():
    leading, integrated = (
        fluctuations("tanh", Init(1.4, 0.1), width=20_000, depth=8, method=method)
        for method in ("leading", "integrated")
    )
    for name in ("log_q", "log_sample_q", "log_grad"):
        for moment in ("mean", "var"):
            error = np.abs(integrated[f"{name}_{moment}"] - leading[f"{name}_{moment}"])
            # The sampled gradient has an error of 1% in its variance, and 1/sqrt(2^16) of it in its mean.
            assert bool((error[2:] < 0.03 * leading[f"{name}_var"][2:]).all()), f"{name}_{moment}"


def test_the_half_stable_point_is_not_valid_to_leading_order_below_width_1024():
    init = critical_init("gelu").init
    assert not fluctuations("gelu", init, width=1000, depth=50).valid
    assert fluctuations("gelu", init, width=1000, depth=50, method="auto").method == "integrated"
    assert fluctuations("tanh", Init(5 / 3), width=256, depth=50, method="auto").method == "leading"


@pytest.mark.parametrize(("width", "depth", "valid"), [(256, 20, 1), (64, 60, 0)])
def test_integrated_results_are_valid_while_the_gradient_is_not_aligned_with_the_signal(width, depth, valid):
    found = fluctuations("gelu", critical_init("gelu").init, width=width, depth=depth, method="integrated")
    assert found.valid == valid
    assert (found.alignment < 0.1) == bool(valid)


# --- sampled networks ---

QUICK = [
    ("tanh", 5 / 3, 0.0, 256, 12, "normal"),
    pytest.param("tanh", 1.5, 0.4, 256, 8, "orthogonal", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("phi", "sigma_w", "sigma_b", "width", "depth", "distribution"), QUICK)
def test_sampled_networks_scatter_as_predicted(phi, sigma_w, sigma_b, width, depth, distribution):
    names = ("log_q", "log_sample_q", "log_grad")
    assert_agrees(phi, sigma_w, sigma_b, width, depth, networks=2000, names=names, distribution=distribution)


EVERY_PHASE = [
    # phi, sigma_w, sigma_b, width where leading order holds: collapsing, ordered, edge, chaotic, diverging
    ("tanh", 0.8, 0.0, 256),
    ("tanh", 0.8, 0.3, 256),
    ("tanh", 1.304145840057, 0.2, 256),
    ("tanh", 5 / 3, 0.0, 256),
    ("tanh", 2.5, 0.3, 256),
    ("selu", 0.8, 0.2, 256),
    ("selu", 0.937475582105, 0.2, 256),
    ("selu", 1.0, 0.0, 256),
    ("selu", 1.3, 0.0, 256),
    ("selu", 2**0.5, 0.0, 256),
    ("relu", 1.2, 0.0, 1000),
    ("relu", 1.2, 0.3, 256),
    ("relu", 2**0.5, 0.0, 1000),
    ("relu", 1.6, 0.0, 1000),
    ("erf", 0.7, 0.3, 256),
    ("erf", 1.152795413492, 0.2, 256),
    ("erf", 1.5, 0.3, 256),
    ("sin", 0.8, 0.3, 256),
    ("sin", 1.212333188151, 0.2, 256),
    ("sin", 1.3, 0.3, 256),
    ("gelu", 1.2, 0.0, 1024),
    ("gelu", 1.0, 0.5, 1024),
    ("gelu", 1.399868216406, 0.5, 1024),
    ("gelu", 1.4019, 0.5, 1024),
    ("gelu", 1.8, 0.4, 1024),
    ("silu", 1.2, 0.0, 1024),
    ("silu", 1.0, 0.5, 1024),
    ("silu", 1.402512417979, 1.0, 1024),
    ("silu", 1.408, 1.0, 1024),
    ("silu", 2.0, 0.4, 1024),
]


@pytest.mark.slow
@pytest.mark.parametrize(("phi", "sigma_w", "sigma_b", "width"), EVERY_PHASE)
def test_sampled_networks_scatter_as_predicted_in_every_phase(phi, sigma_w, sigma_b, width):
    names = ("log_q", "log_sample_q", "log_grad")
    assert_agrees(phi, sigma_w, sigma_b, width, 20, networks=10_000, names=names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phi", "sigma_w", "sigma_b"),
    [("tanh", 0.8, 0.3), ("tanh", 1.0, 0.0), ("tanh", 1.304145840057, 0.2), ("selu", 0.8, 0.2), ("selu", 1.0, 0.0)],
)
def test_variance_of_the_gradient_of_tanh_and_selu_is_right_from_width_64(phi, sigma_w, sigma_b):
    assert_agrees(phi, sigma_w, sigma_b, 64, 20, networks=10_000, names=("log_grad",), moments=("var",))


@pytest.mark.slow
def test_log_q_of_critical_tanh_is_right_from_width_1024():
    assert_agrees("tanh", 1.0, 0.0, 1024, 20, networks=10_000, names=("log_q",))


@pytest.mark.slow
@pytest.mark.parametrize("width", [64, 256, 1024])
@pytest.mark.parametrize("phi", ["gelu", "silu"])
def test_integration_holds_at_the_half_stable_point(phi, width):
    init = critical_init(phi).init
    names = ("log_q", "log_sample_q")
    assert_agrees(phi, init.sigma_w, init.sigma_b, width, 50, networks=10_000, names=names, method="integrated")


@pytest.mark.slow
@pytest.mark.parametrize("phi", ["gelu", "silu"])
def test_integration_has_the_gradient_at_the_half_stable_point_and_leading_order_has_not(phi):
    """To the accuracy that is promised, 4% of the variance at width 256, and three standard errors of the sample."""
    init = critical_init(phi).init
    sampled = sample(phi, init.sigma_w, init.sigma_b, 256, 50, 10_000, "normal")["log_grad"][:, 0]
    deviation = (sampled - sampled.mean()) ** 2
    error = deviation.std() / 100
    found = {
        method: fluctuations(phi, init, width=256, depth=50, method=method) for method in ("leading", "integrated")
    }
    assert abs(float(found["integrated"].log_grad_var[0]) - deviation.mean()) < 0.04 * deviation.mean() + 3 * error
    shift = {method: float(each.log_grad_mean[0]) - sampled.mean() for method, each in found.items()}
    assert abs(shift["integrated"]) < 0.2 * math.sqrt(deviation.mean())
    assert abs(shift["leading"]) > 5 * abs(shift["integrated"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phi", "sigma_w", "sigma_b"), [("tanh", 5 / 3, 0.0), ("gelu", 1.0, 0.5), ("relu", 2**0.5, 0.3)]
)
def test_sampled_orthogonal_networks_scatter_as_predicted(phi, sigma_w, sigma_b):
    names = ("log_q", "log_sample_q", "log_grad")
    setting = dict(networks=10_000, names=names, distribution="orthogonal")
    assert_agrees(phi, sigma_w, sigma_b, 512, 12, **setting)


# --- bad input ---


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (dict(width=0), "width must be a whole number of at least 1, got 0"),
        (dict(depth=2.5), "depth must be a whole number"),
        (dict(cotangent="sum"), "cotangent must be 'random', got 'sum'"),
        (dict(distribution="uniform"), "distribution must be one of normal, orthogonal"),
        (dict(method="exact"), "method must be one of"),
        (dict(second_moment=-1.0), "second_moment must be positive"),
        (dict(init=Init(np.ones(2))), "sigma_w must be one number"),
        (dict(init=Init(0.0)), "has vanished"),
        (dict(init=Init(1.0), depth=3000, phi="relu"), "has vanished"),
        (dict(init=Init(1e9), depth=30, phi="relu"), "has overflowed"),
        (dict(phi=lambda x: jax.numpy.exp(x * x)), "not"),
    ],
)
def test_what_cannot_be_predicted_is_refused_in_one_sentence(setting, message):
    setting = dict(phi="tanh", init=Init(1.5), width=100, depth=5) | setting
    with pytest.raises(ValueError, match=message) as refused:
        fluctuations(**setting)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["sigma_w", "sigma_b", "second_moment"])
def test_a_traced_number_is_refused_in_one_sentence(name):
    def traced(value):
        given = {"sigma_w": 1.5, "sigma_b": 0.1, "second_moment": 1.0} | {name: value}
        init = Init(given["sigma_w"], given["sigma_b"])
        return fluctuations("tanh", init, width=100, depth=5, second_moment=given["second_moment"])

    with pytest.raises(ValueError, match=f"{name} must be one number, got a traced value; call this") as refused:
        jax.jit(traced)(1.0)
    assert "\n" not in str(refused.value)
