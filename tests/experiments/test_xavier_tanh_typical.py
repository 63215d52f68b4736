import numpy as np
import pytest
import xarray

from experiments.xavier_tanh_typical import judge


def made(median, spread):
    """Networks whose last standard deviations are spread evenly about the median."""
    last = xarray.DataArray(median + spread * np.linspace(-1, 1, 101), dims="seed")
    bands = last.quantile([0.005, 0.25, 0.5, 0.75, 0.995], "seed").expand_dims("layer")
    wide = xarray.Dataset({"std": ("layer", [1.0, 0.07]), "log_grad_rms": ("layer", [-1.0, 0.0])})
    return {name: xarray.Dataset({"bands": bands, "last": last}) for name in ("uniform", "normal")} | {"wide": wide}


@pytest.mark.parametrize(
    ("median", "spread", "verdict"),
    [(0.0452, 0.01, "right"), (0.055, 0.012, "imprecise"), (0.055, 0.005, "wrong"), (0.03, 0.01, "wrong")],
)
def test_the_quartiles_of_the_networks_decide(median, spread, verdict):
    (found,) = judge(made(median, spread))
    assert found.verdict == verdict and found.seeds == 101
    assert f"median {median:.4f}" in found.number


def test_it_says_how_many_end_below():
    assert "50% end below 0.0452 (normal weights: 49.5% of 101)" in judge(made(0.0452, 0.01))[0].number
