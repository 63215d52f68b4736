import math

import numpy as np
import pytest
from scipy import stats

import jaxgain as jg
from jaxgain.propagation import disagreement as module
from jaxgain.propagation.disagreement import disagreement, of_mean, of_variance, threshold


@pytest.fixture(scope="module", autouse=True)
def narrower():
    """Networks for the correlation that take no time: their bias, of order 1/width, stays below their error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WIDE", 5000)
        yield


def predicted(phi, init, **options):
    return jg.portrait(phi, init, **{"width": 300, "depth": 10, "grid": 2, "edges": ()} | options)


def test_probability_of_a_mean_is_that_of_student():
    x = np.random.default_rng(0).normal(size=12)
    found = of_mean("", 0, 0.7, x)
    expected = stats.ttest_1samp(x, 0.7)
    assert found.standard_errors == pytest.approx(expected.statistic, rel=1e-12)
    assert found.probability == pytest.approx(expected.pvalue, rel=1e-9)


def test_variances_of_normal_samples_are_5_percent_of_the_time_beyond_5_percent():
    rng = np.random.default_rng(1)
    found = [of_variance("", 0, 4.0, 2 * rng.normal(size=200)).probability for _ in range(4000)]
    beyond, error = np.mean(np.array(found) < 0.05), math.sqrt(0.05 * 0.95 / 4000)
    assert abs(beyond - 0.05) < 0.01 + 3 * error  # the logarithm of a variance is normal to order 1/N


def test_the_threshold_leaves_one_in_a_hundred_to_chance():
    assert 1 - (1 - 2 * stats.norm.sf(threshold(30))) ** 30 == pytest.approx(0.01, rel=0.01)


@pytest.mark.slow
def test_networks_agree_with_their_theory():
    init = jg.Init(1.5, 0.1)
    found = disagreement("tanh", init, predicted("tanh", init), seeds=200)
    assert found.attrs["agrees"] == 1 and found.attrs["dead"] == 0
    names = {f"{what} of {of}" for what in ("mean", "variance") for of in ("ln q", "ln g²")} | {"correlation"}
    assert set(found["statistic"].values.tolist()) == names
    assert found["at_layer"].values.min() == 0 and found["at_layer"].values.max() == 10
    assert found["measured_log_q_var"].dims == ("layer",)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("init", "other", "statistic"),
    [
        (jg.Init(1.5, 0.1), {"init": jg.Init(1.55, 0.1)}, "mean of ln q"),
        (jg.Init(1.5, 0.1), {"width": 150}, "variance of ln g²"),
    ],
)
def test_networks_disagree_with_the_theory_of_others(init, other, statistic):
    prediction = predicted("tanh", **({"init": init} | other)).assign_attrs(width=300)
    found = disagreement("tanh", init, prediction, seeds=200)
    assert found.attrs["agrees"] == 0
    worst = found["standard_errors"].values[found["statistic"].values == statistic]
    assert abs(worst).max() > found.attrs["threshold"]


@pytest.mark.slow
def test_correlation_is_compared_with_its_own_theory():
    init = jg.Init(1.5, 0.1)
    prediction = predicted("tanh", init)
    wrong = disagreement("tanh", init, prediction.assign_attrs(input_correlation=0.5), seeds=3)
    assert wrong["probability"].values[wrong["statistic"].values == "correlation"].min() > 1e-3
    # one layer of the correlation map away
    c = wrong["predicted"].values[wrong["statistic"].values == "correlation"]
    assert c[0] == pytest.approx((1.5**2 * 0.5 + 0.01) / (1.5**2 + 0.01), rel=1e-12)
    assert c[1] == pytest.approx(jg.correlation_map("tanh", init, c[0], 1.5**2 + 0.01), rel=1e-9)


def test_without_a_prediction_or_enough_seeds_it_is_refused():
    with pytest.raises(ValueError, match="nothing to compare with: the length of tanh is 0"):
        disagreement("tanh", jg.Init(0.0), predicted("tanh", jg.Init(0.0)))
    with pytest.raises(ValueError, match="seeds must be at least 3, got 2"):
        disagreement("tanh", jg.Init(1.0), predicted("tanh", jg.Init(1.0)), seeds=2)


@pytest.mark.slow
def test_a_jump_leaves_gradients_out():
    found = disagreement("step", jg.Init(1.0), predicted("step", jg.Init(1.0)), seeds=50)
    assert not any("g²" in name for name in found["statistic"].values)
    assert found.attrs["agrees"] == 1


@pytest.mark.parametrize("name", ["sigma_w", "sigma_b"])
def test_an_array_of_scales_is_refused(name):
    given = {"sigma_w": 1.5, "sigma_b": 0.1} | {name: np.ones(2)}
    with pytest.raises(ValueError, match=rf"{name} must be one number, got an array of shape \(2,\); loop over"):
        disagreement("tanh", jg.Init(**given), predicted("tanh", jg.Init(1.5, 0.1), depth=2))
