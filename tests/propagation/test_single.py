"""One input without vectors: the same networks, number by number, as the rows of `plain` make of the same noise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgain.activations import activation
from jaxgain.propagation.kernel import Network
from jaxgain.propagation.means import means
from jaxgain.propagation.network import steepest_slope, value_and_slope
from jaxgain.propagation.plain import propagate_plain
from jaxgain.propagation.single import propagate_single
from jaxgain.propagation.weights import draw_ends

WIDTH = 101
DEPTH = 8
NOT_OF_ONE_INPUT = ("correlation", "correlation_h")
KEY = jax.random.bits(jax.random.key(5), (2,))


def records(kernel, phi, gains, sigma_b, *, scale=1.0, tangents=1, reverse=True, width=WIDTH, **setting):
    """Layers 0 … DEPTH of every statistic (gain, layer), from a kernel of plain networks."""
    sides = {"directions": tangents, "cotangent": "random" if reverse else None}
    ends = draw_ends(KEY, 1, widths=(width, width), scale=scale, distance=None, **sides)
    phi = activation(phi)
    bias = None if sigma_b is None else jnp.float32(sigma_b)

    def network(gain):
        common = Network(partial(value_and_slope, phi), steepest_slope(phi), gain, bias)
        return kernel(KEY, common, ends, depth=DEPTH, **setting)

    first, later = jax.jit(jax.vmap(network))(jnp.asarray(gains, jnp.float32))
    layer_zero = {name: np.asarray(x).reshape(len(gains), 1) for name, x in first.items() if x.size}
    rest = {name: np.asarray(x).reshape(len(gains), DEPTH) for name, x in later.items() if x.size}
    return {name: np.concatenate([layer_zero.get(name, rest[name][:, :0]), rest[name]], axis=1) for name in rest}


def assert_same_networks(ours, rows):
    assert set(ours) == set(rows)
    for name in rows.keys() - {"peak", *NOT_OF_ONE_INPUT}:
        known = ~np.isnan(rows[name])
        assert not np.isnan(ours[name][known]).any(), name
        # Rounding grows with the depth: float32 resolves 1e-7, and a layer of a chaotic network triples it.
        scale = np.maximum(np.abs(rows["rms_h"]), 1e-37)[:, -ours[name].shape[1] :] if name == "mean" else 1.0
        pair = [(x / scale)[known] for x in (ours[name], rows[name])]
        np.testing.assert_allclose(*pair, rtol=2e-4, atol=2e-4, err_msg=name)


@pytest.mark.parametrize(
    ("phi", "sigma_b", "sized", "at_once"),
    [
        ("tanh", None, {}, 1000),
        pytest.param("relu", 0.3, {}, 30, marks=pytest.mark.slow),
        ("gelu", None, {"reverse": False}, 1000),
        ("sigmoid", 0.3, {"tangents": 0}, 1000),
        pytest.param("softplus", None, {"tangents": 0, "reverse": False}, 30, marks=pytest.mark.slow),
    ],
)
def test_networks_are_those_of_rows(phi, sigma_b, sized, at_once):
    gains = [0.3, 1.0, 1.6, 8.0]
    ours = records(propagate_single, phi, gains, sigma_b, neurons_at_once=at_once, **sized)
    assert_same_networks(ours, records(propagate_plain, phi, gains, sigma_b, **sized))


@pytest.mark.parametrize(("phi", "scale"), [("tanh", 1e-20), ("relu", 1e18), ("step", 1.0)])
def test_networks_are_those_of_rows_at_the_ends_of_float32_and_without_slopes(phi, scale):
    gains = [0.0, 0.02, 1.0, 3e6]
    ours = records(propagate_single, phi, gains, None, scale=scale, neurons_at_once=1000)
    assert_same_networks(ours, records(propagate_plain, phi, gains, None, scale=scale))


def test_one_input_has_no_correlation():
    ours = records(propagate_single, "tanh", [1.5], None, tangents=0, reverse=False, neurons_at_once=1000)
    assert np.isnan(ours["correlation"]).all() and np.isnan(ours["correlation_h"]).all()


@pytest.mark.slow
def test_even_widths_sum_parts_of_rows_first():
    ours = records(propagate_single, "tanh", [1.5], 0.1, width=128, neurons_at_once=64)
    assert_same_networks(ours, records(propagate_plain, "tanh", [1.5], 0.1, width=128))


@pytest.mark.parametrize(("width", "at_once"), [(5000, 10000), (5000, 700), (4096, 4096), (100, 100)])
def test_fractions_are_exact_counts(width, at_once):
    x = jnp.arange(width, dtype=jnp.float32)
    conditions = lambda x: {"a": x < 3, "b": x % 2 == 0, "c": x >= 0}
    found = jax.jit(partial(means, conditions, at_once=at_once))([x], index=jnp.array(0))
    assert {name: round(float(value) * width) for name, value in found.items()} == {
        "a": 3,
        "b": -(-width // 2),
        "c": width,
    }
