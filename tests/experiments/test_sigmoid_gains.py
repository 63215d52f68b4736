import numpy as np
import xarray

from experiments.sigmoid_gains import judge

LABELS = ["A2", "A8", "A9"]
GAINS = np.array([0.3, 1.0, 3.6, 6.0, 15.0])


def made(tanh=-0.02, sigmoid=(-2.0, -1.4, -0.5, -0.25, 0.18), cosine=1.0, drift=0.0, needed=(1.9, 4.0, 8.4)):
    """Rates are of the gradient's logarithm per layer going back."""
    layers = np.arange(51)
    rates = np.array([sigmoid, np.full(5, tanh)])
    shape = (2, 5, 2, 51)
    full = lambda value: np.full(shape, value)
    arrays = {
        "std": full(0.12) * np.exp(drift * layers),
        "mean": full(0.5),
        "correlation_h": full(cosine),
        "log_grad_rms": rates[:, :, None, None] * (50 - layers) + full(0.0),
    }
    dims = ("activation", "gain", "seed", "layer")
    coords = {"activation": ["sigmoid", "tanh"], "gain": GAINS, "seed": [0, 1], "layer": layers}
    return {
        "sampled": xarray.Dataset({name: (dims, values) for name, values in arrays.items()}, coords),
        "theory": xarray.Dataset({"chi_par": ("gain", np.full(5, 0.1))}, {"gain": GAINS}),
        "needed": xarray.Dataset({"gain": ("depth", list(needed))}, {"depth": [5, 10, 50]}, {"edge": 10.15}),
    }


def words(**changed):
    return {one.claim: one.verdict for one in judge(made(**changed))}


def test_another_number_is_another_word():
    assert words() == {"A2": "imprecise", "A8": "imprecise", "A9": "imprecise"}
    assert words(sigmoid=(-2, -1.4, 0.0, 0.0, 0.1))["A2"] == "right"
    assert words(tanh=-0.2)["A2"] == "wrong"
    assert words(cosine=0.9, sigmoid=(-2.0, -1.4, -0.5, -0.25, -0.1))["A8"] == "right"
    assert words(cosine=0.9)["A8"] == "imprecise"  # at the largest gain the gradient does not vanish
    assert words(drift=-0.01)["A8"] == "wrong"
    assert words(sigmoid=(0.0,) * 5)["A8"] == "wrong"
    assert words(needed=(1.9, 4.0, 12.0))["A9"] == "right"
    assert words(needed=(4.0, 4.0, 3.0))["A9"] == "wrong"
