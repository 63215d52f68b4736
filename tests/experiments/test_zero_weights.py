import math

import numpy as np
import pytest
import xarray

from experiments.zero_weights import CASES, PARTS, judge

LN5 = math.log(5)


def made(*, spread=0.0, hidden=0.0, output=0.1, scores=LN5, probability=math.inf):
    """Networks as JAX finds them, but for what is named."""
    gradient = np.zeros((len(CASES), 2, len(PARTS)))
    gradient[..., 0], gradient[..., 3] = hidden, output
    per_case = {"spread": spread, "accuracy": 0.3, "guess": 0.3}
    variables = {name: (("case", "seed"), np.full((len(CASES), 2), value)) for name, value in per_case.items()}
    costs = {
        "scores": scores,
        "probability": probability,
        "logistic": 0.7,
        "softmax first": math.inf,
        "log_softmax": 120,
    }
    return {
        "cases": xarray.Dataset(
            variables | {"gradient": (("case", "seed", "part"), gradient)},
            {"case": list(CASES), "part": list(PARTS)},
            {"classes": 5},
        ),
        "costs": xarray.Dataset({"cost": ("output", list(costs.values()))}, {"output": list(costs)}),
    }


@pytest.mark.parametrize(
    ("replaced", "verdicts"),
    [
        ({}, ["imprecise", "imprecise"]),
        ({"output": 0.0}, ["right", "imprecise"]),
        ({"hidden": 0.1}, ["wrong", "imprecise"]),
        ({"spread": 0.1}, ["wrong", "imprecise"]),
        ({"scores": math.inf}, ["imprecise", "right"]),
        ({"probability": 80.0}, ["imprecise", "wrong"]),
    ],
)
def test_another_number_is_another_verdict(replaced, verdicts):
    assert [one.verdict for one in judge(made(**replaced))] == verdicts


def test_it_names_the_gradients_that_live():
    found, _ = judge(made())
    assert "tanh, all 0: output_bias 0.100; relu" in found.number
    assert "all 0: none" in judge(made(output=0.0))[0].number
