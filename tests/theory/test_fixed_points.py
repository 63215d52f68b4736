"""Fixed points of the length and the correlation: closed forms, reference values, stability, phases, refusals."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgain.activations import ACTIVATIONS
from jaxgain.theory.critical import critical_init
from jaxgain.theory.fixed_points import PHASES, depth, fixed_point, fixed_points
from jaxgain.theory.meanfield import Init, chi_perp, correlation_map, decorrelation_map, length_map


# tanh at sigma_b = 0.3 (Poole et al., 2016, figure 1): q*, c*, slope at c*, xi_q, xi_c; correlations from Hermite
# series.
@pytest.mark.parametrize(
    ("sigma_w", "q", "c", "slope", "xi_q", "xi_c"),
    [
        (1.3, 0.607046791909323, 1.0, 0.9398074286822, 1.33766764253931, 16.10817274348),
        (2.5, 4.07912387528225, 0.1221037473056, 0.8222291727236, 0.688341457236773, 5.108918989167),
        (4.0, 12.6041494978443, 0.02969592158034, 0.7597436050122, 0.490294745077006, 3.639351021509),
    ],
)
def test_tanh_has_the_reference_fixed_point(sigma_w, q, c, slope, xi_q, xi_c):
    (point,) = fixed_points("tanh", Init(sigma_w, 0.3))
    assert point.q == pytest.approx(q, rel=1e-13)
    assert point.c == pytest.approx(c, abs=1e-11)
    assert point.slope == pytest.approx(slope, rel=1e-11)
    assert point.xi_q == pytest.approx(xi_q, rel=1e-12)
    assert point.xi_c == pytest.approx(xi_c, rel=1e-10)
    assert point.xi_grad == pytest.approx(-1 / math.log(chi_perp("tanh", Init(sigma_w, 0.3), q)), rel=1e-11)
    assert (point.phase, point.stable, point.converged) == ("ordered" if c == 1 else "chaotic", True, True)


# sigma_b = 0: q* and chi_perp there, in 30-digit arithmetic.
@pytest.mark.parametrize(
    ("phi", "sigma_w", "q", "perp"),
    [
        ("tanh", 2**0.5, 0.617964769769, 1.10552882044),
        ("hard_tanh", 2**0.5, 1.05224663253, 1.34073830108),
        ("selu", 1.0, 1.0, 1.07157499246),
        ("sigmoid", 3**-0.5, 0.0850337648755, 0.0200078293377),
        ("softplus", 1.0, 0.856305159645, 0.288721849003),
        ("soft_sign", 2**0.5, 0.0794785750644, 1.04235075567),
        ("sin", 2**0.5, 0.79681213002, 1.20318786998),
        ("erf", 1.0, 0.141923765314, 1.01690251995),
        ("elu", 3**-0.5, 0.0, 1 / 3),
        ("gelu", 2**0.5, 0.0, 0.5),
        ("silu", 1.0, 0.0, 0.25),
    ],
)
def test_without_bias_the_reference_length_is_reached(phi, sigma_w, q, perp):
    point = fixed_point(phi, Init(sigma_w), q0=sigma_w**2)
    assert point.q == pytest.approx(q, rel=1e-11)
    assert point.chi_perp == pytest.approx(perp, rel=1e-11)


def test_relu_has_one_fixed_length_in_closed_form():
    (point,) = fixed_points("relu", Init(1.2, 0.5))
    assert point.q == pytest.approx(0.25 / (1 - 0.72), rel=1e-14)
    assert point.chi_par == pytest.approx(0.72, rel=1e-14)
    assert (point.c, point.slope, point.phase) == (1.0, pytest.approx(0.72, rel=1e-14), "ordered")


def test_erf_has_its_fixed_correlation_in_closed_form():
    init = Init(2.0, 0.3)
    point = fixed_point("erf", init)
    mapped = 4 * 2 / math.pi * math.asin(2 * point.q * point.c / (1 + 2 * point.q)) + 0.09
    assert mapped == pytest.approx(point.q * point.c, rel=1e-12)
    a = 2 * point.q / (1 + 2 * point.q)
    slope = 4 * 2 / math.pi * a / math.sqrt(1 - (a * point.c) ** 2) / point.q
    assert point.slope == pytest.approx(slope, rel=1e-10)


def test_sign_has_infinite_chi_and_a_fixed_correlation_below_one():
    point = fixed_point("sign", Init(0.3, 2.0))
    assert point.q == pytest.approx(4.09, rel=1e-14)
    assert (point.chi_perp, point.xi_grad, point.phase) == (math.inf, 0.0, "chaotic")
    # 1 - c = (0.09/4.09) (2/pi) arccos c, where c = cos theta and 1 - c = 2 sin^2(theta/2)
    theta = math.acos(point.c)
    assert 2 * math.sin(theta / 2) ** 2 == pytest.approx(0.09 / 4.09 * 2 / math.pi * theta, rel=1e-9)
    slope = 0.09 / 4.09 * 2 / math.pi / math.sin(theta)
    assert point.slope == pytest.approx(slope, rel=1e-8)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_a_fixed_point_is_one(name):
    init = Init(1.3, 0.3)
    for point in fixed_points(name, init):
        assert length_map(name, init, point.q) == pytest.approx(point.q, rel=1e-11, abs=1e-90)
        assert abs(point.slope) <= 1 + 1e-12
        if point.stability == "stable":
            assert -0.5 <= point.chi_par <= 1 + 1e-12


@pytest.mark.parametrize("sigma_w", [1.3, 3.0])
@pytest.mark.parametrize(
    "name",
    [
        name if name in ("tanh", "selu", "cos", "relu6") else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(ACTIVATIONS)
    ],
)
def test_a_fixed_correlation_is_one(name, sigma_w):
    init = Init(sigma_w, 0.3)
    for point in fixed_points(name, init):
        if point.q > 0:
            assert correlation_map(name, init, point.c, point.q) == pytest.approx(point.c, abs=1e-10)


@pytest.mark.parametrize("name", ["tanh", "gelu", "relu_squared", "selu", "cos", "sigmoid"])
@pytest.mark.parametrize("init", [Init(1.3, 0.3), Init(1.5), Init(0.5)], ids=str)
@pytest.mark.parametrize("q0", [0.01, 30.0])
def test_the_length_is_reached_that_the_recursion_reaches(name, init, q0):
    point, q = fixed_point(name, init, q0=q0), q0
    for _ in range(200):
        before, q = q, length_map(name, init, q) if q < 1e6 else math.inf
        if math.isinf(q) or abs(q - before) < 1e-9 * q:
            break
    expected = point.q if point.phase != "diverging" else math.inf
    distance = abs(q - expected) if math.isfinite(expected) else 0.0 if q > 1e3 else math.inf
    assert distance <= 1e-3 * (1 + point.q if math.isfinite(point.q) else 1.0)


def test_relu_squared_has_an_unstable_length_between_its_basins():
    zero, one = fixed_points("relu_squared", Init(0.5))  # q' = 3/8 q^2
    assert (zero.q, zero.chi_perp, zero.phase, zero.stability) == (0.0, 0.0, "collapsing", "stable")
    assert one.q == pytest.approx(8 / 3, rel=1e-14)
    assert (one.chi_par, one.stability) == (pytest.approx(2.0, rel=1e-13), "unstable")
    assert zero.basin == (0.0, one.q)
    assert fixed_point("relu_squared", Init(0.5), q0=2.6).q == 0
    assert fixed_point("relu_squared", Init(0.5), q0=2.7).phase == "diverging"


def test_a_critical_gelu_touches_the_diagonal_above_a_stable_length():
    critical = critical_init("gelu")
    assert critical.init is not None
    stable, touching = fixed_points("gelu", critical.init)
    assert touching.q == pytest.approx((3 + math.sqrt(17)) / 2, rel=1e-7)
    assert (touching.stability, touching.phase, touching.basin[1]) == ("half-stable", "edge", math.inf)
    assert (touching.chi_par, touching.chi_perp) == (pytest.approx(1, abs=1e-9), pytest.approx(1, abs=1e-9))
    assert (stable.stability, stable.phase) == ("stable", "ordered")
    assert length_map("gelu", critical.init, 3.3) < 3.3
    assert length_map("gelu", critical.init, 3.6) < 3.6


def test_lengths_near_zero_are_found_in_closed_form():
    # E tanh(x)^2 = q - 2 q^2 + ...: q* = (sigma_w^2 - 1)/2 to leading order, far below every scanned decade of q
    point = fixed_point("tanh", Init(math.sqrt(1 + 1e-9)))
    assert point.q == pytest.approx(0.5e-9, rel=1e-5)
    assert fixed_point("tanh", Init(0.5, 1e-20)).q == pytest.approx(1e-40 / 0.75, rel=1e-12)


def test_near_the_edge_one_minus_c_keeps_its_digits():
    init = Init(1.3042, 0.2)
    point = fixed_point("tanh", init)
    assert 0 < point.one_minus_c < 1e-3
    mapped = decorrelation_map("tanh", init, point.one_minus_c, point.q)
    assert mapped == pytest.approx(point.one_minus_c, rel=1e-11)


# --- phases, and rounding ---


@pytest.mark.parametrize(
    ("phi", "init", "phase", "q"),
    [
        ("tanh", Init(0.9), "collapsing", 0.0),
        ("tanh", Init(1.0), "edge", 0.0),
        ("tanh", Init(0.0, 0.3), "ordered", 0.09),
        ("tanh", Init(0.0, 0.0), "collapsing", 0.0),
        ("tanh", Init(1.304145840057, 0.2), "edge", 0.5120785042342),
        ("relu", Init(2**0.5), "scale-invariant", 1.0),
        ("leaky_relu(0.2)", Init(1.04**-0.5 * 2**0.5), "scale-invariant", 1.0),
        ("relu", Init(2**0.5, 1e-9), "diverging", math.inf),
        ("relu", Init(1.5), "diverging", math.inf),
        ("relu", Init(1.2), "collapsing", 0.0),
        ("selu", Init(2**0.5), "diverging", math.inf),
        # E phi^2 - q/2 is positive at every q: their lengths grow for ever, slower than exponentially
        ("elu", Init(2**0.5), "diverging", math.inf),
        ("softplus", Init(2**0.5), "diverging", math.inf),
        # linear up to rounding at q < 0.03 and q < 0.5: growth has no sign there, and above it falls
        ("hard_tanh", Init(1.0), "edge", 0.0),
        ("relu6", Init(2**0.5), "edge", 0.0),
    ],
)
def test_every_phase_has_its_name(phi, init, phase, q):
    point = fixed_point(phi, init)
    assert point.phase == phase
    assert point.q == pytest.approx(q, rel=1e-11)
    assert point.converged == math.isfinite(q)


def test_every_length_of_a_scale_invariant_network_is_fixed():
    zero, one = fixed_points("relu", Init(2**0.5))
    assert (zero.q, one.q, one.stability, one.basin) == (0.0, 1.0, "neutral", (1.0, 1.0))
    assert fixed_point("relu", Init(2**0.5), q0=7.0).q == 7.0
    assert (one.xi_q, one.xi_c, one.xi_grad) == (math.inf, math.inf, math.inf)


def test_where_every_length_diverges_there_is_no_fixed_point():
    assert fixed_points("relu", Init(2**0.5, 0.1)) == ()
    point = fixed_point("relu", Init(2.0, 0.1))
    assert (point.chi_par, point.chi_perp) == (pytest.approx(2.0), pytest.approx(2.0))
    assert math.isnan(point.c)


def test_a_depth_is_negative_where_a_deviation_grows():
    assert depth(math.e) == -1
    assert depth(1 / math.e) == 1
    assert (depth(1.0), depth(0.0), depth(math.inf)) == (math.inf, 0.0, 0.0)


# --- refusals ---


@pytest.mark.parametrize(
    ("phi", "match"),
    [
        (lambda x: jnp.exp(x * x), "not finite"),
        (lambda x: jnp.log(x), r"must be finite on the real line, but phi\(0\) is -inf"),
        (lambda x: 1 / x, "must be finite on the real line"),
        (lambda x: jnp.tan(x), "does not converge"),
    ],
)
def test_what_has_no_expectation_is_refused_in_one_line(phi, match):
    for function in (fixed_point, fixed_points):
        with pytest.raises(ValueError, match=match) as refusal:
            function(phi, Init(1.0))
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("q0", [-1.0, math.nan, math.inf, "one"])
def test_a_first_length_that_is_none_is_refused(q0):
    with pytest.raises(ValueError, match="the first length q0 must be"):
        fixed_point("tanh", Init(1.0), q0=q0)


# --- arrays, and traced values ---

GRID = Init(np.array([0.0, 0.9, 1.0, 1.3, 1.5, 2.5, 4.0])[:, None], np.array([0.0, 0.3]))
NUMBERS = ("q", "one_minus_c", "slope", "chi_par", "chi_perp", "xi_q", "xi_c", "xi_grad")


@pytest.mark.parametrize("phi", ["tanh", "relu", "gelu", pytest.param("hard_tanh", marks=pytest.mark.slow)])
def test_an_array_of_initializations_has_the_fixed_point_of_each(phi):
    points = fixed_point(phi, GRID)
    assert points.q.shape == points.phase.shape == (7, 2)
    for place in np.ndindex(7, 2):
        alone = fixed_point(phi, Init(float(GRID.sigma_w[place[0], 0]), float(GRID.sigma_b[place[1]])))
        for name in NUMBERS:
            expected = pytest.approx(getattr(alone, name), rel=1e-9, abs=1e-12, nan_ok=True)
            assert getattr(points, name)[place] == expected, name
        assert points.phase[place] == alone.phase
        assert points.stable[place] == alone.stable
        assert points.converged[place] == alone.converged


def test_fixed_points_trace_and_batch_in_float64():
    sigma_w, sigma_b = (np.ravel(part) for part in np.broadcast_arrays(GRID.sigma_w, GRID.sigma_b))
    expected = fixed_point("tanh", Init(sigma_w, sigma_b))
    with jax.enable_x64(True):
        traced = jax.jit(jax.vmap(lambda init: fixed_point("tanh", init)))
        points = traced(Init(jnp.asarray(sigma_w), jnp.asarray(sigma_b)))
    assert points.q.dtype == np.float64
    for name in NUMBERS:
        np.testing.assert_allclose(getattr(points, name), getattr(expected, name), rtol=1e-9, atol=1e-12)
    assert [PHASES[i] for i in points.phase] == expected.phase.tolist()
    np.testing.assert_array_equal(points.stable, expected.stable)
    assert points.converged.all()


def test_a_first_length_beyond_the_tables_is_left_to_the_recursion():
    points = fixed_point("tanh", Init(2.5, 0.3), q0=np.array([1.0, 1e9]))
    assert points.q == pytest.approx([4.07912387528225] * 2, rel=1e-12)


def test_a_traced_fixed_point_keeps_float32():
    point = jax.jit(lambda sigma_w: fixed_point("erf", Init(sigma_w, 0.3)))(jnp.float32(2.0))
    alone = fixed_point("erf", Init(2.0, 0.3))
    assert point.q.dtype == jnp.float32
    assert float(point.q) == pytest.approx(alone.q, rel=1e-5)
    assert float(point.c) == pytest.approx(alone.c, rel=1e-4)
