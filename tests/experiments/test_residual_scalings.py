import numpy as np
import pytest
import xarray

from experiments.residual_scalings import RULES, judge

GROWN = {"1": 40 * np.log(2), "1/sqrt(L)": 1.0, "1/L": 0.025, "0": 0.0}


def made(*, tanh=0.5, relu=1.0, weights=-np.inf, **grown):
    """Networks of 40 blocks as theory has them, but for the power of their growth, or by how much they grow."""
    layers = np.arange(41)
    apart = 0.001 * np.array([-1.0, 1.0] * 4)[None, :, None]
    logs = {name: grown.get(name, grown.get(f"alpha_{name}", value)) for name, value in GROWN.items()}
    theory = np.outer(list(GROWN.values()), layers / 40)
    signal = np.outer(list(logs.values()), layers / 40)[:, None] + 0 * apart
    deep = np.stack([layers**relu, layers**tanh])[:, None] * (1 + apart)
    place = ("alpha", "seed", "layer")
    return {
        "scaled": xarray.Dataset(
            {
                "log_signal": (place, signal),
                "log_gradient": (place, signal[..., ::-1]),
                "log_weights": (place, np.full_like(signal, weights)),
                "signal_theory": (("alpha", "layer"), theory),
                "gradient_theory": (("alpha", "layer"), theory[:, ::-1]),
            },
            {"alpha": list(RULES)},
        ),
        "deep": xarray.Dataset(
            {
                "log_jacobian": (("activation", "seed", "layer"), deep),
                "theory": (("activation", "layer"), np.stack([1.0 * layers, layers**0.5])),
            },
            {"activation": ["relu", "tanh"]},
        ),
    }


@pytest.mark.parametrize(
    ("replaced", "verdicts"),
    [
        ({}, ["right", "right", "right"]),
        ({"tanh": 0.65}, ["imprecise", "right", "right"]),
        ({"tanh": 1.0}, ["wrong", "right", "right"]),
        ({"relu": 0.8}, ["wrong", "right", "right"]),
        ({"1": 10.0}, ["right", "wrong", "right"]),
        ({"1/sqrt(L)": 1.3}, ["right", "imprecise", "right"]),
        ({"1/sqrt(L)": 3.0}, ["right", "wrong", "right"]),
        ({"0": 0.1}, ["right", "right", "wrong"]),
    ],
)
def test_another_number_is_another_verdict(replaced, verdicts):
    assert [one.verdict for one in judge(made(**replaced))] == verdicts


def test_it_says_that_weights_have_no_gradient_only_where_they_have_none():
    assert "only α learns" in judge(made())[2].why
    assert judge(made())[2].number.endswith("weights of the branches have no gradient at all")
    assert "only α learns" not in judge(made(weights=-3.0))[2].why
