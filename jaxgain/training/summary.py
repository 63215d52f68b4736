"""What a table and a figure of training runs show: means over seeds, the best learning rate, the depth worth a look."""

import json
from typing import Any

import numpy as np
import xarray

LEARNED = 0.5  # test accuracy of a network that has learned something
MOST = 8  # initializations in one panel


def kept(dataset: xarray.Dataset) -> dict[str, Any]:
    """The settings that a dataset was made with."""
    return json.loads(dataset.attrs["train_config"])


def best_rates(dataset: xarray.Dataset) -> xarray.Dataset:
    """Every run at the learning rate with the best mean test accuracy, for each initialization, depth and so on.

    >>> found = xarray.Dataset(
    ...     {
    ...         "test_accuracy": (
    ...             ("init", "learning_rate", "seed"),
    ...             [[[0.1, 0.2], [0.9, 0.8]], [[0.5, 0.6], [0.3, 0.2]]],
    ...         )
    ...     },
    ...     coords={"learning_rate": [0.1, 0.2]},
    ... )
    >>> best_rates(found).learning_rate.values.tolist()
    [0.2, 0.1]
    """
    accuracy = dataset["test_accuracy"].mean("seed")
    return dataset.isel(learning_rate=accuracy.fillna(-1).argmax("learning_rate"))


def accuracy_and_error(dataset: xarray.Dataset) -> tuple[xarray.DataArray, xarray.DataArray]:
    """Mean test accuracy over seeds and its standard error; NaN for one seed."""
    accuracy, count = dataset["test_accuracy"], dataset.sizes["seed"]
    error = accuracy.std("seed", ddof=1) / count**0.5 if count > 1 else xarray.full_like(accuracy.mean("seed"), np.nan)
    return accuracy.mean("seed"), error


def shown_depth(dataset: xarray.Dataset) -> int:
    """The deepest depth at which some initialization learns; where none does anywhere, the shallowest."""
    accuracy = dataset["test_accuracy"].mean("seed").max("init")
    learned = dataset["depth"].values[(accuracy >= LEARNED).values]
    return int(learned.max() if learned.size else dataset["depth"].values.min())


def shown_inits(dataset: xarray.Dataset) -> list[str]:
    """At most eight initializations, evenly from all of them, the most accurate one among them."""
    labels = [str(label) for label in dataset["init"].values]
    places = set(np.linspace(0, len(labels) - 1, min(MOST - 1, len(labels))).round().astype(int).tolist())
    return [labels[place] for place in sorted(places | {labels.index(best_init(dataset))})]


def best_init(dataset: xarray.Dataset) -> str:
    """The initialization with the best mean test accuracy, of runs at one depth."""
    return str(dataset["init"].values[int(dataset["test_accuracy"].mean("seed").argmax("init"))])
