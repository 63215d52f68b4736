"""Critical initializations against reference values and their own definition."""

import math

import jax.numpy as jnp
import pytest

from jaxgain.activations import ACTIVATIONS
from jaxgain.theory.critical import critical_init, root
from jaxgain.theory.edge import edge_of_chaos
from jaxgain.theory.fixed_points import fixed_point, fixed_points
from jaxgain.theory.meanfield import Init, chi_par, chi_perp, length_map

# kind, sigma_w, sigma_b, q: 30-digit arithmetic; GELU's and SiLU's also in Roberts, Yaida and Hanin (2022).
REFERENCE = {
    "identity": ("scale-invariant", 1.0, 0, None),
    "relu": ("scale-invariant", 1.414213562373095, 0, None),
    "leaky_relu": ("scale-invariant", 1.4141428569978353, 0, None),
    "leaky_relu(0.2)": ("scale-invariant", 1.3867504905630728, 0, None),
    "abs": ("scale-invariant", 1.0, 0, None),
    "tanh": ("K*=0", 1.0, 0, 0),
    "sin": ("K*=0", 1.0, 0, 0),
    "erf": ("K*=0", 0.88622692545275801, 0, 0),
    "softsign": ("K*=0", 1.0, 0, 0),
    "elu": ("K*=0", 1.0, 0, 0),
    "selu": ("K*=0", 0.69048607363418482, 0, 0),
    "hard_tanh": ("K*=0", 1.0, 0, 0),
    "relu6": ("K*=0", 1.414213562373095, 0, 0),
    "gelu": ("half-stable", 1.4082110131076, 0.415839380958643, (3 + math.sqrt(17)) / 2),
    "gelu_tanh": ("half-stable", 1.40815064528661, 0.415806683765203, 3.55677284471511),
    "silu": ("half-stable", 1.40996619756273, 0.745079304988087, 14.3201736180258),
    "sigmoid": ("none", 10.14926371001953, 0, 45.62427779737971),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_critical_initializations_have_the_reference_values(name):
    kind, sigma_w, sigma_b, q = REFERENCE[name]
    critical = critical_init(name)
    assert critical.kind == kind
    assert critical.init is not None
    assert critical.init.sigma_w == pytest.approx(sigma_w, rel=1e-13)
    assert critical.init.sigma_b == pytest.approx(sigma_b, rel=2e-13)
    if q is not None:
        assert critical.q == pytest.approx(q, rel=2e-13)


# Half a unit of the last digit that is printed.
@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (lambda: critical_init("gelu").init.sigma_w ** 2, "1.9830582574"),
        (lambda: critical_init("gelu").init.sigma_b ** 2, "0.1729223908"),
        (lambda: critical_init("gelu").q, f"{(3 + math.sqrt(17)) / 2:.12f}"),
        (lambda: critical_init("silu").init.sigma_w ** 2, "1.98800467827"),
        (lambda: critical_init("silu").init.sigma_b ** 2, "0.55514317072"),
        (lambda: critical_init("silu").q, "14.3201736180"),
        (lambda: critical_init("sigmoid").init.sigma_w, "10.14926371"),
        (lambda: critical_init("sigmoid").q, "45.624278"),
        (lambda: edge_of_chaos("tanh", sigma_b=0.2).init.sigma_w, "1.304145840057"),
        (lambda: edge_of_chaos("elu", sigma_b=0.2).init.sigma_w, "1.229251124137"),
        (lambda: edge_of_chaos("tanh", sigma_w=1.05**0.5).init.sigma_b ** 2 * 1e5, "2.0105213"),
        (lambda: fixed_point("tanh", Init(2.5, 0.3)).q, "4.079123875"),
        (lambda: fixed_point("tanh", Init(2.5, 0.3)).c, "0.1221037473"),
        (lambda: fixed_point("tanh", Init(2.5, 0.3)).xi_c, "5.1089"),
    ],
)
def test_the_printed_numbers_are_found(value, printed):
    half_a_unit = 0.5 * 10.0 ** -len(printed.partition(".")[2])
    assert value() == pytest.approx(float(printed), rel=1e-15, abs=half_a_unit)


def test_a_bias_of_silu_ten_times_too_small_is_far_from_the_edge():
    # 0.0555 has been copied for sigma_b^2 = 0.555
    init = Init(critical_init("silu").init.sigma_w, 0.0555**0.5)
    assert fixed_point("silu", init).chi_perp == pytest.approx(0.55, abs=0.005)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "gelu",
            "lengths above it fall to it, slower than exponentially, and lengths below it leave it for the stable",
        ),
        (
            "silu",
            "lengths below it rise to it, slower than exponentially, and lengths above it leave it for the stable",
        ),
        ("mish", "lengths below it rise to it, slower than exponentially, and lengths above it diverge"),
        ("hard_swish", "and lengths above it leave it for the stable length 11.03"),
    ],
)
def test_half_stable_says_on_which_side(name, words):
    critical = critical_init(name)
    assert words in critical.reason
    found = fixed_points(name, critical.init)
    touching = next(point for point in found if point.stability == "half-stable")
    assert (touching.basin[0] < touching.q) == ("rise to it" in critical.reason)
    assert (touching.basin[1] > touching.q) == ("fall to it" in critical.reason)
    for point in found:
        assert point.stability == "half-stable" or f"the stable length {point.q:.6g}" in critical.reason
    left = fixed_point(name, critical.init, q0=critical.q * (1.01 if "rise to it" in words else 0.99))
    assert (left.phase == "diverging") == ("diverge" in words)


def test_what_is_linear_next_to_zero_says_so():
    assert "relu6 is linear next to 0" in critical_init("relu6").reason
    assert "linear" not in critical_init("tanh").reason


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_a_critical_initialization_is_one(name):
    critical = critical_init(name)
    assert "\n" not in critical.reason
    if critical.init is None:
        assert critical.kind == "none"
        assert math.isnan(critical.q)
        return
    assert chi_perp(name, critical.init, critical.q) == pytest.approx(1, abs=1e-12)
    assert length_map(name, critical.init, critical.q) == pytest.approx(critical.q, rel=1e-12)
    slope = chi_par(name, critical.init, critical.q)
    if critical.kind == "none":  # a substitute: its length is stable
        assert abs(slope) < 1
        assert f"{critical.init.sigma_w:.10g}" in critical.reason
    else:
        assert slope == pytest.approx(1, abs=1e-12)
    if critical.kind == "half-stable":
        assert critical.init.sigma_b > 0
        # The length map touches the diagonal at q and does not cross it: half-stable.
        apart = [length_map(name, critical.init, f * critical.q) - f * critical.q for f in (0.999, 1.001)]
        assert apart[0] * apart[1] > 0
    if critical.kind == "K*=0":
        # relu6 is exactly relu until q is about 1.
        assert length_map(name, critical.init, 2.0) < 2.0


def test_the_substitute_for_sigmoid_is_where_chi_perp_is_one_at_a_stable_length():
    critical = critical_init("sigmoid")
    assert critical.kind == "none"
    assert critical.init is not None
    assert chi_par("sigmoid", critical.init, critical.q) == pytest.approx(0.060250434810026, rel=1e-11)
    assert "0.0602504" in critical.reason


@pytest.mark.parametrize("name", ["softplus", "squareplus", "log_sigmoid", "sparse_plus"])
def test_softplus_and_its_kin_have_none_and_say_why(name):
    critical = critical_init(name)
    assert (critical.kind, critical.init) == ("none", None)
    assert "negative for every q" in critical.reason


def test_a_jump_has_infinite_chi_and_says_so():
    for phi in ("step", "sign", lambda x: jnp.round(x)):
        critical = critical_init(phi)
        assert (critical.kind, critical.init) == ("none", None)
        assert "chi_perp is infinite" in critical.reason


def test_mish_and_hard_swish_are_half_stable_and_telu_is_not():
    assert {critical_init(n).kind for n in ("mish", "hard_swish", "quick_gelu", "lisht")} == {"half-stable"}
    assert "every small length grows from there" in critical_init("telu").reason


def test_a_callable_is_classified_as_the_name_it_copies():
    relu = critical_init(lambda x: jnp.where(x > 0, 2 * x, 0.5 * x))
    assert relu.kind == "scale-invariant"
    assert relu.init is not None
    assert relu.init.sigma_w == pytest.approx(math.sqrt(2 / 4.25), rel=1e-14)
    swish = critical_init(lambda x: x / (1 + jnp.exp(-x)))
    assert swish.q == pytest.approx(14.3201736180258, rel=1e-12)


def test_a_length_that_grows_from_zero_is_no_zero_class():
    cubic = critical_init(lambda x: x + x**3)
    assert cubic.kind == "none"


def test_what_has_no_expectation_has_no_critical_point():
    critical = critical_init(lambda x: jnp.exp(x * x))
    assert critical.kind == "none"
    assert "not finite" in critical.reason


def test_input_scale_divides_sigma_w_and_multiplies_nothing_else():
    scaled, plain = critical_init("gelu(2x)"), critical_init("gelu")
    assert scaled.init is not None
    assert plain.init is not None
    # gelu(2x)/1 at q: 4 q is the length that gelu sees, and gelu itself is not divided.
    assert 4 * scaled.q == pytest.approx(plain.q, rel=1e-12)
    assert 2 * scaled.init.sigma_w == pytest.approx(plain.init.sigma_w, rel=1e-12)
    assert 2 * scaled.init.sigma_b == pytest.approx(plain.init.sigma_b, rel=1e-12)


@pytest.mark.parametrize(
    ("function", "zero"),
    [
        (lambda x: x**3 - 2, 2 ** (1 / 3)),
        (lambda x: math.inf if x > 1 else x - 0.5, 0.5),
        (lambda x: math.atan(1e6 * (x - 1 / 3)), 1 / 3),
    ],
)
def test_roots_are_found_to_the_last_digits(function, zero):
    assert root(function, 0.0, 2.0) == pytest.approx(zero, rel=1e-15)


def test_a_root_without_a_sign_change_is_refused():
    with pytest.raises(ValueError, match="no sign change"):
        root(lambda x: x * x + 1, -1.0, 1.0)
