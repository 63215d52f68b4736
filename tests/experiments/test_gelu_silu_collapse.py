import numpy as np
import pytest
import xarray

from experiments.gelu_silu_collapse import SMOKE, CollapseConfig, inits, judge, run


@pytest.mark.slow
def test_every_network_starts_at_mean_square_1_and_meets_its_own_initialization():
    layers = run(SMOKE)["layers"]
    np.testing.assert_allclose(layers["lines"].isel(layer=0), 0.0, atol=1e-6)
    silu = layers.sel(activation="silu").sel(init="critical")
    assert float(silu["sigma_b"]) == pytest.approx(0.55514317072**0.5, rel=1e-6)
    assert float(layers["sigma_b"].sel(init="√2").max()) == 0.0


def made(*, spread=13.0, gelu=1.0, **ends):
    """Geometric means that end at so many powers of ten; of GELU at so many times as many, as all that is its own."""
    powers = np.outer([1.0, gelu], [ends.get(name, 0.0) for name in inits("gelu")])
    place = ("activation", "init")
    coords = {"activation": ["silu", "gelu"], "init": list(inits("gelu"))}
    mean, error = (np.multiply.outer(each, [0.0, 1.0]) for each in (powers, np.full((2, 4), 0.1)))
    end = np.multiply.outer(np.outer([1.0, gelu], np.ones(4)), [-spread, 0.0, spread])
    layers = {"mean": ((*place, "layer"), mean), "error": ((*place, "layer"), error)}
    return {
        "layers": xarray.Dataset(layers, coords, {"seeds": 16}),
        "ends": xarray.Dataset({"end": ((*place, "seed"), end)}, coords),
    }


AS_CLAIMED = {"critical": 0.5, "√2": -28.0, "forward": 6.0}


def words(**ends):
    return [one.verdict for one in judge(made(**AS_CLAIMED | ends))]


def test_the_claims_are_judged_as_they_are_written():
    assert words() == ["right"] * 4
    assert words(**{"critical": 1.5, "√2": -3.0, "forward": 3.0}, spread=9.0) == ["wrong"] * 4


def test_a_loss_in_the_other_direction_is_not_the_claimed_one():
    assert words(**{"√2": 28.0}) == ["right", "wrong", "right", "right"]
    assert words(forward=-6.0) == ["right", "right", "wrong", "right"]


def test_what_holds_for_one_activation_alone_is_imprecise_and_says_for_which():
    found = judge(made(**AS_CLAIMED, gelu=0.1))
    assert [one.verdict for one in found] == ["right", "imprecise", "imprecise", "imprecise"]
    assert all(one.why.endswith("It holds for silu alone.") for one in found[1:])


def test_the_number_of_networks_is_that_behind_the_number():
    found = judge(made(**AS_CLAIMED))
    assert [one.seeds for one in found] == [16, 16, 16, 3]
    assert found[1].number.startswith("silu: × 10^(-28.00 ± 0.10) by layer 1; gelu: ")
    assert found[3].number.startswith("silu: 3 networks from 10^-13.0 to 10^13.0; ")


@pytest.mark.slow
def test_sixteen_networks_are_the_first_of_more():
    few, more = (run(CollapseConfig(16, 3, 2, networks)) for networks in (4, 7))
    np.testing.assert_array_equal(few["ends"]["end"], more["ends"]["end"].isel(seed=slice(4)))
    np.testing.assert_array_equal(few["layers"]["mean"], more["layers"]["mean"])


@pytest.mark.slow
def test_the_claims_hold_at_their_own_sizes():
    assert [one.verdict for one in judge(run(CollapseConfig(networks=1000)))] == ["right"] * 4
