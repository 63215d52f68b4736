import math

import numpy as np
import pytest
import xarray

from experiments.cures import CURES, judge, main

FLAT = {"skip connections": 1.0, "gain 1": 1.0}
PLACES = np.linspace(0, 1, 41)


def made(gradient=FLAT, step=None, accuracy=None, names=tuple(CURES)):
    """First layer over last, of gradients and of steps, 33 where nothing is said; and training accuracies, or 0.6."""
    step = step if step is not None else gradient | {"layerwise rates": 1.0}
    fall = -(PLACES - PLACES[1]) / (PLACES[-2] - PLACES[1])
    profile = lambda of: np.stack([np.tile(math.log(of.get(name, 33.0)) * fall, (3, 1)) for name in names])
    right = np.array([(accuracy or {}).get(name, 0.6) for name in names])[:, None] + np.array([-0.01, 0, 0.01])
    arrays = {
        "gradient": (("cure", "seed", "place"), profile(gradient)),
        "step": (("cure", "seed", "place"), profile(step)),
        "accuracy": (("cure", "seed"), right),
        "loss": (("cure", "seed", "step_of_training"), np.zeros((len(names), 3, 5))),
    }
    return {"cures": xarray.Dataset(arrays, {"cure": list(names), "place": PLACES})}


def judged(**changed):
    (one,) = judge(made(**changed))
    return one


def test_another_number_is_another_word():
    every = dict.fromkeys(CURES, 1.0) | {"none": 33.0}
    assert judged().verdict == "imprecise"
    assert judged(gradient=every).verdict == "right"
    assert judged(gradient={}).verdict == "wrong"
    assert judged(gradient={}, accuracy={"clipping": 0.9}).verdict == "imprecise"  # it helps all the same
    assert judged(gradient={"gain 1": 1.0}, accuracy={"Adam": 0.9}).verdict == "wrong"  # not of the five


def test_what_each_cure_does_is_said():
    why = judged(accuracy={"clipping": 0.9, "Adam": 0.9, "hypergradient": 0.61}).why
    assert "flatter: skip connections; only the steps: layerwise rates; neither: hypergradient, clipping, orth" in why
    assert "Learn more than the plain network: clipping; of what is beside them" in why and why.count("Adam") == 2
    assert "need the right gain" in why and "need the right gain" not in judged(gradient={"orthogonal": 1.0}).why


def test_a_bad_cure_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--cures", "none", "prayer"])
    assert stop.value.code == 2
    assert "cures must be of none, layerwise rates," in capsys.readouterr().err
