"""Gains that are found by simulation are those that theory knows."""

import math
import re

import numpy as np
import pytest

import jaxgain as jg

SIZES = dict(width=200, depth=10, inputs=1)


def test_relu_keeps_its_signal_at_the_gain_of_he():
    found = jg.solve_gain("relu", target="signal", **SIZES)
    # The typical network loses (5/2)/n of log h² per layer beside the mean (Hanin and Nica, 2020).
    expected = math.sqrt(2) * math.exp(1.25 / 200)
    assert abs(found.gain - expected) < 4 * found.error
    assert 0 < found.error < 0.01 and abs(found.residual) < 1e-3
    assert found.slope == pytest.approx(10, rel=1e-2)  # rms h grows as gain^depth


@pytest.mark.slow
def test_a_linear_network_keeps_signal_gradient_and_their_balance_at_one_gain():
    gains = [jg.solve_gain("linear", target=target, **SIZES).gain for target in ("signal", "gradient", "balance")]
    np.testing.assert_allclose(gains, math.exp(0.5 / 200), rtol=0.01)


@pytest.mark.slow
def test_balance_lies_between_signal_and_gradient():
    setting = dict(sigma_b=0.1, weights="dense", width=60, depth=5, inputs=1, seeds=8, between=(0.5, 5.0))
    signal, gradient, both = (
        jg.solve_gain("gelu", target=t, **setting).gain for t in ("signal", "gradient", "balance")
    )
    assert min(signal, gradient) < both < max(signal, gradient)


def test_what_no_gain_can_do_is_said():
    with pytest.raises(ValueError, match=r"no gain between 0.05 and 20 meets the target 'signal': at these the change"):
        jg.solve_gain("tanh", target="signal", width=80, depth=4, seeds=2, inputs=1)  # its rms stays below 1


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (dict(target="both"), "unknown target 'both'. Use one of signal, gradient, balance"),
        (dict(between=(2, 1)), "between must be two rising positive gains, got (2, 1)"),
        (dict(sigma_b=(0.1, 0.2)), "sigma_b must be one number to solve for a gain, got (0.1, 0.2)"),
        (dict(width=0), "width must be at least 1"),
    ],
)
def test_bad_input_is_one_sentence(setting, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        jg.solve_gain("tanh", **setting)
