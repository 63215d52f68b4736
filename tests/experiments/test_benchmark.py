"""The benchmark runs whole on tiny sizes. Its speeds are not tested here: that is what it is for."""

import contextlib
import doctest
import io
import json
import math
from importlib.util import find_spec

import numpy as np
import pytest
import xarray
from matplotlib.image import imread

import jaxgain
from experiments import benchmark, benchmark_report
from experiments.benchmark import SMOKE
from experiments.benchmark_report import ALL, DENSE, FORUM, TANGENT, TORCH, UNIT
from jaxgain.runs.files import load_dataset


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """The dataset of a tiny run, the folder of its files, and what was printed."""
    folder = tmp_path_factory.mktemp("benchmark")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        # Both halve the time of compiling, which is nearly all of it.
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        for name in ("STATISTICS", "FORWARD", "NO_TANGENT"):
            patch.setattr(benchmark, name, {"FORWARD": ("std", "log_jacobian_rms")}.get(name, ("std", "log_grad_rms")))
        dataset = benchmark.run(SMOKE, say=lambda _: None)
        benchmark_report.report(dataset, folder)
    return dataset, folder, printed.getvalue()


@pytest.mark.slow
def test_every_repetition_of_every_measure_is_kept(outcome):
    dataset, _, _ = outcome
    torch = {FORUM, TORCH} if find_spec("torch") else set()
    job = {UNIT, TANGENT, ALL, DENSE, "relu alone", "relu, all statistics"} | torch
    dense = {"matmul, 4 rows", "dense, 4 rows"}
    growth = {"trivial 0", "width 8", "width 16", "depth 2", "depth 4", "2 gains", "4 gains"}
    assert set(dataset["measure"].values) == job | dense | growth
    assert dataset["seconds"].dims == ("measure", "repeat") and dataset.sizes["repeat"] == SMOKE.rounds
    assert (dataset["seconds"] > 0).all()
    sweeps = ~np.isnan(dataset["compile_seconds"])
    assert set(dataset["measure"].values[~sweeps]) == {UNIT, "relu alone", "matmul, 4 rows"} | torch
    assert (dataset["wall_seconds"] >= dataset["seconds"]).values[sweeps].all()
    grown = np.isin(dataset["measure"].values, list(growth))
    assert (dataset["peak_bytes"].values[grown] > 1e7).all()
    assert dataset["diagram"].values.tolist() == ["tanh", "relu"] and dataset.sizes["diagram_repeat"] == 1
    assert (dataset["diagram_seconds"] > 0.01).all()  # it compiles


@pytest.mark.slow
def test_every_row_has_finite_ratios_or_says_that_pytorch_is_missing(outcome):
    rows = list(benchmark_report.judge(outcome[0]))
    assert len({(row.section, row.claim) for row in rows}) == len(rows) == 24
    missing = [row for row in rows if not row.values.size]
    assert len(missing) == (0 if find_spec("torch") else 2)
    for row in rows:
        if row in missing:
            assert "PyTorch is not installed: pip install torch" in row.claim and row.met is None
        else:
            assert np.isfinite(row.values).all() and math.isfinite(row.of_shortest)
            assert row.met in ((None,) if math.isinf(row.least) and math.isinf(row.most) else (True, False))


@pytest.mark.slow
def test_dataset_comes_back_from_its_file_and_is_judged_the_same(outcome):
    dataset, folder, _ = outcome
    loaded = load_dataset(folder / "benchmark.nc")
    xarray.testing.assert_identical(loaded, dataset)
    assert {"jax", "jaxlib", "cores", "config"} <= set(loaded.attrs)
    assert json.loads(loaded.attrs["config"])["width"] == SMOKE.width
    for row, again in zip(benchmark_report.judge(dataset), benchmark_report.judge(loaded), strict=True):
        assert row.claim == again.claim
        np.testing.assert_array_equal(row.values, again.values)


@pytest.mark.slow
def test_figure_is_there_and_the_table_names_every_claim(outcome):
    dataset, folder, printed = outcome
    image = imread(folder / "benchmark.png")
    assert image.shape[1] > 2000 and image.std() > 0.05
    words = " ".join(printed.split())
    for row in benchmark_report.judge(dataset):
        assert row.claim.split()[0] in words
    assert "limits are met" in words


def made(**seconds):
    """A dataset in which the named measures took so long, a unit of work each."""
    names = [name.replace("_", " ") for name in seconds]
    return xarray.Dataset(
        {"seconds": (("measure", "repeat"), list(seconds.values()))},
        coords={"measure": names, "work": ("measure", np.ones(len(names)))},
    )


def test_ratio_is_taken_within_rounds_and_of_the_shortest():
    values, of_shortest = benchmark_report.ratio(made(slow=[6.0, 8.0, 40.0], fast=[2.0, 4.0, 8.0]), "slow", "fast")
    assert values.tolist() == [3.0, 2.0, 5.0]
    assert of_shortest == 3.0


def test_fits_find_the_power_and_the_line_they_were_given():
    sizes = np.array([10.0, 100.0, 1000.0])
    powers = benchmark_report.exponent(sizes, np.stack([3 * sizes, sizes**1.5], axis=1))
    np.testing.assert_allclose(powers, [1.0, 1.5], rtol=1e-9)
    np.testing.assert_allclose(benchmark_report.affine(sizes, 2 + 0.5 * sizes), (2, 0.5, 0), rtol=1e-9, atol=1e-9)
    assert benchmark_report.affine(sizes, sizes**2)[2] > 0.1


def test_phase_diagrams_are_judged_by_tanh_and_by_the_slowest_of_all():
    config = json.dumps({"diagram_points": 200})
    seconds = {"tanh": [4.0, 6.0, 4.5], "relu": [1.0, 30.0, 1.0], "step": [16.0, 14.0, 17.0]}
    dataset = xarray.Dataset(
        {
            "diagram_seconds": (("diagram", "diagram_repeat"), list(seconds.values())),
            "seconds": (("measure", "repeat"), np.empty((0, 7))),
        },
        coords={"diagram": list(seconds), "measure": np.empty(0, str), "group": ("measure", np.empty(0, str))},
        attrs={"config": config},
    )
    tanh, slowest = benchmark_report.judge(dataset)
    assert "200 × 200" in tanh.section and tanh.claim == "tanh" and tanh.most == 5 and tanh.met is True
    assert slowest.claim == "slowest of 3 activations: step" and slowest.most == 15 and slowest.met is False
    assert slowest.values.tolist() == seconds["step"] and slowest.of_shortest == 14.0


@pytest.mark.slow
def test_a_part_alone_prints_its_rows_and_writes_nothing(tmp_path, capsys):
    benchmark.main(["--only", "diagrams", "--diagrams", "tanh", "--out", str(tmp_path)], default=SMOKE)
    printed = capsys.readouterr().out
    assert "phase diagram, tanh" in printed and "slowest of 1 activations: tanh" in printed
    assert "Only a part of the benchmark" in printed and "one tanh, in place" not in printed
    assert list(tmp_path.iterdir()) == []


def test_every_listed_activation_has_a_phase_diagram():
    assert set(benchmark.BenchmarkConfig().diagrams) == set(jaxgain.ACTIVATIONS)


def test_a_row_is_met_within_its_limits_only():
    row = benchmark_report.Row("", "", np.array([0.5, 0.95, 7.0]), 0.5, "", least=0.9, most=1.1)
    assert row.met is True and row._replace(most=0.94).met is False and row._replace(least=0.96).met is False
    assert row._replace(least=-math.inf, most=math.inf).met is None


def test_doctests():
    assert doctest.testmod(benchmark_report).failed == 0


def test_the_dense_code_in_pytorch_is_right_about_real_networks():
    torch = pytest.importorskip("torch")
    from experiments import benchmark_torch

    gains, width, depth = (0.7, 1.3, 2.0), 24, 7
    found = benchmark_torch.dense_sweep(gains, seeds=2, width=width, depth=depth)
    for seed in range(2):
        generators = benchmark_torch.generators_of(seed)
        start = torch.randn(1, width, generator=generators[0])
        drawn = [benchmark_torch.draw_normal(torch.empty(width, width), generators) for _ in range(depth)]
        cotangent = torch.randn(1, width, generator=generators[0])
        for place, gain in enumerate(gains):
            h, hs = start / start.square().mean().sqrt(), []
            weights = [(matrix * gain / math.sqrt(width)).requires_grad_() for matrix in drawn]
            for matrix in weights:
                h = torch.tanh(h @ matrix)
                h.retain_grad()
                hs.append(h)
            (h * cotangent).sum().backward()
            rms = {"log_grad_rms": [h.grad for h in hs], "log_weight_grad_rms": [matrix.grad for matrix in weights]}
            for name, gradients in rms.items():
                expected = [gradient.square().mean().sqrt().log().item() for gradient in gradients]
                np.testing.assert_allclose(found[name][seed, :, place], expected, rtol=1e-4, atol=1e-4)
            expected = [h.std(correction=0).item() for h in hs]
            np.testing.assert_allclose(found["std"][seed, :, place], expected, rtol=1e-4)


def test_the_forum_s_loop_finds_what_the_forum_found():
    pytest.importorskip("torch")
    from experiments.benchmark_torch import forum_loop

    std, gradient = forum_loop(5 / 3, width=1000, depth=20)
    assert std[-1] == pytest.approx(0.651, abs=0.03)
    assert gradient[0] > gradient[-1] == 1.0
