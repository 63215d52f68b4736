import numpy as np
import pytest
import xarray

from experiments.exploding_at_layer_31 import EVENTS, judge


def made(*, wide=253.4, nan=31, norm=14, square=256.0, outside=0.3173, fixed=1.5):
    """Networks as the claims have them, but for what is named."""
    apart = np.array([-1.0, 1.0] * 50)
    first = np.tile([norm, 31, nan], (2, 100, 1))
    ends = np.stack([fixed * (1 + 0.1 * apart), 0.1 * apart])
    return {
        "products": xarray.Dataset(
            {
                "equal": (("width", "entry"), [[0.99, 1.01], [wide, 258.6]]),
                "log10_random": (("entry", "seed"), [0.001 * apart - 0.004, 0.001 * apart + 0.004]),
            },
            coords={"width": [1, 256]},
        ),
        "loop": xarray.Dataset(
            {"first": (("weights", "seed", "event"), first)}, {"weights": ["fixed", "fresh"], "event": EVENTS}
        ),
        "layer": xarray.Dataset(
            {
                "mean": ("seed", apart),
                "square": ("seed", square + 30 * apart),
                "outside": ("seed", outside + 0.03 * apart),
            }
        ),
        "divided": xarray.Dataset(
            {"log10_rms": (("weights", "seed", "layer"), np.stack([0 * ends, ends], axis=-1))},
            {"weights": ["fixed", "fresh"]},
        ),
    }


def words(**replaced):
    return {one.claim: one.verdict for one in judge(made(**replaced))}


def test_the_claims_as_the_networks_have_them():
    assert words() == {"C1": "imprecise", "C2": "right", "C3": "right", "C4": "wrong", "C5": "imprecise"}


@pytest.mark.parametrize(
    ("replaced", "claim", "verdict"),
    [
        ({"wide": 0.9}, "C1", "right"),
        ({"nan": 32}, "C2", "imprecise"),
        ({"nan": 40}, "C2", "wrong"),
        ({"square": 290.0}, "C3", "wrong"),
        ({"outside": 0.333}, "C4", "right"),
        ({"fixed": 0.5}, "C5", "right"),
    ],
)
def test_another_number_is_another_verdict(replaced, claim, verdict):
    assert words(**replaced) == words() | {claim: verdict}


def test_it_says_whether_the_norm_overflows_long_before():
    assert "overflowed long before, at i = 14–14" in judge(made())[1].why
    assert "overflowed no earlier" in judge(made(norm=30))[1].why
