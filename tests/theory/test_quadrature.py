"""Expectations against closed forms, tanh-sinh quadrature and, slowly, 30-digit arithmetic."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from jaxgain.activations import ACTIVATIONS, activation
from jaxgain.theory.panels import mesh, resolve, tabulate
from jaxgain.theory.quadrature import (
    Moments,
    expectation,
    moments,
    pair_expectation,
    separation,
    traced_moments,
    traced_pair_expectation,
)

NAMES = sorted(ACTIVATIONS)
JUMPS = ("step", "sign")
WAVES = ("sin", "cos", "snake")
LENGTHS = (1e-6, 1e-2, 1.0, 30.0, 1e4)


def normal(z) -> Any:
    return mp.exp(-z * z / 2) / mp.sqrt(2 * mp.pi)


def tanh_sinh(edges):
    """Return nodes and weights of the tanh-sinh rule (Takahasi and Mori, 1974) between the `edges`."""
    t = np.arange(-3.2, 3.2001, 0.05)
    u = np.pi / 2 * np.sinh(t)
    x, w = np.tanh(u), 0.05 * np.pi / 2 * np.cosh(t) / np.cosh(u) ** 2
    half, middle = np.diff(edges)[:, None] / 2, (edges[:-1] + edges[1:])[:, None] / 2
    return (middle + half * x).ravel(), (half * w).ravel()


@functools.cache
def reference(name, q):
    """Return the moments by tanh-sinh, from the shipped function and its slope, which other tests judge."""
    phi, root = ACTIVATIONS[name], math.sqrt(q)
    edges = {*np.arange(-12.0, 12.5, 1.0), *(kink / root for kink in phi.kinks or ())}
    edges |= {sign * x / root for sign in (-1, 1) for x in np.concatenate([np.arange(0, 8), 8 * 1.4 ** np.arange(14)])}
    z, w = tanh_sinh(np.array(sorted(edge for edge in edges if abs(edge) <= 12)))
    value, slope = tabulate(phi, root * z)
    w = w * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    mean = w @ value
    by_parts = w @ (value * value * (z * z - 1)) / (2 * q) if name in JUMPS else w @ (value * slope * z) / root
    second_slope = math.inf if name in JUMPS else w @ slope**2
    mean_slope = w @ (value * z) / root if name in JUMPS else w @ slope
    return mean, w @ value**2, w @ (value - mean) ** 2, mean_slope, second_slope, by_parts


@pytest.mark.parametrize("q", LENGTHS)
@pytest.mark.parametrize("name", NAMES)
def test_moments_agree_with_tanh_sinh_within_1e_12_of_their_scale(name, q):
    if name in WAVES and q > 100:
        pytest.skip("tanh-sinh on these panels does not resolve the wave; the closed form does")
    got = moments(name, q)
    truth = reference(name, q)
    root_mean_square, root_slope = math.sqrt(truth[1]), math.sqrt(truth[4])
    scales = (
        root_mean_square,
        truth[1],
        truth[2],
        root_slope,
        truth[4],
        root_mean_square * root_slope / math.sqrt(q),
    )
    # The rounding of phi itself limits the variance of the reference where that is tiny beside phi^2.
    floors = (0, 0, 1e-15 * root_mean_square * math.sqrt(truth[2]), 0, 0, 0)
    for field, expected, scale, floor in zip(Moments._fields, truth, scales, floors, strict=True):
        value, error = getattr(got, field)
        if math.isinf(expected):
            assert math.isinf(value), field
            continue
        assert abs(value - expected) <= 1e-12 * min(scale, 1e300) + floor, (field, value, expected)
        assert error <= 1e-13 * min(scale, 1e300), field


@pytest.mark.parametrize("q", [1e-6, 1e-3, 0.5, 7.0, 300.0, 1e4])
def test_waves_have_their_closed_forms_at_every_length(q):
    sin, cos, snake = (moments(name, q) for name in WAVES)
    decay, minus = math.exp(-2 * q), -math.expm1(-2 * q)
    assert sin.second.value == pytest.approx(minus / 2, rel=1e-12)
    assert sin.slope_second.value == pytest.approx((1 + decay) / 2, rel=1e-12)
    assert sin.length_slope.value == pytest.approx(decay, rel=1e-12, abs=1e-12 / math.sqrt(q))
    assert cos.mean.value == pytest.approx(math.exp(-q / 2), rel=1e-12, abs=1e-12)
    # x + sin^2 x: q + E sin^4, as E x sin^2 x = 0, and 1 + E sin^2(2x), as E sin(2x) = 0.
    assert snake.second.value == pytest.approx(q + 3 / 8 - decay / 2 + math.exp(-8 * q) / 8, rel=1e-12)
    assert snake.slope_second.value == pytest.approx(1 - math.expm1(-8 * q) / 2, rel=1e-12)


@pytest.mark.parametrize("q", [1e-8, 1e-6, 1e-4, 1e-2])
def test_a_small_variance_keeps_its_digits(q):
    # Var cos(x) = (1 - exp(-q))^2/2
    assert moments("cos", q).variance.value == pytest.approx(math.expm1(-q) ** 2 / 2, rel=1e-13)
    assert moments("hard_sigmoid", q).variance.value == pytest.approx(q / 36, rel=1e-13)
    assert moments(lambda x: 1 + jnp.maximum(x, 0.0), q).variance.value == pytest.approx(
        q / 2 * (1 - 1 / math.pi), rel=1e-13
    )


@pytest.mark.parametrize("steepness", [1e2, 1e5, 1e8])
def test_a_steep_activation_has_a_large_slope_and_no_jump(steepness):
    # E tanh'(a x)^2 -> a 4/3 / sqrt(2 pi)
    m = moments(f"tanh({steepness:g}x)")
    assert m.slope_second.value == pytest.approx(steepness * 4 / 3 / math.sqrt(2 * math.pi), rel=1 / steepness)
    assert m.slope_second.error < 1e-12 * m.slope_second.value


@pytest.mark.parametrize("q", LENGTHS)
def test_erf_has_the_arcsine_and_relu_half_the_length(q):
    assert moments("erf", q).second.value == pytest.approx(2 / math.pi * math.asin(2 * q / (1 + 2 * q)), rel=1e-13)
    assert moments("erf", q).slope_second.value == pytest.approx(4 / math.pi / math.sqrt(1 + 4 * q), rel=1e-13)
    assert moments("relu", q).second.value == pytest.approx(q / 2, rel=1e-14)
    assert moments("relu_squared", q).second.value == pytest.approx(1.5 * q**2, rel=1e-14)
    assert moments("step", q).slope_mean.value == pytest.approx(1 / math.sqrt(2 * math.pi * q), rel=1e-13)


@pytest.mark.parametrize("q", LENGTHS)
def test_gelu_has_its_closed_form(q):
    # By parts, E x^2 g = q E g + 2 q^2 dE g/dq, with g = Phi(x)^2.
    r = q / (1 + q)
    first = 0.25 + math.asin(r) / (2 * math.pi)  # E Phi(x)^2
    slope = 1 / (math.pi * (1 + q) * math.sqrt(1 + 2 * q))  # its derivative with respect to q, doubled
    assert moments("gelu", q).second.value == pytest.approx(q * first + q**2 * slope, rel=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("q", [1e-6, 0.04, 1.0, 9.0, 1e4])
@pytest.mark.parametrize("name", sorted(set(NAMES) - {*JUMPS, *WAVES}))
def test_moments_agree_with_thirty_digit_arithmetic(name, q):
    formula = pytest.importorskip("tests.test_activations").FORMULAS[name]
    phi = ACTIVATIONS[name]
    with mp.workdps(30):
        root = mp.sqrt(mp.mpf(q))
        x = [mp.mpf(k) / root for k in (-64, -16, -4, -1, 0, 1, 4, 16, 64, *(phi.kinks or ()))]
        edges = sorted({*map(mp.mpf, range(-13, 14)), *(edge for edge in x if abs(edge) < 13)})
        quad: Any = mp.quad
        second = quad(lambda z: normal(z) * formula(root * z) ** 2, edges)
        mean = quad(lambda z: normal(z) * formula(root * z), edges)
        variance = quad(lambda z: normal(z) * (formula(root * z) - mean) ** 2, edges)
    got = moments(name, q)
    assert got.second.value == pytest.approx(float(second), rel=1e-13)
    assert got.mean.value == pytest.approx(float(mean), rel=1e-13, abs=1e-13 * math.sqrt(second))
    assert got.variance.value == pytest.approx(float(variance), rel=1e-12)


def test_the_error_estimate_covers_the_error_of_a_hard_integrand():
    value, error = expectation(lambda x: jnp.sqrt(jnp.abs(x)))
    truth = 2**0.25 * math.gamma(0.75) / math.sqrt(math.pi)
    assert abs(value - truth) <= error
    assert error < 1e-12


def test_the_rules_integrate_the_normal_density():
    assert expectation(lambda x: jnp.ones_like(x)).value == pytest.approx(1, abs=1e-15)
    assert expectation(lambda x: x * x, q=3.0).value == pytest.approx(3, rel=1e-15)


KINKED = [
    (lambda x: jnp.abs(x - 0.3) + jnp.maximum(x + 1.7, 0.0), (-1.7, 0.3), ()),
    (lambda x: jnp.clip(x, -7.25, 500.0), (-7.25, 500.0), ()),
    (lambda x: jnp.where(x > 0.1234567, x, 5.0), (0.1234567,), (0.1234567,)),
    (lambda x: jnp.where(x < 2.0, jnp.sin(x), x), (2.0,), (2.0,)),
    (lambda x: jnp.maximum(x, 0.0), (0.0,), ()),
    (lambda x: jnp.maximum(x * x - 2, 0.0), (-math.sqrt(2), math.sqrt(2)), ()),
    (lambda x: jax.nn.elu(x - 0.001), (0.001,), ()),
    (lambda x: jnp.where(x > 0.25, jnp.square(x - 0.25), 0.0), (0.25,), ()),
    (lambda x: jnp.tanh(100 * x), (), ()),
    (lambda x: jnp.exp(-x * x), (), ()),
]


@pytest.mark.parametrize(("function", "kinks", "jumps"), KINKED)
def test_the_kinks_and_jumps_of_a_callable_are_found(function, kinks, jumps):
    found = resolve(activation(function))
    assert found.kinks is not None
    assert found.jumps is not None
    np.testing.assert_allclose(found.kinks, kinks, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.jumps, jumps, rtol=1e-15)


@pytest.mark.parametrize("q", [1e-4, 100.0])
def test_a_callable_with_unknown_kinks_is_integrated_as_well_as_one_with_known_kinks(q):
    known, unknown = moments("hard_silu", q), moments(lambda x: x * jnp.clip(x / 6 + 0.5, 0.0, 1.0), q)
    for a, b in zip(known, unknown, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-13)


def test_jumps_without_number_make_the_squared_slope_infinite():
    # 2048 jumps are too many to be found; integration by parts tells that they are there.
    rounded = moments(lambda x: jnp.round(x), 1.0)
    assert math.isinf(rounded.slope_second.value)
    even = moments(lambda x: (jnp.abs(x) > 1).astype(x.dtype), 1.0)
    assert math.isinf(even.slope_second.value)


@pytest.mark.parametrize(
    ("function", "q"),
    [(lambda x: jnp.exp(x**2), 1.0), (lambda x: jnp.exp(0.25 * x * x), 1.0), (jnp.log, 1.0)],
)
def test_an_expectation_that_is_not_finite_is_one_clear_error(function, q):
    with pytest.raises(ValueError, match=r"\Athe expectation over [^\n]*(not finite|does not exist)[^\n]*\Z"):
        moments(function, q)


def test_an_expectation_with_a_heavy_tail_is_integrated_to_its_end():
    # E exp(0.2 x^2)^2 = 1/sqrt(1 - 0.8)
    assert moments(lambda x: jnp.exp(0.2 * x**2)).second.value == pytest.approx(math.sqrt(5), rel=1e-14)
    assert moments(jnp.exp, 16.0).second.value == pytest.approx(math.exp(32), rel=1e-13)


@pytest.mark.parametrize("q", [-1.0, 0.0, math.nan, math.inf, "much"])
def test_a_length_that_is_not_positive_is_refused(q):
    with pytest.raises(ValueError, match="the length q must be"):
        expectation("tanh", q)


def test_moments_at_zero_are_the_limit_from_above():
    zero, small = moments("selu", 0.0), moments("selu", 1e-20)
    for a, b in zip(zero, small, strict=True):
        assert a.value == pytest.approx(b.value, abs=1e-9)
    assert moments("hard_sigmoid", 0.0).length_slope.value == pytest.approx(1 / 36, rel=1e-14)
    assert moments("softplus", 0.0).length_slope.value == pytest.approx(0.25 + math.log(2) / 4, rel=1e-14)
    assert math.isinf(moments(lambda x: 1 + jnp.maximum(x, 0.0), 0.0).length_slope.value)


@pytest.mark.parametrize(
    "name",
    [
        "relu6",
        "sin",
        "step",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("tanh", "gelu", "hard_silu")),
    ],
)
def test_traced_moments_are_the_same_in_float64(name):
    phi = activation(name)
    with jax.enable_x64(True):
        got = jax.jit(jax.vmap(lambda q: traced_moments(phi, q)))(jnp.asarray(LENGTHS, jnp.float64))
    for i, q in enumerate(LENGTHS):
        for field, (value, error) in moments(phi, q)._asdict().items():
            traced_value, traced_error = (float(a[i]) for a in getattr(got, field))
            scale = max(abs(value), math.sqrt(moments(phi, q).second.value))
            if math.isfinite(value):
                assert traced_value == pytest.approx(value, rel=1e-12, abs=1e-12 * scale / math.sqrt(min(q, 1)) + error)
                assert traced_error <= 1e-11 * scale / math.sqrt(min(q, 1))
            else:
                assert traced_value == value


def test_traced_moments_are_right_in_float32_and_at_zero():
    got = jax.vmap(lambda q: traced_moments(ACTIVATIONS["relu"], q))(jnp.asarray([0.0, 1e-4, 1.0, 1e4]))
    assert got.second.value.dtype == jnp.float32
    np.testing.assert_allclose(got.second.value, [0, 5e-5, 0.5, 5e3], rtol=2e-6)
    np.testing.assert_allclose(got.slope_second.value, 0.5, rtol=2e-6)
    np.testing.assert_allclose(got.length_slope.value, 0.5, rtol=2e-6)


def test_the_derivative_of_a_traced_moment_is_the_length_slope():
    with jax.enable_x64(True):
        derivative = jax.grad(lambda q: traced_moments(ACTIVATIONS["relu6"], q).second.value)(2.0)
    assert float(derivative) == pytest.approx(moments("relu6", 2.0).length_slope.value, rel=1e-12)


def test_panels_are_few_and_hold_the_kinks():
    assert len(mesh(ACTIVATIONS["tanh"])) < 40
    assert {0.0, 6.0} <= set(mesh(ACTIVATIONS["relu6"]))


def test_nothing_leaks_out_of_a_moment():
    moments("tanh", 1.2345)
    assert not jax.config.jax_enable_x64  # type: ignore
    assert jnp.ones(()).dtype == jnp.float32

    @jax.jit
    def inside(x):
        return x * moments("tanh", 1.75).second.value

    assert inside(jnp.float32(1)).dtype == jnp.float32


# --- two variables ---

CORRELATIONS = (-1.0, -0.999999, -0.5, 0.0, 0.3, 0.9, 0.999999, 1.0)


def arc_cosine(c):
    """E relu(u) relu(v) at q = 1 (Cho and Saul, 2009)."""
    return (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / (2 * math.pi)


@pytest.mark.parametrize("c", CORRELATIONS)
@pytest.mark.parametrize("q", [1e-6, pytest.param(1.0, marks=pytest.mark.slow), 1e4])
def test_pairs_have_their_closed_forms(c, q):
    for name, truth in [
        ("relu", q * arc_cosine(c)),
        ("erf", 2 / math.pi * math.asin(2 * q * c / (1 + 2 * q))),
        ("sign", 2 / math.pi * math.asin(c)),
        ("identity", q * c),
    ]:
        value, error = pair_expectation(name, name, c, q)
        scale = moments(name, q).second.value
        assert abs(value - truth) <= 1e-12 * scale, (name, value, truth)
        assert error <= 1e-11 * scale


@pytest.mark.parametrize("c", [-0.4, 0.6, 0.99])
def test_a_wave_and_a_mixed_pair_have_their_closed_forms(c):
    assert pair_expectation("sin", "sin", c, 3.0).value == pytest.approx(math.exp(-3) * math.sinh(3 * c), abs=1e-13)
    # E u sign(v) = c sqrt(2 q/pi), E relu(u) v = c q/2
    assert pair_expectation("identity", "sign", c, 2.0).value == pytest.approx(c * math.sqrt(4 / math.pi), abs=1e-13)
    assert pair_expectation("relu", "identity", c, 2.0).value == pytest.approx(c, abs=1e-13)


# E phi(u) phi(v) at q = 1, c = 0.25, 0.5, 0.9: 14 digits by nested quadrature and by Hermite series.
KERNELS = {
    "leaky_relu(0.2)": (0.19505916091025, 0.29487928993415, 0.47105228763029),
    "abs": (0.65661975568908, 0.71799556208846, 0.91907679768934),
    "relu6": (0.22665493842236, 0.30449888953554, 0.45476919765774),
    "hard_tanh": (0.11713385651224, 0.23816916580077, 0.45354535677488),
    "elu": (0.17295825287967, 0.32478364895676, 0.57881896330944),
    "selu": (0.2438104979129, 0.49056912832547, 0.8952593090961),
    "gelu": (0.14769318821607, 0.22729491502199, 0.38096887059476),
    "gelu_tanh": (0.14766256665816, 0.22726707642591, 0.38094328722335),
    "silu": (0.1090444708686, 0.18316966308816, 0.31853842789147),
    "tanh": (0.092067948121102, 0.18632441320345, 0.34920335058193),
    "sigmoid": (0.26068322847666, 0.27142832563171, 0.28891801226034),
    "softplus": (0.71356617411169, 0.78007816520694, 0.89213142406875),
    "softsign": (0.042731208178132, 0.086354393549957, 0.16160895236561),
}


@pytest.mark.parametrize("name", KERNELS)
def test_pairs_have_the_reference_values(name):
    for c, truth in zip((0.25, 0.5, 0.9), KERNELS[name], strict=True):
        assert pair_expectation(name, name, c).value == pytest.approx(truth, abs=1.1e-14 + 1e-13 * truth)


@pytest.mark.parametrize("name", ["tanh", "gelu"])
def test_the_separation_of_a_smooth_activation_keeps_its_digits_near_c_one(name):
    # E(phi(u) - phi(v))^2 / 2 = q (1 - c) E phi'^2 + O((1 - c)^2)
    slope_second = moments(name, 2.0).slope_second.value
    for gap in (1e-6, 1e-9, 1e-12):
        assert separation(name, gap, 2.0).value == pytest.approx(2 * gap * slope_second, rel=3 * gap + 1e-11)


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9])
def test_the_separation_of_relu_keeps_its_digits_near_c_one(gap):
    with mp.workdps(40):
        c = 1 - mp.mpf(gap)
        truth = mp.mpf(1) / 2 - (mp.sqrt(1 - c * c) + (mp.pi - mp.acos(c)) * c) / (2 * mp.pi)
    assert separation("relu", gap).value == pytest.approx(float(truth), rel=1e-10)


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_a_traced_pair_is_the_same(name):
    phi = activation(name)
    with jax.enable_x64(True):
        pairs = jax.jit(jax.vmap(lambda gap: traced_pair_expectation(phi, phi, gap, jnp.float64(1.5))))
        got = pairs(jnp.asarray([0.0, 1e-6, 0.3, 1.0, 2.0], jnp.float64))
    for i, gap in enumerate([0.0, 1e-6, 0.3, 1.0, 2.0]):
        value = pair_expectation(name, name, q=1.5, one_minus_c=gap).value
        assert float(got.value[i]) == pytest.approx(value, abs=1e-13)
        assert float(got.error[i]) < 1e-11


@pytest.mark.parametrize("bad", [{"c": 1.5}, {"c": -1.1}, {"c": math.nan}, {}, {"c": 0.5, "one_minus_c": 0.5}])
def test_a_correlation_outside_its_range_is_refused(bad):
    with pytest.raises(ValueError, match="correlation"):
        pair_expectation("tanh", "tanh", **bad)
