"""The Jacobian's spectrum: closed forms of linear and ReLU networks, published spreads, real matrices."""

import math

import numpy as np
import pytest

from jaxgain.activations import activation
from jaxgain.theory.edge import edge_of_chaos
from jaxgain.theory.fixed_points import fixed_point
from jaxgain.theory.jacobian import jacobian_spectrum, squared_slopes
from jaxgain.theory.meanfield import Init, chi_perp, length_map

L = np.arange(1, 61)


def largest(phi, init, depth, distribution):
    return (
        2 * jacobian_spectrum(phi, init, depth=depth, distribution=distribution).log_largest_singular_value.values[1:]
    )


def test_linear_normal_networks_have_the_fuss_catalan_edge():
    expected = (L + 1) * np.log(L + 1) - L * np.log(L)
    np.testing.assert_allclose(largest("identity", Init(1.0), 60, "normal"), expected, atol=1e-9)


def test_linear_orthogonal_networks_are_isometries():
    spectrum = jacobian_spectrum("identity", Init(1.0), depth=60, distribution="orthogonal")
    for name in ("log_jacobian_second_moment", "relative_variance", "log_largest_singular_value"):
        np.testing.assert_allclose(spectrum[name], 0, atol=1e-12)


def test_orthogonal_relu_networks_have_their_closed_form():
    # Pennington et al., 2018: L^L/(L - 1)^(L - 1); one layer keeps or kills, at σ_w² = 2.
    expected = L * np.log(L) - (L - 1) * np.log(np.maximum(L - 1, 1))
    expected[0] = math.log(2)
    np.testing.assert_allclose(largest("relu", Init(2**0.5), 60, "orthogonal"), expected, atol=1e-9)


def test_normal_relu_networks_have_their_closed_form():
    # ln z = ln((1 + m)/m) + L ln(1 + 2m), least where 2L m² + (2L - 2) m = 1.
    m = (1 - L + np.sqrt((L - 1) ** 2 + 2 * L)) / (2 * L)
    expected = np.log((1 + m) / m) + L * np.log(1 + 2 * m)
    np.testing.assert_allclose(largest("relu", Init(2**0.5), 60, "normal"), expected, atol=1e-9)


# Own 30-digit values of mu_2/mu_1² - 1 on tanh's edge of chaos.
@pytest.mark.parametrize(
    ("w2", "spread"),
    [(1.05, 0.00426890324802), (1.25, 0.0687653651475), (1.760954639614, 0.342256078308)],
)
def test_tanh_on_the_edge_of_chaos_has_the_reference_spread(w2, spread):
    q = edge_length(w2)
    init = Init(w2**0.5, math.sqrt(q - length_map("tanh", Init(w2**0.5), q)))
    if w2 == 1.05:
        assert init.sigma_b**2 == pytest.approx(2.0105213e-5, rel=1e-7)
    for distribution, more in (("orthogonal", 0), ("normal", 1)):
        spectrum = jacobian_spectrum("tanh", init, depth=5, distribution=distribution)
        np.testing.assert_allclose(spectrum.relative_variance, (spread + more) * np.arange(6), rtol=1e-10)
        np.testing.assert_allclose(spectrum.log_jacobian_second_moment, 0, atol=1e-9)


def edge_length(w2):
    """The q with σ_w² E φ'² = 1 for tanh."""
    low, high = 1e-8, 10.0
    for _ in range(80):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if chi_perp("tanh", Init(w2**0.5), middle) > 1 else (low, middle)
    return low


def test_the_edge_of_chaos_keeps_the_mean_and_lengths_may_be_the_recursion_s_own():
    init = edge_of_chaos("gelu", sigma_b=0.6).init
    np.testing.assert_allclose(jacobian_spectrum("gelu", init, depth=4).log_jacobian_second_moment, 0, atol=1e-8)
    spectrum = jacobian_spectrum("gelu", init, depth=2, second_moment=3.0)
    q = init.sigma_w**2 * 3 + init.sigma_b**2
    means = [chi_perp("gelu", init, q), chi_perp("gelu", init, length_map("gelu", init, q))]
    np.testing.assert_allclose(np.diff(spectrum.log_jacobian_second_moment), np.log(means), rtol=1e-12)


def test_a_normal_layer_s_edge_is_that_of_its_companion_equation():
    # Silverstein and Choi, 1995: support ends where w(1 + E x/(w - x)) has its least, x = φ'².
    phi, q = activation("tanh"), 1.3
    slopes = squared_slopes(phi, q)
    x = slopes.supremum * slopes.y
    w = slopes.supremum * (1 + np.logspace(-3, 2, 20_001))
    values = [each * (1 + slopes.weight @ (x / (each - x))) for each in w[6000:14_000:4]]
    spectrum = jacobian_spectrum(phi, Init(1.0), depth=1, second_moment=q)
    assert 2 * float(spectrum.log_largest_singular_value[1]) == pytest.approx(math.log(min(values)), abs=1e-6)


def product_statistics(distribution, init, q, depth, n, seeds):
    """Log mean, relative variance and log of the largest of the squared singular values; mean and standard error."""
    random, found = np.random.default_rng(n), []
    for _ in range(seeds):
        jacobian = np.eye(n)
        for _ in range(depth):
            w = random.standard_normal((n, n))
            if distribution == "orthogonal":
                w, r = np.linalg.qr(w)
                w = w * np.sign(np.diag(r)) * n**0.5
            slope = 1 - np.tanh(q**0.5 * random.standard_normal(n)) ** 2
            jacobian = slope[:, None] * (init.sigma_w * w / n**0.5) @ jacobian
        squares = np.linalg.svd(jacobian, compute_uv=False) ** 2
        found.append([np.log(squares.mean()), np.mean(squares**2) / squares.mean() ** 2 - 1, np.log(squares[0])])
    return np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / seeds**0.5


@pytest.mark.slow
@pytest.mark.parametrize("distribution", ["normal", "orthogonal"])
def test_products_of_real_matrices_have_the_moments_and_the_edge(distribution):
    depth, init = 3, Init(1.3, 0.3)
    q = fixed_point("tanh", init).q
    small, large = 40, 120
    (*_, edge_small), (*_, error_small) = product_statistics(distribution, init, q, depth, small, 160)
    (mean, spread, edge), error = product_statistics(distribution, init, q, depth, large, 30)
    spectrum = jacobian_spectrum("tanh", init, depth=depth, distribution=distribution).isel(layer=-1)
    # Moments are off by order depth/n.
    assert abs(mean - float(spectrum.log_jacobian_second_moment)) < 4 * error[0] + 2 * depth / large
    assert abs(spread - float(spectrum.relative_variance)) < 4 * error[1] + 4 * depth / large
    # The largest is short of the edge by order n^(-2/3) (Tracy and Widom), which two widths tell; then by its square.
    ratio = (large / small) ** (2 / 3)
    extrapolated = (ratio * edge - edge_small) / (ratio - 1)
    of_extrapolated = math.hypot(ratio * error[2], error_small) / (ratio - 1)
    expected = 2 * float(spectrum.log_largest_singular_value)
    assert edge_small < edge < expected
    assert abs(extrapolated - expected) < 4 * of_extrapolated + 4 * small ** (-4 / 3)


def test_unbounded_slopes_have_no_largest_singular_value():
    spectrum = jacobian_spectrum("relu_squared", Init(0.5), depth=3, second_moment=1.0)
    assert np.isposinf(spectrum.log_largest_singular_value[1:]).all()
    assert np.isfinite(spectrum.relative_variance).all()


def test_a_collapsed_length_is_a_linear_network():
    spectrum = jacobian_spectrum("tanh", Init(1.0), depth=10)
    np.testing.assert_allclose(spectrum.relative_variance, np.arange(11), atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(phi="step"), "jumps"),
        (dict(distribution="uniform"), "normal or orthogonal"),
        (dict(depth=0), "depth must be at least 1"),
        (dict(init=Init(np.ones(2))), "one initialization"),
        (dict(phi="relu", init=Init(2.0)), "diverges"),
        (dict(second_moment=0.0), "second_moment must be finite and positive"),
        (dict(init=Init(0.0), second_moment=1.0), "length of layer 1 is 0"),
    ],
)
def test_what_has_no_spectrum_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        jacobian_spectrum(**(dict(phi="tanh", init=Init(1.0), depth=3) | arguments))
