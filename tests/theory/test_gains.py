"""Gains against reference values, closed forms and the criteria they are named after."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgain.activations import ACTIVATIONS
from jaxgain.theory.gains import (
    KINDS,
    BiasNeeded,
    NoSuchGain,
    gain,
    gain_estimate,
    gain_table,
    named_gains,
    stability,
)
from jaxgain.theory.quadrature import moments

NAMES = sorted(ACTIVATIONS)

# forward, centred, backward, chi_perp and chi_par at the forward gain, at q = 1: mpmath at 30 digits,
# tanh-sinh split at the kinks, cross-checked by float64 Gauss-Legendre and trapezoidal rules.
REFERENCE = {
    "identity": (1.0, 1.0, 1.0, 1.0, 1.0),
    "relu": (1.414213562373095, 1.7128585504496627, 1.414213562373095, 1.0, 1.0),
    "leaky_relu": (1.4141428569978353, 1.7048316271773367, 1.4141428569978353, 1.0, 1.0),
    "leaky_relu(0.2)": (1.3867504905630728, 1.5464600603608725, 1.3867504905630728, 1.0, 1.0),
    "abs": (1.0, 1.6588967399703059, 1.0, 1.0, 1.0),
    "relu6": (
        1.4142135650950737,
        1.7128585549723953,
        1.4142135637683407,
        1.0000000018762838,
        0.99999992896568928,
    ),
    "hard_tanh": (
        1.3920361404483098,
        1.3920361404483098,
        1.2102870624325223,
        1.3228915417927743,
        0.38512692547854795,
    ),
    "elu": (
        1.2451983007007066,
        1.2708434178501965,
        1.2234285575526209,
        1.0359047186043473,
        0.8909679718555756,
    ),
    "selu": (1.0, 1.0, 0.96602577697390117, 1.0715749924557993, 0.78264788319681285),
    "gelu": (
        1.5335304411955352,
        1.7009262433633331,
        1.4811144127083482,
        1.0720315984362919,
        1.1440631968725838,
    ),
    "gelu_tanh": (
        1.5335805216661469,
        1.7009165616954504,
        1.4811680580933506,
        1.0720239602214323,
        1.1442982661554711,
    ),
    "silu": (
        1.6765324703310912,
        1.787187222100442,
        1.6233202579524973,
        1.066634241241915,
        1.1725940540987493,
    ),
    "tanh": (
        1.5925374197228314,
        1.5925374197228314,
        1.4674135916307951,
        1.1778072323041796,
        0.46107083047763136,
    ),
    "sigmoid": (
        1.8462285453386054,
        4.8013133720399622,
        4.7226460859379743,
        0.15282701171559375,
        0.1063410747410055,
    ),
    "softplus": (
        1.0418668355353017,
        1.9191259801076564,
        1.8462285453386054,
        0.31845898368369314,
        0.49205317290463198,
    ),
    "softsign": (
        2.3375333631085397,
        2.3375333631085397,
        2.095780608943311,
        1.2440103706075867,
        0.47671156044241284,
    ),
    "sin": (
        1.5208666231788149,
        1.5208666231788149,
        1.3272506002845751,
        1.3130352854993313,
        0.3130352854993313,
    ),
    "erf": (
        1.4671669504891386,
        1.4671669504891386,
        1.3252183528612112,
        1.2257000037856907,
        0.40856666792856357,
    ),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_gains_have_the_reference_values_within_1e_12(name):
    forward, centred, backward, chi_perp, chi_par = REFERENCE[name]
    assert gain(name) == pytest.approx(forward, rel=1e-12)
    assert gain(name, "centred") == pytest.approx(centred, rel=1e-12)
    assert gain(name, "backward") == pytest.approx(backward, rel=1e-12)
    assert gain(name, "balanced") == pytest.approx(math.sqrt(forward * backward), rel=1e-12)
    assert stability(name)[:2] == pytest.approx((chi_perp, chi_par), rel=1e-12)


def test_relu_gain_is_sqrt_two_at_every_length():
    for q in (1e-6, 1.0, 1e4):
        assert gain("relu", q=q) * math.sqrt(q) == pytest.approx(math.sqrt(2), rel=1e-14)
        assert gain("relu", "backward", q=q) == pytest.approx(math.sqrt(2), rel=1e-14)


def test_the_forward_gain_times_sqrt_q_preserves_the_length_q():
    for q in (0.01, 3.0, 200.0):
        sigma_w = math.sqrt(q) * gain("silu", q=q)
        assert sigma_w**2 * moments("silu", q).second.value == pytest.approx(q, rel=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_the_self_consistent_gain_keeps_the_mean_square_at_one(name):
    try:
        sigma, error = gain_estimate(name, "self_consistent")
    except NoSuchGain:
        values = [moments(name, 4.0**k).second.value for k in range(-8, 9)]
        assert max(values) <= 1 + 1e-12 or min(values) >= 1 - 1e-12
        return
    assert moments(name, sigma**2).second.value == pytest.approx(1, abs=1e-13)
    assert error < 1e-12


def test_self_consistent_gains_have_their_closed_forms():
    assert gain("selu", "self_consistent") == pytest.approx(1, rel=1e-14)
    assert gain("relu_squared", "self_consistent") == pytest.approx(1.5**-0.25, rel=1e-14)  # 3/2 sigma^4 = 1
    # erf with 2 times its value: 8/pi asin(2 s/(1 + 2 s)) = 1
    r = math.sin(math.pi / 8)
    assert gain(lambda x: 2 * jax.lax.erf(x), "self_consistent") == pytest.approx(math.sqrt(r / (2 - 2 * r)), rel=1e-13)


def test_the_smallest_self_consistent_gain_is_taken():
    # E phi^2 rises through 1, to its largest at sigma near 1, and falls through 1 again.
    def bump(x):
        return 4 * x * jnp.exp(-x * x)

    sigma = gain(bump, "self_consistent")
    assert moments(bump, sigma**2).second.value == pytest.approx(1, abs=1e-13)
    assert moments(bump, sigma**2).length_slope.value > 0


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("tanh", "self_consistent", "below 1 for every sigma"),
        ("sigmoid", "self_consistent", "below 1 for every sigma"),
        ("softsign", "self_consistent", "below 1 for every sigma"),
        ("squareplus", "self_consistent", "above 1 for every sigma"),
        ("sign", "self_consistent", "is 1 for every sigma"),
        ("step", "backward", "jumps"),
        ("sign", "balanced", "jumps"),
        ("step", "critical", "chi_perp is infinite"),
        ("softplus", "critical", "negative for every q"),
        ("sigmoid", "critical", "sigma_w = 10.14926371"),
        ("relu", "kumar", "not differentiable at 0"),
        ("step", "kumar", "not differentiable at 0"),
        ("cos", "kumar", "phi'(0) of cos is 0"),
        ("gelu", "torch", "no value for gelu"),
        ("tanh(2x)", "torch", "no value for tanh(2x)"),
    ],
)
def test_a_gain_that_does_not_exist_is_its_reason_and_no_number(name, kind, says):
    with pytest.raises(NoSuchGain, match=r"\A[^\n]+\Z") as error:
        gain(name, kind)
    assert says in str(error.value)
    assert kind not in named_gains(name)


def test_a_zero_activation_has_no_gain():
    for kind in KINDS:
        with pytest.raises(NoSuchGain):
            gain(lambda x: 0 * x, kind)


def test_an_infinite_slope_is_not_a_number():
    with pytest.raises(NoSuchGain, match="does not converge"):
        gain(lambda x: jnp.sqrt(jnp.abs(x)), "backward")


def test_an_expectation_that_is_not_finite_is_no_gain():
    with pytest.raises(NoSuchGain, match="not finite"):
        gain(lambda x: jnp.exp(x * x))


def test_kumar_gains():
    assert gain("tanh", "kumar") == pytest.approx(1)
    assert gain("sigmoid", "kumar") == pytest.approx(3.577708763999664, rel=1e-14)  # 8/sqrt 5
    assert gain("tanh(2x)", "kumar") == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("linear", 1), ("conv1d", 1), ("conv_transpose3d", 1), ("sigmoid", 1), ("tanh", 5 / 3),
     ("relu", math.sqrt(2)),
     ("leaky_relu", math.sqrt(2 / (1 + 0.01**2))), ("leaky_relu(0.2)", math.sqrt(2 / 1.04)), ("selu", 3 / 4)],
)  # fmt: skip
def test_torch_gains_are_those_of_calculate_gain(name, value):
    assert gain(name, "torch") == value


def test_a_critical_gain_with_a_bias_warns_and_says_the_bias():
    with pytest.warns(BiasNeeded, match=r"sigma_b = 0\.41583938"):
        assert gain("gelu", "critical") == pytest.approx(1.4082110131076, rel=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gain("relu", "critical") == pytest.approx(math.sqrt(2), rel=1e-15)
        assert gain_estimate("gelu", "critical").value == pytest.approx(1.4082110131076, rel=1e-12)
        assert named_gains("gelu")["critical"] == pytest.approx(1.4082110131076, rel=1e-12)


def test_input_scale_divides_the_scale_free_gains():
    assert gain("relu(2x)") == pytest.approx(math.sqrt(2) / 2, rel=1e-14)
    assert gain("tanh(2x)") == pytest.approx(1 / math.sqrt(moments("tanh", 4.0).second.value), rel=1e-13)


def test_a_callable_has_the_gains_of_the_name_it_copies():
    own = named_gains(lambda x: jnp.maximum(x, 0) + jnp.minimum(0, jnp.expm1(jnp.minimum(x, 0))))
    for kind, value in named_gains("elu").items():
        assert own[kind] == pytest.approx(value, rel=1e-13)


@pytest.mark.parametrize("kind", ["forwards", "xavier", "", None])
def test_an_unknown_kind_is_one_line_that_names_the_kinds(kind):
    with pytest.raises(ValueError, match=r"\Aunknown kind of gain [^\n]*self_consistent[^\n]*\Z"):
        gain("tanh", kind)
    with pytest.raises(ValueError, match="did you mean forward"):
        gain("tanh", "forwards")


@pytest.mark.parametrize("q", [0, -1, math.nan, math.inf])
def test_a_length_that_is_not_positive_is_refused(q):
    for function in (gain, named_gains, stability):
        with pytest.raises(ValueError, match="must be positive and finite"):
            function("tanh", q=q)
    with pytest.raises(ValueError, match="must be positive and finite"):
        gain_table(["tanh"], q=q)


def test_gains_are_python_floats_and_can_be_used_under_jit():
    assert type(gain("tanh")) is float
    scaled = jax.jit(lambda x: x * gain("asinh") * gain(lambda x: jnp.tanh(x) * x))
    assert float(scaled(1.0)) == pytest.approx(1.2567350 * 1.1486739, rel=1e-5)


# --- the table ---


@pytest.fixture(scope="module")
def table():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return gain_table()


def test_the_table_has_every_activation_and_kind(table):
    assert table.activation.values.tolist() == list(ACTIVATIONS)
    assert table.kind.values.tolist() == list(KINDS)
    assert dict(table.sizes) == {"activation": len(ACTIVATIONS), "kind": len(KINDS)}


def test_every_cell_is_a_gain_with_a_small_error_or_a_reason(table):
    exists = np.isfinite(table.gain.values)
    assert ((table.reason.values == "") == exists).all()
    assert (np.isnan(table.error.values) == ~exists).all()
    assert (table.error.values[exists] <= 1e-13 * table.gain.values[exists]).all()


def test_the_table_holds_the_same_numbers_as_gain(table):
    for name in ("tanh", "gelu", "relu_squared"):
        row = table.gain.sel(activation=name)
        assert {k: float(row.sel(kind=k)) for k in KINDS if np.isfinite(row.sel(kind=k))} == named_gains(name)


@pytest.mark.parametrize(
    "name", ["gelu", "gelu_tanh", "silu", "mish", "hard_silu", "quick_gelu", "lisht", "relu_squared"]
)
def test_the_preserved_length_is_unstable(table, name):
    assert table.stability.sel(activation=name).item() == "unstable"


def test_the_preserved_length_is_neutral_where_every_length_is(table):
    assert [name for name in NAMES if table.stability.sel(activation=name) == "neutral"] == [
        "abs", "identity", "leaky_relu", "prelu", "relu",
    ]  # fmt: skip
    assert set(table.stability.values) == {"stable", "neutral", "unstable"}


def test_the_bias_of_the_table_is_that_of_the_critical_initialization(table):
    assert table.sigma_b.sel(activation="gelu").item() == pytest.approx(0.415839380958643, rel=1e-12)
    assert table.sigma_b.sel(activation="tanh").item() == 0
    assert np.isnan(table.sigma_b.sel(activation="softplus").item())


def test_every_variable_says_what_it_is(table):
    for variable in table.data_vars.values():
        assert set(variable.attrs) >= {"long_name", "units", "description"}


def test_a_callable_that_has_no_length_is_a_row_of_reasons():
    table = gain_table([lambda x: jnp.exp(x * x), "tanh"])
    assert table.stability.values.tolist() == ["undefined", "stable"]
    assert "not finite" in table.reason.sel(kind="forward").values[0]


def test_a_table_of_nothing_is_empty():
    assert gain_table([]).sizes["activation"] == 0
