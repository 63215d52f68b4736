"""Small models of every library, and what each of them computes, written out by hand with an epsilon at every site."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

KIND = jnp.float64


class Tape:
    """Records input, weights and output of every linear operation; adds an epsilon to weights and output."""

    def __init__(self, epsilons=None):
        self.epsilons, self.records, self.operations = epsilons, [], []

    def __call__(self, operation, x, w):
        if self.epsilons is None:
            y = operation(x, w)
        else:
            of_weights, of_output = self.epsilons[len(self.records)]
            w = w + of_weights
            y = operation(x, w) + of_output
        self.records.append((x, w, y))
        self.operations.append(operation)
        return y

    def dot(self, x, w):
        return self(lambda x, w: jnp.tensordot(x, w, 1), x, w)

    def conv(self, x, w, strides=(1, 1)):
        numbers = ("NHWC", "HWIO", "NHWC")
        return self(lambda x, w: jax.lax.conv_general_dilated(x, w, strides, "SAME", dimension_numbers=numbers), x, w)


def oracle(by_hand, loss):
    """Records of a run by hand, and the gradients with respect to the epsilons, all in float64 NumPy."""
    tape = Tape()
    by_hand(tape)
    zeros = [(jnp.zeros_like(w), jnp.zeros_like(y)) for _, w, y in tape.records]
    gradients = jax.grad(lambda epsilons: loss(by_hand(Tape(epsilons))))(zeros)
    return jax.tree.map(np.asarray, (tape.records, gradients))


def fan_ins(by_hand):
    """How many weights an entry of each operation's output depends on, by differentiation; of a border's entry fewer.

    Of one input, drawn anew, as the model's own has zeros after a ReLU.
    """
    tape = Tape()
    by_hand(tape)
    counts = []
    for operation, (x, w, _) in zip(tape.operations, tape.records, strict=True):
        one = normal(30, *x[:1].shape)
        slopes = jax.jacrev(lambda w, operation=operation, one=one: operation(one, w))(w)
        counts.append(int(jnp.sum(slopes != 0, axis=tuple(range(slopes.ndim - w.ndim, slopes.ndim))).max()))
    return counts


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape, KIND)


def plain_mlp():
    params = [(normal(i, 12, 12) / 3, normal(10 + i, 12) / 5) for i in range(3)]
    x = normal(20, 6, 12)

    def model(params, x):
        for w, b in params:
            x = jnp.tanh(x @ w + b[None])
        return x

    def by_hand(tape):
        h = x
        for w, b in params:
            h = jnp.tanh(tape.dot(h, w) + b[None])
        return h

    return (model, params, x), by_hand, ["params[0][0]", "params[1][0]", "params[2][0]"]


class NnxMlp(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(10, 10, param_dtype=KIND, dtype=KIND, rngs=rngs) for _ in range(3)])
        self.head = nnx.Linear(10, 4, param_dtype=KIND, dtype=KIND, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.gelu(layer(x))
        return self.head(x)


def nnx_mlp():
    model, x = NnxMlp(nnx.Rngs(0)), normal(1, 5, 10)

    def by_hand(tape):
        h = x
        for layer in model.layers:
            h = nnx.gelu(tape.dot(h, layer.kernel[...]) + layer.bias[...][None])
        return tape.dot(h, model.head.kernel[...]) + model.head.bias[...][None]

    return (model, x), by_hand, [*(f"layers[{i}].kernel" for i in range(3)), "head.kernel"]


class Cnn(nnx.Module):
    def __init__(self, rngs):
        shared = dict(param_dtype=KIND, dtype=KIND, rngs=rngs)
        self.conv1 = nnx.Conv(3, 8, (3, 3), **shared)
        self.conv2 = nnx.Conv(8, 6, (3, 3), strides=(2, 2), **shared)
        self.head = nnx.Linear(6, 4, **shared)

    def __call__(self, x):
        x = nnx.relu(self.conv1(x))
        x = nnx.relu(self.conv2(x))
        return self.head(x.mean((1, 2)))


def cnn():
    model, x = Cnn(nnx.Rngs(0)), normal(1, 4, 8, 8, 3)

    def by_hand(tape):
        h = jax.nn.relu(tape.conv(x, model.conv1.kernel[...]) + model.conv1.bias[...][None, None, None])
        h = jax.nn.relu(tape.conv(h, model.conv2.kernel[...], (2, 2)) + model.conv2.bias[...][None, None, None])
        return tape.dot(h.mean((1, 2)), model.head.kernel[...]) + model.head.bias[...][None]

    return (model, x), by_hand, ["conv1.kernel", "conv2.kernel", "head.kernel"]


class ResNetBlock(nnx.Module):
    def __init__(self, rngs):
        shared = dict(param_dtype=KIND, dtype=KIND, rngs=rngs)
        self.conv1 = nnx.Conv(4, 4, (3, 3), use_bias=False, **shared)
        self.norm1 = nnx.BatchNorm(4, use_fast_variance=False, **shared)
        self.conv2 = nnx.Conv(4, 4, (3, 3), use_bias=False, **shared)
        self.norm2 = nnx.BatchNorm(4, use_fast_variance=False, **shared)

    def __call__(self, x):
        h = nnx.relu(self.norm1(self.conv1(x)))
        return nnx.relu(x + self.norm2(self.conv2(h)))


def resnet_block():
    model, x = ResNetBlock(nnx.Rngs(0)), normal(1, 4, 6, 6, 4)
    model = jax.tree.map(lambda leaf: leaf.astype(KIND), model)  # its running averages, too

    def normalized(h):
        mean, variance = h.mean((0, 1, 2), keepdims=True), h.var((0, 1, 2), keepdims=True)
        return (h - mean) / jnp.sqrt(variance + 1e-5)

    def by_hand(tape):
        h = jax.nn.relu(normalized(tape.conv(x, model.conv1.kernel[...])))
        return jax.nn.relu(x + normalized(tape.conv(h, model.conv2.kernel[...])))

    return (model, x), by_hand, ["conv1.kernel", "conv2.kernel"]


class Transformer(nnx.Module):
    def __init__(self, width, heads, rngs, kind=KIND):
        shared = dict(param_dtype=kind, dtype=kind, rngs=rngs)
        self.norm1, self.norm2 = nnx.LayerNorm(width, **shared), nnx.LayerNorm(width, **shared)
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, **shared)
        self.up, self.down = nnx.Linear(width, 4 * width, **shared), nnx.Linear(4 * width, width, **shared)

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


def transformer():
    model, x = Transformer(16, 2, nnx.Rngs(0)), normal(1, 3, 5, 16)

    def normalized(h):
        return (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-6)

    def by_hand(tape):
        attention = model.attention
        q, k, v = (
            tape.dot(normalized(x), layer.kernel[...]) + layer.bias[...][None, None]
            for layer in (attention.query, attention.key, attention.value)
        )
        scores = tape(lambda q, k: jnp.einsum("bthd,bshd->bhts", q, k), q, k) / jnp.sqrt(8)
        weights = jax.nn.softmax(scores)
        mixed = tape(lambda v, a: jnp.einsum("bhts,bshd->bthd", a, v), v, weights)
        out = tape(lambda h, w: jnp.einsum("bthd,hde->bte", h, w), mixed, attention.out.kernel[...])
        h = x + out + attention.out.bias[...][None, None]
        up = tape.dot(normalized(h), model.up.kernel[...]) + model.up.bias[...][None, None]
        return h + tape.dot(nnx.gelu(up), model.down.kernel[...]) + model.down.bias[...][None, None]

    names = [f"attention.{name}.kernel" for name in ("query", "key", "value")]
    products = ["attention.query·key", "attention.value·(query·key)"]
    return (model, x), by_hand, [*names, *products, "attention.out.kernel", "up.kernel", "down.kernel"]


class NnxStack(nnx.Module):
    def __init__(self, depth, rngs):
        @nnx.split_rngs(splits=depth)
        @nnx.vmap(in_axes=0, out_axes=0)
        def layers(rngs):
            return nnx.Linear(10, 10, param_dtype=KIND, dtype=KIND, rngs=rngs)

        self.layers = layers(rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        @nnx.remat
        def turn(x, layer):
            return jnp.tanh(layer(x))

        return turn(x, self.layers)


def nnx_stack():
    model, x = NnxStack(4, nnx.Rngs(0)), normal(1, 5, 10)

    def by_hand(tape):
        h = x
        for kernel, bias in zip(model.layers.kernel[...], model.layers.bias[...], strict=True):
            h = jnp.tanh(tape.dot(h, kernel) + bias[None])
        return h

    return (model, x), by_hand, [f"layers[{i}].kernel" for i in range(4)]


class LinenLayer(linen.Module):
    @linen.compact
    def __call__(self, x, _):
        return jnp.tanh(linen.Dense(10, param_dtype=KIND, dtype=KIND)(x)), None


class LinenStack(linen.Module):
    @linen.compact
    def __call__(self, x):
        layers = linen.scan(linen.remat(LinenLayer), variable_axes={"params": 0}, split_rngs={"params": True}, length=4)
        x, _ = layers(name="layers")(x, None)
        return linen.Dense(3, param_dtype=KIND, dtype=KIND)(x)


def linen_stack():
    model, x = LinenStack(), normal(1, 5, 10)
    variables = model.init(jax.random.key(0), x)

    def by_hand(tape):
        h, params = x, variables["params"]
        stack = params["layers"]["Dense_0"]
        for kernel, bias in zip(stack["kernel"], stack["bias"], strict=True):
            h = jnp.tanh(tape.dot(h, kernel) + bias[None])
        return tape.dot(h, params["Dense_0"]["kernel"]) + params["Dense_0"]["bias"][None]

    return (model, variables, x), by_hand, [*(f"layers.Dense_0[{i}].kernel" for i in range(4)), "Dense_0.kernel"]


def haiku_mlp(keyless=False):
    import warnings

    with warnings.catch_warnings():  # Haiku imports what jax has deprecated
        warnings.simplefilter("ignore")
        import haiku

        model = haiku.transform(lambda x: haiku.nets.MLP([10, 10, 3])(x))
        x = normal(1, 5, 10)
        params = model.init(jax.random.key(0), x)
        model = haiku.without_apply_rng(model) if keyless else model

    def by_hand(tape):
        h = x
        for index, name in enumerate(names):
            layer = params[name.removesuffix(".w")]
            h = tape.dot(h, layer["w"]) + layer["b"][None]
            h = jax.nn.relu(h) if index < 2 else h
        return h

    names = [f"mlp/~/linear_{i}.w" for i in range(3)]
    return (model, params, x), by_hand, names


def haiku_mlp_without_a_key():
    return haiku_mlp(keyless=True)


def equinox_mlp():
    import warnings

    with warnings.catch_warnings():  # it imports what jax has deprecated
        warnings.simplefilter("ignore")
        import equinox

    model = equinox.nn.MLP(10, 3, 12, 2, dtype=KIND, key=jax.random.key(0))
    x = normal(1, 5, 10)

    def by_hand(tape):
        h = x
        for index, layer in enumerate(model.layers):
            h = tape(lambda h, w: h @ w.T, h, layer.weight) + layer.bias[None]
            h = jax.nn.relu(h) if index < 2 else h
        return h

    return (lambda model, x: jax.vmap(model)(x), model, x), by_hand, [f"layers[{i}].weight" for i in range(3)]


MODELS = (plain_mlp, nnx_mlp, cnn, resnet_block, transformer, nnx_stack, linen_stack)
MODELS += (haiku_mlp, haiku_mlp_without_a_key, equinox_mlp)
