import numpy as np
import pytest
import xarray

from experiments.relu_halves_which_moment import GAINS, VARIANCE, MomentsConfig, alternating, judge

ENDS = {"he": (1.0, 1.0), "xavier": (0.25, 0.25), "equal": (1.0, 1.0), "other": (0.64, 0.64)}


def profile(signal, gradient):
    """Two layers, over which the mean squares change by so much."""
    values = {"signal": [1.0, 0.5, signal], "gradient": [gradient, 0.5, 1.0]}
    errors = {f"{name}_error": ("layer", 0.01 * np.array(each)) for name, each in values.items()}
    return xarray.Dataset({name: ("layer", each) for name, each in values.items()} | errors)


def made(*, variance=VARIANCE, second_moment=0.5, **ends):
    """Networks as the derivations have them, but for what is named."""
    apart = 0.01 * np.array([-1.0, 1.0] * 8)
    ends = {name: profile(*end) for name, end in (ENDS | ends).items()}
    one = {"mean": 0.4 + apart, "variance": variance + apart, "second_moment": second_moment + apart}
    relu = xarray.concat([ends["he"], ends["xavier"], ends["xavier"]], "init").assign_coords(init=list(GAINS))
    linear = xarray.concat([ends["equal"], ends["other"]], "widths")
    return {
        "one": xarray.Dataset({name: ("seed", values) for name, values in one.items()}),
        "relu": relu.assign_attrs(seeds=16),
        "linear": linear.assign_coords(widths=["equal", "alternating"]).assign_attrs(seeds=16, ratio=4.0),
    }


@pytest.mark.parametrize(
    ("replaced", "verdicts"),
    [
        ({}, ["imprecise", "right", "right"]),
        ({"variance": 0.5}, ["right", "right", "right"]),
        ({"second_moment": 0.6}, ["wrong", "right", "right"]),
        ({"he": (1.0, 0.9)}, ["imprecise", "wrong", "right"]),
        ({"xavier": (0.25, 0.4)}, ["imprecise", "imprecise", "right"]),
        ({"equal": (1.2, 1.0)}, ["imprecise", "right", "wrong"]),
        ({"other": (1.0, 1.0)}, ["imprecise", "right", "imprecise"]),
    ],
)
def test_another_number_is_another_verdict(replaced, verdicts):
    assert [one.verdict for one in judge(made(**replaced))] == verdicts


def test_the_last_layer_is_as_wide_as_the_input():
    assert alternating(MomentsConfig(width=8, depth=4)) == (8, 2, 8, 2, 8)
