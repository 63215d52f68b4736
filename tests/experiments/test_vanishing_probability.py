import numpy as np
import pytest
import xarray

from experiments.vanishing_probability import errors, judge


def made(*, off=(0.0, 0.0), chain=0.0):
    """Probabilities of two widths, predicted so far off what was counted; those of the chain likewise."""
    dims, counted = ("n", "width", "depth"), np.full((2, 2, 3), 0.5)
    predicted = counted + np.array(off)[:, None]
    found = xarray.Dataset(
        {"counted": (dims, counted), "predicted": (dims, predicted), "chain": (("n", "depth"), counted[:, 0] + chain)},
        coords={"n": [1.0, 2.0], "width": [1, 16], "depth": [10, 20, 50]},
        attrs={"networks": 10_000, "below": 0.01},
    )
    parts = {"weights": 60.0, "slopes": 400.0, "mean_weights": -32.0, "mean_slopes": 7.0, "depth": 50}
    return {"probabilities": found, "parts": xarray.Dataset(attrs=parts)}


def word(**settings):
    (verdict,) = judge(made(**settings))
    return verdict.verdict


def test_predictions_that_are_close_at_every_width_make_it_right():
    assert word() == "right"
    assert word(off=(0.03, -0.03)) == "right"


def test_predictions_that_are_close_at_large_width_alone_are_imprecise():
    assert word(off=(0.2, 0.0)) == "imprecise"


def test_predictions_that_fail_at_the_largest_width_are_wrong():
    assert word(off=(0.0, 0.2)) == "wrong"


def test_a_chain_that_is_no_network_of_width_one_is_wrong():
    assert word(off=(0.2, 0.0), chain=0.1) == "wrong"


def test_what_chance_can_do_is_not_counted_against_a_prediction():
    off, error = errors(made(off=(0.01, 0.1)))
    assert float(error.max()) == pytest.approx(0.005)
    np.testing.assert_allclose(off.isel(n=0, depth=0), [0.0, 0.085], atol=1e-12)
