import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxgain as jg
from jaxgain.figures.probe import draw_drift


def mlp(weights, x):
    return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, weights)[0]


WEIGHTS = jax.random.normal(jax.random.key(0), (4, 16, 16)) / 4
X = jax.random.normal(jax.random.key(1), (8, 16))


def test_the_monitor_says_what_the_probe_says():
    report = jg.probe(mlp, WEIGHTS, X)
    monitor = jg.monitor(mlp, WEIGHTS, X)
    seen = jax.jit(monitor)(WEIGHTS, X)
    assert list(monitor.sites) == report["name"].values.tolist()
    for name, values in seen._asdict().items():
        np.testing.assert_allclose(values, report[name].values.astype(float), rtol=2e-5, err_msg=name)


def test_it_sees_what_has_changed():
    monitor = jg.monitor(mlp, WEIGHTS, X)
    twice = monitor(2 * WEIGHTS, X)
    np.testing.assert_allclose(twice.sigma_w, 2 * monitor(WEIGHTS, X).sigma_w, rtol=1e-5)


def test_inside_of_scan_it_looks_when_told_and_the_training_is_the_same():
    def loss_of(weights, x, y):
        return jnp.mean((mlp(weights, x) - y) ** 2)

    monitor = jg.monitor(loss_of, WEIGHTS, X, X)
    optimizer = optax.sgd(0.1)

    def train(weights, *, watch):
        def step(state, number):
            weights, moments = state
            gradient = jax.grad(loss_of)(weights, X, X)
            updates, moments = optimizer.update(gradient, moments)
            seen = monitor(weights, X, X, when=number % 3 == 0) if watch else None
            return (optax.apply_updates(weights, updates), moments), seen

        return jax.lax.scan(step, (weights, optimizer.init(weights)), jnp.arange(7))

    (trained, _), seen = jax.jit(lambda weights: train(weights, watch=True))(WEIGHTS)
    (plain, _), _ = jax.jit(lambda weights: train(weights, watch=False))(WEIGHTS)
    np.testing.assert_allclose(trained, plain, rtol=1e-5, atol=1e-7)
    drift = monitor.dataset(seen)
    assert drift["step"].values.tolist() == [0, 3, 6] and drift["name"].values.tolist() == list(monitor.sites)
    gradient = jax.grad(loss_of)(WEIGHTS, X, X)[2]
    expected = 0.5 * np.log(np.mean(np.square(gradient)))
    assert drift["log_grad_parameter"].sel(step=0).values[2] == pytest.approx(expected, rel=1e-5)
    assert len(draw_drift(drift).axes) == 4


def test_a_list_of_looks_is_a_dataset_too():
    monitor = jg.monitor(mlp, WEIGHTS, X)
    looks = [monitor(scale * WEIGHTS, X) for scale in (1.0, 2.0)]
    assert monitor.dataset(looks, steps=[0, 50])["step"].values.tolist() == [0, 50]
    with pytest.raises(ValueError, match="steps must be the numbers of 2 measurements"):
        monitor.dataset(looks, steps=[0])


def test_an_nnx_module_is_what_changes():
    model = nnx.Linear(16, 4, rngs=nnx.Rngs(0))
    monitor = jg.monitor(model, X)
    seen = jax.jit(lambda model: monitor(model, X))(model)
    assert float(seen.rms_out[0]) == pytest.approx(float(jnp.sqrt(jnp.mean((X @ model.kernel[...]) ** 2))), rel=1e-5)


def test_another_shape_is_refused():
    monitor = jg.monitor(mlp, WEIGHTS, X)
    with pytest.raises(ValueError, match="arguments of other shapes or types"):
        monitor(WEIGHTS, X[:4])
