import math

import numpy as np
import pytest
import xarray

from experiments.scaled_tanh import _bend, _function, growth, judge


def made(*, at_one=1 - 3e-6, bend=0.9877, second_moment=0.75, rate=0.01):
    """What is found of a function with these properties, in networks whose gradient grows so per layer."""
    attrs = {"at_one": at_one, "bend": bend, "forward_lecun_tanh": second_moment**-0.5, "forward_tanh": 0.4**-0.5}
    attrs |= {"q": 0.38, "chi_perp": 1.02}
    layer = np.arange(11.0)
    rates = rate + 1e-4 * np.array([-1.0, 0.0, 1.0])
    log_g = np.broadcast_to(rates[:, None] * (10 - layer), (2, 1, 3, 11))
    wide = xarray.Dataset(
        {"log_grad_rms": (("activation", "gain", "seed", "layer"), log_g)},
        coords={"activation": ["lecun_tanh", "tanh"], "gain": [1.0], "layer": layer},
        attrs={"depth": 10, "width": 5, "seeds": 3},
    )
    return {"function": xarray.Dataset(attrs=attrs), "wide": wide}


def word(**properties):
    (verdict,) = judge(made(**properties))
    return verdict.verdict


def test_what_it_is_is_imprecise():
    assert word() == "imprecise"


def test_all_three_properties_make_it_right():
    assert word(bend=1.0, second_moment=1.0) == "right"


@pytest.mark.parametrize("property", [{"at_one": 0.9}, {"bend": 0.9}, {"rate": 0.2}])
def test_a_property_that_fails_makes_it_wrong(property):
    assert word(**property) == "wrong"


def test_the_second_derivative_is_largest_where_tanh_is_one_over_root_three():
    assert abs(_bend() - 1.5 * math.atanh(3**-0.5)) < 1e-6
    assert abs(_function(np.array([1.0]))[0].item() - 1.7159 * math.tanh(2 / 3)) < 1e-15


def test_growth_is_that_of_the_layers_and_its_error_that_of_the_seeds():
    rate, error = growth(made(rate=0.3)["wide"], "lecun_tanh", 1.0)
    assert rate == pytest.approx(0.3) and error == pytest.approx(1e-4 / 3**0.5)
