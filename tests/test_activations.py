"""The formulas against mpmath, written a second time from their definitions; names; users' callables."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy import special

from jaxgain.activations import ACTIVATIONS, ALIASES, Activation, activation, slope, value_and_slope

NAMES = sorted(ACTIVATIONS)


def clip(x, a, b):
    return min(max(x, mp.mpf(a)), mp.mpf(b))


def sigma(x):
    return 1 / (1 + mp.exp(-x))


def elu(x, alpha: Any = 1):
    return x if x > 0 else alpha * mp.expm1(x)


FORMULAS = {
    "identity": lambda x: x,
    "relu": lambda x: max(x, mp.mpf(0)),
    "relu6": lambda x: clip(x, 0, 6),
    "leaky_relu": lambda x: x if x > 0 else x * mp.mpf(0.01),
    "prelu": lambda x: x if x > 0 else x / 4,
    "elu": elu,
    "celu": elu,
    "selu": lambda x: mp.mpf("1.0507009873554804934193349852946") * elu(x, mp.mpf("1.6732632423543772848170429916717")),
    "gelu": lambda x: x * mp.erfc(-x / mp.sqrt(2)) / 2,
    "gelu_tanh": lambda x: x / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3))),
    "quick_gelu": lambda x: x * sigma(mp.mpf("1.702") * x),
    "silu": lambda x: x * sigma(x),
    "mish": lambda x: x * mp.tanh(mp.log1p(mp.exp(x))),
    "telu": lambda x: x * mp.tanh(mp.exp(min(x, mp.mpf(50)))),
    "lisht": lambda x: x * mp.tanh(x),
    "tanh": mp.tanh,
    "lecun_tanh": lambda x: mp.mpf("1.7159") * mp.tanh(2 * x / 3),
    "sigmoid": sigma,
    "log_sigmoid": lambda x: -mp.log1p(mp.exp(-x)),
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "squareplus": lambda x: (x + mp.sqrt(x * x + 4)) / 2,
    "sparse_plus": lambda x: mp.mpf(0) if x <= -1 else x if x >= 1 else (x + 1) ** 2 / 4,
    "sparse_sigmoid": lambda x: clip((x + 1) / 2, 0, 1),
    "soft_sign": lambda x: x / (1 + abs(x)),
    "isru": lambda x: x / mp.sqrt(1 + x * x),
    "arctan": mp.atan,
    "asinh": mp.asinh,
    "erf": mp.erf,
    "hard_tanh": lambda x: clip(x, -1, 1),
    "hard_sigmoid": lambda x: clip(x / 6 + mp.mpf(1) / 2, 0, 1),
    "hard_silu": lambda x: x * clip(x / 6 + mp.mpf(1) / 2, 0, 1),
    "sin": mp.sin,
    "cos": mp.cos,
    "snake": lambda x: x + mp.sin(x) ** 2,
    "abs": abs,
    "relu_squared": lambda x: max(x, mp.mpf(0)) ** 2,
    "step": lambda x: mp.mpf(x > 0),
    "sign": mp.sign,
}
POINTS = [-1e4, -300.0, -41.5, -12.25, -5.5, -3.25, -2.75, -1.5, -0.75, -0.1, -1e-3, -1e-9]
POINTS += [-x for x in POINTS]


def test_every_shipped_activation_has_a_formula_here():
    assert sorted(FORMULAS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_values_and_slopes_are_those_of_the_definition(name):
    phi = FORMULAS[name]
    with mp.workdps(60):
        values = np.array([float(phi(mp.mpf(x))) for x in POINTS])
        h = mp.mpf(10) ** -20  # no point is that near to a kink
        slopes = np.array([float((phi(x + h) - phi(x - h)) / (2 * h)) for x in map(mp.mpf, POINTS)])
    with jax.enable_x64(True):
        got, got_slopes = value_and_slope(ACTIVATIONS[name], jnp.asarray(POINTS, jnp.float64))
    np.testing.assert_allclose(got, values, rtol=1e-14, atol=1e-14)
    # A slope that is a difference of terms as large as phi/x is known to the rounding of those.
    np.testing.assert_allclose(got_slopes, slopes, rtol=4e-12 if name in ("sin", "cos", "snake") else 1e-13, atol=1e-14)
    got = ACTIVATIONS[name](jnp.asarray(POINTS, jnp.float32))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, values, rtol=2e-5, atol=2e-3 if name in ("sin", "cos", "snake") else 2e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.float64, marks=pytest.mark.slow)])
def test_no_slope_is_nan_from_the_smallest_number_to_the_largest(name, dtype):
    with jax.enable_x64(dtype == jnp.float64):
        x = np.concatenate([[0.0, 1e-30, 1e-8], np.logspace(-3, 37, 81)])
        x = jnp.asarray(np.concatenate([x, -x]), dtype)
        value, forward = jax.jit(functools.partial(value_and_slope, ACTIVATIONS[name]))(x)
        reverse = jax.jit(jax.grad(lambda x: ACTIVATIONS[name](x).sum()))(x)
        finite = np.abs(x) < (1e18 if name == "relu_squared" else np.inf)
    assert np.isfinite(value[finite]).all()
    assert np.isfinite(forward).all()
    np.testing.assert_allclose(forward, reverse, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_the_dtype_of_the_input_is_kept(name, dtype):
    assert ACTIVATIONS[name](jnp.ones((2, 3), dtype)).dtype == dtype
    assert ACTIVATIONS[name](jnp.ones((2, 3), dtype)).shape == (2, 3)


def test_integers_are_evaluated_as_floats():
    assert activation("tanh")(jnp.arange(3)).dtype == jnp.float32


@pytest.mark.parametrize("name", [n for n in NAMES if n in dir(jax.nn)])
def test_names_of_jax_nn_mean_what_jax_nn_means(name):
    x = jnp.linspace(-9, 9, 37)
    its = functools.partial(jax.nn.gelu, approximate=False) if name == "gelu" else getattr(jax.nn, name)
    np.testing.assert_allclose(ACTIVATIONS[name](x), its(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("alias", "name"),
    [("swish", "silu"), ("softsign", "soft_sign"), ("hard_swish", "hard_silu"), ("linear", "identity"),
     ("ReLU", "relu"), ("Leaky-ReLU", "leaky_relu"), ("conv2d", "identity")],
)  # fmt: skip
def test_aliases_are_the_same_activation(alias, name):
    assert activation(alias) is activation(name) or activation(alias) == ACTIVATIONS[name]


def test_every_alias_resolves():
    assert {activation(alias).name for alias in ALIASES} <= set(NAMES)


def test_parameters_and_input_scale_come_by_call_syntax():
    x = jnp.linspace(-3, 3, 7)
    np.testing.assert_allclose(activation("leaky_relu(0.2, 2x)")(x), jax.nn.leaky_relu(2 * x, 0.2), rtol=1e-6)
    np.testing.assert_allclose(activation("elu(2)")(x), jax.nn.elu(x, 2.0), rtol=1e-6)
    np.testing.assert_allclose(activation("squareplus(1)")(x), jax.nn.squareplus(x, 1.0), rtol=1e-5)
    np.testing.assert_allclose(activation("tanh(2x/3)")(x), jnp.tanh(2 * x / 3), rtol=1e-6)


def test_kinks_move_with_the_input_scale():
    assert activation("relu6(2x)").kinks == (0.0, 3.0)
    assert activation("hard_tanh(-x/2)").kinks == (-2.0, 2.0)
    assert activation("step(3x)").jumps == (0.0,)


def test_activations_are_equal_by_value_and_hash_alike():
    a, b = activation("leaky_relu(0.2, 2x)"), activation("leaky_relu(1/5, 4x/2)")
    assert a == b
    assert hash(a) == hash(b)
    assert a != activation("leaky_relu(0.2)")
    assert activation("leaky_relu(0.01)") == activation("leaky_relu")
    assert activation("gelu") != activation("gelu_tanh")
    assert activation(activation(a).name) == a


@pytest.mark.parametrize("name", ["tanh(2x)", "tanh(0.6666666666666666x)", "elu(2)", "leaky_relu(0.2, 2x)", "relu(-x)"])
def test_the_name_finds_the_activation_again(name):
    assert activation(name).name == name
    assert repr(activation(name)) == f"Activation({name})"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gleu", "unknown activation 'gleu'; did you mean gelu"),
        ("sofsign", "softsign"),
        ("zzzzzz", "known: abs"),
        ("tanh(3)", "takes no parameter"),
        ("elu(1, 2)", "takes one parameter"),
        ("celu(0)", "must be positive"),
        ("relu(", "cannot read"),
        ("", "cannot read"),
    ],
)
def test_a_wrong_name_is_one_line_that_helps(text, says):
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as error:
        activation(text)
    assert says in str(error.value)


def if_positive(x):
    return x if x > 0 else 0 * x


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (3, "a name, an Activation or an elementwise"),
        (jnp.sum, "keep its input's shape"),
        (jax.nn.softmax, "elementwise"),
        (lambda x: x - jnp.mean(x), "elementwise"),
        (lambda x: x / jnp.max(jnp.abs(x)), "elementwise"),
        (jnp.cumsum, "elementwise|keep its input's shape"),
        (lambda x: x + jnp.arange(x.size, dtype=x.dtype).reshape(x.shape), "elementwise"),
        (lambda x: x > 0, "floating point"),
        (lambda x: (x > 0).astype(jnp.int32), "floating point"),
        (lambda x: (x, x), "keep its input's shape"),
        (lambda x, y: x, "could not be evaluated"),
        (if_positive, "where instead of if"),
        (np.tanh, "jax.numpy"),
    ],
)
def test_a_callable_that_is_no_activation_is_one_line_that_helps(function, says):
    with pytest.raises(TypeError, match=r"\A[^\n]+\Z") as error:
        activation(function)
    assert any(part in str(error.value) for part in says.split("|"))


def test_a_callable_that_needs_a_traced_value_is_refused_under_jit():
    @jax.jit
    def network(a):
        return activation(lambda x: jnp.tanh(a * x))(a)

    with pytest.raises(TypeError, match="could not be evaluated"):
        network(1.0)


def test_a_callable_is_checked_concretely_under_jit_and_vmap():
    @jax.jit
    def network(x):
        return activation(lambda x: jnp.tanh(x) * x)(x)

    np.testing.assert_allclose(jax.vmap(network)(jnp.ones(3)), np.tanh(1.0), rtol=1e-6)


def test_unhashable_callables_and_callable_objects_are_accepted():
    class Scaled:
        __hash__ = None  # type: ignore

        def __eq__(self, other):
            return True

        def __call__(self, x):
            return 2 * x

    assert float(activation(Scaled())(1.0)) == 2.0
    assert activation(functools.partial(jax.nn.leaky_relu, negative_slope=0.2)).name == "partial(leaky_relu)"


def test_functions_of_the_library_are_known():
    assert activation(jax.nn.relu) == ACTIVATIONS["relu"]
    assert activation(jax.nn.gelu) == ACTIVATIONS["gelu_tanh"]
    assert activation(jnp.tanh) == ACTIVATIONS["tanh"]
    assert isinstance(activation(jnp.sin), Activation)


def test_slope_of_a_step_is_zero_and_of_softsign_at_zero_is_one():
    assert slope(activation("step"), jnp.asarray([-1.0, 0.0, 1.0])).tolist() == [0.0, 0.0, 0.0]
    assert slope(activation("softsign"), jnp.asarray([0.0])).tolist() == [1.0]
    assert slope(activation("squareplus"), jnp.asarray([0.0])).tolist() == [0.5]


def test_gelu_in_float32_keeps_its_tail_and_its_slope():
    z = np.float32(np.linspace(-11, 11, 20001)).astype(np.float64)
    value, slope = jax.jvp(activation("gelu"), (jnp.float32(z),), (jnp.ones(len(z), jnp.float32),))
    below, density = special.ndtr(z), np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    # z²/2 is rounded before its exponential is taken; the rest is a few units in the last place.
    tolerance = (z**2 / 2 + 8) * 2.0**-23
    assert (abs(np.float64(value) - z * below) <= tolerance * abs(z) * below).all()
    assert (abs(np.float64(slope) - (below + z * density)) <= tolerance * (below + abs(z) * density)).all()


def test_gelu_in_float32_has_its_limits_and_half_a_slope_at_zero():
    z = jnp.array([-1e30, 0.0, 1e30], jnp.float32)
    value, slope = jax.jvp(activation("gelu"), (z,), (jnp.ones_like(z),))
    assert value.tolist() == [0.0, 0.0, float(z[2])]
    assert slope.tolist() == pytest.approx([0.0, 0.5, 1.0], abs=2.0**-23)
