import math

import numpy as np
import pytest
import xarray

import jaxgain as jg
from experiments.tailored_relu import cosine, judge, tailored


def made(*, first=0.9, second=0.9, relu=0.995):
    """Networks of four layers whose cosines rise evenly to what is named, at layers 2, 4 and 4."""
    apart = 0.001 * np.array([-1.0, 1.0] * 4)[None, :, None]
    rising = np.array([relu / 4, first / 2, second / 4])[:, None, None] * np.arange(5)
    columns = {"cosine": (("tailored", "seed", "layer"), rising + apart), "slope": ("tailored", [0.0, 0.4, 0.6])}
    return {"cosines": xarray.Dataset(columns, {"tailored": [0, 2, 4]})}


@pytest.mark.parametrize(
    ("replaced", "verdict"),
    [
        ({}, "right"),
        ({"first": 0.8}, "imprecise"),
        ({"relu": 0.95}, "imprecise"),
        ({"first": 0.8, "second": 0.99}, "wrong"),
    ],
)
def test_another_number_is_another_verdict(replaced, verdict):
    assert [one.verdict for one in judge(made(**replaced))] == [verdict]


def test_the_closed_form_is_the_correlation_map():
    slope = 0.3
    profile = jg.mean_field("leaky_relu(0.3)", jg.Init(math.sqrt(2 / (1 + slope**2))), depth=3, correlation=0.0)
    assert float(profile["correlation_h"][-1]) == pytest.approx(cosine(slope, 3), rel=1e-9)


def test_tailored_slopes_end_at_nine_tenths_and_rise_with_depth():
    slopes = [tailored(depth) for depth in (20, 50, 200)]
    assert slopes == sorted(slopes) and 0 < slopes[0] < slopes[-1] < 1
    assert cosine(slopes[1], 50) == pytest.approx(0.9, abs=1e-12)
    assert tailored(1) == 0.0
