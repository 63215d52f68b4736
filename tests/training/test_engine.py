"""One run against the same run written out step by step, as users of Flax and optax write it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxgain.activations import activation
from jaxgain.nn import LayerScales
from jaxgain.training.engine import (
    Member,
    Shape,
    batch_of,
    layer_norms,
    measure,
    model_of,
    scale_by_hypergradient,
    train_one,
)

X = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
Y = np.argmax(X[:, :4], axis=1).astype(np.int32)
DATA = tuple(map(jnp.asarray, (X[:150], Y[:150], X[150:], Y[150:])))
SLOW = pytest.mark.slow
SHAPE = Shape(
    phi=activation("tanh"),
    steepest=1.0,
    features=6,
    width=16,
    depth=3,
    classes=4,
    block="plain",
    kind="",
    scaling="1/sqrt(L)",
    distribution="normal",
    optimizer="sgd",
    schedule="constant",
    clip=None,
    epsilon=1e-8,
    weight_decay=1e-4,
    layer_rates=(1.0,) * 4,
    batch=8,
    steps=20,
    gradient_every=5,
    measure_every=10,
    dtype="float32",
)
MEMBER = Member(LayerScales(1.0, 1.2, 1.0, 0.1), 0.1, np.uint32(3))
trained = jax.jit(train_one, static_argnums=0)

OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(0.1),
    "adamw": optax.adamw(0.1, weight_decay=1e-4),
}


def by_hand(shape, member, optimizer):
    """Losses, and the model at the end."""
    model, (x, y, *_) = model_of(shape, member), DATA
    state = nnx.Optimizer(model, optimizer, wrt=nnx.Param)

    @nnx.jit
    def step(model, state, inputs, labels):
        def loss_of(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(inputs), labels).mean()

        loss, grads = nnx.value_and_grad(loss_of)(model)
        state.update(model, grads)
        return loss

    losses = []
    for index in range(shape.steps):
        chosen = batch_of(shape, member, index, len(y))
        losses.append(float(step(model, state, x[chosen], y[chosen])))
    return losses, model


@pytest.mark.parametrize("name", ["momentum", *(pytest.param(name, marks=SLOW) for name in ("sgd", "adam", "adamw"))])
def test_the_scanned_run_is_the_loop_of_steps(name):
    shape = SHAPE._replace(optimizer=name)
    losses, model = by_hand(shape, MEMBER, OPTIMIZERS[name])
    run = trained(shape, MEMBER, *DATA)
    np.testing.assert_allclose(run.loss, losses, rtol=1e-5)
    assert float(run.test_accuracy) == np.mean(np.argmax(model(DATA[2]), -1) == DATA[3])
    assert float(run.train_accuracy) == pytest.approx(np.mean(np.argmax(model(DATA[0]), -1) == DATA[1]))


@pytest.mark.slow
def test_clipping_and_schedules_are_those_of_optax():
    shape = SHAPE._replace(clip=0.5, schedule="cosine")
    rate = optax.cosine_decay_schedule(0.1, shape.steps)
    losses, _ = by_hand(shape, MEMBER, optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(rate)))
    np.testing.assert_allclose(trained(shape, MEMBER, *DATA).loss, losses, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["linear", "warmup_cosine"])
def test_schedules_end_at_rest(schedule):
    shape = SHAPE._replace(schedule=schedule, steps=200, measure_every=100)
    run = trained(shape, MEMBER, *DATA)
    assert float(run.train_accuracy) > 0.6
    assert np.isfinite(run.loss).all()


@pytest.mark.slow
@pytest.mark.parametrize("block", ["plain", *(pytest.param(name, marks=SLOW) for name in ("residual", "prenorm"))])
def test_gradient_norms_are_those_of_each_layers_kernels(block):
    shape = SHAPE._replace(block=block, kind="forward", layer_rates=(1.0,) * (4 if block == "plain" else 5))
    run, model = trained(shape, MEMBER, *DATA), model_of(shape, MEMBER)
    chosen = batch_of(shape, MEMBER, 0, 150)
    grads = nnx.grad(
        lambda model: optax.softmax_cross_entropy_with_integer_labels(model(DATA[0][chosen]), DATA[1][chosen]).mean()
    )(model)
    norm = lambda kernel: float(jnp.linalg.norm(kernel.ravel()))
    if block == "plain":
        middle = [norm(kernel) for kernel in grads["hidden"]["kernel"][...]]
    else:
        both = (grads["blocks"][name]["kernel"][...] for name in ("up", "down"))
        middle = [np.hypot(norm(up), norm(down)) for up, down in zip(*both, strict=True)]
    expected = [norm(grads["first"]["kernel"][...]), *middle, norm(grads["readout"]["kernel"][...])]
    np.testing.assert_allclose(np.exp(run.log_grad_norm[0]), expected, rtol=1e-5)
    np.testing.assert_allclose(layer_norms(nnx.state(grads)), expected, rtol=1e-5)
    assert run.log_grad_norm.shape == (4, len(expected))


def test_measurements_are_those_of_the_preactivations():
    model, x = model_of(SHAPE, MEMBER), jnp.asarray(X[:10])
    q, correlation, saturated = measure(model, x, SHAPE)
    z = np.asarray(model.preactivations(x), np.float64)
    unit = z / np.linalg.norm(z, axis=-1, keepdims=True)
    cosines = np.einsum("lbn,lcn->lbc", unit, unit)
    pairs = ~np.eye(10, dtype=bool)
    np.testing.assert_allclose(q, np.mean(z**2, axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(correlation, [layer[pairs].mean() for layer in cosines], atol=1e-5)
    np.testing.assert_allclose(saturated, np.mean(1 - np.tanh(z) ** 2 < 0.01, axis=(1, 2)), atol=1e-6)


def test_measurements_come_before_the_first_step_between_and_after_the_last():
    run, still = (trained(SHAPE, MEMBER._replace(learning_rate=rate), *DATA) for rate in (0.1, 0.0))
    assert run.q.shape == (3, 3)
    np.testing.assert_allclose(run.q[0], still.q[0], rtol=1e-6)
    np.testing.assert_allclose(still.q, np.broadcast_to(still.q[0], (3, 3)), rtol=1e-6)
    assert np.all(np.abs(run.q[2] - run.q[1]) > 1e-4)


def test_a_run_that_diverges_stops_there_and_keeps_what_it_had():
    wild = MEMBER._replace(learning_rate=1e30)
    run = trained(SHAPE._replace(phi=activation("relu_squared")), wild, *DATA)
    first = int(run.diverged)
    assert 0 < first < 5
    assert np.isfinite(run.loss[:first]).all() and np.isnan(run.loss[first:]).all()
    assert np.isnan(run.log_grad_norm[1:]).all()
    assert 0 <= float(run.test_accuracy) <= 1
    assert int(trained(SHAPE, MEMBER, *DATA).diverged) == -1


def test_runs_beside_a_diverging_one_are_what_they_are_alone():
    rates = jnp.array([1e-3, 1e30, 2e-3])
    shape = SHAPE._replace(phi=activation("relu_squared"))
    one = lambda rate: train_one(shape, MEMBER._replace(learning_rate=rate), *DATA)
    together = jax.jit(partial(jax.lax.map, one))(rates)
    alone = jax.jit(partial(jax.lax.map, one))(jnp.array([1e-3, 1e-3, 2e-3]))
    assert together.diverged.tolist()[::2] == [-1, -1] and together.diverged[1] > 0
    np.testing.assert_array_equal(together.loss[::2], alone.loss[::2])


@pytest.mark.slow
def test_layers_learn_at_their_own_rates():
    frozen = SHAPE._replace(layer_rates=(0.0, 1.0, 0.0, 2.0), steps=1, measure_every=1, gradient_every=1)
    by_one = trained(frozen, MEMBER, *DATA)
    same = trained(frozen._replace(layer_rates=(1.0,) * 4), MEMBER, *DATA)
    moved = lambda run: np.abs(np.asarray(run.q[1] - run.q[0])) > 1e-6
    assert moved(same).tolist() == [True, True, True]
    assert moved(by_one).tolist() == [False, True, True]  # the third is moved by what enters it


def test_seeds_decide_weights_and_batches_and_nothing_else_does():
    first, other = (trained(SHAPE, MEMBER._replace(seed=np.uint32(seed)), *DATA) for seed in (3, 4))
    again = trained(SHAPE, MEMBER, *DATA)
    np.testing.assert_array_equal(first.loss, again.loss)
    assert np.abs(first.loss - other.loss).max() > 0.1


def test_hypergradient_descent_is_sgd_whose_rate_follows_the_cosine_of_successive_gradients():
    gradients = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    rule, factor, expected = scale_by_hypergradient(0.1), 1.0, []
    for step, g in enumerate(gradients):
        if step:
            before = gradients[step - 1]
            factor *= 1 + 0.1 * float(g @ before) / float(np.linalg.norm(g) * np.linalg.norm(before))
        expected.append(factor * g)
    state, found = rule.init({"a": jnp.zeros(2), "b": jnp.zeros(1)}), []
    for g in gradients:
        update, state = rule.update({"a": jnp.asarray(g[:2]), "b": jnp.asarray(g[2:])}, state)
        found.append(np.concatenate([update["a"], update["b"]]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.isfinite(rule.update({"a": jnp.zeros(2), "b": jnp.zeros(1)}, state)[0]["a"]).all()
