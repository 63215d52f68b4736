import dataclasses

import numpy as np
import pytest
import xarray

from experiments.trainable_depth import SMOKE, judge, main

SIGMAS, DEPTHS = [1.0, 1.2, 1.3, 1.5, 2.0], [2, 8, 32, 128]


def made(deepest):
    """Networks that learn all or nothing, up to so many layers at each σ_w."""
    accuracy = np.array([[1.0 if depth <= reach else 0.1 for depth in DEPTHS] for reach in deepest])
    grid = ("activation", "init", "depth", "width", "learning_rate", "seed")
    return xarray.Dataset(
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


def test_the_claim_holds_where_depth_follows_the_theory():
    found = judge(made([2, 32, 128, 32, 8]))
    # areas of equal rank are told apart by their place
    assert found["rank_correlation"] > 0.8 and found["columns_apart"] == 0
    assert (found["deepest"], found["deepest_sigma_w"]) == (128, 1.3)
    assert found["critical_sigma_w"] == pytest.approx(1.327, abs=1e-3)


def test_the_claim_fails_where_depth_does_not():
    found = judge(made([128, 32, 8, 2, 2]))
    assert found["rank_correlation"] < 0.5 and found["columns_apart"] == 2


@pytest.mark.slow
def test_the_experiment_runs(tmp_path, capsys):
    main(dataclasses.replace(SMOKE, out=tmp_path), [])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["trainable_depth.nc", "trainable_depth.png"]
    assert "The claim " in capsys.readouterr().out
