"""A deep transformer as people have it: a row for each operation of each block, by name."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxgain as jg

spec = importlib.util.spec_from_file_location("probed_models", Path(__file__).parent / "models.py")
models = importlib.util.module_from_spec(spec)
spec.loader.exec_module(models)


class Network(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.List([models.Transformer(128, 4, rngs, jnp.float32) for _ in range(12)])
        self.head = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


@pytest.mark.slow
def test_a_transformer_of_twelve_blocks_is_healthy_until_one_of_its_weights_is_not():
    network, x = Network(nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (8, 16, 128))
    report = jg.probe(network, x)
    assert report.sizes["site"] == 12 * 8 + 1
    assert set(report["verdict"].values) == {"healthy"}
    assert set(report["activation"].values) == {"", "gelu_tanh"}
    growth = report["growth_gradient"].values[report["chain"].values == "blocks[#].down.kernel"]
    assert np.nanmax(growth) < 2
    network.blocks[4].attention.value.kernel[...] *= 1e-5
    with pytest.raises(jg.Unhealthy, match=r"^blocks\[4\].attention.value.kernel vanishes"):
        jg.assert_healthy(jg.probe(network, x))
