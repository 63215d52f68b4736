"""A sweep in a folder: it goes on where it was stopped, and its arrays are those of one that never was."""

from functools import partial

import numpy as np
import pytest
import xarray

from jaxgain.propagation import plan as plan_module
from jaxgain.propagation import sweep as sweep_module
from jaxgain.propagation.config import SweepConfig
from jaxgain.propagation.plan import plan_sweep, result_bytes, working_bytes
from jaxgain.propagation.sweep import sweep
from jaxgain.runs import job as job_module
from jaxgain.runs.files import load_dataset

SMALL = partial(
    SweepConfig,
    activations=("tanh", "relu"),
    gains=(0.5, 1.0, 2.0),
    sigma_b=(0.0, 0.5),
    width=5,
    depth=3,
    seeds=7,
    inputs=1,
    statistics=("q", "std", "first_nonfinite"),
)


@pytest.fixture(scope="module")
def whole():
    return sweep(SMALL())


@pytest.fixture
def in_small_pieces(monkeypatch):
    """Two seeds per device at a time, two gains at a time, and every chunk is a part."""
    monkeypatch.setattr(plan_module, "SEEDS_AT_ONCE", (2, 2))
    monkeypatch.setattr(job_module, "SECONDS_OF_PART", 0.0)


def assert_same_bits(one: xarray.Dataset, other: xarray.Dataset) -> None:
    assert dict(one.sizes) == dict(other.sizes)
    for name in [*one.data_vars, *one.coords]:
        assert one[name].dims == other[name].dims
        assert one[name].dtype == other[name].dtype
        assert one[name].attrs == other[name].attrs
        assert one[name].values.tobytes() == other[name].values.tobytes(), name


def test_a_sweep_in_a_folder_is_that_in_memory(whole, tmp_path):
    found = sweep(SMALL(), folder=tmp_path)
    assert_same_bits(found, whole)
    assert_same_bits(load_dataset(tmp_path / "sweep.nc"), whole)
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.nc"]
    assert found.attrs["config"] == whole.attrs["config"]


def test_a_sweep_goes_on_where_it_was_stopped_with_the_same_bits(whole, tmp_path, in_small_pieces, stopping_after):
    for chunks in (0, 1, 2):
        with pytest.raises(KeyboardInterrupt):
            sweep(SMALL(), stopping_after(chunks), folder=tmp_path)
        assert not (tmp_path / "sweep.nc").exists()
    reports, seen = [], []
    found = sweep(SMALL(), lambda *done: seen.append(done), folder=tmp_path, report=reports.append)
    assert seen[0][0] > 4 and seen[-1][:2] == (14, 14)
    assert len(reports) == 1 and "of the sweep is in" in reports[0]
    assert_same_bits(found, whole)
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.nc"]


def test_a_damaged_part_is_named_and_run_again(whole, tmp_path, in_small_pieces, stopping_after):
    with pytest.raises(KeyboardInterrupt):
        sweep(SMALL(), stopping_after(3), folder=tmp_path)
    damaged = sorted((tmp_path / "sweep.parts").glob("*.part"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-3] + b"abc")
    reports = []
    found = sweep(SMALL(), folder=tmp_path, report=reports.append)
    assert f"the part {damaged} is damaged" in reports[0]
    assert_same_bits(found, whole)


def test_a_complete_sweep_is_used_again_unless_it_is_to_be_overwritten(tmp_path, monkeypatch):
    sweep(SMALL(), folder=tmp_path)
    runs, reports = [], []
    compute = sweep_module._compute
    monkeypatch.setattr(sweep_module, "_compute", lambda *rest: runs.append(1) or compute(*rest))
    sweep(SMALL(memory=1.0), folder=tmp_path, report=reports.append)
    assert not runs and "is a complete sweep of these settings" in reports[0]
    sweep(SMALL(), folder=tmp_path, overwrite=True)
    assert runs


def test_other_settings_in_the_same_folder_are_refused_with_the_difference(tmp_path, in_small_pieces, stopping_after):
    with pytest.raises(KeyboardInterrupt):
        sweep(SMALL(), stopping_after(1), folder=tmp_path)
    refusal = r"other settings \(seed: 0 → 1; seeds: 7 → 8\); choose another folder, or replace it with overwrite"
    with pytest.raises(ValueError, match=refusal):
        sweep(SMALL(seed=1, seeds=8), folder=tmp_path)
    sweep(SMALL(), folder=tmp_path)
    with pytest.raises(ValueError, match=r"sweep\.nc is a sweep of " + refusal):
        sweep(SMALL(seed=1, seeds=8), folder=tmp_path)
    assert sweep(SMALL(seed=1, seeds=8), folder=tmp_path, overwrite=True).sizes["seed"] == 8


def test_a_sweep_of_another_version_is_not_gone_on_with(tmp_path, in_small_pieces, monkeypatch, stopping_after):
    with pytest.raises(KeyboardInterrupt):
        sweep(SMALL(), stopping_after(1), folder=tmp_path)
    monkeypatch.setattr(sweep_module.jaxgain, "__version__", "99")
    with pytest.raises(ValueError, match=r'versions: .* → .*"jaxgain": "99"'):
        sweep(SMALL(), folder=tmp_path)


def test_a_dataset_larger_than_memory_is_opened_and_not_read(tmp_path, whole):
    found = sweep(SMALL(memory=whole.nbytes / 2**30), folder=tmp_path, overwrite=True)
    assert not found["std"].variable._in_memory
    assert_same_bits(found, whole)
    found.close()


@pytest.fixture
def two_gains_at_once(monkeypatch):
    """Room for two of the three gains, each with two sigma_b."""
    room = working_bytes(SMALL(), 4) + 4 * result_bytes(SMALL(), 4)
    monkeypatch.setattr(plan_module, "BYTES_AT_ONCE", room)


def test_batches_of_gains_follow_from_the_settings_and_never_from_memory(two_gains_at_once):
    plan = partial(plan_sweep, activations=2, gains=3, devices=2, in_memory=False)
    large = plan(SMALL())
    small = plan(SMALL(memory=(large.bytes - 1) / 2**30))
    assert small.gains_at_once == large.gains_at_once == 2
    assert small.seeds_at_once < large.seeds_at_once


def test_gains_in_batches_are_those_that_run_together(two_gains_at_once, whole, tmp_path):
    """Up to rounding: which gains run together decides the last bits."""
    found = sweep(SMALL(), folder=tmp_path)
    assert found.attrs["chunks"].startswith("2 of 3 gains")
    for name in whole.data_vars:
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-5, err_msg=name)
    assert_same_bits(found, sweep(SMALL()))


def test_the_plan_keeps_to_the_memory_or_refuses():
    config = partial(SweepConfig, ("tanh",), ("0.5:3:1000",), width=256, depth=50, seeds=1000, inputs=1)
    for memory in (0.1, 0.3, 1.0, 4.0):
        plan = plan_sweep(config(memory=memory), 1, 1000, 8, in_memory=False)
        assert plan.bytes <= memory * 2**30
        assert plan.seeds_at_once >= 2
    with pytest.raises(ValueError, match=r"raise memory.* or give the sweep a folder"):
        plan_sweep(config(memory=1.0), 1, 1000, 8, in_memory=True)


def test_every_task_of_a_plan_has_its_own_place():
    plan = plan_sweep(SMALL(widths=(3, 5)), 2, 3, 2, in_memory=False)._replace(gains_at_once=2)
    places = [(*plan.place(task)[:2], plan.place(task)[2].start, task % plan.seeds) for task in range(plan.tasks)]
    assert len(set(places)) == plan.tasks == 2 * 2 * 2 * 7
    assert {plan.place(task)[2].stop for task in range(plan.tasks)} == {2, 3}
