import builtins

import numpy as np
import pytest

from jaxgain.training.data import load_data

SIZES = {"digits": (1437, 360, 64), "mnist1d": (4000, 1000, 40)}


@pytest.mark.parametrize("name", SIZES)
def test_inputs_have_mean_square_1_and_all_labels(name):
    data, (train, test, features) = load_data(name), SIZES[name]
    assert data.x.shape == (train, features) and data.x_test.shape == (test, features)
    for x in (data.x, data.x_test):
        np.testing.assert_allclose(np.mean(x**2, axis=1), 1)
    assert set(data.y) == set(data.y_test) == set(range(10)) and data.classes == 10


@pytest.mark.parametrize("name", SIZES)
def test_nothing_to_test_on_is_trained_on(name):
    data = load_data(name)
    assert not {x.tobytes() for x in data.x} & {x.tobytes() for x in data.x_test}


def test_the_global_generator_of_numpy_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    load_data("mnist1d")
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_a_missing_package_is_said_with_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("sklearn"):
            raise ImportError("No module named 'sklearn'", name="sklearn")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ValueError, match=r"the dataset digits needs the package sklearn; .*pip install 'jaxgain\[data\]'"
    ):
        load_data("digits")
