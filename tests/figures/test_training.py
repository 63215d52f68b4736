import json

import numpy as np
import pytest
import xarray
from matplotlib.figure import Figure

from jaxgain.figures.training import draw_training
from jaxgain.training.summary import accuracy_and_error, best_init, shown_depth, shown_inits

INITS, DEPTHS = ["0.5", "1", "2", "critical"], [2, 20, 100]


@pytest.fixture
def runs():
    """Accuracies, losses and lengths that were made up."""
    grid = ("activation", "init", "depth", "width", "learning_rate", "seed")
    accuracy = np.array([[0.9, 0.1, 0.1], [0.9, 0.8, 0.3], [0.9, 0.7, 0.2], [0.9, 0.85, 0.1]])
    accuracy = np.stack([accuracy, accuracy / 2], -1)[None, :, :, None, :, None] + np.array([0.01, -0.01])
    loss = np.broadcast_to(np.linspace(2, 1, 10), (*accuracy.shape, 10))
    q = np.broadcast_to(np.arange(1.0, 4.0)[:, None], (*accuracy.shape, 3, 101)).copy()
    return xarray.Dataset(
        {
            "test_accuracy": (grid, accuracy),
            "loss": ((*grid, "step"), loss),
            "q": ((*grid, "measured_step", "layer"), q),
            "correlation": ((*grid, "measured_step", "layer"), q / 10),
            "saturated": ((*grid, "measured_step", "layer"), q / 100),
        },
        coords={
            "activation": ["tanh"],
            "init": INITS,
            "depth": DEPTHS,
            "width": [16],
            "learning_rate": [0.1, 0.2],
            "step": np.arange(10),
            "measured_step": [0, 5, 10],
            "layer": np.arange(1, 102),
            "xi_c": (("activation", "init"), [[0.7, np.inf, 20 / 6, np.inf]]),
        },
        attrs={"train_config": json.dumps({"dataset": "digits", "steps": 10, "optimizer": "sgd", "batch": 8})},
    )


def test_the_map_has_the_mean_accuracy_at_the_best_rate(runs):
    figure = Figure()
    draw_training(figure, runs)
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, np.array([[0.9] * 4, [0.1, 0.8, 0.7, 0.85], [0.1, 0.3, 0.2, 0.1]]))


def test_six_xi_c_lies_at_its_depth_and_only_over_numbers(runs):
    figure = Figure()
    draw_training(figure, runs)
    curve = figure.axes[0].lines[-1]
    assert list(curve.get_xdata()) == [0, 1, 2]
    heights = np.asarray(curve.get_ydata())
    assert heights[2] == pytest.approx(1)  # 20 layers: the second row
    assert 0 < heights[0] < 1 and heights[1] > 2.5  # between 2 and 20 layers; beyond the panel


def test_losses_are_of_the_deepest_network_that_learns(runs):
    figure = Figure()
    draw_training(figure, runs)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert "loss at depth 20, by initialization" in titles
    assert "layers while critical trains" in titles


def test_length_correlation_and_saturation_of_each_layer_are_drawn_at_every_measured_step(runs):
    figure = Figure()
    draw_training(figure, runs)
    panels = {axes.get_ylabel(): axes for axes in figure.axes}
    for label, size in {"length q": 1, "correlation": 10, "saturated": 100}.items():
        heights = [set(np.asarray(line.get_ydata())) for line in panels[label].lines]
        assert heights == [{1 / size}, {2 / size}, {3 / size}]


def test_summaries_of_runs(runs):
    one = runs.sel(activation="tanh").isel(width=0, learning_rate=0)
    assert shown_depth(one) == 20 and best_init(one.sel(depth=20)) == "critical"
    mean, error = accuracy_and_error(one.sel(init="1", depth=20))
    assert (float(mean), float(error)) == (pytest.approx(0.8), pytest.approx(0.01))
    many = xarray.Dataset(
        {"test_accuracy": (("init", "seed"), np.eye(1, 20, 3).T)}, coords={"init": [str(i) for i in range(20)]}
    )
    assert len(shown_inits(many)) <= 8 and "3" in shown_inits(many)
