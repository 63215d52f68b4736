import math

import numpy as np
import xarray

from experiments.tanh_nx_products import judge, pairs, within

LABELS = ["B2", "B7", "B8", "B10", "B12", "B13", "B20"]
PHIS, GAINS = ["tanh", "tanh(2x)", "tanh(5x)"], [0.5, 1.0, 5 / 3, 3.0, 10.0]


def chains(*, slopes=0.0, gradient=(-10.0, -5.0, -10.0), inside=0.8, outside=0.2, largest=1.0, networks=20):
    """Chains that are all alike for n = 1, 2 and 5; the gradient's log by n."""
    room = np.ones((3, networks))
    alike = {"log_slopes": slopes, "inside": inside, "outside": outside, "largest": largest}
    variables = {name: (("n", "network"), value * room) for name, value in alike.items()}
    variables["log_gradient"] = (("n", "network"), np.array(gradient)[:, None] * room)
    return xarray.Dataset(variables, coords={"n": [1.0, 2.0, 5.0]}, attrs={"depth": 50})


def wide(rates=(-0.04, 0.15, 0.5), *, spread=0.7):
    """Networks whose log gradient grows by a rate per layer going back, all x of one standard deviation."""
    layer, seed = np.arange(11.0), np.array([-1.0, 1.0])
    rate = np.array(rates)[:, None, None, None] + 1e-4 * seed[:, None]
    log_g = np.broadcast_to(rate * (10 - layer), (3, len(GAINS), 2, 11))
    dims = ("activation", "gain", "seed", "layer")
    q = np.full(log_g.shape, spread**2)
    coords = {"activation": PHIS, "gain": GAINS, "layer": layer}
    attrs = {"depth": 10, "width": 5, "seeds": 2}
    return xarray.Dataset({"q": (dims, q), "log_grad_rms": (dims, log_g)}, coords=coords, attrs=attrs)


def normal():
    spread = np.array([0.1, 1.0])
    values = {"slope": [1.0, -1.0], "inside": [1.0, 0.6], "outside": [0.0, 0.6]}
    return xarray.Dataset({name: ("spread", of) for name, of in values.items()}, coords={"spread": spread})


def words(**parts):
    found = {"chains": chains(), "wide": wide(), "normal": normal(), "pairs": pairs((2.0,))} | parts
    return {one.claim: one.verdict for one in judge(found)}


def test_what_was_found_is_judged_so():
    found = words(wide=wide((0.1, 0.15, 0.5), spread=2.0))
    wrong = {"B2", "B10", "B12"}
    assert found == {label: "wrong" if label in wrong else "imprecise" for label in LABELS}


def test_products_that_vanish_are_as_b2_says():
    assert words(chains=chains(slopes=-10.0), wide=wide((-0.1, -0.1, -0.1)))["B2"] == "right"
    assert words(chains=chains(slopes=-10.0), wide=wide((0.1, 0.1, 0.1)))["B2"] == "imprecise"


def test_a_large_x_in_most_chains_makes_b7_right():
    assert words(chains=chains(largest=6.0))["B7"] == "right"


def test_chains_with_few_x_inside_make_b8_wrong():
    assert words(chains=chains(inside=0.4))["B8"] == "wrong"


def test_half_outside_in_chains_of_order_one_makes_b10_right():
    quiet = wide((-0.1, -0.1, -0.1))
    assert words(chains=chains(outside=0.6), wide=quiet)["B10"] == "right"
    assert words(chains=chains(outside=0.6), wide=wide(spread=2.0))["B10"] == "imprecise"
    assert words(chains=chains(outside=0.2), wide=wide(spread=2.0))["B10"] == "wrong"


def test_gradients_that_do_not_grow_make_b12_right():
    assert words(wide=wide((-0.1, -0.1, -0.1)))["B12"] == "right"


def test_pairs_like_singles_make_b13_right():
    alike = pairs((2.0,))
    alike["mean"].values[:] = alike.attrs["single"]
    assert words(pairs=alike)["B13"] == "right"
    assert words(pairs=alike.assign(largest=2 * alike["largest"]))["B13"] == "wrong"


def test_gradients_that_fall_with_n_make_b20_right():
    worse = chains(gradient=(-5.0, -10.0, -10.0))
    assert words(chains=worse, wide=wide((0.5, 0.1, -0.3)))["B20"] == "right"
    assert words(chains=chains(gradient=(-10.0, -5.0, -5.0)))["B20"] == "wrong"


def test_a_single_slope_of_tanh_has_the_mean_log_of_sech_squared():
    z = np.random.default_rng(0).standard_normal(400_000)
    sampled = -2 * np.log(np.cosh(z))
    assert abs(pairs((2.0,)).attrs["single"] - sampled.mean()) < 4 * sampled.std() / len(z) ** 0.5


def test_a_normal_number_is_within_one_deviation_at_68_percent():
    assert abs(float(within(2.0, np.array(2.0))) - math.erf(0.5**0.5)) < 1e-15
