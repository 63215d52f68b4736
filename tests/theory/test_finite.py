import jax.numpy as jnp
import pytest

from jaxgain.theory.critical import critical_init
from jaxgain.theory.fixed_points import fixed_point
from jaxgain.theory.meanfield import Init, chi_perp, correlation_map, length_map

INIT = Init(1.0, 0.1)
NOT_FINITE = {
    "1/x": (lambda x: 1 / x, "must be finite on the real line, but phi(0) is inf"),
    "log": (jnp.log, "must be finite on the real line, but phi("),
    "tan": (jnp.tan, "E phi^2 of tan does not converge"),
    "exp(x²)": (lambda x: jnp.exp(x * x), "not finite"),
}
CALLS = {
    "length_map": lambda phi: length_map(phi, INIT, 1.0),
    "chi_perp": lambda phi: chi_perp(phi, INIT, 1.0),
    "correlation_map": lambda phi: correlation_map(phi, INIT, 0.5, 1.0),
    "fixed_point": lambda phi: fixed_point(phi, INIT),
}


@pytest.mark.parametrize("name", NOT_FINITE)
@pytest.mark.parametrize("call", CALLS)
def test_what_has_no_finite_expectation_is_refused_in_one_sentence(call, name):
    phi, sentence = NOT_FINITE[name]
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (the sentence is compared below)
        CALLS[call](phi)
    assert sentence in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("name", NOT_FINITE)
def test_what_has_no_finite_expectation_has_no_critical_initialization_and_no_substitute(name):
    phi, sentence = NOT_FINITE[name]
    critical = critical_init(phi)
    assert (critical.init, critical.kind) == (None, "none") and sentence in critical.reason


def test_an_expectation_that_is_finite_at_small_lengths_is_known_there():
    # E exp(2 q z²) = 1/√(1 - 4 q)
    assert length_map(lambda x: jnp.exp(x * x), Init(1.0), 0.01) == pytest.approx(0.96**-0.5, rel=1e-10)


def test_a_slope_whose_square_has_no_expectation_is_refused():
    with pytest.raises(ValueError, match=r"E phi'\^2 of .* does not converge"):
        fixed_point(lambda x: jnp.sign(x) * jnp.sqrt(jnp.abs(x)), INIT)


@pytest.mark.parametrize("scales", [(1e200, 0.0), (1.0, 1e160)])
def test_scales_beyond_float32_are_refused(scales):
    with pytest.raises(ValueError, match=r"must be at most 3.4e38, the largest number of float32, got"):
        Init(*scales)


@pytest.mark.parametrize("sigma_w", [1e8, 1e20, 1e38])
def test_enormous_weights_keep_a_bounded_length_and_let_another_diverge(sigma_w):
    assert fixed_point("tanh", Init(sigma_w)).q == pytest.approx(sigma_w**2, rel=1e-7)
    assert fixed_point("tanh", Init(1.0, sigma_w)).q == pytest.approx(sigma_w**2, rel=1e-7)
    assert fixed_point("relu", Init(sigma_w)).phase == "diverging"
