import numpy as np
import xarray

from experiments.contraction_while_training import judge


def made(ends=(1.0, 1.0), accuracy=(0.95, 0.97), diverged=-1):
    """Lengths of all layers after training, where they began at 1, for two learning rates."""
    dims = ("init", "learning_rate", "seed", "measured_step", "layer")
    q = np.ones((2, 2, 3, 2, 4))
    q[:, :, :, -1] = np.array(ends)[None, :, None, None]
    arrays = {
        "q": (dims, q),
        "test_accuracy": (dims[:3], np.broadcast_to(np.array(accuracy)[None, :, None], (2, 2, 3))),
        "diverged": (dims[:3], np.full((2, 2, 3), diverged)),
    }
    coords = {"init": ["1", "0.75"], "learning_rate": [0.003, 0.03], "measured_step": [0, 40], "layer": [1, 2, 3, 4]}
    return {"runs": xarray.Dataset(arrays, coords)}


def test_another_number_is_another_word():
    word = lambda **changed: judge(made(**changed))[0].verdict
    assert word() == "right"
    assert word(ends=(1.05, 3.0)) == "imprecise"
    assert word(ends=(1.3, 1.3)) == "imprecise"  # in the domain, elsewhere
    assert word(ends=(2.0, 3.0)) == "wrong"
    assert word(diverged=7) == "wrong"


def test_networks_that_do_not_learn_do_not_count():
    word = lambda **changed: judge(made(**changed))[0].verdict
    assert word(ends=(1.0, 3.0), accuracy=(0.3, 0.97)) == "wrong"
    assert word(ends=(1.0, 3.0), accuracy=(0.95, 0.3)) == "right"
