import jax
import numpy as np
import pytest
import xarray

from experiments.nfnets_gammas import PUBLISHED, _of_mean_zero, judge


def made(*, off=5e-4, slopes=(0.0, 0.38)):
    """A table that is off by so much, and networks whose log variance changes so per layer."""
    published = np.array(list(PUBLISHED.values()))
    apart = 0.1 * np.array([-1.0, 1.0] * 8)
    logs = np.array(slopes)[:, None, None] * np.arange(11) + apart[None, :, None] * np.arange(11)
    return {
        "gammas": xarray.Dataset(
            {
                "published": ("activation", published),
                "exact": ("activation", published / (1 + off)),
            },
            {"activation": list(PUBLISHED)},
        ),
        "networks": xarray.Dataset(
            {"log_variance": (("weights", "seed", "layer"), logs)},
            {"weights": ["weights of mean 0", "plain weights"]},
        ),
    }


@pytest.mark.parametrize(
    ("replaced", "verdicts"),
    [
        ({}, ["imprecise", "right"]),
        ({"off": 0.0}, ["right", "right"]),
        ({"off": 0.01}, ["wrong", "right"]),
        ({"slopes": (0.1, 0.38)}, ["imprecise", "wrong"]),
        ({"slopes": (0.0, 0.0)}, ["imprecise", "imprecise"]),
    ],
)
def test_another_number_is_another_verdict(replaced, verdicts):
    assert [one.verdict for one in judge(made(**replaced))] == verdicts


def test_the_weights_have_mean_zero_and_variance_one_over_fan_in():
    weights = _of_mean_zero(jax.random.key(0), (50, 20), np.float32)
    np.testing.assert_allclose(weights.mean(axis=0), 0, atol=1e-7)
    np.testing.assert_allclose((weights**2).mean(axis=0), 1 / 50, rtol=1e-5)
