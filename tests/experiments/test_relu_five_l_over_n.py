import numpy as np
import pytest
import xarray

from experiments.relu_five_l_over_n import judge, moments

WIDTHS = np.array([8, 128])
LAYER = np.array([1.247, 5 / 128])


def made(*, narrow=1.0, wide=1.0, mean=0.0, dead=0):
    """Networks of ten layers, whose log squared gradients have so many times the variance of the exact law."""
    normal = np.random.default_rng(0).normal(size=4000)
    normal = (normal - normal.mean()) / normal.std(ddof=1)
    values = np.sqrt(10 * LAYER * [narrow, wide])[:, None] * normal + 10 * np.array([-0.7, -0.02])[:, None] + mean
    values[0, :dead] = np.nan
    return {
        "gradient": xarray.Dataset(
            {
                "log_square": (("width", "seed"), values),
                "layer_mean": ("width", [-0.7, -0.02]),
                "layer_variance": ("width", LAYER),
                "layer_dead": ("width", [0.0, 0.0]),
            },
            {"width": WIDTHS},
            {"depth": 10},
        )
    }


@pytest.mark.parametrize(
    ("replaced", "verdicts"),
    [
        ({}, ["imprecise", "right"]),
        ({"wide": 1.5}, ["wrong", "wrong"]),
        ({"narrow": 0.5}, ["right", "wrong"]),
        ({"mean": 0.5}, ["imprecise", "imprecise"]),
        ({"dead": 10}, ["imprecise", "imprecise"]),
    ],
)
def test_another_number_is_another_verdict(replaced, verdicts):
    assert [one.verdict for one in judge(made(**replaced))] == verdicts


def test_networks_without_gradient_are_counted_and_left_out():
    found = moments(made(dead=10)["gradient"])
    assert float(found["dead"][0]) == 10 / 4000 and float(found["dead"][1]) == 0
    assert np.isfinite(found["variance"]).all()


def test_the_error_of_a_variance_is_that_of_normal_numbers():
    found = moments(made()["gradient"])
    np.testing.assert_allclose(found["variance_error"] / found["variance"], (2 / 4000) ** 0.5, rtol=0.05)
