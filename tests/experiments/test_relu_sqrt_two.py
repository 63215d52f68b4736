import math

import numpy as np
import xarray

from experiments.relu_sqrt_two import ROOT_TWO, judge

LABELS = ["A6", "A13"]
LAYERS = np.arange(101)


def made(relu=0.3, tanh=0.02, beside=0.06, kept=0.0, probe=60.0, random=1.0):
    """Spreads of the logarithm of the signal's rms at the last layer; growth of the gradient's mean square."""
    rng = np.random.default_rng(0)
    straying = lambda spread, rate: np.exp(
        2 * (rate * LAYERS + spread * rng.permutation(np.linspace(-1.7, 1.7, 50))[:, None] * (LAYERS > 90))
    )
    gradient = lambda growth: np.broadcast_to(0.5 * math.log(growth) * (1 - LAYERS / 100), (50, 101))
    dims, coords = ("gain", "seed", "layer"), {"seed": np.arange(50), "layer": LAYERS}
    moments = np.stack([straying(relu, -beside), straying(relu, kept), straying(relu, beside)])
    moments[1, :, -1] *= np.exp(2 * 100 * kept) / moments[1, :, -1].mean()
    both = {"second_moment": (dims, moments), "log_grad_rms": (dims, np.stack([gradient(random)] * 3))}
    one = lambda **arrays: xarray.Dataset(
        {k: (dims, v[None]) for k, v in arrays.items()}, coords | {"gain": [ROOT_TWO]}
    )
    return {
        "random": xarray.Dataset(both, coords | {"gain": [1.3, ROOT_TWO, 1.5]}, {"width": 1000}),
        "sum": one(log_grad_rms=gradient(probe)),
        "tanh": one(second_moment=straying(tanh, 0.0)),
    }


def words(**changed):
    return {one.claim: one.verdict for one in judge(made(**changed))}


def test_another_number_is_another_word():
    assert words() == {"A6": "right", "A13": "imprecise"}
    assert words(tanh=0.4)["A6"] == "wrong"
    assert words(probe=1.0)["A13"] == "right"
    assert words(beside=0.0)["A13"] == "wrong"
    assert words(kept=-0.02)["A13"] == "wrong"
    assert words(random=30.0)["A13"] == "wrong"
