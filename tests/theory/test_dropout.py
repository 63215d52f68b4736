"""The fixed point with dropout: where profiles over depth end, and that copies of an input part."""

import math

import numpy as np
import pytest

from jaxgain.theory.depth_profile import mean_field
from jaxgain.theory.dropout import dropout_fixed_point
from jaxgain.theory.fixed_points import fixed_point
from jaxgain.theory.meanfield import Init


@pytest.mark.parametrize("correlation", [0.0, 1.0])
def test_profiles_end_at_it_at_its_rate(correlation):
    init, dropout = Init(1.0, 0.3), 0.2
    point = dropout_fixed_point("tanh", init, dropout=dropout)
    second_moment = (point.q - init.sigma_b**2) / init.sigma_w**2  # the length is there at once
    profile = mean_field("tanh", init, depth=45, dropout=dropout, second_moment=second_moment, correlation=correlation)
    np.testing.assert_allclose(profile.q[1:], point.q, rtol=1e-12)
    assert float(profile.one_minus_correlation[-1]) == pytest.approx(point.one_minus_c, rel=1e-8)
    off = np.log(np.abs(profile.one_minus_correlation.values[16:19] - point.one_minus_c))
    np.testing.assert_allclose(np.diff(off), math.log(point.slope), rtol=1e-3)
    assert np.diff(profile.log_jacobian_rms)[-1] == pytest.approx(math.log(point.chi_perp) / 2, rel=1e-10)


def test_linear_networks_have_it_in_closed_form():
    # q = σ²q/(1 - p) + b, c = (σ²c + b/q): c = (b/q)/(1 - σ²) with b/q = 1 - σ²/(1 - p).
    point = dropout_fixed_point("identity", Init(0.5**0.5, 1.0), dropout=0.2)
    assert point.q == pytest.approx(1 / (1 - 0.625), rel=1e-13)
    assert point.c == pytest.approx((1 - 0.625) / 0.5, rel=1e-12)
    assert point.slope == pytest.approx(0.5, rel=1e-12)


def test_copies_of_one_input_part_whatever_the_initialization():
    # Schoenholz et al., 2017: no initialization is critical with dropout.
    for init in (Init(1.0, 0.2), Init(1.3, 0.2), Init(2.5, 0.3)):
        point = dropout_fixed_point("tanh", init, dropout=0.05)
        assert point.c < min(fixed_point("tanh", init).c, 0.97)
        assert 0 < point.xi_c < 15


def test_without_dropout_it_is_the_fixed_point():
    assert dropout_fixed_point("tanh", Init(2.5, 0.3), dropout=0.0) == fixed_point("tanh", Init(2.5, 0.3))


@pytest.mark.parametrize(
    ("init", "dropout", "message"),
    [(Init(1.0), 1.0, "below 1"), (Init(np.ones(2)), 0.1, "one init"), (Init(0.5), 0.1, "length ends at 0")],
)
def test_what_has_none_is_refused(init, dropout, message):
    with pytest.raises(ValueError, match=message):
        dropout_fixed_point("tanh", init, dropout=dropout)
