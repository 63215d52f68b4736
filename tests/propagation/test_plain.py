"""The matrix-free network against the real network whose weights its noise defines, in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgain.activations import activation
from jaxgain.propagation.network import propagate
from jaxgain.propagation.weights import draw_ends, draw_noise
from jaxgain.theory.meanfield import Init

DEPTH = 6


def triangular(rows):
    """R, Q of rows = R Q with a positive diagonal, by an independent method (Householder QR)."""
    q, r = np.linalg.qr(rows.T)
    sign = np.where(np.diag(r) < 0, -1.0, 1.0)
    return (r * sign[:, None]).T, (q * sign).T


def as_double(x):
    return np.asarray(x, np.float64)


def rms(x):
    return np.sqrt(np.mean(x**2, axis=-1))


def cosine(x):
    return x[0] @ x[1] / np.linalg.norm(x[0]) / np.linalg.norm(x[1])


class RealNetwork:
    """Weights and biases in float64 that act on this network's own rows as the matrix-free noise says."""

    def __init__(self, key, phi, init, width, inputs, cotangent):
        words = jax.random.bits(key, (2,))
        options = {"scale": 1.0, "distance": None, "directions": 1, "cotangent": cotangent}
        ends = draw_ends(words, inputs, widths=(width, width), **options)
        self.phi, self.width = phi, width
        self.x, self.u, self.cotangent = map(as_double, ends)
        sizes = {"inputs": inputs, "tangents": inputs, "width": width}
        draw = partial(draw_noise, words, **sizes, reverse=True, bias=init.sigma_b > 0)
        noise = [jax.tree.map(as_double, draw(jnp.asarray(layer))) for layer in range(DEPTH + 1)]
        seen, slopes, rows = [], [], np.concatenate([self.x, self.u])
        for layer in range(1, DEPTH + 1):
            scaled = np.concatenate([rows * init.sigma_w / width**0.5, np.zeros((2 * inputs, 1))], axis=1)
            scaled[:inputs, -1] = init.sigma_b
            if init.sigma_b == 0:
                scaled = scaled[:, :-1]
            lower, basis = triangular(scaled)
            moved = lower @ np.stack(noise[layer].forward)
            h, slope = self.value_and_slope(moved[:inputs])
            rows = np.concatenate([h, slope * moved[inputs:]])
            rows[inputs:] /= np.sqrt(np.mean(rows[inputs:] ** 2, axis=1, keepdims=True))
            seen.append(basis)
            slopes.append(slope)
        self.weights, self.biases, gradient = [], [], self.cotangent
        for layer in range(DEPTH, 0, -1):
            basis, e = seen[layer - 1], np.stack(noise[layer - 1].reverse)
            if init.sigma_b:
                e = np.concatenate([e, noise[layer - 1].bias[:, None]], axis=1)
            _, back = triangular(slopes[layer - 1] * gradient)
            outside = np.eye(basis.shape[1]) - basis.T @ basis
            whole = basis.T @ np.stack(noise[layer].forward) + outside @ e.T @ back
            self.weights.insert(0, init.sigma_w / width**0.5 * whole[:width].T)
            self.biases.insert(0, init.sigma_b * whole[width] if init.sigma_b else np.zeros(width))
            gradient = (slopes[layer - 1] * gradient) @ self.weights[0]

    def value_and_slope(self, z):
        with jax.enable_x64(True):
            z = jnp.asarray(z, jnp.float64)
            return tuple(np.asarray(x) for x in jax.jvp(self.phi, (z,), (jnp.ones_like(z),)))

    def statistics(self):
        """Every statistic by definition, gradients by the chain rule with matrices."""
        hs, zs, slopes, tangents = [self.x], [None], [None], [self.u]
        for w, b in zip(self.weights, self.biases, strict=True):
            zs.append(hs[-1] @ w.T + b)
            h, slope = self.value_and_slope(zs[-1])
            hs.append(h)
            slopes.append(slope)
            tangents.append(slope * (tangents[-1] @ w.T))
        gradients, weight_gradients = [self.cotangent], [None]
        for layer in range(DEPTH, 0, -1):
            delta = slopes[layer] * gradients[0]
            weight_gradients.insert(1, np.sqrt(np.mean((delta.T @ hs[layer - 1]) ** 2)))
            gradients.insert(0, delta @ self.weights[layer - 1])
        steepest = np.abs(self.value_and_slope(np.linspace(-10, 10, 20001))[1]).max()
        return {
            "q": [rms(z) ** 2 for z in zs[1:]],
            "mean": [h.mean(-1) for h in hs],
            "std": [h.std(-1) for h in hs],
            "second_moment": [rms(h) ** 2 for h in hs],
            "log_grad_rms": [np.log(rms(g)) for g in gradients],
            "log_grad_mean_abs": [np.log(np.abs(g).mean(-1)) for g in gradients],
            "log_weight_grad_rms": [np.log(g) for g in weight_gradients[1:]],
            "log_jacobian_rms": [np.log(rms(t)) for t in tangents],
            "correlation": [cosine(z) for z in zs[1:]] if len(self.x) > 1 else None,
            "correlation_h": [cosine(h) for h in hs] if len(self.x) > 1 else None,
            "saturated": [(np.abs(s) < 0.01 * steepest).mean(-1) for s in slopes[1:]],
            "dead": [np.all(s == 0, axis=0).mean() for s in slopes[1:]],
        }


@pytest.mark.parametrize(
    ("name", "sigma_w", "sigma_b", "inputs", "cotangent", "width"),
    [
        ("tanh", 1.7, 0.0, 1, "random", 80),
        pytest.param("tanh", 1.7, 0.4, 1, "sum", 24, marks=pytest.mark.slow),
        pytest.param("gelu", 1.3, 0.0, 2, "sum", 24, marks=pytest.mark.slow),
        ("relu", 1.4, 0.4, 2, "random", 80),
        pytest.param("selu", 0.8, 0.4, 3, "random", 24, marks=pytest.mark.slow),
    ],
)
def test_matrix_free_network_is_the_real_one_that_its_noise_defines(name, sigma_w, sigma_b, inputs, cotangent, width):
    """All passes, correlations and weight gradients of one network, against matrices in float64."""
    key, init = jax.random.key(inputs), Init(sigma_w, sigma_b)
    real = RealNetwork(key, activation(name), init, width, inputs, cotangent).statistics()
    sizes = {"width": width, "depth": DEPTH, "inputs": inputs, "cotangent": cotangent, "keep_inputs": True}
    ours = jax.jit(partial(propagate, phi=name, init=init, **sizes))(key)._asdict()
    for statistic, expected in real.items():
        measured = np.asarray(ours[statistic])
        if expected is None:
            assert np.all(np.isnan(measured)), statistic
            continue
        if len(expected) == DEPTH:
            assert np.all(np.isnan(measured[0])), statistic
            measured = measured[1:]
        np.testing.assert_allclose(measured, np.stack(expected), rtol=2e-4, atol=2e-4, err_msg=statistic)
    assert ours["first_nonfinite"] == -1
    assert ours["first_vanished"] == -1


def test_any_kind_of_key_serves_and_makes_a_network_of_its_own():
    network = jax.jit(partial(propagate, phi="tanh", init=Init(1.5), width=100, depth=2, statistics=("std",)))
    keys = [jax.random.key(0), jax.random.key(1), jax.random.key(0, impl="rbg")]
    stds = [float(network(key).std[2]) for key in keys]
    assert len(set(stds)) == 3 and np.ptp(stds) < 0.2
