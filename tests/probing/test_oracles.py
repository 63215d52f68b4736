"""Every statistic against the model written out by hand: activations captured, gradients of added epsilons.

In float64, so that what is compared is the definition and not the rounding.
"""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgain as jg

spec = importlib.util.spec_from_file_location("probed_models", Path(__file__).parent / "models.py")
models = importlib.util.module_from_spec(spec)
spec.loader.exec_module(models)


def rms(values):
    return np.sqrt(np.mean(np.abs(values) ** 2))


def close(found, expected, rtol=1e-6):
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=rtol, atol=1e-14)


def check(report, records, gradients, fan_ins, names):
    assert [str(name) for name in report["name"].values] == names
    for index, ((x, w, y), (of_weights, of_output)) in enumerate(zip(records, gradients, strict=True)):
        row = report.isel(site=index)
        for side, values in (("in", x), ("out", y)):
            close(row[f"rms_{side}"], rms(values))
            close(row[f"max_{side}"], np.abs(values).max())
            np.testing.assert_allclose(row[f"mean_{side}"], values.mean(), atol=1e-7 * rms(values))
            assert row[f"nonfinite_{side}"] == 0
        close(np.exp(row["log_grad_output"]), rms(of_output))
        if row["operation"] == "product":
            assert np.isnan(row["sigma_w"])
            continue
        assert row["fan_in"] == fan_ins[index]
        close(row["weight_rms"], rms(w))
        close(row["sigma_w"], w.std() * np.sqrt(row["fan_in"]))
        close(np.exp(row["log_grad_parameter"]), rms(of_weights))


@pytest.mark.parametrize("make", models.MODELS, ids=lambda make: make.__name__)
def test_statistics_are_those_of_the_model_written_out_by_hand(make):
    def loss(output):
        return jnp.sum(jnp.sin(output) * jnp.arange(output.size, dtype=output.dtype).reshape(output.shape))

    with jax.enable_x64(True):
        (model, *args), by_hand, names = make()
        records, gradients = models.oracle(by_hand, loss)
        fan_ins = models.fan_ins(by_hand)
        report = jg.probe(model, *args, loss=loss)
    assert report.sizes["site"] == len(records) == len(names) > 0
    check(report, records, gradients, fan_ins, names)
