import math

import numpy as np
import xarray

from experiments.tanh_five_thirds import COLOURS, FIVE_THIRDS, candidates, judge

LABELS = ["A1", "A3", "A4", "A5", "A7", "A10", "A11", "A12"]
GROWTH = {1.0: -0.025, 1.01: 0.0, 1.1: 0.005, FIVE_THIRDS: 0.0953, 3.0: 0.3}


def made(stds=(0.07, 0.107, 0.306, 0.6514, 0.83), growth=GROWTH, half=0.6514, gain=1.651, chi_par=0.9, late=0):
    """What a sweep of networks is taken to have found; at gain 1.01 the std falls still."""
    layers, gains = np.arange(101), np.array(list(COLOURS))
    std = np.broadcast_to(np.array(stds)[:, None, None], (5, 2, 101)).copy()
    std[1] *= np.linspace(3, 1, 101)
    back = np.maximum(100 - layers - late, 0)
    log = np.array([growth[g] for g in gains])[:, None, None] * back + np.zeros((1, 2, 1))
    dims, coords = ("gain", "seed", "layer"), {"gain": gains, "seed": [0, 1], "layer": layers}
    jacobian = log[..., ::-1] - 0.3
    whole = {"std": (dims, std), "log_grad_rms": (dims, log), "log_jacobian_rms": (dims, jacobian)}
    theory = {"std": [0.65, 0.96], "chi_par": [chi_par, 0.1], "chi_perp": [1.2, 3.0]}
    one = {"gain": [FIVE_THIRDS], "seed": [0, 1], "layer": layers}
    return {
        "whole": xarray.Dataset(whole, coords),
        "half": xarray.Dataset({"std": (dims, np.full((1, 2, 101), half))}, one),
        "candidates": xarray.Dataset({"gain": ("criterion", [1.59, gain])}, {"criterion": ["forward", "other"]}),
        "theory": xarray.Dataset({k: ("gain", v) for k, v in theory.items()}, {"gain": [FIVE_THIRDS, 10.0]}),
    }


def words(**changed):
    return {one.claim: one.verdict for one in judge(made(**changed))}


def test_the_words_for_what_is_found():
    found = words()
    assert list(found) == LABELS
    assert [label for label, word in found.items() if word == "right"] == ["A3", "A4", "A5", "A12"]
    assert [label for label, word in found.items() if word == "imprecise"] == ["A1", "A7", "A10", "A11"]


def test_another_number_is_another_word():
    assert words(gain=5 / 3)["A1"] == "right"
    assert words(chi_par=1.1)["A1"] == "wrong" and words(chi_par=1.1)["A10"] == "wrong"
    other = words(stds=(0.07, 0.107, 0.5, 0.7, 0.83))
    assert [other[label] for label in ("A3", "A4", "A5", "A11", "A12")] == ["wrong"] * 5
    assert words(half=0.6)["A5"] == "wrong"
    assert words(growth=GROWTH | {1.0: -0.2})["A7"] == "right"
    assert words(stds=(0.6, 0.107, 0.306, 0.6514, 0.83), growth=GROWTH)["A7"] == "wrong"
    assert words(growth=GROWTH | {FIVE_THIRDS: 0.01})["A11"] == "wrong"
    assert words(growth=GROWTH | {1.1: 0.05})["A12"] == "wrong"
    assert words(late=10)["A11"] == "right"  # it starts ten layers from the output


def test_the_candidates_are_what_their_names_say():
    z = np.linspace(-12, 12, 200_001)
    weight = np.exp(-(z**2) / 2)
    mean = lambda values: float((values * weight).sum() / weight.sum())
    found = candidates()
    slope = 1 - np.tanh(z) ** 2
    assert math.isclose(found["forward: 1/√E φ(z)² = 1/std φ(z)"], mean(np.tanh(z) ** 2) ** -0.5, rel_tol=1e-6)
    assert math.isclose(found["backward: 1/√E φ'(z)²"], mean(slope**2) ** -0.5, rel_tol=1e-6)
    assert math.isclose(found["1/E φ'(z)"], 1 / mean(slope), rel_tol=1e-6)
    assert math.isclose(found["E|z| / E|φ(z)|"], mean(abs(z)) / mean(abs(np.tanh(z))), rel_tol=1e-6)
    one = found["g with E gz φ(gz) = 1"]
    assert math.isclose(mean(one * z * np.tanh(one * z)), 1, rel_tol=1e-6)
    two = found["g with E|φ(gz)| = E|z|"]
    assert math.isclose(mean(abs(np.tanh(two * z))), mean(abs(z)), rel_tol=1e-6)
    assert found["critical, Kumar 2017: 1/φ'(0)"] == 1
