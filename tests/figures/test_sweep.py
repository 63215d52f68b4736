import subprocess
import sys

import numpy as np
import pytest
import xarray
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from jaxgain.figures.sweep import draw_sweep, in_decades, spread


def drawn(dataset):
    figure = Figure()
    draw_sweep(figure, dataset)
    return figure


def texts(figure):
    return [text.get_text() for text in [*figure.texts, *(each for axes in figure.axes for each in axes.texts)]]


def panel(figure, *, row, column):
    """The drawing order is by column: the list, std, gradient, and the two maps; two rows in these tests."""
    return figure.axes[2 * column + row]


def map_of(figure, *, row, column):
    return next(each for each in panel(figure, row=row, column=column).collections if isinstance(each, QuadMesh))


def test_lines_are_the_seed_means_in_decades_with_a_band_of_one_standard_error(exponential_sweep):
    figure = drawn(exponential_sweep(std_rate=-0.1, gradient_rate=0.2, jitter=0.01))
    layer = np.arange(51)
    std, gradient = (panel(figure, row=0, column=column) for column in (1, 2))
    np.testing.assert_allclose(np.asarray(std.lines[0].get_ydata()), -0.1 * layer / np.log(10), atol=1e-12)
    np.testing.assert_allclose(np.asarray(gradient.lines[0].get_ydata()), 0.2 * (50 - layer) / np.log(10), atol=1e-12)
    band = np.asarray(gradient.collections[0].get_paths()[0].vertices)
    error = 0.01 * np.std([-1.5, -0.5, 0.5, 1.5], ddof=1) / 2
    assert band[:, 1].max() == pytest.approx((0.2 + error) * 50 / np.log(10))


def test_maps_are_white_where_the_signal_is_that_of_the_input(exponential_sweep):
    dataset = exponential_sweep()
    scaled = dataset.assign(std=7.0 * dataset["std"])
    mesh = map_of(drawn(scaled), row=0, column=3)
    np.testing.assert_allclose(np.ma.asarray(mesh.get_array()), 0.0, atol=1e-12)
    assert (mesh.norm.vmin, mesh.norm.vmax) == (-3.0, 3.0)


def test_rows_show_the_names_of_their_own_gains_only(exponential_sweep):
    figure = drawn(exponential_sweep())
    tanh, relu = (
        {text.get_text() for text in panel(figure, row=row, column=0).texts}
        - {"gain", "its name", "signal", "gradient"}
        for row in (0, 1)
    )
    assert tanh == {"tanh", "1.500", "forward", "survives"}
    assert relu == {"relu", "2.000", "forward, torch", "survives"}


def test_the_title_says_depth_width_seeds_and_cotangent(exponential_sweep):
    said = " ".join(texts(drawn(exponential_sweep())))
    for words in (
        "survive 50 layers",
        "width 1,000",
        "depth 50",
        "4 seeds",
        "cotangent at the output: random",
    ):
        assert words in said


def test_what_is_not_finite_leaves_a_gap_and_no_warning(exponential_sweep):
    dataset = exponential_sweep(std_rate=0.2)
    dataset["std"][0, 1, :, 30:] = np.inf
    dataset["log_grad_rms"][0, 1] = np.nan
    dataset["log_grad_rms"][1, 2, :, :30] = -np.inf
    figure = drawn(dataset)
    figure.canvas.draw()
    mesh = map_of(figure, row=0, column=4)
    assert np.ma.getmaskarray(np.ma.asarray(mesh.get_array()))[1].all()


@pytest.mark.parametrize("left_out", ["std", "log_grad_rms", "correlation"])
def test_statistics_that_were_not_recorded_leave_their_panels_empty(exponential_sweep, left_out, tmp_path):
    whole, partial = drawn(exponential_sweep()), drawn(exponential_sweep().drop_vars(left_out))
    visible = lambda line: np.isfinite(np.asarray(line.get_ydata(), float)).any()
    count = lambda figure: sum(visible(line) for axes in figure.axes for line in axes.lines)
    assert count(partial) < count(whole) if left_out != "correlation" else count(partial) == count(whole)
    partial.savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_one_gain_of_zero_one_seed_and_one_activation_are_drawn(exponential_sweep, tmp_path):
    dataset = exponential_sweep(seeds=1, gains=(0.0, 1.0)).isel(gain=[0], activation=[0])
    drawn(dataset).savefig(tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_no_pyplot_state_is_touched():
    program = "import sys, jaxgain.figures.sweep; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_gradient_is_drawn_relative_to_the_output(exponential_sweep):
    dataset = exponential_sweep(gradient_rate=0.1)
    louder = dataset.assign(log_grad_rms=dataset["log_grad_rms"] + 100.0)
    xarray.testing.assert_allclose(in_decades(louder)["gradient"], in_decades(dataset)["gradient"])
    assert float(abs(in_decades(louder)["gradient"].isel(layer=-1)).max()) == 0.0


@pytest.mark.parametrize("heights", [[0.5] * 5, [0.0, 0.01, 0.02], [0.97, 0.99, 1.0], [0.1, 0.5, 0.52, 0.9]])
def test_labels_are_moved_apart_and_stay_on_the_page(heights):
    moved = spread(np.array(heights), gap=0.1)
    assert np.diff(moved).min() >= 0.1 - 1e-12
    assert moved.min() >= 0
    assert moved.max() <= 1 + 1e-12


def test_labels_that_do_not_touch_stay_where_they_are():
    np.testing.assert_allclose(spread(np.array([0.1, 0.4, 0.8]), gap=0.1), [0.1, 0.4, 0.8])


def test_what_is_swept_beside_the_gain_has_rows_and_a_format_has_ends():
    """Rows are told apart by as many digits as they need."""
    gains, layers = [1.0], np.arange(4)
    shape = (1, 1, 2, 2, 4)
    dims = ("activation", "gain", "input_correlation", "seed", "layer")
    powers = np.broadcast_to(np.linspace(0, 5, 4), shape)
    coords = {
        "activation": ["tanh"],
        "gain": gains,
        "input_correlation": [0.99999, 0.999999],
        "layer": layers,
        "gain_name": (("activation", "gain"), [["forward"]]),
    }
    config = '{"gains": [1.0], "depth": 3, "seeds": 2, "width": [8, 9, 9, 9], "sigma_b": 0.0, "input_scale": 1.0,'
    config += '"cotangent": "random", "dtype": "float16", "tied": true, "block": "prenorm", "norm": "rmsnorm",'
    config += '"alpha": 0.5}'
    variables = {"std": (dims, 10**powers), "log_grad_rms": (dims, powers)}
    figure = drawn(xarray.Dataset(variables, coords=coords, attrs={"config": config}))
    said = texts(figure)
    assert {"tanh, input corr. 0.99999", "tanh, input corr. 0.999999"} <= set(said)
    assert "largest" in said and any("dashed: where float16 ends" in text for text in said)
    assert "block: prenorm; dtype: float16; tied: yes; norm: rmsnorm; alpha: 0.5" in said
