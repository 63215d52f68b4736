import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from matplotlib.figure import Figure

import jaxgain as jg


@pytest.fixture(scope="module")
def report():
    """Eight layers that vanish from the fifth on."""
    weights = jax.random.normal(jax.random.key(0), (8, 32, 32)) / 32**0.5
    weights = weights.at[4:].multiply(1e-2)
    model = lambda weights, x: jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, weights)[0]
    return jg.probe(model, weights, jax.random.normal(jax.random.key(1), (16, 32)))


def texts(figure):
    return [text.get_text() for text in (*figure.texts, *(t for axes in figure.axes for t in axes.texts))]


def test_every_site_is_at_the_logarithm_of_its_rms(report):
    figure = jg.draw_probe(report)
    signal, gradient = figure.axes
    np.testing.assert_allclose(signal.lines[0].get_xdata(), np.log10(report["rms_out"]))
    np.testing.assert_allclose(gradient.lines[0].get_xdata(), report["log_grad_output"] / np.log(10))
    np.testing.assert_array_equal(signal.lines[0].get_ydata(), np.arange(8))
    assert [label.get_text() for label in signal.get_yticklabels()] == report["name"].values.tolist()


def test_what_is_not_healthy_is_red_and_named(report):
    figure = jg.draw_probe(report)
    labels = figure.axes[0].get_yticklabels()
    verdicts = report["verdict"].values
    for label, verdict in zip(labels, verdicts, strict=True):
        assert (label.get_color() == "#c1121f") == (verdict != "healthy")
    words = texts(figure)
    assert any(report.attrs["summary"] in text for text in words)
    assert any(text.startswith("vanishes") for text in words)


def test_the_end_of_a_format_is_shown_where_it_is_near(report):
    assert any("float16 underflows" in text for text in texts(jg.draw_probe(report)))
    near = report.copy()
    near["rms_out"] = ("site", np.ones(8))
    near["max_out"] = ("site", np.ones(8))
    signal = jg.draw_probe(near).axes[0]
    assert not [text for text in signal.texts if "float16" in text.get_text()]


def test_zeros_and_infinities_are_written_at_the_edge(report):
    broken = report.copy()
    broken["log_grad_output"] = ("site", np.array([-np.inf, *np.zeros(6), np.nan]))
    figure = jg.draw_probe(broken, Figure())
    assert any("0" in text.get_text() and "◂" in text.get_text() for text in figure.axes[1].texts)
    figure.canvas.draw()


def test_only_reports_are_drawn():
    with pytest.raises(TypeError, match=r"draw_probe needs a report of jaxgain\.probe, got Dataset"):
        jg.draw_probe(xarray.Dataset())
    with pytest.raises(TypeError, match="draw_drift needs the dataset of a monitor"):
        jg.draw_drift(xarray.Dataset())
