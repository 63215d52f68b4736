"""The scalar chain against closed forms, against networks of width 1, and the maps of outcomes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxgain.activations import activation
from jaxgain.propagation.network import propagate
from jaxgain.theory.chain import chain, chain_probabilities, follow, initial_map, joint_law, sample_chain
from jaxgain.theory.finite_width import infinite_width
from jaxgain.theory.meanfield import Init
from jaxgain.theory.outcomes import outcome_map

KEY = jax.random.key(3)


@pytest.mark.slow
def test_a_linear_chain_multiplies_normals():
    found = sample_chain(KEY, "identity", Init(1.0), depth=20, networks=20_000)
    logs = found.log_gradient[:, -1].values
    # E ln|w| = -(γ + ln 2)/2, Var ln|w| = π²/8
    assert abs(logs.mean() + 20 * (np.euler_gamma + math.log(2)) / 2) < 3.5 * logs.std() / math.sqrt(20_000)
    assert logs.var() == pytest.approx(20 * math.pi**2 / 8, rel=3.5 * math.sqrt(2.5 / 20_000))
    np.testing.assert_array_equal(found.log_slopes, 0)
    np.testing.assert_allclose(np.log(np.abs(found.x)), found.log_gradient, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("phi", "scale"), [("tanh", 2.0), pytest.param("gelu", 1.0, marks=pytest.mark.slow)])
def test_chains_are_networks_of_width_one(phi, scale):
    """The sampled engine has the input ±1 and weights n times as large."""
    sigma_w, sigma_b, depth, networks = 1.3, 0.4, 5, 6000
    ours = sample_chain(KEY, phi, Init(sigma_w, sigma_b), depth=depth, networks=networks, scale=scale)
    run = functools.partial(propagate, phi=phi, width=1, depth=depth, statistics=("log_grad_rms", "second_moment"))
    init = Init(scale * sigma_w, scale * sigma_b)
    network = jax.jit(jax.vmap(lambda key: run(key, init=init)))(jax.random.split(jax.random.key(9), networks))
    real = np.asarray(network.log_grad_rms[:, 0] - network.log_grad_rms[:, -1])
    p_values = [
        stats.ks_2samp(ours.log_gradient[:, -1], real).pvalue,
        stats.ks_2samp(np.abs(ours.x[:, -1]), np.sqrt(network.second_moment[:, -1])).pvalue,
    ]
    assert min(p_values) > 1e-3 / 2


def test_the_gradient_is_that_of_automatic_differentiation():
    w, b = np.array([1.5, -2.0, 0.7]), np.array([0.1, 0.0, -0.3])

    def last(x0):
        return follow(activation("tanh(1.5x)"), jnp.asarray(w), jnp.asarray(b), x0=x0, scale=2.0).x[-1]

    with jax.enable_x64(True):
        path = follow(activation("tanh(1.5x)"), jnp.asarray(w), jnp.asarray(b), x0=0.4, scale=2.0)
        assert float(path.log_gradient[-1]) == pytest.approx(math.log(abs(float(jax.grad(last)(0.4)))), rel=1e-12)
        assert float(path.log_gradient[-1] - path.log_slopes[-1]) == pytest.approx(math.log(2.1), rel=1e-12)


def test_slopes_of_tanh_keep_their_logarithm_where_they_round_to_zero():
    with jax.enable_x64(True):
        path = follow(activation("tanh"), jnp.array([500.0]), jnp.zeros(1), x0=1.0, scale=1.0)
    assert float(path.log_slopes[-1]) == pytest.approx(-1000 + 2 * math.log(2), rel=1e-14)


def test_a_longer_chain_begins_like_a_shorter_one_and_a_tied_one_repeats():
    short, long = (chain(KEY, "tanh", Init(1.0, 0.5), depth=depth) for depth in (4, 9))
    np.testing.assert_array_equal(short.x, long.x[:5])
    tied = chain(KEY, "tanh", Init(1.0, 0.5), depth=9, tied=True)
    assert len(set(tied.w[1:].tolist())) == len(set(tied.b[1:].tolist())) == 1


def test_chains_compile_and_batch_over_everything():
    run = jax.jit(jax.vmap(lambda key, w, n: chain(key, "tanh", Init(w), depth=3, scale=n).x[-1]))
    assert run(jax.random.split(KEY, 4), jnp.arange(4.0), jnp.ones(4)).shape == (4,)


@pytest.mark.slow
def test_joint_law_has_the_marginal_of_its_weights():
    chains = sample_chain(KEY, "tanh", Init(1.0), depth=6, networks=20_000, scale=2.0)
    law = joint_law(chains, "w", layer=3, bins=21)
    assert_marginal(law, "w", 20_000, 1.0)
    assert law.attrs["vanished"] == 0


def test_joint_law_has_the_marginal_of_its_signals():
    """One linear layer without bias: x = w x_0."""
    chains = sample_chain(KEY, "identity", Init(0.8), depth=1, networks=20_000, x0=1.5)
    law = joint_law(chains, "x", layer=1, bins=21)
    assert_marginal(law, "x", 20_000, 0.8 * 1.5)


def assert_marginal(law, of, networks, sigma):
    """A histogram of N(0, sigma²), whose bins h hold binomial counts, to 4 sqrt(p / (N h)) where p is its density."""
    at, step = law[of].values, float(law.log_g[1] - law.log_g[0])
    marginal = law.sum("log_g").values * step  # trapezoids would leave out half of the outermost bins
    h = at[1] - at[0]
    edges = np.append(at - h / 2, at[-1] + h / 2)
    p = np.diff(stats.norm.cdf(edges, scale=sigma)) / h
    inside = np.abs(at) < 2 * sigma
    assert inside.sum() > 5
    assert (np.abs(marginal - p) < 4 * np.sqrt(p / (networks * h)))[inside].all()


@pytest.mark.slow
def test_single_tanh_chains_vanish_and_none_explodes_in_slopes():
    """Every slope of tanh is at most 1, so that their product only falls; n per layer at most for tanh(nx)."""
    setting = dict(scales=[1.0, 2.0, 4.0], depth=30, below=1e-6, above=1e6, networks=2000)
    found = chain_probabilities(KEY, "tanh", Init(1.0), gradient="log_slopes", **setting)
    assert bool((found.exploding.sel(scale=1.0) == 0).all())
    assert bool((np.diff(found.vanishing.sel(scale=1.0)) >= 0).all())
    slopes = sample_chain(KEY, "tanh", Init(1.0), depth=30, networks=500, scale=2.0).log_slopes
    assert bool((slopes <= np.log(2) * slopes.layer + 1e-9).all())


def test_a_tied_chain_at_rest_grows_by_its_weight_per_layer():
    found = initial_map("tanh", [0.5, 1.0, 2.0], [0.0], depth=20, below=1e-3, above=1e3, x0=0.0, scale=1.5)
    np.testing.assert_allclose(found.log_gradient[:, 0], 20 * np.log([0.75, 1.5, 3.0]), rtol=1e-12)
    assert found.outcome[:, 0].values.tolist() == ["survives", "explodes", "explodes"]


def test_a_tied_chain_with_a_large_bias_vanishes():
    found = initial_map("tanh", [2.0], [-3.0, 3.0], depth=20, below=1e-3, above=1e3)
    assert set(found.outcome.values.ravel()) == {"vanishes"}


# --- infinite width ---


@pytest.mark.parametrize("phi", ["tanh", "gelu", "relu", "selu"])
def test_outcome_map_is_the_sum_of_log_chi_along_the_lengths(phi):
    found = outcome_map(phi, [0.9, 1.5], [0.0, 0.3], depth=25, below=0.1, above=10.0)
    for w in (0.9, 1.5):
        for b in (0.0, 0.3):
            layers = infinite_width(phi, Init(w, b), 25, 1.0)
            expected = np.log(w**2 * layers.moments.slope_second).sum() / 2
            at = found.sel(sigma_w=w, sigma_b=b)
            assert float(at.log_ratio) == pytest.approx(expected, rel=1e-8, abs=1e-8)
            assert float(at.q) == pytest.approx(layers.q[-1], rel=1e-8)


def test_outcome_map_follows_lengths_beyond_every_table():
    found = outcome_map("relu", [0.1, 20.0, 0.0], [0.0], depth=500, below=0.1, above=10.0)
    np.testing.assert_allclose(found.log_ratio[:2, 0], 500 * np.log([0.1 / 2**0.5, 20 / 2**0.5]), rtol=1e-9)
    assert found.outcome.values.ravel().tolist() == ["vanishes", "explodes", "vanishes"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (dict(below=2.0), "below must be less than above"),
        (dict(above=math.inf), "above must be positive and finite"),
        (dict(depth=0), "depth must be a whole number"),
        (dict(phi="step"), "step jumps, so chi_perp is infinite"),
        (dict(sigma_w=[-1.0]), "sigma_w must be finite and not negative"),
        (dict(second_moment=0.0), "second_moment must be positive"),
    ],
)
def test_what_cannot_be_mapped_is_refused(setting, message):
    setting = dict(phi="tanh", sigma_w=[1.0], sigma_b=[0.0], depth=5, below=0.1, above=1.0) | setting
    with pytest.raises(ValueError, match=message):
        outcome_map(**setting)


SETTING = dict(depth=5, below=0.1, above=10.0)
NO_NUMBERS = [lambda x: jnp.log(x), lambda x: jnp.exp(x * x)]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (dict(w=[1.0, math.nan]), "every w must be finite, got nan; give the weights"),
        (dict(b=[math.inf]), "every b must be finite, got inf; give the biases"),
        (dict(x0=math.nan), "x0 must be finite, got nan; it is the input of the chain"),
        (dict(scale=-math.inf), r"scale must be finite, got -inf; it is n in phi\(n x\)"),
        *((dict(phi=phi), "finite") for phi in NO_NUMBERS),
    ],
)
def test_an_initial_map_of_what_is_not_finite_is_refused(setting, message):
    with pytest.raises(ValueError, match=message) as refused:
        initial_map(**(dict(phi="tanh", w=[1.0], b=[0.0]) | SETTING | setting))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (dict(scale=math.nan), "scale must be finite, got nan"),
        (dict(scale=math.inf), "scale must be finite, got inf"),
        (dict(x0=math.inf), "x0 must be finite, got inf"),
        (dict(init=Init(np.ones(2))), r"sigma_w must be one number, got an array of shape \(2,\)"),
        (dict(init=Init(1.0, np.ones(3))), r"sigma_b must be one number, got an array of shape \(3,\)"),
        *((dict(phi=phi), "finite") for phi in NO_NUMBERS),
    ],
)
def test_chains_of_what_is_not_finite_or_no_number_are_refused(setting, message):
    with pytest.raises(ValueError, match=message) as refused:
        sample_chain(KEY, **(dict(phi="tanh", init=Init(1.0), depth=3, networks=10) | setting))
    assert "\n" not in str(refused.value)


def test_negative_weights_and_scales_are_mirror_images():
    found = initial_map("tanh", [-1.5, 1.5], [0.0], **SETTING)
    assert found.log_gradient.values[0] == found.log_gradient.values[1] and np.isfinite(found.log_gradient).all()
    mirrored = initial_map("tanh", [-1.5, 1.5], [0.0], scale=-1.0, **SETTING)
    np.testing.assert_array_equal(mirrored.log_gradient, found.log_gradient)
