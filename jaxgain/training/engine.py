r"""One network and its training, as a function of a few numbers: `vmap`, or a map, over them is the grid of runs."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax

from jaxgain.activations import Activation
from jaxgain.nn import MLP, LayerScales, ResidualMLP

PROBES = 32  # inputs on which length, correlation and saturation are measured


class Shape(NamedTuple):
    """What a compiled run depends on."""

    phi: Activation
    steepest: float
    """The supremum of |φ'| that saturation is measured against."""
    features: int
    width: int
    depth: int
    classes: int
    block: str
    kind: str
    """Of the gain of a residual network; a plain one has its scales as numbers."""
    scaling: str
    distribution: str
    optimizer: str
    schedule: str
    clip: float | None
    epsilon: float
    weight_decay: float
    layer_rates: tuple[float, ...]
    batch: int
    steps: int
    gradient_every: int
    measure_every: int
    dtype: str


class Member(NamedTuple):
    """The numbers of one run, scalars."""

    scales: LayerScales
    learning_rate: Any
    seed: Any


class Run(NamedTuple):
    """What is recorded of one run; NaN from where it diverged."""

    loss: Array
    """(steps,), before each step."""
    log_grad_norm: Array
    """(steps / gradient_every, layers), of the kernels, natural logarithm."""
    q: Array
    """(1 + steps / measure_every, depth): mean square of z."""
    correlation: Array
    """The same, mean cosine between two inputs' z."""
    saturated: Array
    """The same, fraction of neurons whose |φ'(z)| is below 0.01 of its supremum."""
    train_accuracy: Array
    test_accuracy: Array
    diverged: Array
    """First step whose loss or gradient is not finite, −1 if none is."""


def model_of(shape: Shape, member: Member) -> MLP | ResidualMLP:
    """The network of a run before its first step."""
    sizes = (shape.features, shape.width, shape.depth, shape.classes)
    common: dict[str, Any] = {"activation": shape.phi, "param_dtype": jnp.dtype(shape.dtype)}
    rngs = nnx.Rngs(params=jax.random.fold_in(_key(member, 0), 0))
    if shape.block == "plain":
        return MLP(*sizes, init=member.scales, distribution=shape.distribution, rngs=rngs, **common)
    norm = "layernorm" if shape.block == "prenorm" else "none"
    return ResidualMLP(*sizes, init=shape.kind, norm=norm, scaling=shape.scaling, rngs=rngs, **common)


def optimizer_of(shape: Shape, learning_rate: Any) -> optax.GradientTransformation:
    """Gradients to steps, the rates of the layers not yet among them."""
    over = _SCHEDULES[shape.schedule](shape.steps)
    rate = lambda step: learning_rate * over(step)
    clip = [] if shape.clip is None else [optax.clip_by_global_norm(shape.clip)]
    adaptive = optax.scale_by_adam(eps=shape.epsilon)
    rule = {
        "sgd": [],
        "momentum": [optax.trace(decay=0.9)],
        "adam": [adaptive],
        "adamw": [adaptive, optax.add_decayed_weights(shape.weight_decay)],
        "hypergradient": [scale_by_hypergradient()],
    }[shape.optimizer]
    return optax.chain(*clip, *rule, optax.scale_by_learning_rate(rate))


class HypergradientState(NamedTuple):
    """What multiplies the learning rate, and the gradient before."""

    factor: Array
    before: Any


def scale_by_hypergradient(rate: float = 0.02) -> optax.GradientTransformation:
    r"""Gradients times a factor that rises while they agree with the ones before, and falls while they disagree.

    $\alpha_t = \alpha_{t-1} (1 + \beta \cos(g_t, g_{t-1}))$ with $\alpha_0 = 1$ and $\beta$ = `rate`: hypergradient
    descent of SGD in its multiplicative form (Baydin et al., *Online learning rate adaptation with hypergradient
    descent*, 2018), one factor for all layers.

    >>> rule = scale_by_hypergradient(0.5)
    >>> state = rule.init(jnp.zeros(2))
    >>> for gradient in (jnp.array([1.0, 0.0]), jnp.array([2.0, 0.0]), jnp.array([-1.0, 0.0])):
    ...     update, state = rule.update(gradient, state)
    ...     print(update)
    [1. 0.]
    [3. 0.]
    [-0.75  0.  ]
    """

    def start(params: Any) -> HypergradientState:
        one = jnp.ones((), jax.tree.leaves(params)[0].dtype)
        return HypergradientState(one, jax.tree.map(jnp.zeros_like, params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        norms = optax.tree.norm(updates) * optax.tree.norm(state.before)
        cosine = optax.tree.vdot(updates, state.before) / jnp.where(norms > 0, norms, 1)
        factor = state.factor * (1 + rate * cosine)
        return jax.tree.map(lambda g: factor * g, updates), HypergradientState(factor, updates)

    return optax.GradientTransformation(start, update)


_SCHEDULES: dict[str, Callable[[int], optax.Schedule]] = {
    "constant": lambda steps: optax.constant_schedule(1.0),
    "linear": lambda steps: optax.linear_schedule(1.0, 0.0, steps),
    "cosine": lambda steps: optax.cosine_decay_schedule(1.0, steps),
    "warmup_cosine": lambda steps: optax.warmup_cosine_decay_schedule(0.0, 1.0, max(1, steps // 10), steps),
}


def train_one(shape: Shape, member: Member, x: Array, y: Array, x_test: Array, y_test: Array) -> Run:
    """Train one network on (x, y); a run whose loss or gradient is no number keeps the parameters it had before."""
    graph, split = nnx.split(model_of(shape, member))
    start: Any = split
    optimizer = optimizer_of(shape, member.learning_rate)

    def loss_of(params: Any, inputs: Array, labels: Array) -> Array:
        logits = nnx.merge(graph, params)(inputs)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    def step(carry: Any, index: Array) -> tuple[Any, Any]:
        params, state, diverged = carry
        chosen = batch_of(shape, member, index, len(y))
        loss, grads = jax.value_and_grad(loss_of)(params, x[chosen], y[chosen])
        norms = layer_norms(grads)
        alive = (diverged < 0) & jnp.isfinite(loss) & jnp.all(jnp.isfinite(norms))
        updates, after = optimizer.update(grads, state, params)
        moved = optax.apply_updates(params, _at_their_rates(updates, shape.layer_rates))
        kept = jax.tree.map(lambda new, old: jnp.where(alive, new, old), (moved, after), (params, state))
        dead = jnp.where(diverged < 0, jnp.where(alive, -1, index), diverged)
        return (*kept, dead), (jnp.where(alive, loss, jnp.nan), jnp.where(alive, norms, jnp.nan))

    def interval(carry: Any, indices: Array) -> tuple[Any, Any]:
        measured = measure(nnx.merge(graph, carry[0]), x[:PROBES], shape)
        # Behind the last steps there is a measurement more.
        train = partial(lax.scan, step)
        carry, (losses, norms) = lax.cond(indices[0] < shape.steps, train, partial(_idle, train), carry, indices)
        return carry, (losses, jnp.log(norms[:: shape.gradient_every]), measured)

    carry = (start, optimizer.init(start), jnp.int32(-1))
    indices = jnp.arange(shape.steps + shape.measure_every, dtype=jnp.int32).reshape(-1, shape.measure_every)
    (params, _, diverged), (losses, norms, (q, correlation, saturated)) = lax.scan(interval, carry, indices)
    right = jnp.argmax(nnx.merge(graph, params)(jnp.concatenate([x, x_test])), -1) == jnp.concatenate([y, y_test])
    return Run(
        loss=losses.reshape(-1)[: shape.steps],
        log_grad_norm=norms.reshape(-1, norms.shape[-1])[: shape.steps // shape.gradient_every],
        q=q,
        correlation=correlation,
        saturated=saturated,
        train_accuracy=jnp.mean(right[: len(y)]),
        test_accuracy=jnp.mean(right[len(y) :]),
        diverged=diverged,
    )


def batch_of(shape: Shape, member: Member, index: Any, examples: int) -> Array:
    """Which of so many examples make the batch of a step, (batch,): drawn with replacement, the same for a seed."""
    return jax.random.randint(jax.random.fold_in(_key(member, 1), index), (shape.batch,), 0, examples)


def _idle(train: Callable, carry: Any, indices: Array) -> tuple[Any, Any]:
    """No steps, in the place of some."""
    _, out = jax.eval_shape(train, carry, indices)
    return carry, jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), out)


def measure(model: Any, x: Array, shape: Shape) -> tuple[Array, Array, Array]:
    """Length, correlation and saturation of each layer's z over some inputs, (depth,) each."""
    z = model.preactivations(x)
    squares = jnp.mean(z * z, axis=-1)
    directions = z / jnp.sqrt(jnp.where(squares > 0, squares, 1))[..., None]
    count = len(x)
    # Of all pairs: the square of the sum has each pair twice and each input with itself once.
    together = jnp.mean(jnp.sum(directions, axis=1) ** 2, axis=-1)
    correlation = (together - count) / (count * (count - 1))
    _, slope = jax.jvp(shape.phi, (z,), (jnp.ones_like(z),))
    return jnp.mean(squares, -1), correlation, jnp.mean(jnp.abs(slope) < 0.01 * shape.steepest, axis=(1, 2))


def layer_norms(grads: Any) -> Array:
    """Norms of the gradient of each layer's kernels, first to readout; of a block's two kernels together."""
    norm = lambda kernel, axes: jnp.sum(kernel * kernel, axis=axes)
    leaves, _ = jax.tree_util.tree_flatten_with_path(grads)
    values = {"/".join(_names(path)): leaf for path, leaf in leaves if "kernel" in _names(path)}
    middle = sum(norm(kernel, (1, 2)) for name, kernel in values.items() if name.startswith(("hidden", "blocks")))
    ends = [norm(values[f"{name}/kernel"], None)[None] for name in ("first", "readout")]
    return jnp.sqrt(jnp.concatenate([ends[0], *([] if isinstance(middle, int) else [middle]), ends[1]]))


def _names(path: tuple) -> list[str]:
    """Of the modules down to a parameter, and of the parameter."""
    return [str(step.key) for step in path if isinstance(step, jax.tree_util.DictKey)]


def _at_their_rates(updates: Any, rates: tuple[float, ...]) -> Any:
    """Updates times the rate of their layer: stacked ones are those of the layers between first and readout."""
    if set(rates) == {1.0}:
        return updates

    def one(path: tuple, update: Array) -> Array:
        name = _names(path)[0]
        if name in ("hidden", "blocks"):
            own = jnp.asarray(rates[1:-1], update.dtype)
            return update * own.reshape(-1, *[1] * (update.ndim - 1))
        return update * rates[0 if name == "first" else -1]

    return jax.tree_util.tree_map_with_path(one, updates)


def _key(member: Member, purpose: int) -> Array:
    """One for the parameters and one for the batches of a seed, the same for all else that differs."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), member.seed), purpose)
