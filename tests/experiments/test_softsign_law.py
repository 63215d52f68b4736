import math

import numpy as np
import xarray

from experiments.softsign_law import judge

LABELS = ["A14", "A15"]
LAYERS = np.arange(201)


def made(power=-1.0, rates=(0.01, 0.03, 0.07, 0.17), ends=(0.3, 0.4, 0.5, 0.6)):
    """Powers of the layer at gain 1, rates of the gradient's logarithm and end of the std at gains above."""
    dims, coords = ("gain", "seed", "layer"), {"gain": [1.0, 1.2, 1.5, 2.0, 3.0], "seed": [0, 1], "layer": LAYERS}
    full = lambda rows: np.stack([np.broadcast_to(row, (2, 201)) for row in rows])
    log = power * np.log(np.maximum(LAYERS, 1))
    arrays = {
        "std": full([0.6 * np.exp(log), *(np.full(201, end) for end in ends)]),
        "log_jacobian_rms": full([log, *(rate * LAYERS for rate in rates)]),
        "log_grad_rms": full([log[::-1], *(rate * (200 - LAYERS) for rate in rates)]),
    }
    names = [f"{name}_{phi}" for name in ("std", "log_jacobian_rms") for phi in ("softsign", "tanh")]
    theory = {name: ("layer", np.exp(log) if name.startswith("std") else log) for name in names}
    return {
        "sampled": xarray.Dataset({name: (dims, values) for name, values in arrays.items()}, coords),
        "gain_one": xarray.Dataset(theory, {"layer": LAYERS}),
        "rates": xarray.Dataset(
            {"factor": ("gain", [1.0001, 1.001, *map(math.exp, rates)])}, {"gain": [1, 1.01, 1.2, 1.5, 2, 3]}
        ),
    }


def words(**changed):
    return {one.claim: one.verdict for one in judge(made(**changed))}


def test_another_number_is_another_word():
    assert words() == {"A14": "right", "A15": "right"}
    assert words(power=-0.5)["A14"] == "imprecise"
    assert words(power=0.0)["A14"] == "wrong"
    assert words(rates=(0.01, 0.03, 0.02, 0.17))["A15"] == "wrong"
    assert words(rates=(-0.01, 0.03, 0.07, 0.17))["A15"] == "wrong"
    assert words(ends=(0.003, 0.4, 0.5, 0.6))["A15"] == "imprecise"
