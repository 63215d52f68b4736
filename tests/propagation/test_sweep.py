"""The sweep: what it shares, how it labels, and what may not change its numbers."""

import json
from functools import partial

import jax
import numpy as np
import pytest

import jaxgain as jg
from jaxgain.propagation import network, program
from jaxgain.propagation import sweep as sweep_module
from jaxgain.propagation.config import STATISTICS, SweepConfig
from jaxgain.propagation.sweep import sweep

SMALL = partial(SweepConfig, activations=("tanh", "relu"), gains=(1.0, "5/3"), width=30, depth=7, seeds=5)


@pytest.fixture(scope="module")
def small():
    return sweep(SMALL(inputs=2))


def test_dataset_has_every_statistic_with_its_dims_and_its_origin(small):
    assert set(small.data_vars) == set(STATISTICS)
    for name, variable in small.data_vars.items():
        layer = () if name.startswith("first_") else ("layer",)
        assert variable.dims == ("activation", "gain", "seed", *layer), name
    assert dict(small.sizes) == {"activation": 2, "gain": 2, "seed": 5, "layer": 8}
    assert small.attrs["config_hash"] == SMALL(inputs=2).hash()
    assert json.loads(small.attrs["config"])["gains"] == [1.0, 5 / 3]
    assert {"jaxgain", "jax", "jaxlib", "devices", "key_implementation"} <= set(small.attrs)


def test_statistics_without_meaning_at_the_input_are_nan_there_and_only_there(small):
    for name in ("q", "correlation", "saturated", "dead", "log_weight_grad_rms"):
        assert np.isnan(small[name].sel(layer=0)).all(), name
        assert np.isfinite(small[name].sel(layer=slice(1, None))).all(), name
    for name in ("mean", "std", "second_moment", "log_grad_rms", "correlation_h", "log_jacobian_rms"):
        assert np.isfinite(small[name]).all(), name
    assert (small["log_jacobian_rms"].sel(layer=0) == 0).all()
    np.testing.assert_allclose(small["second_moment"].sel(layer=0), 1, rtol=1e-6)


def test_activations_and_gains_meet_the_same_networks(small):
    """Shared noise: the inputs agree, and at layer 1 so does z up to the gain."""
    assert (small["std"].sel(layer=0) == small["std"].sel(layer=0)[0, 0]).all()
    q = small["q"].sel(layer=1)
    np.testing.assert_allclose(q.sel(activation="tanh"), q.sel(activation="relu"), rtol=1e-5)
    np.testing.assert_allclose(q.isel(gain=1), (5 / 3) ** 2 * q.isel(gain=0), rtol=1e-5)


def test_sweep_is_propagate_of_each_member(small):
    key = jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), 3)
    one = jax.jit(partial(jg.propagate, phi="relu", init=jg.Init(5 / 3), width=30, depth=7, inputs=2))(key)
    member = small.sel(activation="relu", seed=3).isel(gain=1)
    for name in STATISTICS:
        np.testing.assert_allclose(member[name], getattr(one, name), rtol=2e-4, atol=2e-5, err_msg=name)


def test_seeds_are_bitwise_the_same_in_any_company(small):
    """Fewer seeds, other padding: the members that remain keep their bits."""
    fewer = sweep(SMALL(inputs=2, seeds=2))
    for name in STATISTICS:
        np.testing.assert_array_equal(fewer[name], small[name].isel(seed=slice(2)), err_msg=name)


@pytest.mark.slow
def test_inputs_can_be_kept_apart_and_average_to_the_same():
    apart = sweep(SMALL(inputs=2, keep_inputs=True, statistics=("q", "std", "log_grad_rms")))
    together = sweep(SMALL(inputs=2, statistics=("q", "std", "log_grad_rms")))
    assert apart["std"].dims[-1] == "input"
    for name in ("std", "log_grad_rms", "q"):
        np.testing.assert_allclose(apart[name].mean("input"), together[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_program_is_traced_once_for_all_numbers(monkeypatch):
    """No gain, seed or bias compiles anew; only sizes and names do."""
    traces = []
    original = network.observe_network

    def counted(*arguments, **keywords):
        traces.append(1)
        return original(*arguments, **keywords)

    monkeypatch.setattr(program, "observe_network", counted)
    settings = dict(activations=("tanh",), width=11, depth=3, statistics=("std",), inputs=1)
    sweep(SweepConfig(gains=(1.0, 2.0), seeds=3, sigma_b=0.1, **settings))
    once = len(traces)
    sweep(SweepConfig(gains=(0.5, 3.0), seeds=9, sigma_b=0.7, seed=5, **settings))
    assert once >= 1
    assert len(traces) == once


@pytest.mark.parametrize(
    "setting",
    [
        dict(inputs=1, width=100),
        pytest.param(dict(inputs=2, width=9), marks=pytest.mark.slow),
        pytest.param(dict(inputs=2, width=20, weights="dense"), marks=pytest.mark.slow),
    ],
)
def test_gradients_of_every_final_depth_are_those_of_networks_that_end_there(setting):
    """One run with `depths` against separate runs with the same noise."""
    gradients = ("log_grad_rms", "log_grad_mean_abs", "log_weight_grad_rms")
    config = partial(SweepConfig, ("tanh",), (1.0, 2.0), seeds=2, statistics=gradients, **setting)
    together = sweep(config(depth=6, depths=(3,)))
    assert together["log_grad_rms"].dims == ("activation", "gain", "seed", "depth", "layer")
    assert together["depth"].values.tolist() == [3, 6]
    for depth in (3, 6):
        alone = sweep(config(depth=depth))
        for name in gradients:
            of_depth = together[name].sel(depth=depth)
            np.testing.assert_allclose(of_depth.sel(layer=slice(depth)), alone[name], atol=2e-5, err_msg=name)
            assert np.isnan(of_depth.sel(layer=slice(depth + 1, None))).all()


def test_gain_axis_is_the_union_with_each_activations_own_gains_by_name():
    dataset = sweep(
        SweepConfig(("gelu", "relu"), (1.5, "forward", "critical"), width=4, depth=2, seeds=2, statistics=("std",))
    )
    own = dict(zip(dataset["gain_name"].values[0], dataset["gain"].values, strict=True))
    assert own["forward"] == jg.gain("gelu")
    assert 1.5 in dataset["gain"].values
    relu = dataset["gain_name"].sel(activation="relu").sel(gain=2**0.5, method="nearest")
    assert set(str(relu.values).split(", ")) == {"forward", "critical"}
    assert dataset["critical_sigma_b"].sel(activation="gelu") == pytest.approx(0.4158, abs=1e-4)


def test_callables_sweep_beside_names():
    dataset = sweep(
        SweepConfig((jax.numpy.tanh, "tanh"), (1.2,), width=20, depth=4, seeds=2, statistics=("std",), inputs=1)
    )
    np.testing.assert_allclose(dataset["std"][0], dataset["std"][1], rtol=1e-6)


def test_memory_that_is_too_small_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match=r"needs about .* MiB and memory is 0\.001 GiB; raise memory, or lower"):
        sweep(SweepConfig(("tanh",), ("0.5:3:64",), memory=0.001))


def test_a_gain_that_was_given_is_on_the_axis_exactly_beside_one_that_differs_by_rounding():
    for phi, number in (("relu", 2**0.5), ("identity", 1.0)):
        axis, names = sweep_module.resolve_gains([jg.activation(phi)], [number, "named"])
        assert number in axis
        assert "forward" in str(names[0][list(axis).index(number)])
