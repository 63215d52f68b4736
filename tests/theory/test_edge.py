"""The edge of chaos: reference values, all branches with their stability, closed forms, refusals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgain.activations import ACTIVATIONS
from jaxgain.theory.critical import critical_init
from jaxgain.theory.edge import NoEdge, edge_curve, edge_of_chaos, edges_of_chaos
from jaxgain.theory.meanfield import chi_par, chi_perp, length_map

# sigma_b, sigma_w, q, chi_par, stable: 30-digit arithmetic (Hayou et al., 2019, print some to three digits).
REFERENCE = [
    ("tanh", 0.2, 1.304145840057, 0.5120785042339, 0.542564, True),
    ("tanh", 0.05**0.5, 1.327009660706, 0.5700478816408, 0.518186, True),
    ("elu", 0.2, 1.229251124137, 1.106930540346, 0.859777, True),
    ("selu", 0.05, 0.8220126436959, 0.1406547124699, 0.834221, True),
    ("erf", 0.2, 1.152795413492, 0.4657629357829, 0.517725, True),
    ("sin", 0.2, 1.212333188151, 0.5097517590924, 0.530248, True),
    ("softsign", 0.05, 1.361050910448, 0.06862780248382, 0.710217, True),
    ("hard_tanh", 0.05, 1.008853485174, 0.1770515314694, 0.885427, True),
    ("relu6", 0.05, 1.414837505398, 3.254789526232, 0.98947, True),
    ("sigmoid", 0.2, 10.1540302742, 45.71245277173, 0.0601437, True),
    ("sigmoid", 0.0, 10.14926371002, 45.62427779738, 0.060250434810026, True),
    ("gelu", 0.2, 1.547009470416, 0.5756371166192, 1.09504, False),
    ("gelu", 0.05, 1.851902785, 0.07517323725727, 1.06386, False),
    ("silu", 0.2, 1.679531600692, 0.6894525029138, 1.09873, False),
]


@pytest.mark.parametrize(("phi", "sigma_b", "sigma_w", "q", "par", "stable"), REFERENCE)
def test_the_edge_has_the_reference_values(phi, sigma_b, sigma_w, q, par, stable):
    eoc = edge_of_chaos(phi, sigma_b=sigma_b)
    assert eoc.init.sigma_w == pytest.approx(sigma_w, rel=1e-12)
    assert eoc.init.sigma_b == sigma_b
    assert eoc.q == pytest.approx(q, rel=1e-12)
    assert eoc.chi_par == pytest.approx(par, rel=1e-5)
    assert eoc.stable is stable


def test_the_edge_is_found_from_sigma_w_too():
    # Pennington et al. (2017) trained tanh at sigma_w^2 = 1.05 and sigma_b^2 = 2.01e-5
    assert edge_of_chaos("tanh", sigma_w=1.05**0.5).init.sigma_b ** 2 == pytest.approx(2.01052133882671e-5, rel=1e-12)
    assert edge_of_chaos("tanh", sigma_w=1.05).init.sigma_b ** 2 == pytest.approx(0.000167400933542778, rel=1e-12)


OFTEN = ("tanh", "gelu", "silu", "mish", "selu", "relu6", "soft_sign", "sigmoid", "softplus", "sin", "step", "relu")


@pytest.mark.parametrize(
    "name", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in sorted(ACTIVATIONS)]
)
def test_a_point_of_the_edge_is_one(name):
    for sigma_b in (0.0, 0.3):
        for eoc in edges_of_chaos(name, sigma_b=sigma_b):
            assert chi_perp(name, eoc.init, eoc.q) == pytest.approx(1, abs=1e-12)
            assert length_map(name, eoc.init, eoc.q) == pytest.approx(eoc.q, rel=1e-11)
            assert chi_par(name, eoc.init, eoc.q) == pytest.approx(eoc.chi_par, abs=1e-11)
            assert eoc.stable == (eoc.stability == "stable")


def _below(x):
    return math.erfc(-x / 2**0.5) / 2


# E phi^2 and E phi'^2
CLOSED = {
    "erf": lambda q: (2 / math.pi * math.asin(2 * q / (1 + 2 * q)), 4 / math.pi / math.sqrt(1 + 4 * q)),
    "elu": lambda q: (
        q / 2 + math.exp(2 * q) * _below(-2 * q**0.5) - 2 * math.exp(q / 2) * _below(-(q**0.5)) + 0.5,
        0.5 + math.exp(2 * q) * _below(-2 * q**0.5),
    ),
    "sin": lambda q: ((1 - math.exp(-2 * q)) / 2, (1 + math.exp(-2 * q)) / 2),
    "cos": lambda q: ((1 + math.exp(-2 * q)) / 2, (1 - math.exp(-2 * q)) / 2),
    "gelu": lambda q: (
        q / 4 + q / (2 * math.pi) * (math.asin(q / (1 + q)) + 2 * q / (1 + q) / math.sqrt(1 + 2 * q)),
        0.25 + math.asin(q / (1 + q)) / (2 * math.pi) + q * (5 * q + 3) / (2 * math.pi * (1 + q) * (1 + 2 * q) ** 1.5),
    ),
}


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("sigma_b", [0.1, 0.7])
def test_the_edge_has_its_closed_form(name, sigma_b):
    eoc = edge_of_chaos(name, sigma_b=sigma_b)
    second, slope_second = CLOSED[name](eoc.q)
    assert eoc.init.sigma_w**2 == pytest.approx(1 / slope_second, rel=1e-12)
    assert eoc.init.sigma_w**2 * second + sigma_b**2 == pytest.approx(eoc.q, rel=1e-12)


# Below the sigma_b of their critical points chi_perp is 1 only where the length is unstable.
@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_the_stability_of_the_branch_changes_at_the_critical_point(name):
    critical = critical_init(name)
    assert critical.init is not None
    below, at, above = (edges_of_chaos(name, sigma_b=f * critical.init.sigma_b) for f in (0.999, 1.0, 1.001))
    assert [point.stability for point in below] == ["unstable"]
    assert [point.stability for point in at] == ["half-stable"]
    assert [point.stability for point in above] == ["stable"]
    assert at[0].q == pytest.approx(critical.q, rel=1e-9)


def test_one_sigma_w_may_be_met_twice():
    found = edges_of_chaos("gelu", sigma_w=1.408)
    assert len(found) == 2
    assert found[0].init.sigma_b < found[1].init.sigma_b


def test_the_edge_without_bias_ends_at_length_zero():
    for name, sigma_w, stability in (("tanh", 1.0, "stable"), ("gelu", 2.0, "unstable"), ("hard_tanh", 1.0, "stable")):
        (eoc,) = edges_of_chaos(name, sigma_b=0.0)
        assert (eoc.init.sigma_w, eoc.q, eoc.stability) == (pytest.approx(sigma_w, rel=1e-15), 0.0, stability)
    (relu,) = edges_of_chaos("relu", sigma_b=0.0)
    assert (relu.init.sigma_w, relu.q, relu.stability) == (pytest.approx(2**0.5, rel=1e-15), 1.0, "neutral")


def test_the_curve_labels_its_branches():
    curve = edge_curve("gelu", np.array([0.5, 3.0, 10.0]))
    assert curve.stability.values.tolist() == ["unstable", "unstable", "stable"]
    for q in (0.5, 3.0, 10.0):
        row = curve.sel(q=q)
        assert edge_of_chaos("gelu", sigma_b=float(row.sigma_b)).q == pytest.approx(q, rel=1e-10)
    assert set(edge_curve("softplus").stability.values) == {"none"}
    assert edge_curve("softplus").sigma_w.isnull().all()
    assert edge_curve("tanh").sizes == {"q": 141}


@pytest.mark.parametrize(
    ("phi", "keywords", "match"),
    [
        ("softplus", {"sigma_b": 0.1}, "negative for every q"),
        ("relu", {"sigma_b": 0.1}, r"every length grows by sigma_b\^2"),
        ("step", {"sigma_b": 0.1}, "jumps, so chi_perp is infinite"),
        ("tanh", {"sigma_w": 0.5}, "on it, sigma_w is between 1 and"),
        (lambda x: jnp.exp(x * x), {"sigma_b": 0.1}, "not finite"),
    ],
)
def test_an_edge_that_does_not_exist_is_refused_with_the_reason(phi, keywords, match):
    with pytest.raises(ValueError, match=match) as refusal:
        edge_of_chaos(phi, **keywords)
    assert "\n" not in str(refusal.value)
    if isinstance(phi, str):
        assert isinstance(refusal.value, NoEdge)
        assert edges_of_chaos(phi, **keywords) == ()


@pytest.mark.parametrize("keywords", [{}, {"sigma_b": 0.1, "sigma_w": 1.0}])
def test_one_of_both_scales_is_given(keywords):
    with pytest.raises(ValueError, match="give one of sigma_b and sigma_w"):
        edge_of_chaos("tanh", **keywords)


@pytest.mark.parametrize("sigma_b", [-0.1, math.nan, math.inf])
def test_a_bias_that_is_negative_or_not_finite_is_refused(sigma_b):
    with pytest.raises(ValueError, match="sigma_b must be finite and not negative"):
        edge_of_chaos("tanh", sigma_b=sigma_b)


@pytest.mark.parametrize("q", [[], np.array([])])
def test_a_curve_of_no_lengths_is_refused(q):
    with pytest.raises(ValueError, match="q must hold at least one length, got none; leave it out"):
        edge_curve("tanh", q)


def test_a_curve_of_traced_lengths_is_refused():
    with pytest.raises(ValueError, match="got a traced q; call this outside jit"):
        jax.jit(lambda q: edge_curve("tanh", q).sigma_w.values)(jnp.ones(2))


@pytest.mark.parametrize("name", ["relu", "leaky_relu(0.2)", "identity"])
def test_without_bias_every_length_of_what_is_linear_on_either_side_is_on_the_edge(name):
    curve = edge_curve(name, np.logspace(-8, 6, 15))
    assert (curve.sigma_b.values == 0.0).all()
    assert set(curve.stability.values) == {"neutral"}


def test_the_curve_of_what_is_linear_around_zero_has_no_bias_of_rounding():
    curve = edge_curve("hard_tanh", [1e-8, 1e-4, 0.01, 0.1, 1.0])
    assert curve.sigma_b.values[:2].tolist() == [0.0, 0.0]
    assert (curve.sigma_b.values[3:] > 1e-3).all()
    assert curve.stability.values.tolist()[::2] == ["neutral", "neutral", "stable"]
    assert curve.stability.values.tolist()[3] == "stable"


# --- a length ---


def test_the_edge_at_a_length_is_that_of_its_curve():
    curve = edge_curve("gelu", [1.0, 5.0])
    for q in (1.0, 5.0):
        found = edge_of_chaos("gelu", q=q)
        assert (found.q, found.init.sigma_w, found.init.sigma_b) == (q, curve.sigma_w.sel(q=q), curve.sigma_b.sel(q=q))
        assert found.stability == curve.stability.sel(q=q)


@pytest.mark.parametrize(
    ("phi", "q", "message"),
    [
        ("sigmoid", 1.0, "no edge of chaos with q = 1: .* is negative there"),
        ("softplus", 1.0, "negative for every q"),
        ("step", 1.0, "jumps"),
        ("tanh", 0.0, "must be positive"),
        ("tanh", np.array([1.0, -1.0]), "must be positive"),
    ],
)
def test_a_length_without_an_edge_is_refused(phi, q, message):
    with pytest.raises(ValueError, match=message):
        edge_of_chaos(phi, q=q)


def test_an_activation_that_is_zero_has_no_edge():
    with pytest.raises(NoEdge, match="is 0: it has no edge of chaos"):
        edge_of_chaos(lambda x: 0 * x, sigma_b=0.3)


# --- arrays ---


def test_an_edge_of_arrays_is_that_of_each_number():
    biases = np.array([[0.0, 0.2], [0.5, 1.0]])
    found, every = edge_of_chaos("gelu", biases), edges_of_chaos("gelu", biases)
    assert found.q.shape == (2, 2) and every.q.shape == (2, 2, 2)
    for at in np.ndindex(2, 2):
        one, all_of_one = edge_of_chaos("gelu", float(biases[at])), edges_of_chaos("gelu", float(biases[at]))
        assert (found.init.sigma_w[at], found.q[at], found.stability[at]) == (one.init.sigma_w, one.q, one.stability)
        q = every.q[(slice(None), *at)]
        assert q[~np.isnan(q)].tolist() == [point.q for point in all_of_one]
    assert found.stable.tolist() == [[False, False], [True, True]]


def test_an_array_is_nan_where_there_is_no_edge():
    found = edge_of_chaos("tanh", sigma_w=np.array([0.5, 1.5]))
    assert np.isnan([found.q[0], found.init.sigma_w[0], found.init.sigma_b[0], found.chi_par[0]]).all()
    assert found.stability.tolist() == ["none", "stable"]
    assert np.isnan(edge_of_chaos("sigmoid", q=np.array([1.0, 60.0])).q).tolist() == [True, False]
