import subprocess
import sys

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import jaxgain as jg
from jaxgain.figures.outcomes import COLOURS, draw_outcomes
from jaxgain.theory.outcomes import OUTCOMES

BOUNDS = {"below": 1e-3, "above": 1e3}
BLUE, WHITE, RED = "#2166ac", "#f7f7f7", "#b2182b"
DARK = "#333333"


def drawn(dataset):
    axes = Figure().add_subplot()
    draw_outcomes(axes, dataset)
    return axes


def colour_at(axes, x, y):
    """What one sees at a point of the plane: the cell's colour, or the background's where there is no cell."""
    mesh = next(each for each in axes.collections if isinstance(each, QuadMesh))
    mesh.update_scalarmappable()  # as drawing does
    corners = mesh.get_coordinates()
    column = np.searchsorted(corners[0, :, 0], x) - 1
    row = np.searchsorted(corners[:, 0, 1], y) - 1
    rows, columns = np.array(corners.shape[:2]) - 1
    assert 0 <= row < rows and 0 <= column < columns, "outside of the map"
    red, green, blue, alpha = mesh.get_facecolors().reshape(rows, columns, 4)[row, column]
    return to_hex((red, green, blue)) if alpha else to_hex(axes.get_facecolor())


def texts(axes):
    legend = " | ".join(text.get_text() for text in axes.get_legend().get_texts())
    return axes.get_title(loc="left"), legend


def test_the_three_outcomes_of_tanh_are_blue_white_and_red_at_their_sigma_w():
    axes = drawn(jg.outcome_map("tanh", [0.8, 1.0, 2.5], [0.0], depth=100, **BOUNDS))
    assert [colour_at(axes, sigma_w, 0.0) for sigma_w in (0.8, 1.0, 2.5)] == [BLUE, WHITE, RED]


def test_sigma_w_is_across_and_sigma_b_up():
    sigma_w, sigma_b = [0.9, 1.0, 1.4, 2.5], [0.0, 0.3, 1.0]
    found = jg.outcome_map("tanh", sigma_w, sigma_b, depth=200, **BOUNDS)
    axes = drawn(found)
    expected = {"vanishes": BLUE, "survives": WHITE, "explodes": RED}
    for w in sigma_w:
        for b in sigma_b:
            outcome = str(found.outcome.sel(sigma_w=w, sigma_b=b).values)
            assert colour_at(axes, w, b) == expected[outcome], (w, b)
    # Not a map that a transposition or a reflection leaves as it was: biases bring order.
    assert (colour_at(axes, 1.4, 0.0), colour_at(axes, 1.4, 1.0)) == (RED, BLUE)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("σ_w", "σ_b")
    assert axes.get_xlim()[0] < 0.9 and axes.get_ylim()[1] > 1.0


def test_w_is_across_and_b_up_for_the_chain():
    found = jg.initial_map("tanh", [0.5, 1.0, 4.0], [-1.0, 0.0], depth=50, x0=0.0, **BOUNDS)
    axes = drawn(found)
    assert [colour_at(axes, w, 0.0) for w in (0.5, 1.0, 4.0)] == [BLUE, WHITE, RED]
    assert [colour_at(axes, w, -1.0) for w in (0.5, 1.0, 4.0)] == [BLUE, BLUE, BLUE]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("w", "b")


def test_order_of_the_variables_dims_decides_what_is_across():
    found = jg.outcome_map("tanh", [0.8, 2.5], [0.0, 0.1], depth=100, **BOUNDS).transpose("sigma_b", "sigma_w")
    axes = drawn(found)
    assert axes.get_xlabel() == "σ_b"
    assert [colour_at(axes, 0.1, sigma_w) for sigma_w in (0.8, 2.5)] == [BLUE, RED]


def test_a_gradient_that_is_no_number_has_a_colour_of_its_own_and_is_in_the_legend():
    found = jg.outcome_map("tanh", [0.8, 1.0, 2.5], [0.0], depth=100, **BOUNDS)
    assert "no number" not in texts(drawn(found))[1]
    found["outcome"].values[1, 0] = ""
    axes = drawn(found)
    assert [colour_at(axes, sigma_w, 0.0) for sigma_w in (0.8, 1.0, 2.5)] == [BLUE, DARK, RED]
    assert "no number" in texts(axes)[1]


def test_a_map_read_from_a_file_is_drawn_the_same(tmp_path):
    from jaxgain.runs.files import load_dataset, save_dataset

    found = jg.outcome_map("tanh", [0.8, 1.0, 2.5], [0.0], depth=100, **BOUNDS)
    save_dataset(found, tmp_path / "map.nc")
    axes = drawn(load_dataset(tmp_path / "map.nc"))
    assert [colour_at(axes, sigma_w, 0.0) for sigma_w in (0.8, 1.0, 2.5)] == [BLUE, WHITE, RED]
    assert texts(axes) == texts(drawn(found))


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (
            lambda: jg.outcome_map("gelu", [1.0, 2.0], [0.0], depth=30, below=0.01, above=50, second_moment=2.0),
            ("gelu, infinite width, 30 layers", "input of mean square 2"),
        ),
        (
            lambda: jg.initial_map("erf", [1.0, 2.0], [0.0], depth=30, below=0.01, above=50, x0=0.5, scale=3.0),
            ("erf of 3 z, width 1, the same w and b in all 30 layers", "from x₀ = 0.5"),
        ),
    ],
)
def test_title_and_legend_say_what_was_asked(dataset, words):
    axes = drawn(dataset())
    title, legend = texts(axes)
    assert all(word in title for word in words)
    assert legend == "vanishes: r < 0.01 | survives: 0.01 ≤ r ≤ 50 | explodes: r > 50"
    assert [to_hex(patch.get_facecolor()) for patch in axes.get_legend().get_patches()] == [BLUE, WHITE, RED]


def test_every_outcome_has_a_colour():
    assert tuple(COLOURS) == OUTCOMES


def test_no_pyplot_state_is_touched():
    program = "import sys, jaxgain.figures.outcomes; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
