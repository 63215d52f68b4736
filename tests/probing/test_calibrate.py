import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import jaxgain as jg
from jaxgain.probing.models import as_model
from jaxgain.probing.paths import paths_of
from jaxgain.probing.trace import trace


def inputs(width=64, batch=128, seed=1):
    return jax.random.normal(jax.random.key(seed), (batch, width))


def gelu_mlp(weights, x):
    return jax.lax.scan(lambda h, w: (jax.nn.gelu(h @ w), None), x, weights)[0]


def residual_mlp(params, x):
    def block(h, weights):
        return h + jax.nn.gelu(h @ weights[0]) @ weights[1], None

    return jax.lax.scan(block, x @ params["stem"], (params["up"], params["down"]))[0]


def drawn(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape) / shape[-1] ** 0.5


def test_fifty_gelu_layers_keep_signal_and_gradient():
    found = jg.calibrate(gelu_mlp, drawn(50, 128, 128), inputs(128))
    np.testing.assert_allclose(found.after["rms_out"], found.rms, rtol=0.05)
    gradient = found.after["log_grad_output"].values
    assert np.exp(np.ptp(gradient)) < 3 and found.off == ()
    assert found.spread == pytest.approx(np.exp(np.ptp(gradient)), rel=1e-6)
    assert found.before["rms_out"].values[-1] < 1e-6  # Flax's default, where it had gone


def test_twenty_unnormalized_residual_blocks_keep_signal_and_gradient():
    params = {"stem": drawn(64, 64), "up": drawn(20, 64, 64, seed=1), "down": drawn(20, 64, 64, seed=2)}
    found = jg.calibrate(residual_mlp, params, inputs())
    assert found.rms == 1.0
    target = np.where(found.after["path"] == "branch end", 20**-0.5, 1.0)
    np.testing.assert_allclose(found.after["rms_out"], target, rtol=0.05)
    for chain in ("up[#]", "down[#]"):
        gradient = found.after["log_grad_output"].values[found.after["chain"] == chain]
        assert len(gradient) == 20 and np.exp(np.ptp(gradient)) < 3
    assert found.before["rms_out"].values[-1] > 10  # where the sum of the branches grew


def test_a_linear_network_has_the_closed_form():
    weights = [3.0 * jnp.eye(4), 0.5 * jnp.eye(4)]
    x = jnp.ones((2, 4)) * 2
    found = jg.calibrate(lambda weights, x: x @ weights[0] @ weights[1], weights, x, target=0.5)
    np.testing.assert_allclose(found.model[0], 0.25 * np.eye(4), rtol=1e-6)
    np.testing.assert_allclose(found.model[1], np.eye(4), rtol=1e-6)


def test_weights_used_again_and_again_have_one_scale():
    weight = 2.0 * jnp.eye(4)
    model = lambda weight, x: jax.lax.scan(lambda h, _: (h @ weight, None), x, length=5)[0]
    found = jg.calibrate(model, weight, jnp.ones((2, 4)), target=1.0)
    np.testing.assert_allclose(found.model, np.eye(4), rtol=0.02)


def test_what_is_left_stays_to_the_bit():
    weights = drawn(6, 32, 32)
    found = jg.calibrate(gelu_mlp, weights, inputs(32), target=1.0, leave=["weights[2]", "weights[5]"])
    same = [bool(jnp.all(found.model[layer] == weights[layer])) for layer in range(6)]
    assert same == [False, False, True, False, False, True]
    assert np.isnan(found.after["target"].values[[2, 5]]).all()
    np.testing.assert_allclose(found.after["rms_out"].values[[0, 1, 3, 4]], 1, rtol=0.01)
    by_predicate = jg.calibrate(gelu_mlp, weights, inputs(32), target=1.0, leave=lambda name: name[8] in "25")
    assert bool(jnp.all(by_predicate.model == found.model))


class Tied(nnx.Module):
    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(16, 16, rngs=rngs), nnx.Linear(16, 16, rngs=rngs)
        self.second.kernel = self.first.kernel
        self.norm, self.readout = nnx.BatchNorm(16, rngs=rngs), nnx.Linear(16, 16, rngs=rngs)

    def __call__(self, x):
        return self.readout(self.norm(jnp.tanh(self.second(jnp.tanh(self.first(x))))))


def test_an_nnx_module_comes_back_as_a_copy_that_shares_what_it_shared():
    model = Tied(nnx.Rngs(0))
    before = np.asarray(model.first.kernel[...]).copy()
    found = jg.calibrate(model, inputs(16), target=0.5)
    assert isinstance(found.model, Tied) and found.model is not model
    assert found.model.second.kernel is found.model.first.kernel
    np.testing.assert_array_equal(model.first.kernel[...], before)
    ratio = np.asarray(found.model.first.kernel[...]) / before
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)
    np.testing.assert_array_equal(found.model.norm.scale[...], 1)
    assert float(jnp.sqrt(jnp.mean(found.model(inputs(16)) ** 2))) == pytest.approx(0.5, rel=0.01)


def test_linen_variables_haiku_parameters_and_equinox_modules_come_back_as_they_are():
    haiku, equinox = pytest.importorskip("haiku"), pytest.importorskip("equinox")
    x, key = inputs(16), jax.random.key(0)
    dense = linen.Sequential([linen.Dense(16), jnp.tanh, linen.Dense(16)])
    variables = dense.init(key, x)
    found = jg.calibrate(dense, variables, x, target=2.0)
    assert jax.tree.structure(found.model) == jax.tree.structure(variables)
    assert float(jnp.sqrt(jnp.mean(dense.apply(found.model, x) ** 2))) == pytest.approx(2, rel=0.01)

    transform = haiku.transform(lambda x: haiku.nets.MLP([16, 16])(x))
    params = transform.init(jax.random.PRNGKey(0), x)
    found = jg.calibrate(transform, params, x, target=2.0)
    assert float(jnp.sqrt(jnp.mean(transform.apply(found.model, None, x) ** 2))) == pytest.approx(2, rel=0.01)

    mlp = equinox.nn.MLP(16, 16, 16, 1, use_bias=False, use_final_bias=False, key=key)
    batched = jax.vmap(lambda mlp, x: mlp(x), (None, 0))
    found = jg.calibrate(batched, mlp, x, target=2.0)
    assert isinstance(found.model, equinox.nn.MLP)
    assert float(jnp.sqrt(jnp.mean(batched(found.model, x) ** 2))) == pytest.approx(2, rel=0.01)


def test_weights_that_are_normalized_before_use_are_left():
    def model(weights, x):
        unit = weights[0] / jnp.linalg.norm(weights[0])
        return jnp.tanh(x @ unit) @ weights[1]

    weights = [drawn(16, 16), drawn(16, 16, seed=1)]
    found = jg.calibrate(model, weights, inputs(16), target=1.0)
    np.testing.assert_array_equal(found.model[0], weights[0])
    assert found.after["rms_out"].values[1] == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (dict(target=0.0), "target must be 'balance' or an rms"),
        (dict(target="forward"), "target must be 'balance' or an rms, got 'forward'"),
        (dict(spread=1.0), "spread is a factor, above 1"),
        (dict(passes=0), "passes must be a whole number, at least 1"),
        (dict(leave=["layers"]), "leave='layers' fits no site; the names begin as weights"),
        (dict(leave=lambda name: True), "no weight is left to rescale"),
    ],
)
def test_bad_settings_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        jg.calibrate(gelu_mlp, drawn(2, 8, 8), inputs(8), **settings)


def test_the_ends_of_residual_branches_are_told_from_the_main_path():
    def model(params, x):
        h = x @ params["stem"]
        h = h + jnp.tanh(h @ params["one"]["up"] + params["one"]["bias"]) @ params["one"]["down"]
        h = h + jax.nn.relu(h @ params["two"])
        gate = h @ params["gate"] + x @ params["skip"]  # a sum of two, neither of which is computed from the other
        return gate @ params["out"]

    names = ("stem", "two", "gate", "skip", "out")
    params = {name: drawn(8, 8) for name in names}
    params["one"] = {"up": drawn(8, 8), "bias": jnp.ones(8), "down": drawn(8, 8)}
    jax.config.update("jax_numpy_rank_promotion", "allow")
    try:
        traced = trace(as_model(model, (params, inputs(8))))
    finally:
        jax.config.update("jax_numpy_rank_promotion", "raise")
    assert paths_of(traced.sites) == ["main", "branch", "branch end", "branch end", "main", "main", "main"]


def test_a_loop_inside_of_a_branch_belongs_to_it_and_only_what_is_added_after_it_is_its_end():
    scan = lambda h, stack: jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), h, stack)[0]

    def network(params, x):
        inside = scan(jnp.tanh(x @ params[0]), params[2])
        x = x + jax.jit(lambda h: h @ params[1])(inside)
        return (x + scan(x, params[2])) @ params[0]

    x, params = jnp.ones((2, 3)), (jnp.eye(3), jnp.eye(3), jnp.ones((4, 3, 3)))
    traced = trace(as_model(network, (params, x)))
    assert paths_of(traced.sites) == ["branch", "branch", "branch end", "branch", "main"]
