import json
import math

import numpy as np
import pytest
import xarray

from jaxgain.propagation import summary as summary_module
from jaxgain.propagation.summary import gains_to_show, growth_per_layer, mean_and_error, summarize


def at(summary, name, activation="tanh", gain=1.5):
    return summary[name].sel(activation=activation).sel(gain=gain).item()


def test_a_gradient_that_grows_going_back_has_a_positive_growth(exponential_sweep):
    summary = summarize(exponential_sweep(gradient_rate=0.25))
    assert at(summary, "log_growth") == pytest.approx(0.25, rel=1e-12)
    assert at(summary, "efold") == pytest.approx(4.0, rel=1e-12)
    assert at(summary, "log_gradient_change") == pytest.approx(0.25 * 50, rel=1e-12)


def test_the_slope_is_that_of_numpy_polyfit_over_the_middle_layers():
    y = np.random.default_rng(0).normal(size=101)
    expected = -np.polyfit(np.arange(10, 91), y[10:91], 1)[0]
    assert growth_per_layer(xarray.DataArray(y, {"layer": np.arange(101)})).item() == pytest.approx(expected)


def test_the_slope_is_per_layer_when_every_fifth_was_recorded(exponential_sweep):
    every_fifth = exponential_sweep(gradient_rate=-0.1).isel(layer=slice(0, None, 5))
    assert at(summarize(every_fifth), "log_growth") == pytest.approx(-0.1, rel=1e-12)


def test_errors_are_standard_errors_over_seeds(exponential_sweep):
    summary = summarize(exponential_sweep(gradient_rate=0.1, jitter=0.01))
    rates = 0.1 + 0.01 * np.array([-1.5, -0.5, 0.5, 1.5])
    assert at(summary, "log_growth") == pytest.approx(rates.mean())
    assert at(summary, "log_growth_error") == pytest.approx(rates.std(ddof=1) / 2)


def test_one_seed_has_a_mean_and_no_error(exponential_sweep):
    summary = summarize(exponential_sweep(gradient_rate=0.1, seeds=1))
    assert at(summary, "log_growth") == pytest.approx(0.1)
    assert math.isnan(at(summary, "log_growth_error"))


def test_a_seed_that_is_not_finite_is_left_out_and_one_at_zero_is_not():
    mean, error = mean_and_error(xarray.DataArray([[1.0, 3.0, np.inf], [1.0, -np.inf, 2.0]], dims=("row", "seed")))
    assert mean.values.tolist() == [2.0, -np.inf]
    assert error.values[0] == 1.0
    assert math.isnan(error.values[1])


def test_a_gradient_of_exactly_zero_has_no_slope_but_minus_infinity(exponential_sweep):
    dataset = exponential_sweep()
    dataset["log_grad_rms"][..., :30] = -np.inf
    summary = summarize(dataset)
    assert at(summary, "log_growth") == -np.inf
    assert at(summary, "efold") == 0.0
    assert at(summary, "gradient") == "vanishes"


@pytest.mark.parametrize(
    ("rates", "verdict"),
    [
        ((0.0, 0.0), "signal and gradient both survive"),
        ((0.04, 0.04), "signal and gradient both survive"),
        ((0.06, 0.0), "the signal explodes, the gradient survives"),
        ((-0.06, 0.05), "the signal vanishes, the gradient explodes"),
        ((-0.06, -0.05), "signal and gradient both vanish"),
    ],
)
def test_surviving_is_a_factor_of_ten_over_the_depth(exponential_sweep, rates, verdict):
    # the signal from layer 5 to layer 50, the gradient from 50 to 0: ln(10) is 45 * 0.0512 and 50 * 0.0461
    summary = summarize(exponential_sweep(std_rate=rates[0], gradient_rate=rates[1]))
    assert at(summary, "verdict") == verdict


@pytest.mark.parametrize(
    ("change", "signal", "gradient"),
    [
        ({"correlation": 0.9995}, "merges", "survives"),
        ({"saturated": 0.9}, "saturates", "survives"),
        ({"saturated": 0.5}, "survives", "survives"),
        ({"first_vanished": 40}, "vanishes", "survives"),
        ({"first_nonfinite": 40, "std": np.nan}, "explodes", "unknown"),
        ({"std": 0.005}, "vanishes", "survives"),
    ],
)
def test_each_way_to_lose_the_signal_has_its_word(exponential_sweep, change, signal, gradient):
    dataset = exponential_sweep()
    for name, value in change.items():
        dataset[name][..., 1:] = value  # in one seed or more; for the layered ones, after the input
    summary = summarize(dataset)
    assert (at(summary, "signal"), at(summary, "gradient")) == (signal, gradient)


def test_lost_seeds_are_counted_with_the_first_layer(exponential_sweep):
    dataset = exponential_sweep()
    dataset["first_nonfinite"][0, 1] = [-1, 30, 20, -1]
    summary = summarize(dataset)
    assert (at(summary, "nonfinite"), at(summary, "first_nonfinite")) == (2, 20)
    assert (at(summary, "vanished"), at(summary, "first_vanished")) == (0, -1)


def test_what_was_not_recorded_is_unknown_and_nothing_at_all_is_refused(exponential_sweep):
    dataset = exponential_sweep(gradient_rate=1.0)
    assert at(summarize(dataset[["std"]]), "verdict") == "the signal survives"
    assert at(summarize(dataset[["log_grad_rms"]]), "verdict") == "the gradient explodes"
    with pytest.raises(ValueError, match="neither was recorded"):
        summarize(dataset[["correlation"]])


def test_inputs_that_were_kept_apart_are_averaged(exponential_sweep):
    dataset = exponential_sweep()
    apart = dataset.expand_dims(input=[0, 1]) * 1
    std = dataset["std"] * xarray.DataArray([1.0, 3.0], dims="input")
    assert at(summarize(apart.assign(std=std).assign_attrs(dataset.attrs)), "std_end") == pytest.approx(2.0)


def test_tables_show_an_activation_its_own_gains_and_the_numbers_given(exponential_sweep):
    dataset = exponential_sweep()
    assert gains_to_show(dataset, "tanh") == {1.5: "forward"}
    assert gains_to_show(dataset, "relu") == {2.0: "forward, torch"}
    dataset.attrs["config"] = json.dumps({"gains": [1.0, "forward"]})
    assert gains_to_show(dataset, "relu") == {1.0: "", 2.0: "forward, torch"}
    assert list(gains_to_show(dataset, "relu", all_gains=True)) == [1.0, 1.5, 2.0]


def test_a_sweep_of_ranges_only_shows_them_all(exponential_sweep):
    dataset = exponential_sweep()
    dataset["gain_name"] = xarray.full_like(dataset["gain_name"], "")
    assert list(gains_to_show(dataset, "tanh")) == [1.0, 1.5, 2.0]


def test_a_summary_made_a_few_gains_at_a_time_is_that_of_all(exponential_sweep, monkeypatch):
    dataset = exponential_sweep(gradient_rate=0.02, jitter=0.001)
    whole = summarize(dataset)
    monkeypatch.setattr(summary_module, "SLAB", dataset.nbytes // 3)
    xarray.testing.assert_identical(summarize(dataset), whole)
