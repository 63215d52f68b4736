"""The maps of one layer: closed forms, reference fixed points, tracing, and `Init`."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgain as jg
from jaxgain.theory.chain import chain, sample_chain
from jaxgain.theory.meanfield import (
    Init,
    chi_par,
    chi_perp,
    correlation_map,
    decorrelation_map,
    length_map,
)


# tanh at sigma_w^2, sigma_b^2 = 0.09 (Poole et al., 2016, figure 1): q*, chi_perp, chi_par; 15 digits.
@pytest.mark.parametrize(
    ("sigma_w2", "q", "perp", "par"),
    [
        (1.69, 0.607046791909323, 0.939807428682154, 0.473515869865108),
        (6.25, 4.07912387528225, 1.58522476500603, 0.233922045582591),
        (16.0, 12.6041494978443, 2.36726103554588, 0.130082102326235),
    ],
)
def test_tanh_has_the_reference_fixed_points(sigma_w2, q, perp, par):
    init = Init(math.sqrt(sigma_w2), 0.3)
    assert length_map("tanh", init, q) == pytest.approx(q, rel=1e-13)
    assert chi_perp("tanh", init, q) == pytest.approx(perp, rel=1e-13)
    assert chi_par("tanh", init, q) == pytest.approx(par, rel=1e-13)


# tanh at sigma_b = 0.3: c* and the slope of the correlation map there, from Hermite series.
@pytest.mark.parametrize(
    ("sigma_w", "q", "c", "slope"),
    [
        (2.5, 4.07912387528225, 0.1221037473056, 0.8222291727236),
        (4.0, 12.6041494978443, 0.02969592158034, 0.7597436050122),
    ],
)
def test_tanh_has_the_reference_fixed_correlation(sigma_w, q, c, slope):
    init = Init(sigma_w, 0.3)
    assert correlation_map("tanh", init, c, q) == pytest.approx(c, rel=1e-11)
    h = 1e-4
    difference = (correlation_map("tanh", init, c + h, q) - correlation_map("tanh", init, c - h, q)) / (2 * h)
    assert difference == pytest.approx(slope, rel=1e-6)


def test_erf_has_its_closed_forms():
    init, q, c = Init(1.3, 0.2), 2.0, 0.4
    length = 1.69 * 2 / math.pi * math.asin(2 * q / (1 + 2 * q)) + 0.04
    assert length_map("erf", init, q) == pytest.approx(length, rel=1e-14)
    assert chi_perp("erf", init, q) == pytest.approx(1.69 * 4 / math.pi / math.sqrt(1 + 4 * q), rel=1e-14)
    mapped = (1.69 * 2 / math.pi * math.asin(2 * q * c / (1 + 2 * q)) + 0.04) / length
    assert correlation_map("erf", init, c, q) == pytest.approx(mapped, rel=1e-13)


@pytest.mark.parametrize("c", [-1.0, -0.3, 0.0, 0.7, 1.0])
def test_relu_has_the_arc_cosine_map(c):
    mapped = (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / math.pi
    assert correlation_map("relu", Init(2**0.5), c, 3.0) == pytest.approx(mapped, abs=1e-14)


def test_the_correlation_one_stays_one_and_is_left_at_chi_perp():
    init, q = Init(1.5, 0.1), 0.8
    assert correlation_map("gelu", init, 1.0, q) == 1.0
    slope = chi_perp("gelu", init, q) * q / length_map("gelu", init, q)
    assert decorrelation_map("gelu", init, 1e-9, q) / 1e-9 == pytest.approx(slope, rel=1e-8)


@pytest.mark.parametrize("phi", ["tanh", "selu", "hard_tanh", "softplus", "gelu", "relu6"])
@pytest.mark.parametrize("q", [0.01, 1.0, 50.0])
def test_chi_par_is_the_derivative_of_the_length_map(phi, q):
    init, h = Init(1.2, 0.3), 1e-4
    difference = (length_map(phi, init, q * (1 + h)) - length_map(phi, init, q * (1 - h))) / (2 * h * q)
    assert chi_par(phi, init, q) == pytest.approx(difference, rel=1e-6)


def test_chi_of_a_jump_is_infinite_unless_there_are_no_weights():
    assert chi_perp("step", Init(1e-3), 1.0) == math.inf
    assert chi_perp("step", Init(0.0), 1.0) == 0.0
    assert chi_par("sign", Init(1.0), 2.0) == pytest.approx(0, abs=1e-15)


def test_length_zero_is_the_limit():
    init = Init(2.0, 0.5)
    assert length_map("softplus", init, 0.0) == pytest.approx(4 * math.log(2) ** 2 + 0.25, rel=1e-15)
    assert chi_perp("selu", init, 0) == pytest.approx(chi_perp("selu", init, 1e-18), rel=1e-8)
    assert chi_par("relu", init, 0.0) == pytest.approx(2.0)


def test_arrays_broadcast_and_come_back_in_float64():
    got = length_map("tanh", Init(np.array([[1.0], [2.0]]), 0.1), [0.5, 1.0, 2.0])
    assert got.shape == (2, 3)
    assert got.dtype == np.float64
    assert got[1, 2] == length_map("tanh", Init(2.0, 0.1), 2.0)
    assert type(length_map("tanh", Init(2.0), 2.0)) is float


def test_maps_trace_and_batch_over_everything():
    def maps(sigma_w, sigma_b, q):
        init = Init(sigma_w, sigma_b)
        return jnp.stack([length_map("relu6", init, q), chi_perp("relu6", init, q), chi_par("relu6", init, q)])

    with jax.enable_x64(True):
        sigma_w, q = jnp.asarray([1.0, 2.0]), jnp.asarray([0.3, 7.0])
        got = jax.jit(jax.vmap(maps, in_axes=(0, None, 0)))(sigma_w, 0.1, q)
    for row, w, length in zip(got, (1.0, 2.0), (0.3, 7.0), strict=True):
        init = Init(w, 0.1)
        expected = [f("relu6", init, length) for f in (length_map, chi_perp, chi_par)]
        np.testing.assert_allclose(row, expected, rtol=1e-13)


def test_a_traced_correlation_map_is_the_same_and_broadcasts():
    with jax.enable_x64(True):
        got = jax.jit(lambda c: correlation_map("relu", Init(1.3, 0.2), c, 1.5))(jnp.asarray([-0.5, 0.0, 1.0]))
    np.testing.assert_allclose(
        got, correlation_map("relu", Init(1.3, 0.2), np.array([-0.5, 0.0, 1.0]), 1.5), rtol=1e-13
    )


def test_a_traced_map_keeps_float32_and_an_untraced_one_is_exact_inside_jit():
    @jax.jit
    def both(q):
        return length_map("tanh", Init(1.5), q), q * chi_perp("tanh", Init(1.5), 0.7)

    traced, constant = both(jnp.float32(0.7))
    assert traced.dtype == constant.dtype == jnp.float32
    assert float(traced) == pytest.approx(length_map("tanh", Init(1.5), 0.7), rel=1e-5)
    assert float(constant) == pytest.approx(0.7 * chi_perp("tanh", Init(1.5), 0.7), rel=1e-6)


@pytest.mark.parametrize("q", [-1.0, math.nan, math.inf])
def test_a_length_that_is_negative_or_not_finite_is_refused(q):
    with pytest.raises(ValueError, match="the length q must be"):
        length_map("tanh", Init(1.0), q)


def test_a_correlation_beyond_one_is_refused():
    with pytest.raises(ValueError, match="correlation"):
        correlation_map("tanh", Init(1.0), 1.5, 1.0)


def test_no_next_length_has_no_correlation():
    assert math.isnan(correlation_map("tanh", Init(0.0), 0.5, 1.0))


# --- Init ---


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, np.array([1.0, -2.0])])
@pytest.mark.parametrize("field", ["sigma_w", "sigma_b"])
def test_a_scale_that_is_negative_or_not_finite_is_refused(field, value):
    with pytest.raises(ValueError, match=rf"\A{field} must be finite and not negative"):
        Init(**({"sigma_w": 1.0} | {field: value}))


def test_a_scale_that_is_no_number_is_a_type_error():
    with pytest.raises(TypeError, match="sigma_w must be a number"):
        Init("two")


def test_init_is_frozen_and_equal_by_value():
    assert Init(1.0) == Init(1.0, 0.0)
    assert hash(Init(1.0)) == hash(Init(1.0, 0.0))
    with pytest.raises(AttributeError):
        Init(1.0).sigma_w = 2.0  # type: ignore


def test_init_is_a_pytree_that_never_judges_what_jax_puts_in_it():
    leaves, tree = jax.tree.flatten(Init(1.0, 2.0))
    assert leaves == [1.0, 2.0]
    assert jax.tree.unflatten(tree, [None, object()]).sigma_w is None
    assert math.isnan(float(jax.jit(lambda init: Init(init.sigma_w * jnp.nan))(Init(1.0)).sigma_w))
    batched = jax.vmap(lambda init: init.sigma_w + init.sigma_b)(Init(jnp.arange(3.0), jnp.ones(3)))
    assert batched.tolist() == [1.0, 2.0, 3.0]
    assert jax.tree_util.keystr(jax.tree_util.tree_flatten_with_path(Init(1.0))[0][0][0]) == ".sigma_w"


# --- an initialization that is none ---


@pytest.mark.parametrize(
    ("init", "advice"),
    [(1.5, r"got 1.5; write Init\(1.5\)"), ("he", r"got 'he'; write Init\(sigma_w, sigma_b\)")],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda init: jg.length_map("tanh", init, 1.0),
        lambda init: jg.chi_perp("tanh", init, 1.0),
        lambda init: jg.chi_par("tanh", init, 1.0),
        lambda init: jg.correlation_map("tanh", init, 0.5, 1.0),
        lambda init: decorrelation_map("tanh", init, 0.5, 1.0),
        lambda init: jg.fixed_point("tanh", init),
        lambda init: jg.fixed_points("tanh", init),
        lambda init: jg.dropout_fixed_point("tanh", init, dropout=0.1),
        lambda init: jg.mean_field("tanh", init, depth=2),
        lambda init: jg.nngp("tanh", init, depth=2, correlation=0.5),
        lambda init: jg.ntk("tanh", init, depth=2, correlation=0.5),
        lambda init: jg.jacobian_spectrum("tanh", init, depth=2),
        lambda init: jg.fluctuations("tanh", init, width=100, depth=2),
        lambda init: jg.vanishing_probability("tanh", init, width=100, depth=2, below=0.5),
        lambda init: jg.exploding_probability("tanh", init, width=100, depth=2, above=0.5),
        lambda init: jg.portrait("tanh", init),
        lambda init: chain(jax.random.key(0), "tanh", init, depth=2),
        lambda init: sample_chain(jax.random.key(0), "tanh", init, depth=2),
        lambda init: jg.chain_probabilities(jax.random.key(0), "tanh", init, scales=[1.0], depth=2, below=0.1, above=2),
    ],
)
def test_what_is_no_init_is_refused_in_one_sentence(call, init, advice):
    with pytest.raises(TypeError, match=f"^init must be an Init, {advice}$"):
        call(init)
