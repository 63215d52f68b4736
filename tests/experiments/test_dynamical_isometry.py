import numpy as np
import pytest
import xarray

from experiments.dynamical_isometry import ACTIVATIONS, WEIGHTS, judge, spread

THEORY = {
    "normal": {"identity": 12.0, "tanh": 12.1, "relu": 24.0},
    "orthogonal": {"identity": 0.0, "tanh": 0.2, "relu": 12.0},
}


def made(**replaced):
    """Spectra of which one in so many squares is not 0 as gives the variance of theory, times what is named."""
    theory = np.array([[THEORY[weights][phi] for phi in ACTIVATIONS] for weights in WEIGHTS])
    factor = [[replaced.get(f"{weights}_{phi}", 1.0) for phi in ACTIVATIONS] for weights in WEIGHTS]
    # two values 1 ± √v have the mean 1 and the variance v; for v > 1 one of k = 1 + v squares is k
    singular = np.zeros((2, 3, 2, 2, 1000))
    for place in np.ndindex(2, 3):
        share = 1 / (1 + theory[place] * factor[place[0]][place[1]])
        kept = round(1000 * share)
        singular[(*place, slice(None), slice(None), slice(kept))] = 1.0
    return {
        "spectra": xarray.Dataset(
            {
                "singular": (("distribution", "activation", "seed", "layer", "singular_value"), singular),
                "relative_variance": (("distribution", "activation", "layer"), np.stack([0 * theory, theory], axis=-1)),
            },
            {"distribution": list(WEIGHTS), "activation": list(ACTIVATIONS), "layer": [0, 12]},
        )
    }


def test_the_spread_is_the_variance_over_the_squared_mean():
    mean, _ = spread(made()["spectra"])
    assert float(mean.sel(activation="relu", distribution="normal")[-1]) == pytest.approx(24.0, abs=1e-9)


@pytest.mark.parametrize(
    ("replaced", "verdicts"),
    [
        ({}, ["right", "right", "right"]),
        ({"normal_tanh": 0.1}, ["wrong", "right", "right"]),
        ({"normal_identity": 1.5}, ["imprecise", "right", "right"]),
        ({"orthogonal_tanh": 4.0}, ["right", "wrong", "right"]),
        ({"orthogonal_tanh": 1.5}, ["right", "imprecise", "right"]),
        ({"orthogonal_relu": 0.1}, ["right", "right", "wrong"]),
    ],
)
def test_another_number_is_another_verdict(replaced, verdicts):
    assert [one.verdict for one in judge(made(**replaced))] == verdicts
