import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from jaxgain.initializers import bias, branch, for_activation, scaled, torch_default, zeros
from jaxgain.propagation.weights import DISTRIBUTIONS
from jaxgain.theory.gains import NoSuchGain

KEY = jax.random.key(7)
WIDTH, INPUTS, GAIN, SIGMA_B = 2048, 256, 1.5, 0.5
PROMISED = GAIN**2 + SIGMA_B**2


def unit_inputs(*shape):
    """Inputs whose features have mean square exactly 1 each."""
    x = jax.random.normal(jax.random.key(1), shape)
    return x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True))


def mean_square(z):
    return float(jnp.mean(jnp.square(z.astype(jnp.float32))))


def options(dtype, kernel=None):
    return dict(kernel_init=kernel or scaled(GAIN), bias_init=bias(SIGMA_B), param_dtype=dtype, dtype=dtype)


def nnx_dense(dtype):
    return nnx.Linear(WIDTH, WIDTH, rngs=nnx.Rngs(0), **options(dtype))(unit_inputs(INPUTS, WIDTH).astype(dtype))


def linen_dense(dtype):
    x = unit_inputs(INPUTS, WIDTH).astype(dtype)
    layer = linen.Dense(WIDTH, **options(dtype))
    return layer.apply(layer.init(KEY, x), x)


def haiku_dense(dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its import uses names that jax is about to drop
        import haiku

        def apply(x):
            adapted = lambda init: lambda shape, dtype: init(haiku.next_rng_key(), shape, dtype)
            return haiku.Linear(WIDTH, w_init=adapted(scaled(GAIN)), b_init=adapted(bias(SIGMA_B)))(x)

        x, network = unit_inputs(INPUTS, WIDTH).astype(dtype), haiku.transform(apply)
        return network.apply(network.init(KEY, x), KEY, x)


def equinox_dense(dtype):
    equinox = pytest.importorskip("equinox")
    layer = equinox.nn.Linear(WIDTH, WIDTH, key=KEY, dtype=dtype)
    kernel = scaled(GAIN, in_axis=1, out_axis=0)(KEY, layer.weight.shape, dtype)
    offset = bias(SIGMA_B)(jax.random.key(3), layer.bias.shape, dtype)
    layer = equinox.tree_at(lambda layer: (layer.weight, layer.bias), layer, (kernel, offset))
    return jax.vmap(layer)(unit_inputs(INPUTS, WIDTH).astype(dtype))


def convolution(channels, outputs, groups, distribution="normal", draws=1):
    def run(dtype):
        kernel = scaled(GAIN, distribution=distribution)
        sizes = dict(feature_group_count=groups, padding="VALID", **options(dtype, kernel))
        layers = [nnx.Conv(channels, outputs, (3, 3), rngs=nnx.Rngs(seed), **sizes) for seed in range(draws)]
        return jnp.stack([layer(unit_inputs(16, 8, 8, channels).astype(dtype)) for layer in layers])

    return run


def stacked(dtype):
    """A stack of kernels that a scan would run through, drawn at once."""
    kernels = scaled(GAIN, batch_axis=0)(KEY, (3, 512, WIDTH), dtype)
    offsets = bias(SIGMA_B)(jax.random.key(3), (3, 1, WIDTH), dtype)
    return jnp.einsum("bi,lio->lbo", unit_inputs(INPUTS, 512).astype(dtype), kernels) + offsets


def scanned(dtype):
    """Layers that Flax itself stacks."""
    make = nnx.vmap(lambda rngs: nnx.Linear(512, WIDTH, rngs=rngs, **options(dtype)), in_axes=0, out_axes=0)
    layers = make(nnx.Rngs(0).split(3))
    return nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))(layers, unit_inputs(INPUTS, 512).astype(dtype))


def attention(dtype):
    layer = nnx.MultiHeadAttention(8, 512, qkv_features=WIDTH, rngs=nnx.Rngs(0), **options(dtype))
    return layer.query(unit_inputs(INPUTS, 512).astype(dtype))


def einsum(dtype):
    init = scaled(GAIN, in_axis=0, out_axis=(1, 2))
    sizes = dict(kernel_init=init, bias_init=bias(SIGMA_B), param_dtype=dtype, dtype=dtype, rngs=nnx.Rngs(0))
    layer = nnx.Einsum("bi,iho->bho", (512, 8, 256), (8, 256), **sizes)
    return layer(unit_inputs(INPUTS, 512).astype(dtype))


def embedding(dtype):
    init = scaled(PROMISED**0.5, in_axis=(), batch_axis=0)
    layer = nnx.Embed(500, WIDTH, embedding_init=init, param_dtype=dtype, dtype=dtype, rngs=nnx.Rngs(0))
    return layer(jnp.arange(500))


LAYERS = {
    "nnx": nnx_dense,
    "linen": linen_dense,
    "haiku": haiku_dense,
    "equinox": equinox_dense,
    "convolution": convolution(64, 512, 1),
    "grouped convolution": convolution(256, 512, 8),
    "depthwise convolution": convolution(1024, 4096, 1024, draws=10),
    "orthogonal convolution": convolution(64, 512, 1, "orthogonal"),
    "stacked": stacked,
    "scanned": scanned,
    "attention": attention,
    "einsum": einsum,
    "embedding": embedding,
}


LONG = ("grouped convolution", "depthwise convolution", "orthogonal convolution", "scanned", "stacked")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("layer", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in LAYERS])
def test_a_layer_has_the_mean_square_that_it_was_promised(layer, dtype):
    z = LAYERS[layer](dtype)
    assert z.dtype == dtype
    assert mean_square(z) == pytest.approx(PROMISED, rel=0.01)


@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_entries_have_variance_gain_squared_over_fan(distribution, mode):
    kernel = np.asarray(scaled(GAIN, mode, distribution)(KEY, (3, 100, 400)))
    fan = {"fan_in": 300, "fan_out": 1200, "fan_avg": 750}[mode]
    count = kernel.size * (0.1 if distribution == "sparse" else 1)
    # of squares, at most that of a normal number; those of an orthogonal kernel fluctuate less
    assert np.mean(kernel**2) * fan / GAIN**2 == pytest.approx(1, abs=5 * (2 / count) ** 0.5)
    assert abs(np.mean(kernel)) < 5 * GAIN / (fan * kernel.size) ** 0.5


def test_groups_divide_the_fan_out():
    one, four = (scaled(1.0, "fan_out", groups=groups)(KEY, (3, 3, 8, 32)) for groups in (1, 4))
    np.testing.assert_allclose(four, 2 * one, rtol=1e-6)


@pytest.mark.parametrize("shape", [(30, 30), (30, 50), (50, 30), (3, 3, 8, 30)])
def test_orthogonal_kernels_are_orthogonal_from_all_that_enters_to_all_that_leaves(shape):
    kernel = np.asarray(scaled(2.0, distribution="orthogonal")(KEY, shape)).reshape(-1, shape[-1])
    fan_in, fan_out = kernel.shape
    product = kernel.T @ kernel if fan_in >= fan_out else kernel @ kernel.T
    np.testing.assert_allclose(product, 4 * max(fan_in, fan_out) / fan_in * np.eye(min(kernel.shape)), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 4])
def test_a_delta_orthogonal_convolution_keeps_every_norm(size):
    kernel = scaled(1.0, distribution="delta_orthogonal")(KEY, (size, size, 16, 16))
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 16))
    z = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(jnp.sum(z * z, -1), jnp.sum(x * x, -1), rtol=1e-5)


@pytest.mark.slow
def test_sparse_kernels_have_so_many_zeros():
    kernel = np.asarray(scaled(distribution="sparse", sparsity=0.75)(KEY, (400, 500)))
    assert np.mean(kernel == 0) == pytest.approx(0.75, abs=5 * (0.75 * 0.25 / kernel.size) ** 0.5)


@pytest.mark.slow
def test_independent_kernels_are_orthogonal_each():
    kernels = np.asarray(scaled(distribution="orthogonal", batch_axis=0)(KEY, (3, 20, 20)))
    np.testing.assert_allclose(
        kernels @ kernels.transpose(0, 2, 1), np.broadcast_to(np.eye(20), (3, 20, 20)), atol=1e-5
    )
    assert abs(np.sum(kernels[0] * kernels[1])) < 10


@pytest.mark.parametrize("distribution", [*DISTRIBUTIONS, "delta_orthogonal"])
def test_low_precision_is_the_rounding_of_float32(distribution):
    init = scaled(GAIN, distribution=distribution)
    full, low = (init(KEY, (3, 50, 60), dtype) for dtype in (jnp.float32, jnp.bfloat16))
    np.testing.assert_array_equal(full.astype(jnp.bfloat16), low)


def test_float64_is_drawn_in_float64():
    with jax.enable_x64(True):
        kernel = scaled(GAIN)(KEY, (50, 60), jnp.float64)
        assert kernel.dtype == jnp.float64
        assert bool(jnp.any(kernel != kernel.astype(jnp.float32)))
        assert scaled(GAIN)(KEY, (5, 6)).dtype == jnp.float64


def test_a_gain_may_be_traced_and_batched():
    gains = jnp.array([0.5, 1.0, 2.0])
    kernels = jax.jit(jax.vmap(lambda gain: scaled(gain)(KEY, (4, 5))))(gains)
    np.testing.assert_allclose(kernels, gains[:, None, None] * scaled(1.0)(KEY, (4, 5))[None], rtol=1e-6)
    offsets = jax.vmap(lambda sigma: bias(sigma)(KEY, (5,)))(gains)
    np.testing.assert_allclose(offsets[2], 4 * offsets[0], rtol=1e-6)


def test_a_sharding_is_kept():
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    kernel = scaled()(KEY, (4, 6), jnp.float32, sharding)
    assert kernel.sharding == sharding
    np.testing.assert_array_equal(kernel, scaled()(KEY, (4, 6)))


def test_he_and_lecun_are_gains():
    for ours, theirs in (
        (scaled(2**0.5, distribution="truncated_normal"), jax.nn.initializers.he_normal()),
        (scaled(distribution="uniform"), jax.nn.initializers.lecun_uniform()),
        (scaled(mode="fan_avg"), jax.nn.initializers.variance_scaling(1.0, "fan_avg", "normal")),
    ):
        one, other = (np.sort(np.ravel(init(KEY, (300, 700)))) for init in (ours, theirs))
        # the largest distance between two distributions of 210,000 numbers each: 1.95 √(2/N) in one case of 1000
        levels = np.linspace(one[0], one[-1], 1001)
        distance = np.abs(np.searchsorted(one, levels) - np.searchsorted(other, levels)).max() / one.size
        assert distance < 1.95 * (2 / one.size) ** 0.5


def test_torch_layers_are_uniform_up_to_one_over_the_root_of_their_fan():
    kernel_init, bias_init = torch_default(fan_in=9 * 64)
    for found in (kernel_init(KEY, (3, 3, 64, 128)), bias_init(KEY, (100_000,))):
        assert float(jnp.abs(found).max()) * 24 == pytest.approx(1, abs=1e-3)
        assert mean_square(found) * 24**2 == pytest.approx(1 / 3, rel=0.02)


def test_critical_kernels_come_with_their_biases():
    kernel_init, bias_init = for_activation("gelu")
    assert mean_square(kernel_init(KEY, (1000, 1000))) * 1000 == pytest.approx(1.9830582574, rel=0.01)
    assert mean_square(bias_init(KEY, (1_000_000,))) == pytest.approx(0.1729223908, rel=0.01)
    assert not for_activation("relu").bias_init(KEY, (3,)).any()
    assert not for_activation("gelu", "forward").bias_init(KEY, (3,)).any()


def test_activations_of_ones_own_have_initializers():
    ours, own = (for_activation(phi, "forward").kernel_init(KEY, (10, 10)) for phi in ("tanh", jnp.tanh))
    np.testing.assert_allclose(ours, own, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("scaling", "limit"), [("1/sqrt(L)", math.e), ("fixup", 1.0), ("zero", 1.0)])
def test_branches_keep_a_residual_network_of_any_depth(scaling, limit):
    depth, width = 50, 400
    first, last = branch("relu", depth, scaling=scaling)
    h = unit_inputs(4, width)
    for key in jax.random.split(KEY, depth):
        one, two = jax.random.split(key)
        h = h + jax.nn.relu(h @ first(one, (width, width))) @ last(two, (width, width))
    # (1 + 1/L)^L = 2.69 at L = 50; its logarithm fluctuates as √(few × L/n)/L
    expected = (1 + 1 / depth) ** depth if limit > 1 else 1.0
    assert mean_square(h) == pytest.approx(expected, rel=0.1 if limit > 1 else 1e-6)
    assert mean_square(h) <= limit * 1.1


def test_fixup_scales_what_is_not_zero():
    first, second, last = branch("relu", 81, layers=3, scaling="fixup")
    assert mean_square(first(KEY, (1000, 1000))) * 1000 == pytest.approx(2 * 81**-0.5, rel=0.01)
    np.testing.assert_array_equal(first(KEY, (5, 5)), second(KEY, (5, 5)))
    np.testing.assert_array_equal(last(KEY, (5, 5)), zeros()(KEY, (5, 5)))


BAD = [
    (lambda: scaled(mode="fan_inn"), ValueError, "unknown mode 'fan_inn'; did you mean 'fan_in'?"),
    (lambda: scaled(distribution="gaussian"), ValueError, "unknown distribution 'gaussian'"),
    (lambda: scaled(-1.0), ValueError, "gain must be one number, finite and at least 0, got -1.0"),
    (lambda: scaled(float("nan")), ValueError, "got nan"),
    (lambda: scaled([1.0, 2.0]), ValueError, "for several use jax.vmap"),
    (lambda: scaled("big"), TypeError, "gain must be a number, got 'big'"),
    (lambda: scaled(in_axis=-1), ValueError, "in_axis, out_axis and batch_axis must differ"),
    (lambda: scaled(in_axis="in"), TypeError, "in_axis must be a whole number or several, got 'in'"),
    (lambda: scaled(groups=0), ValueError, "groups must be a whole number of at least 1, got 0"),
    (lambda: scaled(sparsity=1.0), ValueError, "sparsity must be at least 0 and below 1"),
    (lambda: scaled()(KEY, (3,)), ValueError, "in_axis = -2 is no axis of a kernel of shape (3,)"),
    (lambda: scaled(in_axis=1)(KEY, (3, 4)), ValueError, "meet in a kernel of shape (3, 4)"),
    (lambda: scaled()(KEY, (3, 4), jnp.int32), ValueError, "got dtype int32"),
    (lambda: scaled(distribution="delta_orthogonal")(KEY, (3, 4)), ValueError, "got the shape (3, 4)"),
    (lambda: bias(-0.1), ValueError, "sigma_b must be one number, finite and at least 0"),
    (lambda: for_activation("gelu", "forwrad"), ValueError, "unknown kind 'forwrad'; did you mean 'forward'?"),
    (lambda: for_activation("step"), NoSuchGain, "chi_perp is infinite"),
    (lambda: branch("relu", 0), ValueError, "depth must be a whole number of at least 1, the residual branches, got 0"),
    (lambda: branch("relu", 3, layers=1, scaling="fixup"), ValueError, "layers must be at least 2, got 1"),
    (lambda: branch("relu", 3, scaling="fixxup"), ValueError, "did you mean 'fixup'?"),
    (lambda: torch_default(0), ValueError, "fan_in must be a whole number of at least 1"),
]


@pytest.mark.parametrize(("call", "error", "sentence"), BAD, ids=[case[2] for case in BAD])
def test_bad_input_is_one_sentence(call, error, sentence):
    with pytest.raises(error) as raised:
        call()
    assert sentence in str(raised.value) and "\n" not in str(raised.value)
