import numpy as np
import pytest
import xarray

from experiments.transient_chaos import judge

SIGMAS = [1.0, 2.5, 4.0]
CHI = np.array([0.7, 1.6, 2.4])


def made(*, stretch=1.0, bend=1.0, last=(1.0, 0.1, 0.03), off=0.0):
    """Networks as theory has them, but with `stretch` powers of √χ⊥ and so many times the curvature."""
    apart = np.array([-0.01, 0.01] * 4)[None, :, None]
    layers = np.arange(5)
    length = np.outer(np.log(CHI) / 2, layers)
    curvature = np.where(CHI[:, None] > 1, 0.5, 0.2 * layers)
    correlation = np.outer(last, [0.0, 1.0]) + np.outer(np.ones(3), [0.5, 0.0])
    names = {"sigma_w": SIGMAS}
    noisy = lambda values: (("sigma_w", "seed", "layer"), values[:, None] + apart)
    shift = np.array([0.0, off])
    return {
        "circle": xarray.Dataset(
            {
                "log_length": noisy(stretch * length),
                "log_curvature": noisy(bend * curvature),
                "length_theory": (("sigma_w", "layer"), length),
                "curvature_theory": (("sigma_w", "layer"), curvature),
                "chi_perp": ("sigma_w", CHI),
            },
            names,
        ),
        "pairs": xarray.Dataset(
            {
                "correlation": noisy(correlation + shift),
                "theory": (("sigma_w", "layer"), correlation),
                "fixed": ("sigma_w", [1.0, 0.1, 0.03]),
            },
            names,
        ),
    }


@pytest.mark.parametrize(
    ("replaced", "verdicts"),
    [
        ({}, ["right", "right", "right"]),
        ({"off": 0.07}, ["wrong", "right", "right"]),
        ({"last": (1.0, 0.3, 0.03)}, ["imprecise", "right", "right"]),
        ({"stretch": 1.3}, ["right", "imprecise", "right"]),
        ({"stretch": -1.0}, ["right", "wrong", "right"]),
        ({"bend": 1.2}, ["right", "right", "imprecise"]),
        ({"bend": -1.0}, ["right", "right", "wrong"]),
    ],
)
def test_another_number_is_another_verdict(replaced, verdicts):
    assert [one.verdict for one in judge(made(**replaced))] == verdicts
