import numpy as np
import pytest
import xarray
from matplotlib.figure import Figure

import jaxgain as jg
from experiments.vanishing_maps import MapsConfig, draw, judge, run


@pytest.fixture(scope="module")
def small():
    """A run at the depth of the claim, coarse, with few steps of training."""
    return run(MapsConfig(grid=15, networks=200, starts=4, steps=5))


def judged(found, initial=(-10.0, -1.0), final=(-10.0, -1.0), **replaced):
    """The word for two kinds of paths, 50 of each, with these log gradients before and after."""
    ends = np.repeat([initial, final], 50, axis=1).T
    paths = xarray.Dataset({"log_gradient": (("start", "end"), ends)}, coords={"end": ["initial", "final"]})
    (verdict,) = judge(found | {"paths": paths} | replaced)
    assert verdict.claim == "B18"
    return verdict.verdict


def test_maps_in_order_and_paths_that_stay_are_right(small):
    assert judged(small) == "right"


def test_paths_that_change_sides_are_imprecise(small):
    assert judged(small, final=(-1.0, -1.0)) == "imprecise"
    assert judged(small, final=(-10.0, -10.0)) == "imprecise"
    assert judged(small, final=(-10.0, 10.0)) == "imprecise"


def test_a_map_in_the_wrong_order_is_wrong(small):
    backwards = small["scales"].copy(deep=True)
    backwards["outcome"].values[:] = backwards["outcome"].values[::-1]
    assert judged(small, scales=backwards) == "wrong"


def test_a_map_on_which_nothing_survives_is_wrong(small):
    other = small["weights"].copy(deep=True)
    other["outcome"].values[:] = "vanishes"
    assert judged(small, weights=other) == "wrong"


def test_paths_begin_with_the_gradient_of_the_map(small):
    paths, bounds = small["paths"], {"depth": 50, "below": 1e-3, "above": 1e3}
    # The first start is a corner of the grid; one step of 5 is at most 0.05 long.
    corner = jg.initial_map("tanh", [-2.8], [-1.4], **bounds)
    np.testing.assert_allclose(paths["log_gradient"].sel(end="initial")[0], corner["log_gradient"].item(), rtol=1e-9)
    assert np.abs(paths["path"][0, 0].values - [-2.8, -1.4]).max() <= 0.05


def test_the_curves_are_the_probabilities(small):
    figure = Figure()
    draw(figure, small)
    lines = figure.axes[2].lines
    assert [line.get_label() for line in lines] == ["n = 1", "n = 2", "n = 5"]
    for line, n in zip(lines, (1, 2, 5), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), small["chances"]["vanishing"].sel(scale=n))
