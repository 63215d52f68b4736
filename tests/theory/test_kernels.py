"""NNGP and NTK: arc-cosine closed forms, real networks' Jacobians, the conditioning of many inputs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgain.theory.kernels import nngp, ntk
from jaxgain.theory.meanfield import Init, correlation_map, length_map


def arc_cosine(c, q):
    """E φφ and E φ'φ' of ReLU (Cho and Saul, 2009)."""
    angle = np.arccos(np.clip(c, -1, 1))
    return q * (np.sin(angle) + (np.pi - angle) * c) / (2 * np.pi), (np.pi - angle) / (2 * np.pi)


def relu_kernels(c, w2, b2, depth, weights=None, biases=None, first=None):
    """NNGP and NTK at the last layer; `weights` multiplies E hh in the NTK's own term of a layer."""
    weights, biases = w2 if weights is None else weights, b2 if biases is None else biases
    diagonal, kernel = w2 + b2, w2 * c + b2
    tangent = (weights if first is None else first) * c + biases
    for _ in range(depth - 1):
        product, slopes = arc_cosine(kernel / diagonal, diagonal)
        kernel, diagonal = w2 * product + b2, w2 * diagonal / 2 + b2
        tangent = weights * product + biases + w2 * slopes * tangent
    return kernel, tangent


COSINES = np.array([-0.9, -0.3, 0.0, 0.5, 0.99, 1.0])


@pytest.mark.parametrize(("w2", "b2"), [(2.0, 0.0), (1.7, 0.2)])
def test_relu_has_the_arc_cosine_recursions(w2, b2):
    init = Init(w2**0.5, b2**0.5)
    kernel, tangent = relu_kernels(COSINES, w2, b2, 8)
    np.testing.assert_allclose(nngp("relu", init, depth=8, correlation=COSINES).kernel[-1], kernel, rtol=1e-12)
    np.testing.assert_allclose(ntk("relu", init, depth=8, correlation=COSINES).kernel[-1], tangent, rtol=1e-12)


@pytest.mark.parametrize("biases", [True, False])
def test_relu_has_the_arc_cosine_recursion_in_the_standard_parameterization(biases):
    init = Init(1.7**0.5, 0.2**0.5)
    found = ntk(
        "relu",
        init,
        depth=5,
        correlation=COSINES,
        parameterization="standard",
        width=100,
        input_width=30,
        biases=biases,
    ).kernel[-1]
    _, tangent = relu_kernels(COSINES, 1.7, 0.2, 5, weights=100.0, biases=float(biases), first=30.0)
    np.testing.assert_allclose(found, tangent, rtol=1e-12)


def test_linear_networks_have_the_kernel_times_the_depth():
    found = ntk("identity", Init(1.0), depth=6, correlation=0.3)
    np.testing.assert_allclose(found.diagonal, np.arange(1, 7), rtol=1e-12)
    np.testing.assert_allclose(found.kernel, 0.3 * np.arange(1, 7), rtol=1e-11)


def test_the_covariance_is_that_of_the_correlation_map():
    init, q, c = Init(1.5, 0.3), 1.5**2 + 0.09, (1.5**2 * 0.4 + 0.09) / (1.5**2 + 0.09)
    found = nngp("tanh", init, depth=4, correlation=0.4)
    for layer in range(4):
        assert float(found.diagonal[layer]) == pytest.approx(q, rel=1e-13)
        assert float(found.kernel[layer]) == pytest.approx(q * c, rel=1e-10)
        q, c = length_map("tanh", init, q), correlation_map("tanh", init, c, q)


# Real networks


def outputs(parameters, x, phi):
    *hidden, (w, b) = parameters
    for w_, b_ in hidden:
        x = phi(w_ @ x + b_)
    return (w @ x + b)[0]


@pytest.mark.slow
@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
def test_jacobians_of_wide_networks_have_the_tangent_kernel(parameterization):
    width, inputs, seeds, sigma_w, sigma_b = 384, 20, 16, 1.4, 0.4
    sizes = [(width, inputs), (width, width), (1, width)]
    x = jnp.ones((2, inputs)).at[1, :6].set(-1.0)  # cosine 0.4

    def kernel(key):
        keys = jax.random.split(key, 6)
        draws = [
            (jax.random.normal(keys[2 * i], size), jax.random.normal(keys[2 * i + 1], size[:1]))
            for i, size in enumerate(sizes)
        ]
        scaled = lambda draws: [(sigma_w * w / w.shape[1] ** 0.5, sigma_b * b) for w, b in draws]
        if parameterization == "ntk":
            of = lambda p, x: outputs(scaled(p), x, jnp.tanh)
            at = draws
        else:
            of, at = lambda p, x: outputs(p, x, jnp.tanh), scaled(draws)
        first, second = (jax.tree.leaves(jax.grad(of)(at, row)) for row in x)
        dot = lambda a, b: sum(jnp.vdot(g, k) for g, k in zip(a, b, strict=True))
        return jnp.stack([dot(first, first), dot(first, second)])

    found = np.asarray(jax.jit(lambda keys: jax.lax.map(kernel, keys))(jax.random.split(jax.random.key(0), seeds)))
    widths = dict(width=width, input_width=inputs) if parameterization == "standard" else {}
    predicted = ntk(
        "tanh", Init(sigma_w, sigma_b), depth=3, correlation=0.4, parameterization=parameterization, **widths
    ).isel(layer=-1)
    expected = np.array([float(predicted.diagonal), float(predicted.kernel)])
    error = found.std(0, ddof=1) / seeds**0.5
    # Beside the standard error, a shift of order depth/width. 4 comparisons in all.
    assert (np.abs(found.mean(0) - expected) < 4 * np.hypot(error, 3 / width * expected)).all()
    assert (error < 0.05 * expected).all()


# Many inputs


def test_a_matrix_of_equal_cosines_is_equicorrelated_inputs():
    matrix = np.full((7, 7), 0.3) + 0.7 * np.eye(7)
    for kernel in (nngp, ntk):
        of_matrix = kernel("tanh", Init(1.5, 0.2), depth=5, correlation=matrix)
        equal = kernel("tanh", Init(1.5, 0.2), depth=5, correlation=0.3, inputs=7)
        np.testing.assert_allclose(of_matrix.largest_eigenvalue, equal.largest_eigenvalue, rtol=1e-11)
        np.testing.assert_allclose(of_matrix.condition_number, equal.condition_number, rtol=1e-9)


def test_gradient_descent_with_the_kernel_is_stable_below_the_rate_and_not_above():
    x = np.random.default_rng(0).standard_normal((12, 5))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = ntk("relu", Init(2**0.5), depth=4, correlation=np.clip(x @ x.T, -1, 1)).isel(layer=-1)
    for factor, stable in ((0.99, True), (1.01, False)):
        step = np.eye(12) - factor * float(found.largest_learning_rate) * found.kernel.values
        errors = np.linalg.matrix_power(step, 3000) @ np.ones(12)
        assert (np.abs(errors).max() < 10) == stable


@pytest.mark.slow
def test_critical_relu_is_ever_better_conditioned_towards_a_quarter():
    # Off-diagonal over diagonal tends to 1/4, so that N inputs have (N + 3)/3 (Xiao et al., 2020).
    found = ntk("relu", Init(2**0.5), depth=300, correlation=0.1, inputs=9)
    ratio = (found.kernel / found.diagonal).values
    assert ratio[-1] == pytest.approx(0.25, abs=0.02)
    assert abs(ratio[-1] - 0.25) < abs(ratio[149] - 0.25) < abs(ratio[49] - 0.25)
    assert float(found.condition_number[-1]) == pytest.approx(4, abs=0.3)


@pytest.mark.slow
def test_the_ordered_phase_is_ever_worse_conditioned_and_the_chaotic_one_perfectly():
    # In the ordered phase K - K' falls as chi_perp^l, times l; in the chaotic one Θ grows on its diagonal alone.
    ordered = ntk("tanh", Init(0.9, 0.3), depth=60, correlation=0.5, inputs=5).condition_number.values
    assert ordered[-1] > 1e6
    chaotic = ntk("tanh", Init(3.0, 0.0), depth=60, correlation=0.5, inputs=5)
    assert float(chaotic.condition_number[-1]) == pytest.approx(1, abs=1e-3)


def test_the_distance_of_near_inputs_keeps_its_digits_down_the_ordered_phase():
    found = nngp("tanh", Init(0.9, 0.3), depth=300, correlation=0.5)
    assert 0 < float(found.separation[-1]) < 1e-30
    slopes = np.diff(np.log(found.separation))
    assert slopes[-1] == pytest.approx(slopes[-2], abs=1e-9)


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(correlation=1.5), "cosines, from -1 to 1"),
        (dict(correlation=np.ones((2, 3))), "square and symmetric"),
        (dict(correlation=np.zeros((2, 2))), "1 on its diagonal"),
        (dict(second_moment=-1.0), "second_moment must be finite and positive"),
        (dict(init=Init(np.ones(2))), "one initialization"),
        (dict(depth=0), "depth must be at least 1"),
        (dict(init=Init(0.0)), "length of layer 1 is 0"),
        (dict(phi="step"), "jumps"),
        (dict(parameterization="mup"), "ntk or standard"),
        (dict(parameterization="standard"), "give width"),
        (dict(width=10), "no width"),
    ],
)
def test_what_has_no_kernel_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ntk(**(dict(phi="tanh", init=Init(1.0), depth=2, correlation=0.5) | arguments))


def test_a_jump_has_a_covariance():
    found = nngp("sign", Init(1.0), depth=2, correlation=math.cos(1.0))
    assert float(found.kernel[-1]) == pytest.approx(1 - 2 / math.pi, rel=1e-9)
