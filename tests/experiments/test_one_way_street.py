import numpy as np
import pytest
import xarray

from experiments.one_way_street import judge, share, states

STEPS = 12


def made(*, back=0.0, lost=0.0, accuracy=0.1):
    """Twenty networks that begin vanished and twenty healthy ones; a share of each changes sides."""
    log_gradient = np.zeros((1, 2, 20, STEPS))
    log_gradient[0, 0] = -10
    log_gradient[0, 0, : round(20 * back), 3:] = -1
    log_gradient[0, 1, : round(20 * lost), 3:] = -10
    dims = ("sigma_b", "sigma_w", "seed", "step")
    return xarray.Dataset(
        {"log_gradient": (dims, log_gradient), "accuracy": (dims[:3], np.full((1, 2, 20), accuracy))},
        coords={"sigma_b": [0.0], "sigma_w": [0.3, 1.0], "step": np.arange(STEPS)},
        attrs={"depth": 3, "width": 4, "steps": STEPS, "rate": 0.1},
    )


def word(sgd, adam):
    (verdict,) = judge({"sgd": sgd, "adam": adam})
    return verdict.verdict


def test_a_street_of_one_way_needs_no_way_back_and_a_way_there():
    assert word(made(lost=1.0), made()) == "right"
    assert word(made(), made()) == "imprecise"


def test_a_way_back_with_one_optimizer_is_imprecise_and_with_both_wrong():
    assert word(made(), made(back=1.0)) == "imprecise"
    assert word(made(back=1.0), made(back=1.0)) == "wrong"
    assert word(made(back=1.0, lost=1.0), made(back=1.0)) == "wrong"


def test_a_small_gradient_of_what_has_learned_is_not_lost():
    assert not bool(states(made(lost=1.0, accuracy=0.9))["lost"].any())
    assert int(states(made(lost=1.0))["lost"].sel(sigma_w=1.0).sum()) == 20


def test_a_share_counts_among_those_that_are_meant():
    of, among = (xarray.DataArray(np.array(values)) for values in ([1, 1, 0, 1], [1, 1, 1, 0]))
    value, error, number = share(of.astype(bool), among.astype(bool))
    assert value == 2 / 3 and number == 3 and error == pytest.approx((3 / 5 * 2 / 5 / 3) ** 0.5)
