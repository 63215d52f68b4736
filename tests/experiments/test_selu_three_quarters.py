import numpy as np
import pytest
import xarray

from experiments.selu_three_quarters import COLOURS, SMOKE, judge, run

LABELS = ["A16", "A17", "A18", "A19", "A20", "A21"]
LAYERS = np.arange(101)
DRIFT = {0.6: -0.17, 0.75: 0.0, 1.0: 0.0, 1.2: 0.0, 1.4: 0.05}


def made(drift=DRIFT, end=1.0, growth=0.0345, slow=0.002, critical=0.6905, late=0):
    dims, coords = ("gain", "seed", "layer"), {"gain": list(COLOURS), "seed": [0, 1], "layer": LAYERS}
    full = lambda rows: np.stack([np.broadcast_to(row, (2, 101)) for row in rows])
    rates = {0.6: -0.1, 0.75: slow, 1.0: growth, 1.2: 0.07, 1.4: 0.0}
    std = full([end * np.exp(drift[gain] * (LAYERS - 100.0)) for gain in COLOURS])
    arrays = {
        "std": std,
        "mean": 0 * std,
        "second_moment": std**2,
        "correlation": 0 * std,
        "log_grad_rms": full([rates[gain] * np.maximum(100.0 - LAYERS - late, 0) for gain in COLOURS]),
    }
    theory = {
        "second_moment": [0.04, 1.0],
        "chi_perp": [1.004, 1.07],
        "chi_par": [0.92, 0.78],
        "correlation": [0.99, 0],
    }
    ends = {"critical": critical, "highest": 1.346}
    return {
        "sampled": xarray.Dataset({name: (dims, values) for name, values in arrays.items()}, coords),
        "theory": xarray.Dataset({k: ("gain", v) for k, v in theory.items()}, {"gain": [0.75, 1.0]}, ends),
    }


def words(**changed):
    return [one.verdict for one in judge(made(**changed))]


def test_another_number_is_another_word():
    assert words() == ["wrong", "right", "imprecise", "right", "right", "imprecise"]
    assert words(drift=DRIFT | {0.75: -0.1, 1.2: 0.1})[0] == "right"
    assert words(end=0.9)[1] == "wrong"
    assert words(growth=0.1)[2:4] == ["imprecise", "wrong"]
    assert words(growth=0.0)[2] == "wrong"
    assert words(late=10)[2] == "right"
    assert words(slow=0.03)[4] == "imprecise"
    assert words(drift=DRIFT | {0.75: -0.1})[4] == "wrong"
    assert words(critical=0.75)[5] == "right"
    assert words(critical=0.5)[5] == "wrong"


@pytest.mark.slow
def test_the_highest_gain_is_where_the_length_stops_to_be_bounded():
    highest = run(SMOKE)["theory"].attrs["highest"]
    from jaxgain import Init, fixed_point

    assert fixed_point("selu", Init(highest - 0.01)).converged
    assert not fixed_point("selu", Init(highest + 0.01)).converged
