import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgain.nn import MLP, ConvNet, LayerScales, ResidualMLP, layer_scales
from jaxgain.theory.gains import gain
from jaxgain.theory.meanfield import Init


def unit_inputs(*shape):
    x = jax.random.normal(jax.random.key(1), shape)
    return x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True))


def lengths(model, x):
    z = model.preactivations(x)
    return np.asarray(jnp.mean(z * z, axis=tuple(range(1, z.ndim))))


@pytest.mark.parametrize("phi", ["gelu", "silu", "mish"])
def test_a_critical_network_starts_at_its_fixed_length_and_stays_near_it(phi):
    found = lengths(MLP(64, 512, 30, 10, activation=phi, rngs=nnx.Rngs(0)), unit_inputs(64, 64))
    scales = layer_scales(phi)
    q = scales.first**2 + scales.sigma_b**2
    assert found[0] == pytest.approx(q, rel=0.2)
    assert np.all(np.abs(np.log10(found / q)) < 1)  # it drifts where the fixed length is half-stable


@pytest.mark.slow
def test_a_critical_relu_network_keeps_its_length():
    found = lengths(MLP(64, 1024, 20, 10, activation="relu", rngs=nnx.Rngs(0)), unit_inputs(64, 64))
    # the variance of its logarithm is 5/n per layer
    assert abs(np.log(found[-1] / 2)) < 5 * (5 * 20 / 1024) ** 0.5


@pytest.mark.slow
def test_a_gain_of_one_starves_a_deep_gelu_network():
    found = lengths(MLP(64, 256, 50, 10, activation="gelu", init=1.0, rngs=nnx.Rngs(0)), unit_inputs(16, 64))
    assert found[-1] < 1e-6


@pytest.mark.slow
def test_a_convolutional_network_keeps_its_length_with_circular_padding_and_loses_it_without():
    sizes = dict(in_channels=3, channels=64, depth=20, out_features=10, activation="relu")
    x = unit_inputs(8, 8, 8, 3)
    kept = lengths(ConvNet(**sizes, rngs=nnx.Rngs(0)), x)
    lost = lengths(ConvNet(**sizes, padding="SAME", rngs=nnx.Rngs(0)), x)
    assert abs(np.log(kept[-1] / kept[0])) < 1
    assert lost[-1] < 0.3 * kept[-1]


def test_stacked_layers_are_independent_and_have_their_gain():
    model = MLP(10, 200, 6, 2, activation="tanh", init=1.5, rngs=nnx.Rngs(0))
    kernels = np.asarray(model.hidden.kernel[...])
    np.testing.assert_allclose(kernels.std(axis=(1, 2)) * 200**0.5, 1.5, rtol=0.03)
    assert np.abs(np.corrcoef(kernels.reshape(5, -1)) - np.eye(5)).max() < 5 / 200


@pytest.mark.slow
def test_the_scanned_network_is_the_network_layer_by_layer():
    model = MLP(10, 20, 4, 3, activation="gelu", rngs=nnx.Rngs(0))
    x = h = unit_inputs(5, 10)
    kernels = [model.first.kernel[...], *model.hidden.kernel[...], model.readout.kernel[...]]
    biases = [model.first.bias[...], *model.hidden.bias[...], model.readout.bias[...]]
    for kernel, offset in zip(kernels[:-1], biases[:-1], strict=True):
        h = jax.nn.gelu(h @ kernel + offset[None], approximate=False)
    np.testing.assert_allclose(model(x), h @ kernels[-1] + biases[-1][None], rtol=1e-5, atol=1e-5)


def test_one_layer_has_no_hidden_ones():
    model = MLP(10, 20, 1, 3, rngs=nnx.Rngs(0))
    assert model.hidden is None
    assert model(unit_inputs(5, 10)).shape == (5, 3)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm", "none"])
def test_residual_networks_grow_by_e_at_most(norm):
    model = ResidualMLP(64, 400, 50, 10, activation="relu", norm=norm, rngs=nnx.Rngs(0))
    h = model.activations(unit_inputs(32, 64))
    growth = float(jnp.mean(h[-1] ** 2) / jnp.mean(h[0] ** 2))
    # (1 + 1/L)^L = 2.69 without a norm; with one, 1 + 1/⟨h²⟩ per L: 2, of centred h for layernorm
    assert growth == pytest.approx(2.69 if norm == "none" else 2.0, rel=0.12)
    assert h.shape == (51, 32, 400)


@pytest.mark.slow
@pytest.mark.parametrize("scaling", ["fixup", "zero"])
def test_branches_that_end_in_zero_change_nothing_at_first(scaling):
    model = ResidualMLP(64, 40, 10, 3, scaling=scaling, norm="none", rngs=nnx.Rngs(0))
    h = model.activations(unit_inputs(4, 64))
    np.testing.assert_array_equal(h[-1], h[0])


def test_scales_are_those_of_the_kind():
    assert layer_scales("relu", "forward").hidden == gain("relu")
    assert layer_scales("relu") == LayerScales(2**0.5, 2**0.5, 2**0.5, 0.0)  # He's: any length is kept
    assert layer_scales("relu", 0.5) == LayerScales(0.5, 0.5, 0.5, 0.0)
    assert layer_scales("relu", Init(1.5, 0.1)) == LayerScales(1.5, 1.5, 1.5, 0.1)
    own = LayerScales(1.0, 2.0, 3.0, 0.0)
    assert layer_scales("relu", own) is own


def test_a_module_is_differentiated_and_trained_as_any_other():
    import optax

    model = MLP(4, 16, 3, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    x, y = unit_inputs(32, 4), jnp.ones((32, 1))

    @nnx.jit
    def step(model, optimizer):
        loss, grads = nnx.value_and_grad(lambda model: jnp.mean((model(x) - y) ** 2))(model)
        optimizer.update(model, grads)
        return loss

    losses = [float(step(model, optimizer)) for _ in range(50)]
    assert losses[-1] < 0.1 * losses[0]


def test_low_precision_keeps_its_type():
    model = MLP(4, 16, 3, 2, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert model(unit_inputs(3, 4)).dtype == jnp.bfloat16
    assert model.hidden.kernel.dtype == jnp.bfloat16


BAD = [
    (lambda: MLP(4, 0, 3, 2, rngs=nnx.Rngs(0)), ValueError, "width must be at least 1, got 0"),
    (lambda: MLP(4, 5, 1.5, 2, rngs=nnx.Rngs(0)), TypeError, "depth must be a whole number, got 1.5"),
    (lambda: MLP(4, 5, 3, 2, init="criticl", rngs=nnx.Rngs(0)), ValueError, "did you mean 'critical'?"),
    (lambda: MLP(4, 5, 3, 2, init=None, rngs=nnx.Rngs(0)), TypeError, "init must be a kind of gain"),
    (lambda: MLP(4, 5, 3, 2, activation="tahn", rngs=nnx.Rngs(0)), ValueError, "tanh"),
    (lambda: ResidualMLP(4, 5, 3, 2, norm="batch", rngs=nnx.Rngs(0)), ValueError, "norm must be one of layernorm"),
]


@pytest.mark.parametrize(("call", "error", "sentence"), BAD, ids=[case[2] for case in BAD])
def test_bad_input_is_one_sentence(call, error, sentence):
    with pytest.raises(error) as raised:
        call()
    assert sentence in str(raised.value) and "\n" not in str(raised.value)
