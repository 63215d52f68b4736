import math

import numpy as np
import pytest

import jaxgain as jg
from jaxgain.theory.portrait import default_init, lengths_over_depth, portrait

SMALL = {"grid": 4, "depth": 6, "edges": (0.2,)}


@pytest.fixture(scope="module")
def tanh():
    return portrait("tanh", jg.Init(2.5, 0.3), **SMALL)


def test_every_part_is_what_its_own_function_returns(tanh):
    init, point = jg.Init(2.5, 0.3), jg.fixed_point("tanh", jg.Init(2.5, 0.3))
    assert (tanh.attrs["q"], tanh.attrs["phase"], tanh.attrs["xi_c"]) == (point.q, "chaotic", point.xi_c)
    assert tanh["edge_sigma_w"].values.tolist() == [jg.edge_of_chaos("tanh", 0.2).init.sigma_w]
    np.testing.assert_allclose(tanh["length_map"], jg.length_map("tanh", init, tanh["length"].values), rtol=1e-14)
    correlation = tanh["correlation"].values[::32]
    own = [jg.correlation_map("tanh", init, c, point.q) for c in correlation]
    np.testing.assert_allclose(tanh["correlation_map"][::32], own, atol=1e-9)
    diagram = jg.phase_diagram("tanh", tanh["sigma_w"].values, tanh["sigma_b"].values)
    np.testing.assert_array_equal(tanh["grid_chi_perp"], diagram["chi_perp"])


def test_cobwebs_follow_the_maps_to_the_fixed_point(tanh):
    lengths, correlations = tanh["length_path"].values, tanh["correlation_path"].values
    assert lengths[0] == 2.5**2 + 0.3**2
    np.testing.assert_allclose(lengths[1:4], jg.length_map("tanh", jg.Init(2.5, 0.3), lengths[:3]), rtol=1e-14)
    assert lengths[-1] == pytest.approx(4.079123875, abs=1e-9)
    assert correlations[0] == pytest.approx((2.5**2 * 0.5 + 0.3**2) / lengths[0], rel=1e-12)
    assert correlations[-1] == pytest.approx(0.1221037473, abs=1e-5)  # after 60 layers of a depth scale of 5.1


@pytest.mark.parametrize("phi", ["relu", "step"])
def test_correlation_map_is_the_closed_form_at_kinks_and_jumps(phi):
    drawn = portrait(phi, jg.Init(2**0.5), **SMALL)
    c = drawn["correlation"].values
    angle = np.arccos(c)
    arc_cosine = {"relu": (np.sin(angle) + (np.pi - angle) * c) / np.pi, "step": (np.pi - angle) / np.pi}
    np.testing.assert_allclose(drawn["correlation_map"], arc_cosine[phi], atol=1e-9)


def test_the_diagram_holds_the_critical_and_the_chosen_point(tanh):
    for name, least in (("sigma_w", 2.5), ("sigma_b", 0.3)):
        cells = tanh[name].values
        assert cells[0] > 0 and cells[-1] + cells[0] > least


def test_the_edge_of_chaos_of_gelu_has_an_unstable_branch_that_ends_at_the_critical_point():
    gelu = portrait("gelu", **SMALL)
    sigma_b, stability = gelu["curve_sigma_b"].values, gelu["curve_stability"].values
    assert sigma_b[stability == "unstable"].max() < 0.415839381 < sigma_b[stability == "stable"].min()
    assert gelu.attrs["critical_kind"] == "half-stable"
    assert gelu["fixed_reached"].values.tolist() == [True, False]


def test_an_activation_without_an_edge_or_a_prediction_says_so():
    step = portrait("step", jg.Init(1.0), **SMALL)
    assert step.sizes["curve"] == 0 and step["edge_stability"].values.tolist() == ["none"]
    assert np.isnan(step["log_grad_mean"]).all() and np.isfinite(step["log_q_mean"][1:]).all()
    silent = portrait("tanh", jg.Init(0.0), **SMALL)
    assert silent.attrs["bands_method"] == "none" and "vanished" in silent.attrs["bands_missing"]
    assert "log_q_var" not in silent


def test_lengths_over_depth_end_at_infinity_where_they_overflow():
    assert lengths_over_depth("relu_squared", jg.Init(3.0), 30)[-1] == math.inf


def test_default_init_is_critical_or_the_substitute_or_the_edge_or_as_given():
    assert default_init("gelu") == (jg.critical_init("gelu").init, "critical initialization")
    assert default_init("sigmoid") == (jg.critical_init("sigmoid").init, "best substitute for a critical one")
    assert default_init("softplus")[0].sigma_w == pytest.approx(jg.gain("softplus"), rel=1e-14)
    assert default_init("tanh", None, 0.2)[0] == jg.edge_of_chaos("tanh", 0.2).init
    assert default_init("tanh", 2.0) == (jg.Init(2.0), "as given")
    with pytest.raises(jg.NoEdge, match="no edge of chaos"):
        default_init("relu", None, 0.1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"width": 0}, "width must be a whole number of at least 1, got 0"),
        ({"depth": -1}, "depth must be a whole number of at least 1, got -1"),
        ({"grid": 0}, "grid must be a whole number of at least 1, got 0"),
        ({"grid": 2.5}, "grid must be a whole number of at least 1, got 2.5"),
        ({"input_correlation": 2.0}, "input_correlation must be between -1 and 1, got 2.0; it is a cosine"),
        ({"input_correlation": math.nan}, "input_correlation must be between -1 and 1, got nan"),
    ],
)
def test_sizes_and_correlations_that_cannot_be_are_refused(setting, message):
    with pytest.raises(ValueError, match=message) as refused:
        portrait("tanh", jg.Init(1.0), **(SMALL | setting))
    assert "\n" not in str(refused.value)


def test_the_least_sizes_have_a_portrait():
    least = portrait("tanh", jg.Init(1.5), width=1, depth=1, grid=1, edges=())
    assert least.sizes["layer"] == 2 and least.sizes["sigma_w"] == 1 and least.sizes["edge"] == 0


def test_a_length_that_overflows_leaves_infinite_width_alone():
    drawn = portrait("relu_squared", jg.Init(3.0), depth=30, grid=2, edges=())
    assert drawn.attrs["bands_method"] == "none" and "overflowed" in drawn.attrs["bands_missing"]
    assert "log_q_var" not in drawn


def test_what_goes_wrong_besides_is_no_missing_prediction(monkeypatch):
    def broken(*_, **__):
        raise ValueError("a mistake of the program")

    monkeypatch.setattr("jaxgain.theory.portrait.fluctuations", broken)
    with pytest.raises(ValueError, match="a mistake of the program"):
        portrait("tanh", jg.Init(1.5), **SMALL)
