import numpy as np
import pytest
import xarray

from experiments.trainable_depth import judge

SIGMAS, DEPTHS = [1.0, 1.2, 1.3, 1.5, 2.0], [2, 8, 32, 128]


def made(deepest):
    """Networks that learn all or nothing, up to so many layers at each σ_w."""
    accuracy = np.array([[1.0 if depth <= reach else 0.1 for depth in DEPTHS] for reach in deepest])
    grid = ("activation", "init", "depth", "width", "learning_rate", "seed")
    trained = xarray.Dataset(
        {"train_accuracy": (grid, accuracy[None, :, :, None, None, None])},
        coords={
            "init": [f"{sigma:g}" for sigma in SIGMAS],
            "activation": ["tanh"],
            "depth": DEPTHS,
            "sigma_w": (("activation", "init"), [SIGMAS]),
            "sigma_b": (("activation", "init"), [[0.05**0.5] * 5]),
            "xi_c": (("activation", "init"), [[3.6, 12.4, 64.0, 15.1, 7.0]]),
        },
    )
    return {"trained": trained}


@pytest.mark.parametrize(
    ("deepest", "verdict"),
    [
        ([2, 32, 128, 32, 8], "right"),  # areas of equal rank are told apart by their place
        ([2, 8, 128, 2, 32], "imprecise"),
        ([32, 8, 128, 2, 2], "imprecise"),
        ([128, 32, 8, 2, 2], "wrong"),
    ],
)
def test_the_verdict_follows_the_depths(deepest, verdict):
    assert [one.verdict for one in judge(made(deepest))] == [verdict]


def test_what_was_found_is_said():
    (found,) = judge(made([2, 32, 128, 32, 8]))
    assert "128 layers at σ_w = 1.3, 0 columns from the largest ξ_c; the edge of chaos is at 1.327" in found.number
    (found,) = judge(made([128, 32, 8, 2, 2]))
    assert "128 layers at σ_w = 1, 2 columns" in found.number
