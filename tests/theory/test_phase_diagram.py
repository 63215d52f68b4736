"""Phase diagrams: each point that of `fixed_point`, closed forms, labels, refusals; and their tables."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgain.activations import activation
from jaxgain.runs import job as job_module
from jaxgain.theory import phase_diagram as phase_diagram_module
from jaxgain.theory.edge import edge_of_chaos
from jaxgain.theory.fixed_points import fixed_point
from jaxgain.theory.meanfield import Init
from jaxgain.theory.panels import resolve
from jaxgain.theory.phase_diagram import phase_diagram
from jaxgain.theory.quadrature import moments, separation
from jaxgain.theory.reached import reached_correlation
from jaxgain.theory.tables import chaotic_correlations, correlation_table, length_table

SIGMA_W, SIGMA_B = np.linspace(0.0, 4.0, 41), np.linspace(0.0, 2.0, 21)


@pytest.fixture(scope="module")
def diagram():
    return phase_diagram("tanh", sigma_w=SIGMA_W, sigma_b=SIGMA_B)


def test_its_points_are_the_fixed_points(diagram):
    for i, j in np.random.default_rng(0).integers(0, (41, 21), (12, 2)):
        point, cell = fixed_point("tanh", Init(SIGMA_W[i], SIGMA_B[j])), diagram.isel(sigma_w=i, sigma_b=j)
        for name in ("q", "c", "one_minus_c", "slope", "chi_par", "chi_perp", "xi_q", "xi_c", "xi_grad"):
            assert float(cell[name]) == pytest.approx(getattr(point, name), rel=1e-9), name
        assert (cell.phase.item(), cell.stable.item()) == (point.phase, point.stable)


def test_the_edge_of_chaos_separates_its_phases(diagram):
    for sigma_b in SIGMA_B[1::4]:
        edge = edge_of_chaos("tanh", sigma_b=sigma_b).init.sigma_w
        expected = np.where(edge > SIGMA_W, "ordered", "chaotic")
        np.testing.assert_array_equal(diagram.phase.sel(sigma_b=sigma_b), expected)
    without = diagram.phase.sel(sigma_b=0.0).values
    assert set(without[SIGMA_W < 0.999]) == {"collapsing"}
    assert without[10] == "edge"
    assert set(without[SIGMA_W > 1.001]) == {"chaotic"}


def test_it_is_labelled(diagram):
    assert dict(diagram.sizes) == {"sigma_w": 41, "sigma_b": 21}
    assert diagram.attrs["activation"] == "tanh"
    assert all("description" in variable.attrs for variable in diagram.data_vars.values())
    assert float(diagram.q.sel(sigma_w=2.5, sigma_b=0.3, method="nearest")) == pytest.approx(4.079123875, rel=1e-9)


def test_relu_is_ordered_below_the_square_root_of_two_and_diverges_above():
    diagram = phase_diagram("relu", sigma_w=[1.0, 2**0.5, 1.5], sigma_b=[0.0, 0.5])
    assert diagram.phase.values.tolist() == [
        ["collapsing", "ordered"],
        ["scale-invariant", "diverging"],
        ["diverging", "diverging"],
    ]
    assert float(diagram.q[0, 1]) == pytest.approx(0.5, rel=1e-12)
    assert float(diagram.chi_perp[2, 1]) == pytest.approx(1.125, rel=1e-12)


def test_no_table_is_made_where_no_fixed_length_is_chaotic():
    # chi_perp is at most q E phi'^2/E phi^2 there, 1 for the ReLU family
    assert chaotic_correlations(activation("relu")) is None
    assert chaotic_correlations(activation("tanh")) is not None


def test_step_has_its_closed_form_everywhere():
    diagram = phase_diagram("step", sigma_w=[0.5, 2.0], sigma_b=[0.1, 1.0])
    w, b = np.meshgrid([0.5, 2.0], [0.1, 1.0], indexing="ij")
    q, c = diagram.q.values, diagram.c.values
    np.testing.assert_allclose(q, w**2 / 2 + b**2, rtol=1e-12)
    # E step(u) step(v) = 1/2 - arccos(c)/(2 pi)
    np.testing.assert_allclose(w**2 * (0.5 - np.arccos(c) / (2 * math.pi)) + b**2, q * c, rtol=1e-10)
    assert np.isinf(diagram.chi_perp).all()


@pytest.mark.parametrize(
    "phi",
    ["tanh", "step", *(pytest.param(phi, marks=pytest.mark.slow) for phi in ("relu6", lambda x: jnp.maximum(x, -0.3)))],
)
def test_the_tables_are_the_expectations(phi):
    phi = resolve(activation(phi))
    lengths, correlations = length_table(phi), correlation_table(phi, 0.02, 30.0)
    q = np.array([1e-9, 0.03, 0.7, 25.0, 3e3])
    found = [moments(phi, length) for length in q.tolist()]
    with jax.enable_x64(True):
        log_second, slope, slope_second = np.asarray(jax.jit(jax.vmap(lengths.at))(np.log(q))).T
    np.testing.assert_allclose(log_second, [math.log(m.second.value) for m in found], atol=1e-11)
    second = np.array([m.second.value for m in found])
    np.testing.assert_allclose(slope, q * [m.length_slope.value for m in found] / second, atol=1e-11)
    if not lengths.jumps:
        np.testing.assert_allclose(slope_second, q * [m.slope_second.value for m in found] / second, rtol=1e-9)
    # At sigma_w^2 = q (1 - c)/separation the fixed correlation is c.
    q, t = np.meshgrid([0.03, 0.7, 25.0], [0.003, 0.1, 0.9])
    log_square = [math.log(a * b * b / separation(phi, b * b, a).value) for a, b in zip(q.flat, t.flat, strict=True)]
    with jax.enable_x64(True):
        one_minus_c, slope = jax.jit(jax.vmap(reached_correlation, (None, 0, 0)))(
            correlations, np.log(q.ravel()), np.array(log_square)
        )
    np.testing.assert_allclose(one_minus_c.reshape(3, 3)[1:], np.square(t)[1:], rtol=1e-9)
    np.testing.assert_allclose(one_minus_c.reshape(3, 3)[0], np.square(t)[0], rtol=1e-6)
    assert (np.asarray(slope) < 1).all()


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"sigma_w": [-1.0]}, "sigma_w must be finite and not negative"),
        ({"sigma_b": [math.nan]}, "sigma_b must be finite and not negative"),
        ({"sigma_b": [[0.1], [0.2]]}, r"sigma_b must be a list of numbers, the grid's axis, got .* shape \(2, 1\)"),
        ({"sigma_w": []}, "sigma_w must be a list of numbers"),
        ({"q0": 0.0}, "the first length q0 must be positive"),
    ],
)
def test_what_is_no_grid_is_refused(keywords, match):
    with pytest.raises(ValueError, match=match):
        phase_diagram("tanh", **keywords)


def test_what_has_no_expectation_has_no_diagram():
    with pytest.raises(ValueError, match="not finite"):
        phase_diagram(lambda x: jnp.exp(x * x))


def test_a_diagram_in_a_folder_goes_on_where_it_was_stopped_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(phase_diagram_module, "POINTS", 4)
    monkeypatch.setattr(job_module, "SECONDS_OF_PART", 0.0)
    axes = {"sigma_w": [0.5, 1.0, 1.5, 2.5, 3.0], "sigma_b": [0.0, 0.3]}
    whole, compute, rows = phase_diagram("tanh", **axes), phase_diagram_module._compute, []

    def until(limit):
        def some(grid, ranges):
            for piece, seconds in compute(grid, ranges):
                if len(rows) == limit:
                    raise KeyboardInterrupt
                rows.append(piece.start)
                yield piece, seconds

        return some

    monkeypatch.setattr(phase_diagram_module, "_compute", until(2))
    with pytest.raises(KeyboardInterrupt):
        phase_diagram("tanh", **axes, folder=tmp_path)
    assert rows == [0, 2] and [file.name for file in tmp_path.iterdir()] == ["phase_diagram.parts"]
    with pytest.raises(ValueError, match="unfinished run of other settings"):
        phase_diagram("erf", **axes, folder=tmp_path)
    damaged = sorted((tmp_path / "phase_diagram.parts").glob("*.part"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])

    monkeypatch.setattr(phase_diagram_module, "_compute", until(99))
    said = []
    found = phase_diagram("tanh", **axes, folder=tmp_path, report=said.append)
    assert rows == [0, 2, 0, 4] and f"{damaged} is damaged" in said[0]
    for name in whole.data_vars:
        np.testing.assert_array_equal(found[name].values, whole[name].values, strict=name != "phase")
    assert [file.name for file in tmp_path.iterdir()] == ["phase_diagram.nc"]


def test_a_complete_diagram_is_used_again_and_one_of_other_settings_is_not_replaced(tmp_path):
    axes, said = {"sigma_w": [1.0, 2.0], "sigma_b": [0.1]}, []
    first = phase_diagram(lambda x: jnp.tanh(x), **axes, folder=tmp_path)
    assert phase_diagram(lambda x: jnp.tanh(x), **axes, folder=tmp_path, report=said.append).identical(first)
    assert "is a complete phase diagram of these settings" in said[0]
    with pytest.raises(ValueError, match=r"phase_diagram\.nc is a phase diagram of other settings \(values: "):
        phase_diagram(lambda x: jnp.sin(x), **axes, folder=tmp_path)
    replaced = phase_diagram("sin", **axes, folder=tmp_path, overwrite=True)
    assert replaced.attrs["activation"] == "sin" and not replaced.equals(first)
