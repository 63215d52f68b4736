"""Real data that need no internet: labelled inputs, split into those to train on and those to test."""

from typing import Any, NamedTuple

import numpy as np


class Data(NamedTuple):
    """Inputs (examples, features) of mean square exactly 1 each, float64, and labels (examples,), whole numbers."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def classes(self) -> int:
        """How many different labels there are."""
        return int(self.y.max()) + 1


def load_data(name: str) -> Data:
    """The data set of that name, "digits" or "mnist1d": the features centred, then every input scaled.

    Raises `ValueError` where its package is not installed.

    >>> load_data("digits").x.shape
    (1437, 64)
    """
    try:
        x, y, x_test, y_test = {"digits": _digits, "mnist1d": _mnist1d}[name]()
    except ImportError as error:
        raise ValueError(
            f"the dataset {name} needs the package {error.name}; install it with pip install 'jaxgain[data]'"
        ) from None
    centre = x.mean(axis=0)
    return Data(_unit(x - centre), y, _unit(x_test - centre), y_test)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x, axis=1, keepdims=True))


def _digits() -> Any:
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    x, y = found.data, found.target
    order = np.random.default_rng(0).permutation(len(x))  # neighbours are by the same hand
    train, test = order[:1437], order[1437:]
    return x[train], y[train], x[test], y[test]


def _mnist1d() -> Any:
    from mnist1d.data import get_dataset_args, make_dataset

    state = np.random.get_state()  # noqa: NPY002 (the package seeds NumPy's global generator)
    try:
        made = make_dataset(get_dataset_args())
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return made["x"], made["y"], made["x_test"], made["y_test"]
