import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.widest_interval_laplace import SMOKE, draw, judge, run

LABELS = ["B1", "B3", "B4", "B5", "B6", "B9", "B11"]


@pytest.fixture(scope="module")
def small():
    return run(SMOKE)


def words(found):
    return {one.claim: one.verdict for one in judge(found)}


def changed(found, name, **variables):
    return found | {name: found[name].assign(**variables)}


def marked(found, name, **attributes):
    return found | {name: found[name].assign_attrs(attributes)}


def test_all_are_right_in_a_tiny_run(small):
    assert words(small) == dict.fromkeys(LABELS, "right")


def test_the_widest_interval_is_the_laplace_limit(small):
    over = small["thresholds"].attrs
    assert abs(over["laplace_limit"] - 0.66274341934918158) < 1e-15 and abs(over["t"] - over["laplace_limit"]) < 1e-15
    assert abs(over["n"] - 1.8101705806989773) < 1e-14


def test_other_slopes_change_the_verdicts(small):
    at = small["slopes"]
    assert words(changed(small, "slopes", slope=1.1 * at["slope"]))["B1"] == "wrong"
    moved = words(changed(small, "slopes", narrow=at["narrow"] + 0.02))
    assert moved["B3"] == "wrong" and moved["B4"] == "imprecise" and moved["B9"] == "right"
    assert words(changed(small, "slopes", narrow=at["narrow"] * at["n"] ** 2))["B4"] == "wrong"
    assert words(changed(small, "slopes", one=at["one"] + 0.05))["B9"] == "wrong"


def test_other_thresholds_change_the_verdicts(small):
    assert words(marked(small, "thresholds", t=0.5))["B5"] == "wrong"
    assert words(marked(small, "thresholds", t=0.9))["B5"] == "imprecise"
    assert words(marked(small, "thresholds", far_x=9.2))["B6"] == "imprecise"
    assert words(marked(small, "thresholds", far_x=13.0))["B6"] == "wrong"


def test_a_product_that_stays_below_the_bound_is_not_up_to_it(small):
    assert words(changed(small, "chain", log2_g=small["chain"]["log2_g"] - 1))["B11"] == "wrong"


def test_the_curve_of_the_thresholds_is_that_of_the_data(small):
    figure = Figure()
    draw(figure, small)
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_ydata(), small["thresholds"]["narrow"])
