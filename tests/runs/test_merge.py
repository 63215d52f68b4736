import numpy as np
import pytest
import xarray

from jaxgain.runs.files import load_dataset, open_dataset, save_dataset
from jaxgain.runs.merge import Slab, Variable, save_slabs

GAINS = [1.0, 5 / 3, 2.0]
FRAME = xarray.Dataset(
    coords={"gain": ("gain", GAINS, {"long_name": "σ_w"}), "gain_name": ("gain", ["", "torch", ""])},
    attrs={"config": "{}", "seconds": 0.5},
)
VARIABLES = {
    "std": Variable(("gain", "seed"), (3, 4), np.dtype(np.float32), {"long_name": "σ of h"}),
    "first": Variable(("gain",), (3,), np.dtype(np.int32), {}),
}
STD = np.array([[0.1, np.nan, np.inf, -0.0]] * 3, np.float32)
FIRST = np.array([-1, 0, 2**31 - 1], np.int32)


def slabs():
    for seed in range(0, 4, 2):
        yield Slab("std", (slice(0, 3), slice(seed, seed + 2)), STD[:, seed : seed + 2])
    yield Slab("first", (slice(0, 3),), FIRST)


def test_a_dataset_written_in_slabs_reads_as_one_that_was_written_whole(tmp_path):
    whole = FRAME.assign(std=(("gain", "seed"), STD, {"long_name": "σ of h"}), first=("gain", FIRST))
    save_dataset(whole, tmp_path / "whole.nc")
    save_slabs(FRAME, VARIABLES, slabs(), tmp_path / "slabs.nc")
    found = load_dataset(tmp_path / "slabs.nc")
    xarray.testing.assert_identical(found, load_dataset(tmp_path / "whole.nc"))
    xarray.testing.assert_identical(found, whole)
    assert found["std"].values.tobytes() == STD.tobytes()


def test_a_dataset_is_opened_without_its_values(tmp_path):
    save_slabs(FRAME, VARIABLES, slabs(), tmp_path / "slabs.nc")
    with open_dataset(tmp_path / "slabs.nc") as dataset:
        assert not dataset["std"].variable._in_memory
        assert dataset["std"].isel(seed=0).values.tolist() == STD[:, 0].tolist()


def test_slabs_that_fail_leave_no_file(tmp_path):
    def fail():
        yield from slabs()
        raise RuntimeError("damaged")

    with pytest.raises(RuntimeError, match="damaged"):
        save_slabs(FRAME, VARIABLES, fail(), tmp_path / "slabs.nc")
    assert [*tmp_path.iterdir()] == []
