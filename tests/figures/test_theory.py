import subprocess
import sys

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.figures.theory import PLACES, draw_theory

SMALL = {"grid": 12, "depth": 6, "edges": ()}


def drawn(dataset):
    figure = Figure()
    draw_theory(figure, dataset)
    figure.canvas.draw()
    return figure


def panel(figure, name):
    return figure.axes[list(PLACES).index(name)]


def texts(figure):
    parts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    parts += [text for legend in figure.legends for text in legend.get_texts()]
    return " | ".join(part.get_text() for part in parts)


@pytest.fixture(scope="module")
def gelu():
    return jg.portrait("gelu", **SMALL)


def test_colours_are_the_logarithm_of_chi_perp(gelu):
    mesh = next(each for each in panel(drawn(gelu), "phases").collections if isinstance(each, QuadMesh))
    expected = np.log(gelu["grid_chi_perp"].values.T).clip(-np.log(4), np.log(4))
    np.testing.assert_allclose(np.asarray(mesh.get_array()), expected)


def test_stable_edge_is_solid_and_unstable_edge_dashed(gelu):
    solid, dashed = panel(drawn(gelu), "phases").lines[:2]
    assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
    heights = [np.asarray(line.get_ydata(), float) for line in (solid, dashed)]
    assert np.nanmin(heights[0]) == pytest.approx(0.41583938, abs=1e-8) == np.nanmax(heights[1])


def test_cobweb_steps_between_the_map_and_the_diagonal(gelu):
    axes = panel(drawn(gelu), "length")
    x, y = (np.asarray(part, float) for part in axes.lines[2].get_data())
    path = gelu["length_path"].values
    np.testing.assert_array_equal(x[:4], [path[0], path[0], path[1], path[1]])
    np.testing.assert_array_equal(y[:4], [0.0, path[1], path[1], path[2]])


def test_bands_are_two_standard_deviations_in_decades(gelu):
    axes = panel(drawn(gelu), "gradient")
    band = np.asarray(axes.collections[0].get_paths()[0].vertices)
    top = (gelu["log_grad_mean"] + 2 * np.sqrt(gelu["log_grad_var"])).max() / np.log(10)
    assert band[:, 1].max() == pytest.approx(float(top))


def test_measurements_are_drawn_on_top(gelu):
    measured = {
        f"measured_{name}_{what}": gelu[f"{name}_{what}"] for name in ("log_q", "log_grad") for what in ("mean", "var")
    }
    figure = drawn(gelu.assign(measured).assign_attrs(seeds=77))
    assert len(panel(figure, "signal").containers) == 1
    assert "77 sampled networks" in texts(figure)
    assert "sampled" not in texts(drawn(gelu))


def test_the_figure_says_what_was_chosen_and_what_is_critical(gelu):
    said = texts(drawn(gelu))
    for words in ("gelu", "σ_w = 1.40821", "half-stable", "ordered", "gradients shrink", "diverges", "width 1,000"):
        assert words in said


@pytest.mark.parametrize(
    ("phi", "init", "words"),
    [
        ("step", jg.Init(1.0), "no gradient: the activation jumps"),
        ("tanh", jg.Init(0.0), "no length to draw it at"),
        ("relu", jg.Init(2.0), "diverging: the length grows without end"),
        ("relu", jg.Init(2**0.5), "every length is kept"),
        ("softplus", None, "No critical initialization"),
    ],
)
def test_what_is_not_there_is_said_and_not_drawn(phi, init, words, tmp_path):
    figure = drawn(jg.portrait(phi, init, **SMALL))
    assert words in texts(figure)
    figure.savefig(tmp_path / "a.svg")
    assert "<svg" in (tmp_path / "a.svg").read_text()


def test_no_pyplot_state_is_touched():
    program = "import sys, jaxgain.figures.theory; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
